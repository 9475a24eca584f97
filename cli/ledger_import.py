"""From an archive to this home's own ledger, the same chain; `ledger_carry` makes a new one of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cli.home import Home
from cli.ledger_files import in_one_step, write_genesis
from cli.ledger_replay import open_storage, replayed
from cli.ledger_sources import contents_of, open_history
from cli.output import invalid, not_found, note, usage
from cli.part import remove_tree
from cli.streams import STDIO

if TYPE_CHECKING:
    from cli.ledger_sources import History
    from ledger.engine.chain_check import TrustPin
    from ledger.genesis import Genesis


async def import_history(
    home: Home, source: str, trust: str = "", *, snapshot: bool, progress: bool
) -> dict[str, Any]:
    """Makes the chain of an archive this home's own; what is to be told of it.

    With `snapshot` it begins with the state in the archive, or with the newest snapshot of a running ledger.
    `trust` is a header that it must have.
    """
    from cli.ledger_light import pinned_header
    from ledger.engine.history import ORIGIN_FILE

    async with open_history(home, source) as history:
        if history.archive is None and not (snapshot and history.storage is None):
            raise invalid(f"{source} is no archive: `holdfast ledger export` makes one")
        if snapshot and history.light is not None and history.archive is None:
            raise usage("of a chain of validators: `holdfast ledger join URL --engine cometbft --trust …`")
        pin = pinned_header(home, history, trust)
        home.ensure()
        clear_unfinished(home, history.genesis)
        if snapshot:
            await _begin_with_state(home, history, source, pin)
        found = await replayed(history, home.ledger, "importing", pin, progress=progress, keep_history=True)
        if history.origin is not None:
            with in_one_step(home.ledger / ORIGIN_FILE) as path:
                shutil.copyfile(history.origin, path)
        write_genesis(home, history.genesis)
    with open_storage(home.ledger) as storage:
        return found | {"first": storage.pruned().blocks + 1}


async def _begin_with_state(home: Home, history: History, source: str, pin: TrustPin | None) -> None:
    from ledger.engine.archive_reader import SnapshotReader
    from ledger.engine.archive_replay import restore_archived, restore_state

    with open_storage(home.ledger) as storage:
        if storage.genesis() is not None:
            return  # an interrupted import is gone on with
        if history.archive is not None:
            path = named(source, "--snapshot")
            restore_archived(storage, lambda: contents_of(path), pin)
            return
        if history.fetch_snapshot is None:
            raise not_found(f"{source} has no snapshot yet: export it, and import the archive")
        with TemporaryDirectory(prefix="holdfast-") as folder:
            path = Path(folder) / "snapshot.car"
            block = await history.fetch_snapshot(path)
            with path.open("rb") as file:
                restore_state(storage, history.genesis, block, SnapshotReader(file).state())


def named(file: str, option: str) -> Path:
    """A file that is read twice; exit 2 for stdin."""
    if file == STDIO:
        raise usage(f"{option} reads the archive twice: name a file")
    return Path(file)


def clear_unfinished(home: Home, genesis: Genesis | None) -> None:
    """Removes what an import of another chain left: without a genesis file it never was a ledger."""
    with open_storage(home.ledger) as storage:
        kept = storage.genesis()
        if kept is None or (genesis is not None and kept == genesis.encode()):
            return
        note(f"removing an unfinished import from {home.ledger}")
        for folder in ("db", "wal"):
            remove_tree(home.ledger / folder)
