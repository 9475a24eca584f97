"""Makes the home of a validator on CometBFT: its keys, a chain for it alone, or one with other founders."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from cli.comet_service import comet_home
from cli.compose import ISSUED_UNITS
from cli.durations import duration_text
from cli.home import OPERATOR_KEY, Home
from cli.ledger_files import require_no_ledger, write_genesis
from cli.output import invalid, note, usage
from cli.settings import COMETBFT
from ledger.engine.cometbft.home.chain_params import EVIDENCE_S
from ledger.engine.cometbft.home.config import P2P_PORT, PROFILES, RPC_PORT, CometConfig, StateSync, is_peer
from ledger.engine.cometbft.home.founders import (
    MAX_FOUNDER_BYTES,
    MAX_FOUNDING_BYTES,
    Founder,
    Founding,
    read_founder,
    require_chain,
)
from ledger.engine.cometbft.home.genesis_file import (
    genesis_document,
    install_genesis,
    require_comet_chain_id,
)
from ledger.engine.cometbft.home.keys import (
    create_node_key,
    create_validator_key,
    node_id,
    node_signer,
    validator_signer,
)
from ledger.engine.cometbft.home.layout import CometHome, replace
from ledger.errors import InvalidGenesis
from ledger.genesis import Genesis, GenesisValidator, Params

if TYPE_CHECKING:
    from merkledag.ed25519 import Ed25519Signer

POWER: Final = 1_000  # that of a stake of so many HOLD
FOUNDING_FILE: Final = "founding.json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the cometbft process listens and how it is tuned; "" is the default."""

    profile: str = "laptop"
    p2p_listen: str = ""
    rpc_listen: str = ""
    metrics_listen: str = ""
    external: str = ""
    peers: tuple[str, ...] = ()

    def config(self, moniker: str, peers: Sequence[str] = (), sync: StateSync | None = None) -> CometConfig:
        """The configuration; exit 2 for what does not do."""
        from cli.sockets import address

        if self.profile not in PROFILES:
            raise usage(f"--profile {self.profile}: choose one of {', '.join(PROFILES)}")
        everybodys = "127.0.0.1" if self.profile == "laptop" else "0.0.0.0"
        p2p = self.p2p_listen or f"{everybodys}:{P2P_PORT}"
        rpc = self.rpc_listen or f"127.0.0.1:{RPC_PORT}"
        for flag, listen in (("--p2p-listen", p2p), ("--rpc-listen", rpc)):
            if address(listen)[1] == 0:
                raise usage(f"{flag} {listen}: others must know the port, so it cannot be 0")
        if self.external and not is_peer(f"{'0' * 40}@{self.external}"):
            raise usage(f"--external-address {self.external}: write HOST:PORT, as peers reach this node")
        for peer in self.peers:
            if not is_peer(peer):
                raise usage(
                    f"--peer {peer}: write ID@HOST:PORT; `holdfast ledger status` shows a node its own"
                )
        return CometConfig(
            moniker=moniker,
            profile=PROFILES[self.profile],
            p2p_listen=p2p,
            rpc_listen=rpc,
            metrics_listen=self.metrics_listen,
            external_address=self.external,
            peers=tuple(dict.fromkeys((*peers, *self.peers))),
            sync=sync,
        )


def make_keys(home: Home) -> CometHome:
    """The validator's account, beacon and consensus keys and its node key, each unless it is there."""
    from cli.keystore import ED25519

    home.ensure()
    made = home.keystore().create_once(OPERATOR_KEY, ED25519)
    if made is not None:
        note(made.sentence())
    home.bls_signer()
    comet = comet_home(home)
    comet.create()
    create_node_key(comet, secrets.token_bytes(32))
    create_validator_key(comet, secrets.token_bytes(32))
    return comet


def own_validator(home: Home, comet: CometHome, power: int) -> GenesisValidator:
    """This home's validator as a genesis names it."""
    beacon = home.bls_signer()
    return GenesisValidator(
        home.signer(OPERATOR_KEY).public_key,
        validator_signer(comet).public_key,
        beacon.public_key,
        beacon.prove_possession(),
        power,
    )


def own_founder(home: Home, chain_id: str, places: Places, power: int = POWER) -> Founder:
    """This home's founder's file: makes the keys that it lacks. Exit 1 where it has a ledger already."""
    require_no_ledger(home)
    if not places.external:
        raise usage("--external-address HOST:PORT is needed: the other founders must find this validator")
    places.config(home.path.name)
    try:
        require_comet_chain_id(chain_id)
    except InvalidGenesis as error:
        raise usage(f"--chain-id {chain_id}: {error}") from None
    comet = make_keys(home)
    account: Ed25519Signer = home.signer(OPERATOR_KEY)
    peer = f"{node_id(node_signer(comet).public_key)}@{places.external}"
    founder = Founder(chain_id, own_validator(home, comet, power), peer)
    return founder.signed(account, validator_signer(comet)).check()


