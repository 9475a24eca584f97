"""`holdfast repo backup` and `restore`: snapshots of a home in a folder, and homes made out of them."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.home import Home, folder_argument
from cli.options import JsonFlag
from cli.output import ExitCode, count_text, emit, meter, not_found, note, size_text, text, usage

if TYPE_CHECKING:
    from storage_node.backup import BackupReport, Pruned, Source
    from storage_node.backup_folder import BackupFolder
    from storage_node.backup_restore import Lost
    from storage_node.backup_snapshot import SavedFile, Snapshot

SHOWN = 10
GOES_ON = "what is done stays: the same command goes on from there"

FolderArgument = Annotated[str, typer.Argument(metavar="FOLDER", help="The folder with the backups.")]


def backup(
    folder: FolderArgument,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", help="Afterwards delete all but the N newest snapshots."),
    ] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Leave the key files out; without them the home's name is lost.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only read and hash everything in FOLDER; exit 4 for damage.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Only delete what no snapshot (of the --keep newest) needs.")
    ] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Only list the snapshots in FOLDER.")] = False,
    snapshot: Annotated[
        str,
        typer.Option(
            "--snapshot", metavar="NAME", help="With --verify: this one alone; a beginning will do."
        ),
    ] = "",
    json_output: JsonFlag = False,
) -> int:
    """Save the home (blocks, pins, names, the mutable tree, keys) to FOLDER; writes only what is new.

    Servers may run meanwhile. The ledger's own folder is not saved.
    """
    if verify + prune + list_only > 1:
        raise usage("--verify, --prune and --list exclude each other")
    if keep is not None and (keep < 1 or verify or list_only):
        raise usage("--keep takes a number from 1 on, and goes with a backup or --prune")
    if snapshot and not verify:
        raise usage("--snapshot goes with --verify; `repo restore --snapshot` restores one")
    if no_keys and (verify or prune or list_only):
        raise usage("--no-keys goes with a backup")
    path = folder_argument(folder)
    if list_only:
        return _list(path, json_output)
    if verify:
        return _verify(path, snapshot, json_output)
    if prune:
        return _prune(path, keep, json_output)
    return _save(path, keep, not no_keys, json_output)


def _save(path: Path, keep: int | None, with_keys: bool, json_output: bool) -> int:
    from storage_node.backup import Source, back_up
    from storage_node.backup import prune as prune_folder
    from storage_node.backup_folder import make_folder

    began_s = time.monotonic()
    with Home.locate() as home:
        if not home.exists():
            raise not_found(f"there is no home at {home.path} to save: `holdfast init` makes one")
        _refuse_nested(path, home)
        folder = make_folder(path)
        with folder.lock(alone=True), home.daemon_lock():
            source = Source(home.path, home.open_store(), home.open_meta(), with_keys)
            bar = meter("saved", source.store.stat().bytes)
            try:
                report = back_up(
                    source,
                    folder,
                    time.time_ns() // 1_000_000,
                    thin_out=keep is not None,
                    progress=bar.advance,
                )
            except KeyboardInterrupt:
                bar.finish()
                note(GOES_ON)
                raise
            bar.finish()
            pruned = prune_folder(folder, keep) if keep is not None else None
            _note(home, report, path)
        _warn(report, source, home)
    _report_saved(report, pruned, path, round(time.monotonic() - began_s, 3), json_output)
    return ExitCode.INVALID if report.damaged else ExitCode.DONE


def _note(home: Home, report: BackupReport, path: Path) -> None:
    """For `repo stat`: the last backup that holds all of the home."""
    from storage_node.errors import StoreFull
    from storage_node.maintenance import BACKUP, DutyRecords

    if report.damaged:
        return
    facts: dict[str, int | str] = {
        "at_s": int(time.time()),
        "folder": str(path.resolve()),
        "snapshot": report.snapshot.name,
    }
    with suppress(StoreFull):  # on the home's disk: the backup itself is whole
        DutyRecords(home.open_meta()).note(BACKUP, facts)


def _refuse_nested(path: Path, home: Home) -> None:
    # Not `resolve`, which fails for links that lead in a circle.
    inside, outside = (Path(os.path.realpath(each)) for each in (path, home.path))
    if inside == outside or outside in inside.parents:
        raise usage(
            f"{path} is inside the home {home.path}: choose a folder outside, on another disk if there is one"
        )


def _warn(report: BackupReport, source: Source, home: Home) -> None:
    for line in report.notes:
        note(line)
    if any(home.ledger.iterdir()) if home.ledger.is_dir() else False:
        note(f"not in it: the ledger's own folder, {home.ledger}; `holdfast ledger export` saves that")
    if source.with_keys:
        keys = home.keystore()
        bare = [name for name in keys.names() if not keys.info(name).sealed]
        if bare:
            note(
                f"{count_text(len(bare), 'key')} without a passphrase ({', '.join(bare[:SHOWN])}): "
                "whoever can read the backup has them; --no-keys leaves keys out"
            )
    if report.damaged:
        from merkledag.cid import CID
        from merkledag.codecs import RAW

        for multihash in report.damaged[:SHOWN]:
            note(f"damaged in the home, and not in the backup: {CID(1, RAW, multihash)}")
        note("holdfast: `repo verify` names damaged blocks and heals or deletes them; all else is saved")


def _report_saved(
    report: BackupReport, pruned: Pruned | None, path: Path, took_s: float, json_output: bool
) -> None:
    saved = report.snapshot
    if json_output:
        return emit(
            {
                "folder": str(path),
                **_described(saved),
                "new_blocks": report.new_blocks,
                "new_bytes": report.new_bytes,
                "damaged": list(saved.damaged),
                "notes": list(report.notes),
                "not_saved": ["ledger", "cache", *([] if saved.with_keys else ["keys"])],
                "pruned": None if pruned is None else _pruned(pruned),
                "seconds": took_s,
            }
        )
    text(
        f"saved {saved.name}: {count_text(saved.blocks, 'block')}, {size_text(saved.block_bytes)}; "
        f"new: {count_text(report.new_blocks, 'block')}, {size_text(report.new_bytes)}"
    )
    if pruned is not None:
        _print_pruned(pruned)
    return None


def _described(snapshot: Snapshot) -> dict[str, Any]:
    from storage_node.backup_snapshot import created_text

    return {
        "snapshot": snapshot.name,
        "created": created_text(snapshot),
        "home": snapshot.home,
        "blocks": snapshot.blocks,
        "block_bytes": snapshot.block_bytes,
        "keys": [Path(file.path).stem for file in snapshot.files if file.is_secret],
    }


def _pruned(pruned: Pruned) -> dict[str, Any]:
    return {"snapshots": list(pruned.snapshots), "packs": pruned.packs, "freed_bytes": pruned.bytes}


def _print_pruned(pruned: Pruned) -> None:
    if not pruned.snapshots and not pruned.packs and not pruned.bytes:
        return text("nothing to delete")
    gone = count_text(len(pruned.snapshots), "snapshot")
    return text(
        f"deleted {gone}, {count_text(pruned.packs, 'pack')}: {size_text(pruned.bytes)} are free again"
    )


def _prune(path: Path, keep: int | None, json_output: bool) -> int:
    from storage_node.backup import prune as prune_folder
    from storage_node.backup_folder import open_folder

    folder = open_folder(path)
    with folder.lock(alone=True):
        pruned = prune_folder(folder, keep)
    if json_output:
        emit(_pruned(pruned))
    else:
        _print_pruned(pruned)
    return ExitCode.DONE


def _list(path: Path, json_output: bool) -> int:
    from storage_node import backup_snapshot as snapshots
    from storage_node.backup_folder import open_folder
    from storage_node.errors import DamagedBackup

    folder = open_folder(path)
    code = ExitCode.DONE
    for name in snapshots.names(folder):
        try:
            described = _described(snapshots.load(folder, name))
        except DamagedBackup as error:
            note(f"holdfast: {error}")
            code = ExitCode.INVALID
            continue
        if json_output:
            emit(described)
        else:
            sizes = f"{count_text(described['blocks'], 'block')}, {size_text(described['block_bytes'])}"
            text(f"{name}  {sizes}, {count_text(len(described['keys']), 'key')}, of {described['home']}")
    return code


def _verify(path: Path, wanted: str, json_output: bool) -> int:
    from storage_node import backup_snapshot as snapshots
    from storage_node.backup_folder import open_folder
    from storage_node.backup_verify import verify as verify_folder

    folder = open_folder(path)
    with folder.lock(alone=False):
        only = snapshots.find(folder, wanted) if wanted else None
        bar = meter("verified", _pack_bytes(folder))
        report = verify_folder(folder, only, bar.advance)
        bar.finish()
    if json_output:
        emit(
            {
                "folder": str(path),
                "snapshots": report.snapshots,
                "damaged_snapshots": list(report.damaged_snapshots),
                "blocks": report.blocks,
                "block_bytes": report.block_bytes,
                "problems": list(report.problems),
            }
        )
    else:
        whole = count_text(report.snapshots - len(report.damaged_snapshots), "whole snapshot")
        text(
            f"{whole}, {len(report.damaged_snapshots) or 'none'} damaged; "
            f"{count_text(report.blocks, 'block')}, {size_text(report.block_bytes)} are good"
        )
    for problem in report.problems[:SHOWN]:
        note(f"holdfast: {problem}")
    return ExitCode.INVALID if report.problems else ExitCode.DONE


def _pack_bytes(folder: BackupFolder) -> int:
    return sum(path.stat().st_size for path in folder.packs.glob("*.car"))


def restore(
    folder: FolderArgument,
    home: Annotated[
        str, typer.Argument(metavar="HOME", help="A new or empty folder; else the one of HOLDFAST_HOME.")
    ] = "",
    snapshot: Annotated[
        str,
        typer.Option("--snapshot", metavar="NAME", help="Not the newest; the beginning of a name will do."),
    ] = "",
    partial: Annotated[
        bool, typer.Option("--partial", help="Restore what is intact of a damaged backup.")
    ] = False,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Leave the key files out.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Make a home as it was, hashing every block; after an interruption, the same command goes on."""
    from storage_node import backup_snapshot as snapshots
    from storage_node.backup_folder import open_folder
    from storage_node.backup_target import claim, refuse_used, release

    began_s = time.monotonic()
    opened = open_folder(folder_argument(folder))
    with opened.lock(alone=False), _target(home) as target:
        saved = snapshots.load(opened, snapshots.find(opened, snapshot))
        refuse_used(target.path, saved.name)
        target.create()
        with target.daemon_lock():
            if claim(target.path, saved.name):
                note("going on with the restore that was interrupted")
            try:
                lost = _restore_into(target, opened, saved, partial=partial, with_keys=not no_keys)
            except KeyboardInterrupt:
                note(GOES_ON)
                raise
            if lost.problems:
                target.open_pins().recount()  # the counters may be there without the pins, or the other way
            release(target.path)
            pins = target.open_pins().count()
            keys = target.keystore().names()
    lost_blocks = len(lost.blocks) + lost.unknown_blocks
    for problem in lost.problems:
        note(problem)
    if not keys:
        note(
            f"no key is in it: copy yours into {target.keys} before you start anything, or a new one is made"
        )
    if json_output:
        return emit(
            {
                **_described(saved),
                "home": str(target.path),
                "blocks": saved.blocks - lost_blocks,
                "pins": pins,
                "keys": keys,
                "lost_blocks": lost_blocks,
                "problems": lost.problems,
                "seconds": round(time.monotonic() - began_s, 3),
            }
        )
    return text(
        f"restored {target.path}: {count_text(saved.blocks - lost_blocks, 'block')}, "
        f"{count_text(pins, 'pin')}, {count_text(len(keys), 'key')}"
    )


