"""Making backups: a snapshot of a home in a folder of backups, writing only what the folder has not yet.

docs/backup.md gives the order of writing and why a crash at any point leaves the last snapshot good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from storage_node import backup_snapshot as snapshots
from storage_node.backup_folder import PART_NAME, BackupFolder, parts_of_file
from storage_node.backup_pack import MAX_BITMAP_BYTES, PACK_BYTES, Pack, is_set, pack_names, set_bit
from storage_node.backup_records import save_records
from storage_node.backup_snapshot import PIECES_FOLDER, PackUse, Progress, SavedFile, Snapshot
from storage_node.backup_writer import PackWriter
from storage_node.blockstore.disk import fsync_folder
from storage_node.blockstore.interface import BlockClass, BlockRow
from storage_node.blockstore.store import Store
from storage_node.errors import DamagedBackup
from storage_node.meta import Meta

RUN_BLOCKS = 1 << 16  # of the store, compared with the packs at once


@dataclass(frozen=True, slots=True)
class Source:
    """The home that is saved. Whoever calls holds its `run/daemon.lock`, so that nothing is collected."""

    home: Path
    store: Store
    meta: Meta
    with_keys: bool = True

    def files(self) -> Iterator[tuple[str, Path]]:
        """Files that are saved as they are: their paths in a backup, and where they are."""
        config = self.home / "config.toml"
        if config.is_file():
            yield config.name, config
        if self.with_keys:
            for key in sorted((self.home / "keys").glob("[!.]*.key")):
                yield f"keys/{key.name}", key
        for piece in sorted((self.home / "meta" / PIECES_FOLDER).glob("*.piece")):
            yield f"{PIECES_FOLDER}/{piece.name}", piece


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup did. `damaged` are the multihashes of blocks that are damaged in the home."""

    snapshot: Snapshot
    new_blocks: int
    new_bytes: int
    damaged: tuple[bytes, ...]
    notes: tuple[str, ...]  # what was found wrong in the folder, and has been made good


@dataclass(frozen=True, slots=True)
class Pruned:
    """What left a folder: snapshots and packs, and the bytes that this gave back."""

    snapshots: tuple[str, ...]
    packs: int
    bytes: int


def back_up(
    source: Source,
    folder: BackupFolder,
    now_ms: int,
    *,
    thin_out: bool = False,
    pack_bytes: int = PACK_BYTES,
    progress: Progress = lambda _: None,
) -> BackupReport:
    """Save the home as it is; hold the folder's lock alone.

    With `thin_out`, packs of which the home needs less than half are written anew, so that they leave with
    the last snapshot that needs them. Raises StoreFull, CorruptStore, DamagedBackup.
    """
    folder.remove_unfinished()
    source.meta.settle()  # a pin whose process was killed as it was committed belongs to the snapshot
    records = save_records(source.meta, folder)  # first: what they refer to is in the store by now
    files = _save_files(source, folder)
    packs, notes = _usable_packs(folder)
    with PackWriter(source.store, folder, pack_bytes) as writer:
        known = _Known(packs)
        for run in _runs(source.store.rows()):
            known.take(run, progress)
            for multihash, row in run.items():
                writer.add(multihash, row.block_class)
                progress(row.length)
        for multihash, block_class in known.give_up_sparse() if thin_out else ():
            writer.add(multihash, block_class)
        writer.finish()
    known.take_back(writer.damaged)
    snapshot = Snapshot(
        name="",
        created_ms=max(now_ms, _last_ms(folder) + 1),
        home=str(source.home),
        blocks=known.blocks + writer.blocks,
        block_bytes=known.block_bytes + writer.block_bytes,
        with_keys=source.with_keys,
        uses=(*known.uses(), *writer.uses),
        records=records,
        files=files,
        damaged=tuple(multihash.hex() for multihash in writer.damaged),
    )
    folder.settle()
    return BackupReport(
        snapshot.save(folder), writer.blocks, writer.block_bytes, tuple(writer.damaged), tuple(notes)
    )


def _save_files(source: Source, folder: BackupFolder) -> tuple[SavedFile, ...]:
    saved: list[SavedFile] = []
    for name, path in source.files():
        secret = name.startswith("keys/")
        try:
            parts = tuple(folder.save_part(piece, secret=secret) for piece in parts_of_file(path))
        except FileNotFoundError:
            continue  # the node has just let go of this piece
        saved.append(SavedFile(name, parts))
    return tuple(saved)


# --- what the folder has already ---


def _usable_packs(folder: BackupFolder) -> tuple[list[Pack], list[str]]:
    """The packs that are there in full length, and a line for each that is not."""
    packs: list[Pack] = []
    notes: list[str] = []
    needed = {use.pack for name in snapshots.names(folder) for use in _uses(folder, name)}
    for name in pack_names(folder):
        try:
            pack = Pack(folder, name)
        except DamagedBackup as error:
            notes.append(f"{error}: its blocks are saved again as far as the home has them")
            continue
        if pack.is_there():
            packs.append(pack)
        elif name in needed:
            notes.append(
                f"{pack.path} is missing or cut: its blocks are saved again as far as the home has them"
            )
    return packs, notes


