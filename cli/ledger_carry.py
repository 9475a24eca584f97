"""From an archive to a new chain that goes on from its end, on either engine, as this home's own ledger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cli.home import OPERATOR_KEY, Home
from cli.keystore import ED25519
from cli.ledger_files import in_one_step, write_genesis
from cli.ledger_import import clear_unfinished, named
from cli.ledger_replay import open_storage, remove_scratch, replayed, scratch_folder
from cli.ledger_sources import contents_of, open_history
from cli.output import invalid, note, usage
from cli.part import remove_tree

if TYPE_CHECKING:
    from cli.comet_init import Places
    from cli.ledger_sources import History
    from ledger.engine.archive import GivenBlock
    from ledger.engine.cometbft.home.founders import Founder, Founding
    from ledger.engine.storage import LedgerStorage
    from ledger.genesis import Genesis
    from ledger.store import Rows

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OnComet:
    """Which validators the new chain begins with: this home's, those of founders' files, or a founding's."""

    places: Places
    founders: tuple[Path, ...] = ()
    founding: Path | None = None
    test_network: bool = False  # `unbonding_s` may be too short for evidence


async def carry_on(
    home: Home, file: str, chain: str, *, progress: bool, comet: OnComet | None = None
) -> Genesis:
    """Makes a chain that goes on from an archive's end this home's own; `comet`: one on CometBFT.

    Of several founders one names the others; each of the others makes the same from the same end. The folder
    of a chain of validators does as well as an archive, and ends with the last block that was decided, of
    which nobody may have seen yet who signed it: its `cometbft` need not run any more.
    """
    from ledger.carry import carried_items
    from ledger.engine.history import ORIGIN_FILE

    path = named(file, "--as-chain")
    maker: _Embedded | _OnComet = _Embedded(home) if comet is None else _OnComet(home, chain, comet)
    async with open_history(home, file) as history:
        own = history.storage if history.genesis.validators else None
        if history.archive is None and own is None:
            raise invalid(f"{file} is no archive: `holdfast ledger export` makes one")
        if not (history.last if own is None else own.height()):
            raise invalid(f"{file} has no block to go on from")
        home.ensure()
        scratch = scratch_folder(home, history.genesis)
        if own is not None:
            tip = _checked_end(own)
        else:
            tip = await _end_of(history, path, scratch, progress=progress)
        with nullcontext(own) if own is not None else open_storage(scratch) as ended:
            rows = ended.committed().state
            genesis = maker.genesis(chain, tip, rows)
            clear_unfinished(home, None)
            _write_origin(home.ledger / ORIGIN_FILE, history.genesis, tip, ended)
            with open_storage(home.ledger) as storage:
                storage.create(genesis.encode(), carried_items(genesis, rows))
        maker.finish(genesis)
        remove_scratch(scratch)
        return genesis


class _Embedded:
    """A chain whose operator is this home, with new keys unless they are here."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def genesis(self, chain: str, tip: GivenBlock, rows: Rows) -> Genesis:
        """The new chain's; exit 2 for a name that does not do."""
        from ledger.carry import successor
        from ledger.errors import InvalidGenesis

        made = self._home.keystore().create_once(OPERATOR_KEY, ED25519)
        if made is not None:
            note(made.sentence())
        operator, beacon = self._home.signer(OPERATOR_KEY), self._home.bls_signer()
        keys = operator.public_key, beacon.public_key, beacon.prove_possession()
        try:
            return successor(chain, tip.block.cid, rows, tip.block.app_hash, *keys)
        except InvalidGenesis as error:
            raise usage(f"--as-chain {chain}: {error}") from None

    def finish(self, genesis: Genesis) -> None:
        """With its genesis the home has a ledger."""
        write_genesis(self._home, genesis)


