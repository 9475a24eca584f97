"""Checking a folder of backups without any home: snapshots, parts, and every block of every pack."""

from __future__ import annotations

import os
from dataclasses import dataclass
from operator import attrgetter

from storage_node import backup_snapshot as snapshots
from storage_node.backup_folder import BackupFolder, Part
from storage_node.backup_pack import Pack, pack_header, windows
from storage_node.backup_restore import ahead
from storage_node.backup_snapshot import Progress
from storage_node.errors import BackupRefused, DamagedBackup

GIVE_UP = "a new `repo backup` saves again what the home still has"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`problems` are lines that name a file each and say what to do; `snapshots` are how many were read."""

    snapshots: int
    damaged_snapshots: tuple[str, ...]
    blocks: int
    block_bytes: int
    problems: tuple[str, ...]


def verify(
    folder: BackupFolder, only: str | None = None, progress: Progress = lambda _: None
) -> VerifyReport:
    """Read everything that the snapshots need (or the one called `only`) and hash it.

    Changes nothing; hold the lock, not alone. `progress` counts bytes of packs.
    """
    problems: list[str] = []
    damaged: set[str] = set()
    needs: dict[str, list[tuple[str, int]]] = {}  # pack -> snapshots and what they mark
    parts: dict[tuple[Part, bool], list[str]] = {}
    names = snapshots.names(folder) if only is None else [only]
    for name in names:
        try:
            snapshot = snapshots.load(folder, name)
        except (DamagedBackup, BackupRefused) as error:
            problems.append(str(error))
            damaged.add(name)
            continue
        for use in snapshot.uses:
            needs.setdefault(use.pack, []).append((name, int.from_bytes(use.marks(), "little")))
        for part in snapshot.records:
            parts.setdefault((part, False), []).append(name)
        for file in snapshot.files:
            for part in file.parts:
                parts.setdefault((part, file.is_secret), []).append(name)
    for (part, secret), users in parts.items():
        try:
            folder.load_part(part, secret=secret)
        except DamagedBackup as error:
            problems.append(f"{error}: {GIVE_UP}")
            damaged.update(users)
    blocks = block_bytes = 0
    for name, uses in needs.items():
        try:
            pack = Pack(folder, name)
            bad = _damaged_rows(pack, progress)
        except DamagedBackup as error:
            problems.append(f"{error}: {GIVE_UP}")
            damaged.update(user for user, _ in uses)
            continue
        for number, row in enumerate(pack.rows()):
            if number not in bad:
                blocks += 1
                block_bytes += row.length
        if not bad and not _is_framed(pack):
            problems.append(
                f"{pack.path}: its blocks are whole, but what stands before or behind them is not as written"
            )
        if bad:
            problems.append(
                f"{pack.path}: {len(bad)} of {pack.count} blocks are damaged: delete it, then {GIVE_UP}"
            )
            damaged.update(user for user, marks in uses if any(marks >> number & 1 for number in bad))
    return VerifyReport(len(names), tuple(sorted(damaged)), blocks, block_bytes, tuple(problems))


def _is_framed(pack: Pack) -> bool:
    """Whether nothing but the right header stands before the blocks, and nothing behind them."""
    first = min(pack.rows(), key=attrgetter("offset"))
    with pack.path.open("rb") as file:
        return pack.is_there() and file.read(first.offset) == pack_header(first.multihash)


def _damaged_rows(pack: Pack, progress: Progress) -> set[int]:
    """The numbers of the rows whose blocks are not what they must be. Raises DamagedBackup if it is gone."""
    try:
        handle = os.open(pack.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DamagedBackup(f"{pack.path} cannot be read ({error.strerror})") from error
    bad: set[int] = set()
    try:
        with ahead(handle, windows(pack)) as read:
            for window in read:
                bad |= {number for number, _, block in window if block is None}
                progress(sum(len(block) for _, _, block in window if block is not None))
    finally:
        os.close(handle)
    return bad
