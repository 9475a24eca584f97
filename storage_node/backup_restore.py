"""Restoring: the blocks of a snapshot, every one hashed, then its files, and the records last.

As long as the records are missing, no command takes the home for a whole one; docs/backup.md says more.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from storage_node.backup_folder import BackupFolder, write_new
from storage_node.backup_pack import (
    MAX_BITMAP_BYTES,
    Pack,
    Window,
    is_set,
    pack_names,
    read_window,
    set_bit,
    windows,
)
from storage_node.backup_records import pairs_of
from storage_node.backup_snapshot import PIECES_FOLDER, PackUse, Progress, SavedFile, Snapshot
from storage_node.backup_target import ASIDE, announce_records
from storage_node.blockstore.disk import fsync_folder
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import Store
from storage_node.errors import DamagedBackup
from storage_node.meta import Meta

THREADS = 2
WINDOWS_AHEAD = 4
HOW_TO_GO_ON = "restore what is intact with --partial, or another snapshot with --snapshot"

Block = tuple[bytes, memoryview]


@dataclass(slots=True)
class Lost:
    """What a backup cannot give back: lines that name files, and the multihashes of blocks.

    `unknown_blocks` are those of packs of which not even the multihashes are left.
    """

    problems: list[str] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    unknown_blocks: int = 0


@contextmanager
def ahead(
    handle: int, parts: Iterator[Window]
) -> Iterator[Iterator[list[tuple[int, bytes, memoryview | None]]]]:
    """`read_window` of each, on all cores, in order; a bounded number of windows is held."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="hash") as pool:
        yield _ahead(pool, handle, parts)


def _ahead(
    pool: ThreadPoolExecutor, handle: int, parts: Iterator[Window]
) -> Iterator[list[tuple[int, bytes, memoryview | None]]]:
    waiting: deque[Future[list[tuple[int, bytes, memoryview | None]]]] = deque()
    for part in parts:
        waiting.append(pool.submit(lambda window: list(read_window(handle, window)), part))
        if len(waiting) >= WINDOWS_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def restore_blocks(
    folder: BackupFolder,
    snapshot: Snapshot,
    store: Store,
    lost: Lost,
    *,
    partial: bool = False,
    progress: Progress = lambda _: None,
) -> None:
    """Put the snapshot's blocks into the store, verified; those that are there already are not read.

    Raises DamagedBackup at the first block that no pack has whole, unless `partial`; StoreFull.
    """
    resumed = store.stat().blocks > 0
    for use in snapshot.uses:
        try:
            pack = Pack(folder, use.pack)
        except DamagedBackup as error:
            if not partial:
                raise DamagedBackup(f"{error}; {HOW_TO_GO_ON}") from error
            lost.problems.append(str(error))
            lost.unknown_blocks += int.from_bytes(use.marks(), "little").bit_count()
            continue
        bad = _restore_pack(pack, use, store, progress, resumed=resumed)
        bad -= _restore_from_others(folder, bad, pack, use, store) if bad else set()
        if not bad:
            continue
        problem = f"{pack.path} is {'damaged' if pack.path.exists() else 'missing'}"
        if not partial:
            raise DamagedBackup(f"{problem}: {len(bad)} blocks of this snapshot are lost; {HOW_TO_GO_ON}")
        lost.problems.append(f"{problem}: {len(bad)} blocks are lost")
        lost.blocks += sorted(bad)


def _restore_pack(
    pack: Pack, use: PackUse, store: Store, progress: Progress, *, resumed: bool = True
) -> set[bytes]:
    """Put the marked blocks of a pack; returns the multihashes that it does not have whole.

    With `resumed`, the store may have some of them.
    """
    bad: set[bytes] = set()
    for block_class, bitmap in use.blocks.items():
        missing = bytearray(bitmap)
        for number, row in enumerate(pack.rows() if resumed else ()):
            if is_set(missing, number) and store.has(row.multihash):
                missing[number >> 3] &= ~(1 << (number & 7))
                progress(row.length)
        if any(missing):
            store.put_many(_blocks(pack, bytes(missing), bad, progress), block_class)
    return bad


