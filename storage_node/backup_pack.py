"""Packs: the blocks of a backup in CARv1 archives that never change, each with a sorted index beside it.

A pack's name is the SHA-256 of its index. The index binds every block by its multihash, its place and its
length, so the name, the index and the blocks' own hashes check every byte of the archive.

Index, integers big-endian: magic, u8 width, u32 rows, u64 bytes of the archive; rows by ascending multihash:
multihash (padded to the width with zeros), u64 offset of its section, u32 length of the block.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from merkledag import car, varint
from merkledag import multihash as mh
from merkledag.block import MAX_BLOCK_BYTES
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.errors import MerkledagError, UnsupportedHash
from storage_node.backup_folder import BackupFolder
from storage_node.blockstore.interface import MAX_MULTIHASH_BYTES, Buffer
from storage_node.errors import DamagedBackup

PACK_BYTES = 128 * 1024 * 1024
PACK_BLOCKS = 1 << 16
MAX_BITMAP_BYTES = PACK_BLOCKS // 8
WINDOW_BYTES = 4 * 1024 * 1024  # read and hashed at once

MAGIC = b"HFPACK1\n"
_HEAD = struct.Struct(">8sBIQ")
_PLACE = struct.Struct(">QI")
_RAW_CID = bytes((1, RAW))  # what a CIDv1 of codec raw puts before its multihash
_SECTION_HEAD_BYTES = varint.MAX_VARINT_BYTES + len(_RAW_CID) + MAX_MULTIHASH_BYTES
_READ_BYTES = 1024 * 1024
_SHA2_256 = bytes((mh.SHA2_256, 32))


def is_set(bitmap: bytes | bytearray, number: int) -> bool:
    """Whether a bitmap over the rows of a pack marks this one."""
    return bool(bitmap[number >> 3] >> (number & 7) & 1)


def set_bit(bitmap: bytearray, number: int) -> None:
    """Mark a row."""
    bitmap[number >> 3] |= 1 << (number & 7)


class Row(NamedTuple):
    """Where a block is in its pack: `offset` is that of its section, `length` that of the block alone."""

    multihash: bytes
    offset: int
    length: int


@lru_cache(maxsize=1 << 12)
def _prefix(after: int) -> bytes:
    """What stands before a multihash in a CAR, if so many bytes come from there on."""
    return varint.encode(len(_RAW_CID) + after) + _RAW_CID


def section_head(multihash: bytes, length: int) -> bytes:
    """What stands before the bytes of a block in a CAR: the section's length and the raw CID."""
    return _prefix(len(multihash) + length) + multihash


def pack_header(first: bytes) -> bytes:
    """The beginning of a pack. CARv1 asks for a root: it is the first block."""
    return car.header([CID(1, RAW, first)])


def encode_index(rows: list[Row], pack_bytes: int) -> bytes:
    """The index file of a pack with these rows, in any order."""
    width = max(len(row.multihash) for row in rows)
    out = bytearray(_HEAD.pack(MAGIC, width, len(rows), pack_bytes))
    for row in sorted(rows):
        out += row.multihash.ljust(width, b"\0") + _PLACE.pack(row.offset, row.length)
    return bytes(out)


