"""Building UnixFS folders: one flat node, or a HAMT when that node would be too large (IPIP-499)."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from merkledag import dag_pb, unixfs
from merkledag.block import MAX_BLOCK_BYTES, Block
from merkledag.builder import Link, make_block
from merkledag.cid import CID
from merkledag.errors import LimitExceeded
from merkledag.hamt import Item, bits_of, hash_name, runs, shift_of
from merkledag.hamt import build as build_hamt
from merkledag.profile import ImportProfile
from merkledag.unixfs import Data, Kind, Mtime

MAX_NAME_BYTES = 1_024
FIRST_LOOK = 4_096  # entries of a growing folder when it is first looked whether they make a HAMT

_PACKED = struct.Struct(">QQHH")  # hash, tsize, length of the name, length of the CID; both follow

Sharding = Literal["auto", "always", "never"]
Row = tuple[bytes, CID, int | None]  # an entry: name, CID, byte size of its whole DAG if known


class DirEntry(NamedTuple):
    """One entry of a folder; `tsize` is the byte size of the entry's whole DAG."""

    name: str
    cid: CID
    tsize: int


def build_directory(
    profile: ImportProfile,
    entries: Iterable[DirEntry],
    mode: int | None = None,
    mtime: Mtime | None = None,
    hamt: Sharding = "auto",
) -> tuple[Link, list[Block]]:
    """A folder's root and its blocks, the root last. Entries may come in any order.

    Raises ValueError for repeated names and names that no folder can hold (empty, `.`, `..`, with `/` or
    NUL, over `MAX_NAME_BYTES`), and LimitExceeded if a flat folder was demanded and its block is too large.
    """
    builder = DirectoryBuilder(profile, hamt)
    for entry in entries:
        builder.add(entry)
    return collected(builder.finish(mode, mtime))


class DirectoryBuilder:
    """A folder that grows by entries in any order.

    Entries of what has become a HAMT are held packed, in about 50 bytes and their names, and its blocks are
    made bucket by bucket of the root, so that a folder of millions fits into memory.
    """

    def __init__(self, profile: ImportProfile, hamt: Sharding = "auto") -> None:
        self._profile = profile
        self._hamt: Sharding = hamt
        self._rows: list[Row] = []  # until it is known that this is a HAMT
        self._look_at = FIRST_LOOK if hamt == "auto" else 0
        self._buckets: list[bytearray] = []
        self._shift = shift_of(0, bits_of(profile.hamt_fanout))

    def add(self, entry: DirEntry) -> None:
        """Takes an entry; ValueError for a name that no folder can hold."""
        row = checked_name(entry.name), entry.cid, entry.tsize
        if self._buckets:
            self._pack(*row)
            return
        self._rows.append(row)
        if len(self._rows) == self._look_at:
            self._look()

    def finish(self, mode: int | None = None, mtime: Mtime | None = None) -> Generator[Block, None, Link]:
        """Yields the folder's blocks, the root last, and returns its link; raises as `build_directory`."""
        if self._buckets:
            return (yield from build_hamt(self._profile, self._unpacked(), mode, mtime))
        rows = sorted(self._rows, key=_name)
        self._rows = []
        for (name, _, _), (following, _, _) in pairwise(rows):
            _check_distinct(name, following)
        return (yield from folder_blocks(self._profile, rows, mode, mtime, self._hamt))

    def _look(self) -> None:
        """Packs the entries if they have outgrown a flat folder."""
        self._look_at *= 2
        profile = self._profile
        size = envelope_bytes(profile, None, None) + sum(entry_bytes(profile, *row) for row in self._rows)
        if outgrown(profile, len(self._rows), size):
            self._buckets = [bytearray() for _ in range(profile.hamt_fanout)]
            for row in self._rows:
                self._pack(*row)
            self._rows = []

    def _pack(self, name: bytes, cid: CID, tsize: int | None) -> None:
        hashed = hash_name(name)
        address = bytes(cid)
        packed = self._buckets[hashed >> self._shift]
        packed += _PACKED.pack(hashed, tsize or 0, len(name), len(address))
        packed += name
        packed += address

    def _unpacked(self) -> Iterator[list[Item]]:
        """The entries of one bucket of the root after the other."""
        self._buckets.reverse()
        while self._buckets:
            packed = bytes(self._buckets.pop())
            items, at = [], 0
            while at < len(packed):
                hashed, tsize, name_size, address_size = _PACKED.unpack_from(packed, at)
                middle = at + _PACKED.size + name_size
                name, at_end = packed[at + _PACKED.size : middle], middle + address_size
                items.append(Item(hashed, name, CID.decode(packed[middle:at_end]), tsize))
                at = at_end
            items.sort()
            for before, item in pairwise(items):
                if before.hashed == item.hashed:
                    _check_distinct(before.name, item.name)
            yield items