def _target(home: str) -> Home:
    return Home(folder_argument(home)) if home else Home.locate()


def _restore_into(
    target: Home, folder: BackupFolder, saved: Snapshot, *, partial: bool, with_keys: bool
) -> Lost:
    from storage_node.backup_restore import Lost, restore_blocks, restore_files, restore_records
    from storage_node.backup_target import is_complete
    from storage_node.blockstore.store import open_store

    lost = Lost()
    if is_complete(target.path):
        return lost

    def place(file: SavedFile) -> Path | None:
        if file.path.startswith("pieces/") or (file.is_secret and not with_keys):
            return None
        return target.path / file.path

    # Not `target.open_store`: it would make the records, and the home would pass for a whole one. And before
    # anything else: a home with blocks and without records is refused by every command.
    open_store(target.blocks).close()
    restore_files(folder, saved.files, place, lost, partial=partial)
    store = open_store(
        target.blocks,
        max_bytes=target.config.number("storage.max_bytes") or None,
        reserve_bytes=target.config.number("storage.reserve_bytes"),
    )
    bar = meter("restored", saved.block_bytes)
    try:
        restore_blocks(folder, saved, store, lost, partial=partial, progress=bar.advance)
    finally:
        bar.finish()
        store.close()
    restore_records(folder, saved, target.path, lost, partial=partial)
    return lost
