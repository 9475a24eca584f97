"""`holdfast ledger export`, `import`, `verify-history`: a chain's history kept, brought back and checked."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.home import Home
from cli.options import JsonFlag, ProgressFlag
from cli.output import CommandError, blocks_text, emit, invalid, meter, note, text

if TYPE_CHECKING:
    from pathlib import Path

    from cli.ledger_sources import History
    from ledger.engine.archive_replay import Replay

LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A new file, `-` for stdout.")],
    source: Annotated[
        str, typer.Option("--from", help="URL, ledger's folder or archive; by default this home's ledger.")
    ] = "",
    ledger: LedgerFlag = "",
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """Write the chain's history into a CAR of its own nodes.

    What an interrupted export had written is gone on with by the same command.
    """
    from cli.ledger_archive import write_archive
    from cli.serve import run_once

    written = run_once(write_archive(Home.locate(), source, ledger, file, progress, json_output))
    if json_output:
        emit(written)
    else:
        note(f"wrote blocks {written['first']} to {written['last']} of chain {written['chain_id']}")


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="An archive, or `-` for stdin.")],
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """Make this home's ledger from an archive: runs every block again and compares every app hash.

    What an interrupted import had done is gone on with by the same command.
    """
    from cli.compose import require_no_ledger, write_genesis
    from cli.serve import run_once

    home = Home.locate()
    require_no_ledger(home)

    async def imported() -> dict[str, Any]:
        from cli.ledger_sources import open_history

        async with open_history(home, file) as history:
            if history.archive is None:
                raise invalid(f"{file} is no archive: `holdfast ledger export` makes one")
            home.ensure()
            _clear_unfinished(home, history)
            found = await _replayed(history, home.ledger, progress, "importing", keep_history=True)
            write_genesis(home, history.genesis)
            return found

    found = run_once(imported())
    if json_output:
        return emit(found)
    text(f"imported chain {found['chain_id']} up to block {found['height']}, app hash {found['app_hash']}")
    note(f"to run it, put its operator's keys (operator, beacon) into {home.keys}")
    return None


def verify_history(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="URL, ledger's folder or archive; by default this home's ledger."
        ),
    ] = "",
    ledger: LedgerFlag = "",
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """Run the whole chain again from its genesis: every block must be signed and lead to its app hash.

    What an interrupted check had done is gone on with by the same command.
    """
    from cli.serve import run_once

    home = Home.locate()

    async def verified() -> dict[str, Any]:
        from cli.ledger_sources import open_history
        from cli.part import remove_tree
        from ledger.engine.blocks import node_cid

        async with open_history(home, source, ledger) as history:
            scratch = home.path / "verify-history" / str(node_cid(history.genesis.encode()))
            home.ensure()
            found = await _replayed(history, scratch, progress, "verifying", keep_history=False)
            remove_tree(scratch)
            return found

    found = run_once(verified())
    if json_output:
        emit(found)
    else:
        text(
            f"chain {found['chain_id']} is sound up to block {found['height']}, app hash {found['app_hash']}"
        )


def _clear_unfinished(home: Home, history: History) -> None:
    """Removes what an import of another chain left: without a genesis file it never was a ledger."""
    from cli.part import remove_tree
    from ledger.engine.storage import LedgerStorage

    storage = LedgerStorage(home.ledger)
    storage.open()
    try:
        kept = storage.genesis()
        if kept not in (None, history.genesis.encode()):
            note(f"removing an unfinished import of another chain from {home.ledger}")
            for folder in ("db", "wal"):
                remove_tree(home.ledger / folder)
    finally:
        storage.close()


async def _replayed(
    history: History, folder: Path, progress: bool, label: str, *, keep_history: bool
) -> dict[str, Any]:
    """Runs a history again in `folder`, from where that is; compares the end; what is to be told of it."""
    from ledger.engine.archive_replay import Replay
    from ledger.engine.storage import LedgerStorage

    storage = LedgerStorage(folder)
    storage.open()
    try:
        replay = Replay(storage, history.genesis, keep_history=keep_history)
        begun = replay.height
        if begun > history.last:
            raise CommandError(f"{folder} is at block {begun}, {history.name} at {history.last}: remove it")
        if begun:
            note(f"going on after block {begun}")
        done = meter(label, history.last - begun, wanted=progress, as_text=blocks_text)
        try:
            async with aclosing(history.blocks(begun + 1)) as blocks:
                async for given in blocks:
                    replay.add(given)
                    done.advance(1)
        finally:
            done.finish()
        _compare(history, replay, storage)
        return {
            "chain_id": history.genesis.chain_id,
            "height": replay.height,
            "app_hash": replay.app.app_hash.hex(),
            "tip": None if replay.tip is None else str(replay.tip),
        }
    finally:
        storage.close()


def _compare(history: History, replay: Replay, storage: Any) -> None:
    """Exit 4 unless the replay ended where the source says that it is."""
    if (replay.height, replay.tip) != (history.last, history.tip):
        raise invalid(f"{history.name} ends at another block than its history leads to")
    if replay.app.app_hash != history.app_hash:
        raise invalid(
            f"{history.name} says app hash {history.app_hash.hex()}, its history leads to "
            f"{replay.app.app_hash.hex()}"
        )
    if history.storage is not None:
        history.storage.check_state()
        for kept, led_to in zip(history.storage.state_items(), storage.state_items(), strict=False):
            if kept != led_to:
                raise invalid(f"the state in {history.name} differs at key {min(kept[0], led_to[0]).hex()}")