def _check_distinct(name: bytes, following: bytes) -> None:
    if name == following:
        raise ValueError(f"the name {name.decode(errors='replace')!r} comes twice in one folder")


def collected(steps: Generator[Block, None, Link]) -> tuple[Link, list[Block]]:
    """All blocks at once."""
    blocks: list[Block] = []
    try:
        while True:
            blocks.append(next(steps))
    except StopIteration as stop:
        return stop.value, blocks


def _name(row: Row) -> bytes:
    return row[0]


def checked_name(name: str) -> bytes:
    """A name's bytes; ValueError for names that no folder can hold."""
    raw = dag_pb.name_bytes(name)
    if not raw or raw in (b".", b"..") or b"/" in raw or b"\0" in raw or len(raw) > MAX_NAME_BYTES:
        raise ValueError(f"{name[:80]!r} cannot be a name in a folder")
    return raw


def write_folder(
    profile: ImportProfile, rows: Sequence[Row], mode: int | None = None, mtime: Mtime | None = None
) -> tuple[Link, list[Block]]:
    """As `build_directory`, for names that are sorted, distinct and not checked further."""
    return collected(folder_blocks(profile, rows, mode, mtime))


def folder_blocks(
    profile: ImportProfile,
    rows: Sequence[Row],
    mode: int | None = None,
    mtime: Mtime | None = None,
    hamt: Sharding = "auto",
) -> Generator[Block, None, Link]:
    """As `write_folder`, one block at a time."""
    encoded = None if hamt == "always" else _flat_links(profile, rows, mode, mtime, grows=hamt == "auto")
    if encoded is None:
        items = sorted(Item(hash_name(row[0]), *row) for row in rows)
        return (yield from build_hamt(profile, runs(profile, items), mode, mtime))
    message = unixfs.encode(Data(Kind.DIRECTORY, mode=mode, mtime=mtime))
    size = sum(map(len, encoded)) + len(dag_pb.assemble((), message))
    if size > MAX_BLOCK_BYTES:
        raise LimitExceeded(f"a flat folder of {size} bytes; at most {MAX_BLOCK_BYTES}, use a HAMT")
    block = make_block(profile, dag_pb.assemble(encoded, message))
    yield block
    return Link(block.cid, 0, size + sum(tsize or 0 for _, _, tsize in rows))


def _flat_links(
    profile: ImportProfile, rows: Sequence[Row], mode: int | None, mtime: Mtime | None, *, grows: bool
) -> list[bytes] | None:
    """The encoded links of a flat folder. None if it `grows` into a HAMT, found out as early as possible."""
    size = envelope_bytes(profile, mode, mtime)
    if grows and outgrown(profile, len(rows), size):
        return None
    by_links = profile.hamt_estimate == "links"
    encoded: list[bytes] = []
    for name, cid, tsize in rows:
        link = dag_pb.encode_link(cid, name, tsize)
        encoded.append(link)
        size += len(name) + len(bytes(cid)) if by_links else len(link)
        if grows and size > profile.hamt_threshold_bytes and outgrown(profile, len(rows), size):
            return None
    return encoded


def entry_bytes(profile: ImportProfile, name: bytes, cid: CID, tsize: int | None) -> int:
    """What an entry adds to the size that is compared with the threshold."""
    if profile.hamt_estimate == "links":
        return len(name) + len(bytes(cid))
    return len(dag_pb.encode_link(cid, name, tsize))


def envelope_bytes(profile: ImportProfile, mode: int | None, mtime: Mtime | None) -> int:
    """That size of a folder without entries."""
    if profile.hamt_estimate == "links":
        return 0
    return len(dag_pb.assemble((), unixfs.encode(Data(Kind.DIRECTORY, mode=mode, mtime=mtime))))


def outgrown(profile: ImportProfile, count: int, estimate_bytes: int) -> bool:
    """Whether a folder of `count` entries and that estimated size is a HAMT; an empty one never is."""
    if not profile.hamt_threshold_bytes or not count:
        return False
    limit = profile.max_directory_links
    return estimate_bytes > profile.hamt_threshold_bytes or (limit is not None and count > limit)
