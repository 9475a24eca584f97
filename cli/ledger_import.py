"""From an archive to this home's own ledger: the same chain, or a new one that goes on from its end."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cli.home import OPERATOR_KEY, Home
from cli.keystore import ED25519
from cli.ledger_files import in_one_step, write_genesis
from cli.ledger_replay import open_storage, replayed, scratch_folder
from cli.ledger_sources import contents_of, open_history
from cli.output import invalid, not_found, note, usage
from cli.part import remove_tree
from cli.streams import STDIO

if TYPE_CHECKING:
    from cli.ledger_sources import History
    from ledger.engine.archive import GivenBlock
    from ledger.engine.storage import LedgerStorage
    from ledger.genesis import Genesis


async def import_history(home: Home, source: str, *, snapshot: bool, progress: bool) -> dict[str, Any]:
    """Makes the chain of an archive this home's own; what is to be told of it.

    With `snapshot` it begins with the state in the archive, or with the newest snapshot of a running ledger.
    """
    from ledger.engine.history import ORIGIN_FILE

    async with open_history(home, source) as history:
        if history.archive is None and not (snapshot and history.storage is None):
            raise invalid(f"{source} is no archive: `holdfast ledger export` makes one")
        home.ensure()
        _clear_unfinished(home, history.genesis)
        if snapshot:
            await _begin_with_state(home, history, source)
        found = await replayed(history, home.ledger, "importing", progress=progress, keep_history=True)
        if history.origin is not None:
            with in_one_step(home.ledger / ORIGIN_FILE) as path:
                shutil.copyfile(history.origin, path)
        write_genesis(home, history.genesis)
    with open_storage(home.ledger) as storage:
        return found | {"first": storage.pruned().blocks + 1}


async def _begin_with_state(home: Home, history: History, source: str) -> None:
    from ledger.engine.archive_reader import SnapshotReader
    from ledger.engine.archive_replay import restore_archived, restore_state

    with open_storage(home.ledger) as storage:
        if storage.genesis() is not None:
            return  # an interrupted import is gone on with
        if history.archive is not None:
            path = _named(source, "--snapshot")
            restore_archived(storage, lambda: contents_of(path))
            return
        if history.fetch_snapshot is None:
            raise not_found(f"{source} has no snapshot yet: export it, and import the archive")
        with TemporaryDirectory(prefix="holdfast-") as folder:
            path = Path(folder) / "snapshot.car"
            block = await history.fetch_snapshot(path)
            with path.open("rb") as file:
                restore_state(storage, history.genesis, block, SnapshotReader(file).state())


async def carry_on(home: Home, file: str, chain: str, *, progress: bool) -> dict[str, Any]:
    """Makes a chain that goes on from the archive's end this home's own; its genesis for people."""
    from ledger.carry import carried_items, successor
    from ledger.engine.history import ORIGIN_FILE
    from ledger.errors import InvalidGenesis

    path = _named(file, "--as-chain")
    async with open_history(home, file) as history:
        if history.archive is None:
            raise invalid(f"{file} is no archive: `holdfast ledger export` makes one")
        if not history.last:
            raise invalid(f"{file} has no block to go on from")
        home.ensure()
        scratch = scratch_folder(home, history.genesis)
        tip = await _end_of(history, path, scratch, progress=progress)
        keys = home.keystore()
        if not keys.has(OPERATOR_KEY):
            note(keys.create(OPERATOR_KEY, ED25519).sentence())
        operator, beacon = home.signer(OPERATOR_KEY), home.bls_signer()
        with open_storage(scratch) as ended:
            rows = ended.committed().state
            try:
                genesis = successor(
                    chain,
                    tip.block.cid,
                    rows,
                    tip.block.app_hash,
                    operator.public_key,
                    beacon.public_key,
                    beacon.prove_possession(),
                )
            except InvalidGenesis as error:
                raise usage(f"--as-chain {chain}: {error}") from None
            _clear_unfinished(home, None)
            _write_origin(home.ledger / ORIGIN_FILE, history.genesis, tip, ended)
            with open_storage(home.ledger) as storage:
                storage.create(genesis.encode(), carried_items(genesis, rows))
        write_genesis(home, genesis)
        remove_tree(scratch)
        return genesis.to_json()


async def _end_of(history: History, path: Path, scratch: Path, *, progress: bool) -> GivenBlock:
    """Has the state that the archive ends with in `scratch`; returns the last block."""
    from ledger.engine.archive import check_link
    from ledger.engine.archive_replay import restore_archived

    assert history.archive is not None, "an archive was asked for"
    state = history.archive.contents.read_state_manifest()
    if state is not None and state.height == history.last:
        remove_tree(scratch)
        with open_storage(scratch) as storage:
            return restore_archived(storage, lambda: contents_of(path))
    await replayed(history, scratch, "running", progress=progress, keep_history=False)
    with contents_of(path) as contents:
        tip = next(given for given in contents.blocks() if given.block.height == history.last)
    check_link(tip, history.genesis, tip.block.prev)
    return tip


def _write_origin(path: Path, genesis: Genesis, tip: GivenBlock, ended: LedgerStorage) -> None:
    from ledger.engine.archive import write_end

    with in_one_step(path) as temporary, temporary.open("wb") as file:
        write_end(file.write, genesis, tip, ended.state_items)


def _named(file: str, option: str) -> Path:
    if file == STDIO:
        raise usage(f"{option} reads the archive twice: name a file")
    return Path(file)


def _clear_unfinished(home: Home, genesis: Genesis | None) -> None:
    """Removes what an import of another chain left: without a genesis file it never was a ledger."""
    with open_storage(home.ledger) as storage:
        kept = storage.genesis()
        if kept is None or (genesis is not None and kept == genesis.encode()):
            return
        note(f"removing an unfinished import from {home.ledger}")
        for folder in ("db", "wal"):
            remove_tree(home.ledger / folder)