def init_comet_ledger(
    home: Home,
    params: Params,
    chain_id: str | None = None,
    issued: int = ISSUED_UNITS,
    *,
    places: Places | None = None,
    founders: Sequence[Path] = (),
) -> Genesis:
    """A chain whose validators are this home's alone, or all of the founders' files; this one has the money.

    With founders, ledger/founding.json is what each of them needs. Exit 1 when there is a ledger already.
    """
    require_no_ledger(home)
    places = places or Places()
    places.config("")
    found = read_founders(founders, chain_id)
    chain = chain_id or (found[0].chain_id if found else f"holdfast-{secrets.token_hex(4)}")
    comet = make_keys(home)
    beacon = home.bls_signer()
    own = own_validator(home, comet, POWER)
    genesis = Genesis.make(
        chain_id=chain,
        time_s=int(time.time()),
        operator=own.account,
        bls_key=beacon.public_key,
        bls_possession=beacon.prove_possession(),
        issued=issued,
        params=params,
        validators=tuple(founder.validator for founder in found) or (own,),
    )
    genesis_document(genesis)  # refuses what CometBFT would
    founding = Founding(genesis, found)
    if found:
        founding.require_founder(own.consensus_key)
    settle(home, comet, genesis, places, founding.peers_of(own.consensus_key))
    if found:
        keep_founding(home, founding)
    return genesis


def keep_founding(home: Home, founding: Founding) -> None:
    """Writes the file that each of the other founders needs."""
    replace(home.ledger / FOUNDING_FILE, founding.dumps())


def require_unbonding(params: Params, *, test_network: bool) -> None:
    """Exit 2 where a stake would be free while evidence against its validator still counts."""
    if params.unbonding_s < EVIDENCE_S and not test_network:
        raise usage(
            f"unbonding_s is {duration_text(params.unbonding_s)}, and evidence of misbehaviour counts for "
            f"{duration_text(EVIDENCE_S)}, longer than clients trust a header: whoever leads them astray "
            f"would have its stake back before. Choose {duration_text(EVIDENCE_S)} or more (an archive's "
            "chain by a vote, before its export); --test-network for a chain that is worth nothing"
        )


def take_founding(home: Home, path: Path, places: Places, *, test_network: bool = False) -> Genesis:
    """Makes this founder's home one of the chain in a founding file; exit 4 where it is not as it signed."""
    require_no_ledger(home)
    founding = read_founding(home, path)
    if founding.genesis.origin is not None:
        raise invalid(
            f"chain {founding.genesis.chain_id} goes on from {founding.genesis.origin.chain_id}: "
            "`holdfast ledger import ARCHIVE --as-chain ID --engine cometbft --founding FILE`"
        )
    require_unbonding(founding.genesis.params, test_network=test_network)
    own = validator_signer(comet_home(home)).public_key
    founding.require_founder(own)
    settle(home, comet_home(home), founding.genesis, places, founding.peers_of(own))
    return founding.genesis


def read_founding(home: Home, path: Path) -> Founding:
    """A founding file that has this home's validator as this home signed it; exit 4 for any other."""
    founding = _read(path, MAX_FOUNDING_BYTES, Founding.loads)
    genesis_document(founding.genesis)
    comet = comet_home(home)
    if not comet.validator_key_file.is_file():
        raise invalid(f"{home.path} has no founder's keys: `holdfast ledger founder` makes them first")
    own = validator_signer(comet).public_key
    mine = next((each for each in founding.genesis.validators if each.consensus_key == own), None)
    if mine is not None and mine.account != home.signer(OPERATOR_KEY).public_key:
        raise invalid(f"{path} has this home's consensus key under another account")
    if mine is not None and mine.bls_key != home.bls_signer().public_key:
        raise invalid(f"{path} has another beacon key than this home's")
    return founding


def read_founders(paths: Sequence[Path], chain: str | None) -> tuple[Founder, ...]:
    """Founders' files, all of one chain; exit 4 for what is none."""
    found = tuple(_read(path, MAX_FOUNDER_BYTES, read_founder) for path in paths)
    require_chain(found, chain or (found[0].chain_id if found else ""))
    return found


def follow(home: Home, genesis: Genesis, places: Places, sync: StateSync | None) -> None:
    """Makes this home a full node of a chain that runs: it follows, and may be voted in as a validator."""
    require_no_ledger(home)
    if not places.peers:
        raise usage("--peer ID@HOST:PORT is needed: from whom are blocks to come?")
    genesis_document(genesis)
    places.config("", sync=sync)
    settle(home, make_keys(home), genesis, places, (), sync)


def settle(
    home: Home,
    comet: CometHome,
    genesis: Genesis,
    places: Places,
    peers: Sequence[str],
    sync: StateSync | None = None,
) -> None:
    """The genesis last: with it the home has a ledger."""
    config = places.config(f"{genesis.chain_id}-{node_id(node_signer(comet).public_key)[:8]}", peers, sync)
    replace(comet.config_file, config.text().encode())
    install_genesis(comet, genesis)
    home.config.set("ledger.engine", COMETBFT)
    home.config.save()
    write_genesis(home, genesis)


def _read(path: Path, max_bytes: int, parse: Callable[[bytes], T]) -> T:
    from cli.streams import read_input

    try:
        return parse(read_input(str(path), max_bytes, "such a file"))
    except InvalidGenesis as error:
        raise invalid(f"{path}: {error}") from None