class Pack:
    """A pack whose index is whole. Rows have numbers: their places in the index."""

    def __init__(self, folder: BackupFolder, name: str) -> None:
        """Raises DamagedBackup naming the file if there is no usable index and none can be made."""
        self.name = name
        self.path = folder.packs / f"{name}.car"
        self.index_path = folder.packs / f"{name}.index"
        self._rebuilt: bytes | None = None
        try:
            with self.index_path.open("rb") as file:
                head = file.read(_HEAD.size)
                digest = hashlib.sha256(head)
                while piece := file.read(_READ_BYTES):
                    digest.update(piece)
            whole = digest.hexdigest() == name
        except OSError:
            whole = False
        if not whole:
            self._rebuilt = self._rebuild()
            head = self._rebuilt[: _HEAD.size]
        if len(head) != _HEAD.size or head[: len(MAGIC)] != MAGIC:
            raise DamagedBackup(f"{self.index_path} is no index of a pack")
        self._width: int
        self.count: int
        self.pack_bytes: int
        _, self._width, self.count, self.pack_bytes = _HEAD.unpack(head)
        self._row = struct.Struct(f">{self._width}sQI")  # no padding: as long as its parts
        if not 0 < self._width <= MAX_MULTIHASH_BYTES or not 0 < self.count <= PACK_BLOCKS:
            raise DamagedBackup(f"{self.index_path} is no index of a pack")

    def is_there(self) -> bool:
        """Whether the archive itself has its full length; its bytes may be damaged."""
        try:
            return self.path.stat().st_size == self.pack_bytes
        except OSError:
            return False

    def rows(self, first: int = 0, end: int | None = None) -> Iterator[Row]:
        """Rows `first` to `end` by number."""
        end = self.count if end is None else end
        data = self._read(_HEAD.size + first * self._row.size, (end - first) * self._row.size)
        for padded, offset, length in self._row.iter_unpack(data):
            yield Row(_unpadded(padded), offset, length)

    def between(self, first: bytes, last: bytes) -> Iterator[tuple[int, Row]]:
        """Numbers and rows of the multihashes from `first` to `last`, both included."""
        begin, end = self._bisect(first, after=False), self._bisect(last, after=True)
        yield from enumerate(self.rows(begin, end), begin)

    def _bisect(self, multihash: bytes, *, after: bool) -> int:
        """The number of the first row not before (or behind) a multihash."""
        wanted = multihash.ljust(self._width, b"\0")
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            here = self._read(_HEAD.size + middle * self._row.size, self._width)
            if here < wanted or (after and here == wanted):
                low = middle + 1
            else:
                high = middle
        return low

    def _read(self, offset: int, length: int) -> bytes:
        if self._rebuilt is not None:
            return self._rebuilt[offset : offset + length]
        with self.index_path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), length, offset)
        if len(data) != length:
            raise DamagedBackup(f"{self.index_path} changed while it was read")
        return data

    def _rebuild(self) -> bytes:
        """The index out of the archive, which proves to be the right one by the pack's name."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise DamagedBackup(f"{self.index_path} is damaged or missing, and so is the pack") from None
        try:
            index = _index_of(handle)
        except (MerkledagError, ValueError, IndexError):
            index = b""
        finally:
            os.close(handle)
        if hashlib.sha256(index).hexdigest() != self.name:
            raise DamagedBackup(f"{self.path} is damaged, or its index {self.index_path.name} is") from None
        return index


def pack_names(folder: BackupFolder) -> list[str]:
    """The names of all packs, also of those that lack their archive or their index."""
    return sorted({path.stem for kind in ("*.car", "*.index") for path in folder.packs.glob(kind)})


def _unpadded(padded: bytes) -> bytes:
    """A multihash without the zeros behind it: it says its own length."""
    if padded[:2] == _SHA2_256:
        return padded[:34]
    try:
        return padded[: mh.read(padded)[2]]
    except MerkledagError:
        raise DamagedBackup("a pack names a block by something that is no multihash") from None


def _index_of(handle: int) -> bytes:
    """Read an archive's sections, without the blocks, and make its index."""
    end = os.fstat(handle).st_size
    length, at = varint.decode(os.pread(handle, _SECTION_HEAD_BYTES, 0))
    at += length
    rows: list[Row] = []
    while at < end and len(rows) <= PACK_BLOCKS:
        head = os.pread(handle, _SECTION_HEAD_BYTES, at)
        length, start = varint.decode(head)
        _, _, cid_end = mh.read(head, start + len(_RAW_CID))
        multihash = head[start + len(_RAW_CID) : cid_end]
        rows.append(Row(multihash, at, length - (cid_end - start)))
        at += start + length
    return encode_index(rows, end)


class Window(NamedTuple):
    """Neighbouring sections of a pack, as numbered rows by ascending offset."""

    start: int
    end: int
    rows: list[tuple[int, Row]]


def windows(pack: Pack, wanted: bytes | None = None) -> Iterator[Window]:
    """The sections of a pack in stretches of about WINDOW_BYTES; with a bitmap, only those it marks."""
    rows = list(enumerate(pack.rows()))
    if wanted is not None:
        rows = [each for each in rows if is_set(wanted, each[0])]
    rows.sort(key=lambda each: each[1].offset)
    group: list[tuple[int, Row]] = []
    start = end = 0
    for numbered in rows:
        row = numbered[1]
        if group and (row.offset != end or end - start >= WINDOW_BYTES):
            yield Window(start, end, group)
            group = []
        if not group:
            start = row.offset
        group.append(numbered)
        end = row.offset + len(section_head(row.multihash, row.length)) + row.length
    if group:
        yield Window(start, end, group)


def read_window(handle: int, window: Window) -> Iterator[tuple[int, bytes, memoryview | None]]:
    """Number, multihash and verified bytes of each block of a window; None for the bytes of a damaged one.

    A block whose hash function is unknown counts as good if its section's head is.
    """
    size = min(window.end - window.start, WINDOW_BYTES + _SECTION_HEAD_BYTES + MAX_BLOCK_BYTES)
    try:
        data = memoryview(_pread(handle, size, window.start))
    except OSError:
        data = memoryview(b"")  # a sector that cannot be read: each of its blocks is damaged
    for number, row in window.rows:
        at = row.offset - window.start
        head = section_head(row.multihash, row.length)
        block = data[at + len(head) : at + len(head) + row.length]
        good = (
            len(block) == row.length and data[at : at + len(head)] == head and _matches(row.multihash, block)
        )
        yield number, row.multihash, block if good else None


def _pread(handle: int, size: int, offset: int) -> bytearray | bytes:
    data = os.pread(handle, size, offset)
    if len(data) == size or not data:
        return data
    whole = bytearray(data)
    while len(whole) < size and (data := os.pread(handle, size - len(whole), offset + len(whole))):
        whole += data
    return whole


def _matches(multihash: bytes, block: Buffer) -> bool:
    try:
        return mh.verify(multihash, block)
    except UnsupportedHash:
        return True
    except MerkledagError:
        return False
