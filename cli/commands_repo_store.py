"""`holdfast repo compact`, `migrate` and `version`: the files of the block store themselves."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import emit, meter, not_found, size_text, text

if TYPE_CHECKING:
    from pathlib import Path


def compact(json_output: JsonFlag = False) -> None:
    """Give free pages inside the store's files back to the disk; reads go on, writes wait for a file's turn.

    Needs room for a copy of one file at a time (exit 6). Interrupted, what is done stays done.
    """
    from cli.maintenance_duties import compaction_facts
    from storage_node.maintenance import COMPACTION, DutyRecords

    with Home.locate() as home, home.daemon_lock():
        store, meta = home.open_store(), home.open_meta()
        bar = meter("compacted", None)
        done = 0

        def progress(done_bytes: int, total_bytes: int) -> None:
            nonlocal done
            bar.expect(total_bytes)
            bar.advance(done_bytes - done)
            done = done_bytes

        began_s = time.monotonic()
        try:
            shrunk_bytes = store.compact(progress=progress) + meta.compact()
        finally:
            bar.finish()
        facts = compaction_facts(shrunk_bytes, time.monotonic() - began_s)
        DutyRecords(meta).note(COMPACTION, facts)
        file_bytes = store.stat().file_bytes
    if json_output:
        return emit({"freed_bytes": shrunk_bytes, "file_bytes": file_bytes, "seconds": facts["seconds"]})
    return text(f"gave back {size_text(shrunk_bytes)}; the files take {size_text(file_bytes)}")


def migrate(json_output: JsonFlag = False) -> None:
    """Bring the store to the format of this version; opening it does that too, so this only says so.

    Interrupted, it goes on where it was when the store is next opened.
    """
    with Home.locate() as home:
        home.ensure()
        before = {folder.name: _version(folder) for folder in (home.blocks, home.meta)}
        with home.daemon_lock():
            home.open_meta()
            home.open_store()
        after = {folder.name: _version(folder) for folder in (home.blocks, home.meta)}
    if json_output:
        return emit({name: {"from": before[name], "to": after[name]} for name in after})
    for name, version in after.items():
        old = before[name]
        how = f"migrated from version {old}" if old not in (None, version) else "up to date"
        text(f"{name}: version {version}, {how}")
    return None


def version(
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Print the number of the blocks' format alone.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Print the versions of the formats on the disk; opens and migrates nothing. Exit 3 where no store is."""
    home = Home.locate()
    versions = {folder.name: _version(folder) for folder in (home.blocks, home.meta)}
    if versions["blocks"] is None:
        raise not_found(f"there is no store in {home.path}, or its format.json is damaged")
    if json_output:
        emit(versions)
    elif quiet:
        text(str(versions["blocks"]))
    else:
        for name, number in versions.items():
            text(f"{name}: version {number}")


def _version(folder: Path) -> int | None:
    """The version in a folder's format file, None without one; what is wrong with it, opening says."""
    try:
        document = json.loads((folder / "format.json").read_bytes())
        return int(document["version"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
