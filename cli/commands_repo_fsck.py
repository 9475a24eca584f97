"""`holdfast repo fsck`: whether the files of a home's stores are consistent; their salvage and repair."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import ExitCode, blocks_text, count_text, emit, meter, note, size_text, text

if TYPE_CHECKING:
    from storage_node.blockstore.check import CheckReport, Finding
    from storage_node.blockstore.replacing import FileDamage
    from storage_node.salvage import FileSalvage

SHOWN: Final = 10
LISTED: Final = 1000  # lost blocks that --json names


def fsck(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Repair what can be: make new files of what is intact in damaged ones and keep those aside; "
            "note lost blocks; recount.",
        ),
    ] = False,
    json_output: JsonFlag = False,
) -> int:
    """Check that the store's files agree with each other, without hashing blocks; exit 4 for damage.

    `repo verify` hashes them.
    """
    from storage_node.blockstore.check import HARMLESS
    from storage_node.salvage import damaged_files

    with Home.locate() as home:
        home.ensure()
        with home.daemon_lock() if repair else nullcontext():
            broken = damaged_files(home.blocks, home.meta)
            salvaged = [_salvage(home, each) for each in broken] if repair else []
            report = _report(home, [] if repair else broken, repair=repair)
    damaged = any(kind not in HARMLESS for kind in report.counts) or any(map(_may_lack, salvaged))
    if json_output:
        emit(_document(report, salvaged, damaged=damaged))
    else:
        _say(report, repair=repair)
    return ExitCode.INVALID if damaged else ExitCode.DONE


# --- damaged files ---


def _salvage(home: Home, damage: FileDamage) -> FileSalvage:
    """A new file in the place of a damaged one, with a line before and lines after."""
    from storage_node.salvage import salvage

    why = damage.reasons[0] + (f", and {damage.pages - 1} more" if damage.pages > 1 else "")
    note(f"{damage.file} is damaged ({why}): what is intact goes into a new file")
    bar = meter("found", None, as_text=blocks_text)
    seen = 0

    def progress(blocks: int) -> None:
        nonlocal seen
        bar.advance(blocks - seen)
        seen = blocks

    try:
        done = salvage(damage, home.meta, int(time.time()), progress)
    finally:
        bar.finish()
    if done.replaced.aside is not None:
        note(f"{done.replaced.aside} is the damaged file: delete it when nothing is missed")
    if done.blocks is not None:
        _say_blocks(done)
    if done.records is not None:
        _say_records(done)
    return done


def _say_blocks(done: FileSalvage) -> None:
    found = done.blocks
    assert found is not None
    note(f"{done.replaced.file} has {count_text(found.blocks, 'block')}, {size_text(found.size_bytes)}")
    if found.old or found.adopted:
        note(
            f"of these {found.old} were found in pages that were not in use, {found.adopted} without their "
            "rows; what nothing needs goes with the next `repo gc`"
        )
    if found.lost_count:
        note(
            f"{count_text(found.lost_count, 'block')} known to be lost: `repo verify --heal`, adding them or "
            "`car import` of a backup's packs brings them back"
        )
    if found.unaccounted:
        note(f"{count_text(found.unaccounted, 'block')} more are missing: `holdfast pin verify` names them")


def _say_records(done: FileSalvage) -> None:
    found = done.records
    assert found is not None
    note(
        f"{done.replaced.file} has {count_text(found.records, 'record')} and {count_text(found.pins, 'pin')}"
    )
    if found.may_lack:
        note(
            "pins, names, jobs or files may be missing, and some that were removed or changed may be as they "
            "were before: look at `pin ls` and `files ls`; nothing is collected until `repo gc --accept-loss`"
        )


def _may_lack(done: FileSalvage) -> bool:
    """Whether something is missing that the check of the new file cannot see."""
    if done.records is not None:
        return done.records.may_lack
    return done.blocks is not None and done.blocks.unaccounted > 0


# --- the rest ---


def _report(home: Home, broken: list[FileDamage], *, repair: bool) -> CheckReport:
    """The check of everything but damaged files, which LMDB is kept away from, with them."""
    from storage_node.blockstore import check

    findings = [
        check.Finding(check.Kind.FILE, damage.file, reason) for damage in broken for reason in damage.reasons
    ]
    report = check.CheckReport(0, 0, (), {})
    if all(damage.base.parent != home.meta for damage in broken):
        findings += _pins(home, repair=repair)
    if all(damage.base.parent != home.blocks for damage in broken):
        store = home.open_store()
        report = check.repair(store) if repair else check.check(store)
        if repair:
            _list_lost(home, report)
        findings += _pieces(home, repair=repair)
    counts = dict(report.counts)
    for finding in findings:
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
    return check.CheckReport(
        report.blocks, report.bytes, (*findings, *report.findings), counts, report.repaired
    )


def _pins(home: Home, *, repair: bool) -> list[Finding]:
    """Pins that cannot be read; none are left by a repair."""
    from storage_node.blockstore.check import Finding, Kind
    from storage_node.meta_salvage import damaged_pins, repair_pins

    meta = home.open_meta()
    keys = damaged_pins(meta)
    if repair and keys:
        repair_pins(meta, keys)
        note(f"{count_text(len(keys), 'damaged pin')}: recursive and without a name from now on")
        return []
    name = "the records"
    return [Finding(Kind.PIN, name, f"the pin {key.hex()} cannot be read", key) for key in keys]


def _pieces(home: Home, *, repair: bool) -> list[Finding]:
    """Damaged files of pieces that the node keeps for others; a repair leaves those that need the ledger."""
    if not home.pieces.is_dir():
        return []
    from storage_node.blockstore.check import Finding, Kind
    from storage_node.errors import OtherRelease, StorageNodeError
    from storage_node.piece_repair import PieceRepair, damaged_pieces

    left: list[Finding] = []
    pieces = PieceRepair(home.open_store(), home.open_rows(), lambda name: home.open_kzg().row(name))
    for each in damaged_pieces(home.pieces):
        name = f"meta/pieces/{each.path.name}"
        if not repair:
            left.append(Finding(Kind.PIECE, name, each.reason))
            continue
        try:
            bar = meter("rebuilding", pieces.size_bytes(each.path))
            try:
                pieces.repair(each.path, bar.advance)
            finally:
                bar.finish()
            note(f"{name} was damaged: made anew from its blocks")
        except OtherRelease as error:
            left.append(Finding(Kind.PIECE, name, str(error)))
        except (StorageNodeError, OSError) as error:
            left.append(Finding(Kind.PIECE, name, f"{error}; its node makes it anew when it runs"))
    return left


def _list_lost(home: Home, report: CheckReport) -> None:
    """Servers heal what is listed as damaged."""
    from storage_node.blockstore.check import Kind
    from storage_node.scrub import Damaged

    lost = [finding.key[1:] for finding in report.findings if finding.kind is Kind.LOST]
    if lost:
        Damaged(home.open_meta()).add(lost, int(time.time()))


def _document(report: CheckReport, salvaged: list[FileSalvage], *, damaged: bool) -> dict[str, Any]:
    from storage_node.blockstore.check import Kind

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
                "repairable": finding.repairable or finding.kind is Kind.FILE,
            }
            for finding in report.findings
        ],
        "salvaged": [_salvage_document(each) for each in salvaged],
    }


def _salvage_document(done: FileSalvage) -> dict[str, Any]:
    from merkledag.cid import CID
    from merkledag.codecs import RAW

    document: dict[str, Any] = {
        "file": done.damage.file,
        "damaged_pages": done.damage.pages,
        "reasons": list(done.damage.reasons[:SHOWN]),
        "new_file": done.replaced.file,
        "aside": None if done.replaced.aside is None else str(done.replaced.aside),
    }
    if (found := done.blocks) is not None:
        document |= {
            "blocks": found.blocks,
            "size_bytes": found.size_bytes,
            "old_blocks": found.old,
            "adopted_blocks": found.adopted,
            "lost": [str(CID(1, RAW, multihash)) for multihash in found.lost[:LISTED]],
            "lost_blocks": found.lost_count,
            "lost_cached_blocks": found.lost_cached,
            "unaccounted_blocks": found.unaccounted,
        }
    if (records := done.records) is not None:
        document |= {
            "records": records.records,
            "pins": records.pins,
            "old_records": records.old,
            "dropped_records": records.dropped,
            "may_lack_records": records.may_lack,
        }
    return document


def _say(report: CheckReport, *, repair: bool) -> None:
    from storage_node.blockstore.check import Kind

    found = sum(report.counts.values())
    what = "nothing is wrong" if report.clean else f"{count_text(found, 'finding')}"
    fixed = f", {report.repaired} repaired" if report.repaired else ""
    text(f"{count_text(report.blocks, 'block')}, {size_text(report.bytes)}: {what}{fixed}")
    for finding in report.findings[:SHOWN]:
        note(f"{finding.kind.value}: {finding.file}: {finding.message}")
    if found > SHOWN:
        note(f"and {found - SHOWN} more (--json lists them)")
    if Kind.FILE in report.counts:
        note(
            "holdfast: `repo fsck --repair` makes new files of what is intact; stop this home's servers first"
        )
    elif not repair and any(finding.repairable for finding in report.findings):
        note("holdfast: `repo fsck --repair` repairs what can be repaired")
    if Kind.LOST in report.counts:
        note("holdfast: `repo verify --heal` brings lost blocks back, --drop forgets them")