def _blocks(pack: Pack, wanted: bytes, bad: set[bytes], progress: Progress) -> Iterator[Block]:
    try:
        handle = os.open(pack.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        bad |= {multihash for window in windows(pack, wanted) for _, (multihash, _, _) in window.rows}
        return
    try:
        with ahead(handle, windows(pack, wanted)) as read:
            for window in read:
                for _, multihash, block in window:
                    if block is None:
                        bad.add(multihash)
                    else:
                        yield multihash, block
                        progress(len(block))
    finally:
        os.close(handle)


def _restore_from_others(
    folder: BackupFolder, bad: set[bytes], but: Pack, use: PackUse, store: Store
) -> set[bytes]:
    """Put blocks out of any other pack that has them whole; returns those for which that worked."""
    classes = {
        row.multihash: block_class
        for number, row in enumerate(but.rows())
        for block_class, bitmap in use.blocks.items()
        if row.multihash in bad and is_set(bitmap, number)
    }
    for name in pack_names(folder):
        if name == but.name:
            continue
        try:
            other = Pack(folder, name)
        except DamagedBackup:
            continue
        marks: dict[BlockClass, bytearray] = {}
        for number, row in enumerate(other.rows()):
            block_class = classes.get(row.multihash)
            if block_class is not None:
                set_bit(marks.setdefault(block_class, bytearray(MAX_BITMAP_BYTES)), number)
        if marks:
            there = PackUse(name, {each: bytes(bitmap) for each, bitmap in marks.items()})
            _restore_pack(other, there, store, lambda _: None)
    return {multihash for multihash in bad if store.has(multihash)}


def restore_files(
    folder: BackupFolder,
    files: tuple[SavedFile, ...],
    place: Callable[[SavedFile], Path | None],
    lost: Lost,
    *,
    partial: bool = False,
) -> None:
    """Write saved files to where `place` says (None: not at all). Raises DamagedBackup unless `partial`."""
    for file in files:
        target = place(file)
        if target is None:
            continue
        try:
            pieces = (folder.load_part(part, secret=file.is_secret) for part in file.parts)
            write_new(target, pieces)
            fsync_folder(target.parent)
        except DamagedBackup as error:
            if not partial:
                raise DamagedBackup(f"{error} (a part of {file.path}); {HOW_TO_GO_ON}") from error
            lost.problems.append(f"{error}: {file.path} is lost")


def restore_records(
    folder: BackupFolder, snapshot: Snapshot, home: Path, lost: Lost, *, partial: bool = False
) -> None:
    """Make `meta/` with the records and the rows of pieces: aside, then in one step.

    Raises DamagedBackup unless `partial`.
    """
    aside, target = home / ASIDE, home / "meta"
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir(mode=0o700)
    _load_records(folder, snapshot, aside, lost, partial)
    pieces = [file for file in snapshot.files if file.path.startswith(f"{PIECES_FOLDER}/")]
    if pieces:
        (aside / PIECES_FOLDER).mkdir(mode=0o700)
        restore_files(folder, tuple(pieces), lambda file: aside / file.path, lost, partial=partial)
    fsync_folder(aside)
    announce_records(home, snapshot.name)
    if target.is_dir():
        target.rmdir()  # empty, or this fails: nothing is ever replaced
    aside.rename(target)
    fsync_folder(home)


def _load_records(folder: BackupFolder, snapshot: Snapshot, aside: Path, lost: Lost, partial: bool) -> None:
    meta = Meta(aside)
    for part in snapshot.records:
        try:
            pairs = list(pairs_of(folder.load_part(part)))
        except DamagedBackup as error:
            if not partial:
                raise DamagedBackup(f"{error} (pins, names and other records); {HOW_TO_GO_ON}") from error
            lost.problems.append(
                f"{error}: pins, names or other records are lost: pin what you need before you collect"
            )
            continue
        try:
            meta.load(pairs)
        except ValueError as error:
            raise DamagedBackup(f"snapshot {snapshot.name} has a record that cannot be: {error}") from error