def _uses(folder: BackupFolder, name: str) -> tuple[PackUse, ...]:
    try:
        return snapshots.load(folder, name).uses
    except DamagedBackup:
        return ()


def _last_ms(folder: BackupFolder) -> int:
    for name in reversed(snapshots.names(folder)):
        try:
            return snapshots.load(folder, name).created_ms
        except DamagedBackup:
            continue
    return 0


class _Known:
    """Which blocks of the home lie in which packs."""

    def __init__(self, packs: list[Pack]) -> None:
        self._packs = packs
        self._marks: dict[str, dict[BlockClass, bytearray]] = {}
        self._live_bytes: dict[str, int] = {}
        self._given_up: list[Pack] = []
        self.blocks = 0
        self.block_bytes = 0

    def take(self, run: dict[bytes, BlockRow], progress: Progress) -> None:
        """Take out of a run of the store, which is in ascending order, what a pack has."""
        for pack in self._packs:
            if not run:
                return
            found_bytes = 0
            for number, row in pack.between(next(iter(run)), next(reversed(run))):
                found = run.pop(row.multihash, None)
                if found is None:
                    continue
                self._mark(pack, number, found.block_class)
                self.blocks += 1
                found_bytes += row.length
            self.block_bytes += found_bytes
            self._live_bytes[pack.name] = self._live_bytes.get(pack.name, 0) + found_bytes
            progress(found_bytes)

    def give_up_sparse(self) -> Iterator[tuple[bytes, BlockClass]]:
        """Forget packs that are mostly dead; gives what they hold of the home."""
        for pack in self._packs:
            live_bytes = self._live_bytes.get(pack.name, 0)
            if 0 < live_bytes * 2 < pack.pack_bytes:
                marks = self._marks.pop(pack.name)
                self._given_up.append(pack)
                for number, row in enumerate(pack.rows()):
                    for block_class, bitmap in marks.items():
                        if is_set(bitmap, number):
                            self.blocks -= 1
                            yield row.multihash, block_class
                self.block_bytes -= live_bytes

    def take_back(self, damaged: dict[bytes, BlockClass]) -> None:
        """Mark blocks of packs that were given up, for the home cannot give them anew; takes them out."""
        for pack in self._given_up if damaged else ():
            for number, row in enumerate(pack.rows()):
                block_class = damaged.pop(row.multihash, None)
                if block_class is not None:
                    self._mark(pack, number, block_class)
                    self.blocks += 1
                    self.block_bytes += row.length

    def _mark(self, pack: Pack, number: int, block_class: BlockClass) -> None:
        marks = self._marks.setdefault(pack.name, {})
        bitmap = marks.get(block_class)
        if bitmap is None:
            bitmap = marks[block_class] = bytearray(MAX_BITMAP_BYTES)
        set_bit(bitmap, number)

    def uses(self) -> Iterator[PackUse]:
        """The packs that the home needs, and which blocks of them."""
        for name, marks in self._marks.items():
            yield PackUse(name, {each: bytes(bitmap) for each, bitmap in marks.items()})


def _runs(rows: Iterable[tuple[bytes, BlockRow]]) -> Iterator[dict[bytes, BlockRow]]:
    """The store's rows in ascending runs of bounded length, without what is only cached."""
    run: dict[bytes, BlockRow] = {}
    last = b""
    for multihash, row in rows:
        if row.block_class is BlockClass.CACHE:
            continue
        if multihash < last or len(run) >= RUN_BLOCKS:
            yield run
            run = {}
        run[multihash] = row
        last = multihash
    if run:
        yield run


# --- letting go ---


def prune(folder: BackupFolder, keep: int | None = None) -> Pruned:
    """Delete snapshots but the `keep` newest (None: none), then what no snapshot needs; hold the lock alone.

    Raises DamagedBackup if a snapshot that stays cannot be read: nobody knows what it needs.
    """
    folder.remove_unfinished()
    known = snapshots.names(folder)
    going = known[: max(0, len(known) - keep)] if keep is not None else []
    staying = [snapshots.load(folder, name) for name in known[len(going) :]]
    freed = 0
    for name in going:
        freed += _unlink(snapshots.snapshot_path(folder, name))
    fsync_folder(folder.snapshots)  # before anything they need goes
    needed = {use.pack for snapshot in staying for use in snapshot.uses}
    gone = [name for name in pack_names(folder) if name not in needed]
    for name in gone:
        for kind in ("car", "index"):
            freed += _unlink(folder.packs / f"{name}.{kind}")
    parts = {part.sha256 for snapshot in staying for part in snapshot.records}
    secret = set[str]()
    for snapshot in staying:
        for file in snapshot.files:
            (secret if file.is_secret else parts).update(part.sha256 for part in file.parts)
    for place, wanted in ((folder.parts, parts), (folder.keys, secret)):
        for path in place.iterdir():
            if PART_NAME.fullmatch(path.name) and path.name not in wanted:
                freed += _unlink(path)
    return Pruned(tuple(going), len(gone), freed)


def _unlink(path: Path) -> int:
    try:
        size_bytes = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size_bytes