class _OnComet:
    """A chain of validators: what can be refused is refused before the archive is read."""

    def __init__(self, home: Home, chain: str, chosen: OnComet) -> None:
        from cli.comet_init import make_keys, read_founders, read_founding
        from cli.comet_service import comet_home

        self._home, self._chosen = home, chosen
        self._founding: Founding | None = None
        self._founders: tuple[Founder, ...] = ()
        chosen.places.config("")
        founding = chosen.founding
        if founding is not None and not comet_home(home).validator_key_file.is_file():
            note("this home has no founder's keys: it follows the chain, and may be voted in later")
            make_keys(home)
        if founding is None:
            self._founders = _checked(lambda: read_founders(chosen.founders, chain), chain)
            return
        self._founding = _checked(lambda: read_founding(home, founding), chain)
        if self._founding.genesis.chain_id != chain:
            raise usage(f"--as-chain {chain}: the founding file is of {self._founding.genesis.chain_id}")

    def genesis(self, chain: str, tip: GivenBlock, rows: Rows) -> Genesis:
        """The new chain's; exit 4 where the founders go on from something else."""
        from cli.comet_init import POWER, make_keys, own_validator, require_unbonding
        from ledger.carry import check_origin, successor
        from ledger.engine.cometbft.home.genesis_file import genesis_document
        from ledger.errors import CorruptState

        if self._founding is not None:
            found = self._founding.genesis
            try:
                check_origin(found, rows, tip.block.app_hash, tip.block.cid)
            except CorruptState as error:
                raise invalid(f"{error}: all founders go on from the same archive") from None
            require_unbonding(found.params, test_network=self._chosen.test_network)
            return found
        own = own_validator(self._home, make_keys(self._home), POWER)
        validators = tuple(founder.validator for founder in self._founders) or (own,)
        if own.account not in [each.account for each in validators]:
            raise invalid("this home's validator is not among the founders: hand in its founder's file")

        def made() -> Genesis:
            keys = own.account, own.bls_key, own.bls_possession
            genesis = successor(chain, tip.block.cid, rows, tip.block.app_hash, *keys, validators)
            require_unbonding(genesis.params, test_network=self._chosen.test_network)
            genesis_document(genesis)  # refuses what CometBFT would
            return genesis

        return _checked(made, chain)

    def finish(self, genesis: Genesis) -> None:
        """CometBFT's files, the founding file for the others, and with the genesis the home has a ledger."""
        from cli.comet_init import keep_founding, settle
        from cli.comet_service import comet_home
        from ledger.engine.cometbft.home.founders import Founding
        from ledger.engine.cometbft.home.keys import validator_signer

        comet = comet_home(self._home)
        founding = self._founding or Founding(genesis, self._founders)
        if self._founders:
            keep_founding(self._home, founding)
        peers = founding.peers_of(validator_signer(comet).public_key)
        settle(self._home, comet, genesis, self._chosen.places, peers)


def _checked(make: Callable[[], T], chain: str) -> T:
    """What is made; exit 2 where it is no genesis that can be."""
    from ledger.errors import InvalidGenesis

    try:
        return make()
    except InvalidGenesis as error:
        raise usage(f"--as-chain {chain}: {error}") from None


def _checked_end(storage: LedgerStorage) -> GivenBlock:
    """The last block of a ledger's folder, whose state is whole."""
    from ledger.engine.history import History as Stored

    storage.check_state()
    return Stored(storage).given(storage.height())


async def _end_of(history: History, path: Path, scratch: Path, *, progress: bool) -> GivenBlock:
    """Has the state that the archive ends with in `scratch`; returns the last block."""
    from ledger.engine.archive_replay import restore_archived

    assert history.archive is not None, "an archive was asked for"
    state = history.archive.contents.read_state_manifest()
    if state is not None and state.height == history.last:
        remove_tree(scratch)
        with open_storage(scratch) as storage:
            return restore_archived(storage, lambda: contents_of(path))
    await replayed(history, scratch, "running", progress=progress, keep_history=False)
    with contents_of(path) as contents:
        return next(given for given in contents.blocks() if given.block.height == history.last)


def _write_origin(path: Path, genesis: Genesis, tip: GivenBlock, ended: LedgerStorage) -> None:
    from ledger.engine.archive import write_end

    with in_one_step(path) as temporary, temporary.open("wb") as file:
        write_end(file.write, genesis, tip, ended.state_items)
