"""`holdfast repo compact`, `migrate`, `version` and `fsck`: the files of the block store themselves."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import ExitCode, count_text, emit, meter, not_found, note, size_text, text

if TYPE_CHECKING:
    from pathlib import Path

    from storage_node.blockstore.check import CheckReport

SHOWN: Final = 10


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


def fsck(
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what can be: damaged rows go, counters are recounted.")
    ] = False,
    json_output: JsonFlag = False,
) -> int:
    """Check that the store's files agree with each other, without hashing blocks; exit 4 for damage.

    `repo verify` hashes them.
    """
    from storage_node.blockstore import check

    with Home.locate() as home:
        store = home.open_store()
        if repair:
            with home.daemon_lock():
                report = check.repair(store)
        else:
            report = check.check(store)
    harmless = {check.Kind.STRAY, check.Kind.FOREIGN, check.Kind.LEASE}
    damaged = any(kind not in harmless for kind in report.counts)
    if json_output:
        emit(_document(report, damaged=damaged))
    else:
        _say(report, repair=repair)
    return ExitCode.INVALID if damaged else ExitCode.DONE


def _document(report: CheckReport, *, damaged: bool) -> dict[str, Any]:
    return {
        "blocks": report.blocks,
        "size_bytes": report.bytes,
        "clean": report.clean,
        "damaged": damaged,
        "repaired": report.repaired,
        "counts": {kind.value: count for kind, count in report.counts.items()},
        "findings": [
            {
                "kind": finding.kind.value,
                "file": finding.file,
                "message": finding.message,
                "repairable": finding.repairable,
            }
            for finding in report.findings
        ],
    }


def _say(report: CheckReport, *, repair: bool) -> None:
    found = sum(report.counts.values())
    what = "nothing is wrong" if report.clean else f"{count_text(found, 'finding')}"
    fixed = f", {report.repaired} repaired" if report.repaired else ""
    text(f"{count_text(report.blocks, 'block')}, {size_text(report.bytes)}: {what}{fixed}")
    for finding in report.findings[:SHOWN]:
        note(f"{finding.kind.value}: {finding.file}: {finding.message}")
    if found > SHOWN:
        note(f"and {found - SHOWN} more (--json lists them)")
    if not repair and any(finding.repairable for finding in report.findings):
        note("holdfast: `repo fsck --repair` takes away what can be repaired")
