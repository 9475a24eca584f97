"""Writing packs: one is filled while a thread brings the last to the disk, reads it back and hashes it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from types import TracebackType

from merkledag.errors import MerkledagError, UnsupportedHash
from merkledag.multihash import verify
from storage_node.backup_folder import UNFINISHED, BackupFolder, write_new, writing
from storage_node.backup_pack import (
    MAX_BITMAP_BYTES,
    PACK_BLOCKS,
    PACK_BYTES,
    Pack,
    Row,
    encode_index,
    pack_header,
    read_window,
    section_head,
    set_bit,
    windows,
)
from storage_node.backup_snapshot import PackUse
from storage_node.blockstore.disk import fsync_folder
from storage_node.blockstore.interface import BlockClass, Blockstore, Buffer
from storage_node.errors import DamagedBackup, DamagedBlock

COLLECT_BYTES = 1024 * 1024  # small blocks are written together
LARGE_BLOCK_BYTES = 64 * 1024


class PackWriter:
    """Copies blocks of a store into new packs. A context manager: leaving it waits for the thread.

    `add` blocks, then `finish`. A pack counts once its archive has its name, which is the last step.
    """

    def __init__(self, store: Blockstore, folder: BackupFolder, pack_bytes: int = PACK_BYTES) -> None:
        self._store = store
        self._folder = folder
        self._pack_bytes = pack_bytes
        self._open: _Open | None = None
        self._number = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="backup")
        self._ending: Future[None] | None = None
        self.uses: list[PackUse] = []
        self.damaged: dict[bytes, BlockClass] = {}  # blocks that are damaged in the store
        self.blocks = 0
        self.block_bytes = 0

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if self._open is not None:
            self._open.discard()

    def add(self, multihash: bytes, block_class: BlockClass) -> None:
        """Copy a block; one that has gone meanwhile is passed over. Raises StoreFull, DamagedBackup."""
        self._copy(multihash, block_class)
        if self._open is not None and self._open.is_full(self._pack_bytes):
            self._end_pack()

    def finish(self) -> None:
        """Complete the last pack."""
        if self._open is not None and self._open.rows:
            self._end_pack()
        if self._ending is not None:
            self._ending.result()

    def _copy(self, multihash: bytes, block_class: BlockClass) -> None:
        try:
            view = self._store.find(multihash)
        except DamagedBlock:
            self.damaged[multihash] = block_class
            return
        if view is None:
            return
        with view as block:
            if self._open is None:
                self._number += 1
                self._open = _Open(self._folder, self._number)
            self._open.append(multihash, block, block_class)

    def _end_pack(self) -> None:
        done, self._open = self._open, None
        if self._ending is not None:
            self._ending.result()
        if done is not None:
            self._ending = self._thread.submit(self._complete, done)

    def _complete(self, done: _Open) -> None:
        """In the thread: durable, read back, hashed, named. Without the blocks that the store has damaged."""
        try:
            pack, bad = done.check()
            if not bad:
                done.give_name()
                self.uses.append(PackUse(pack.name, done.bitmaps(pack)))
                self.blocks += len(done.rows)
                self.block_bytes += sum(row.length for row in done.rows)
                return
        except BaseException:
            done.discard()
            raise
        done.discard()
        self._require_damaged_here(bad)
        self.damaged |= {multihash: done.classes[multihash] for multihash in bad}
        left_out = set(bad)
        again = _Open(self._folder, f"{done.number}-again")
        try:
            for row in done.rows:
                view = self._store.find(row.multihash) if row.multihash not in left_out else None
                if view is not None:
                    with view as block:
                        again.append(row.multihash, block, done.classes[row.multihash])
        except BaseException:
            again.discard()
            raise
        if again.rows:
            self._complete(again)
        else:
            again.discard()

    def _require_damaged_here(self, multihashes: Iterable[bytes]) -> None:
        """Raise DamagedBackup if the store's own bytes are good: then the backup's disk changed them."""
        for multihash in multihashes:
            try:
                view = self._store.find(multihash)
                if view is None:
                    continue
                with view as block:
                    good = verify(multihash, block)
            except (DamagedBlock, UnsupportedHash):
                continue
            except MerkledagError:
                good = False
            if good:
                raise DamagedBackup(
                    f"{self._folder.packs}: the disk gives back other bytes than were written to it; "
                    "use another disk"
                )


class _Open:
    """A pack that is being written."""

    def __init__(self, folder: BackupFolder, number: int | str) -> None:
        self._folder = folder
        self.number = number
        self._path = folder.packs / f"{number}{UNFINISHED}"
        with writing(folder.packs):
            self._handle = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        self._size = 0
        self._collected = bytearray()
        self._index = b""
        self.rows: list[Row] = []
        self.classes: dict[bytes, BlockClass] = {}

    def is_full(self, pack_bytes: int) -> bool:
        return self._size >= pack_bytes or len(self.rows) >= PACK_BLOCKS

    def append(self, multihash: bytes, block: Buffer, block_class: BlockClass) -> None:
        if not self.rows:
            self._write(pack_header(multihash))
        length = len(block)
        self.rows.append(Row(multihash, self._size, length))
        self.classes[multihash] = block_class
        self._write(section_head(multihash, length))
        self._write(block)

    def _write(self, data: Buffer) -> None:
        self._size += len(data)
        if len(data) < LARGE_BLOCK_BYTES:
            self._collected += data
            if len(self._collected) >= COLLECT_BYTES:
                self._flush()
            return
        self._flush()
        self._out(data)

    def _flush(self) -> None:
        if self._collected:
            collected, self._collected = self._collected, bytearray()
            self._out(collected)

    def _out(self, data: Buffer | bytearray) -> None:
        rest = memoryview(data)
        with writing(self._folder.packs):
            while rest:
                rest = rest[os.write(self._handle, rest) :]

    def check(self) -> tuple[Pack, list[bytes]]:
        """Bring it to the disk and read it back from there; returns the blocks that do not match."""
        self._flush()
        with writing(self._folder.packs):
            os.fsync(self._handle)
        if hasattr(os, "posix_fadvise"):  # so that what is read back comes from the disk where it can
            os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_DONTNEED)
        self._index = encode_index(self.rows, self._size)
        name = sha256(self._index).hexdigest()
        write_new(self._folder.packs / f"{name}.index", [self._index])
        pack = Pack(self._folder, name)
        bad = [
            multihash
            for window in windows(pack)
            for _, multihash, block in read_window(self._handle, window)
            if block is None
        ]
        if bad:
            pack.index_path.unlink()
        return pack, bad

    def give_name(self) -> None:
        self._close()
        self._path.replace(self._folder.packs / f"{sha256(self._index).hexdigest()}.car")
        fsync_folder(self._folder.packs)

    def bitmaps(self, pack: Pack) -> dict[BlockClass, bytes]:
        marks: dict[BlockClass, bytearray] = {}
        for number, row in enumerate(pack.rows()):
            bitmap = marks.setdefault(self.classes[row.multihash], bytearray(MAX_BITMAP_BYTES))
            set_bit(bitmap, number)
        return {each: bytes(bitmap) for each, bitmap in marks.items()}

    def discard(self) -> None:
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            os.close(handle)
