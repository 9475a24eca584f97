"""The file in which a node keeps one held piece's rows and tree, so that proving never rehashes the piece.

Layout, all integers big-endian: magic, u32 CRC-32 and u32 length of the canonical DAG-CBOR header that
follows (which names the shard, the roots that the ledger has, and the CRC-32 of all behind it), then for the
metadata part and the data part each the rows (u8 multihash length, multihash padded to the header's width,
u16 leaves, 32-byte root) and the levels of its tree, from `KEPT_FROM_LEVEL` up, as `PieceTree` keeps them.
The file is written once, under a temporary name, and mapped only while something is read, so that a node of
many pieces needs neither memory nor open files for them. One that is damaged is made anew from the blocks.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload
from zlib import crc32

from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.errors import MerkledagError
from merkledag.multihash import Buffer
from proofs.commitment import (
    HASH_BYTES,
    MAX_MULTIHASH_BYTES,
    NODE_BYTES,
    PieceRow,
    PieceTree,
    SumNode,
    top_level,
    width_at,
)
from proofs.kinds import ProofKind
from storage_node.errors import CorruptStore, OtherRelease

MAGIC = b"HFPIECE2"  # the last digit is the version
SUFFIX = ".piece"
MAX_HEADER_BYTES = 4_096
# Nodes of the levels below are made from at most 2 × 7 rows each time that one is asked for, in 0.1 ms; kept,
# they would take 70 bytes a row.
KEPT_FROM_LEVEL = 3
_HEAD = struct.Struct(">8sII")
_UNITS_BYTES = 2


class Rows(Sequence[PieceRow]):
    """The rows of one part, read from the file as they are asked for."""

    def __init__(self, data: memoryview, count: int, width: int) -> None:
        self._data = data
        self._count = count
        self._width = width
        self._size = _row_bytes(width)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> PieceRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PieceRow]: ...
    def __getitem__(self, index: int | slice) -> PieceRow | Sequence[PieceRow]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if index < 0:
            index += self._count
        if not 0 <= index < self._count:
            raise IndexError(index)
        row = bytes(self._data[index * self._size : (index + 1) * self._size])
        at = 1 + self._width
        units = int.from_bytes(row[at : at + _UNITS_BYTES], "big")
        return PieceRow(row[1 : 1 + row[0]], units, row[at + _UNITS_BYTES :])

    def __iter__(self) -> Iterator[PieceRow]:
        return (self[index] for index in range(self._count))

    def multihashes(self) -> Iterator[bytes]:
        """Those of the rows, in order."""
        for at in range(0, self._count * self._size, self._size):
            yield bytes(self._data[at + 1 : at + 1 + self._data[at]])


@dataclass(frozen=True, slots=True)
class PieceHead:
    """What a node has in mind of a held piece: which shard of which deal, and the roots of its two trees.

    A node holds very many, so the path, 0.5 kB, is made when it is asked for.
    """

    folder: Path
    deal: CID
    shard: int
    content: CID
    manifest: CID
    proof: ProofKind
    meta: SumNode
    data: SumNode

    @property
    def path(self) -> Path:
        """The piece's file."""
        return self.folder / file_name(self.deal, self.shard)

    def open(self) -> PieceFile:
        """The whole file, mapped as long as it is used. Raises CorruptStore, OSError."""
        path = self.path
        piece = load(path)
        if (piece.meta.root, piece.data.root, piece.proof) != (self.meta, self.data, self.proof):
            raise CorruptStore(f"{path} is damaged: it has not the roots that it had")
        return piece

    def check(self) -> PieceFile:
        """As `open`, and reads all of it to see whether it is as it was written."""
        return check(self.path)

    def multihashes(self) -> Iterator[bytes]:
        """Every block of the piece. Raises as `open`."""
        yield from self.open().multihashes()

    def may_have(self, multihash: bytes) -> bool:
        """Whether a block's multihash stands in the file; quick. Raises CorruptStore, OSError."""
        path = self.path
        with _damage_named(path), _map(path) as mapped:
            return mapped.find(multihash) >= 0


@dataclass(frozen=True, slots=True)
class PieceFile:
    """One held piece: which shard of which deal it is, and the trees of its two parts."""

    deal: CID
    shard: int
    content: CID
    manifest: CID
    meta: PieceTree
    data: PieceTree

    @property
    def proof(self) -> ProofKind:
        """How it is proven."""
        return self.data.kind

    def rows(self) -> Iterator[PieceRow]:
        """Those of both parts."""
        yield from self.meta.rows
        yield from self.data.rows

    def multihashes(self) -> Iterator[bytes]:
        """Every block of the piece."""
        for tree in (self.meta, self.data):
            rows = tree.rows
            yield from rows.multihashes() if isinstance(rows, Rows) else (row.multihash for row in rows)


def file_name(deal: CID, shard: int) -> str:
    """The name of a piece's file inside the folder of pieces."""
    return f"{deal}-{shard}{SUFFIX}"


def shard_of(name: str) -> tuple[CID, int] | None:
    """Of which deal and shard a file is by its name; None where nothing of ours has such a name."""
    deal, _, shard = name.removesuffix(SUFFIX).rpartition("-")
    try:
        found = CID.parse(deal), int(shard)
    except (MerkledagError, ValueError):
        return None
    return found if file_name(*found) == name else None


def save(folder: Path, piece: PieceFile) -> PieceHead:
    """Write a piece durably, replacing an older file of the same shard. Raises OSError."""
    width = max((len(row.multihash) for tree in (piece.meta, piece.data) for row in tree.rows), default=0)
    header = {
        "deal": piece.deal,
        "shard": piece.shard,
        "content": piece.content,
        "manifest": piece.manifest,
        "proof": piece.proof.value,
        "width": width,
        "meta": [len(piece.meta.rows), piece.meta.root.hash, piece.meta.root.sum],
        "data": [len(piece.data.rows), piece.data.root.hash, piece.data.root.sum],
        "checksum": _checksum(_body(piece, width)),
    }
    encoded = dag_cbor.encode(header)
    path = folder / file_name(piece.deal, piece.shard)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")  # `repo fsck --repair` may write it too
    with temporary.open("wb") as out:
        out.write(_HEAD.pack(MAGIC, crc32(encoded), len(encoded)) + encoded)
        out.writelines(_body(piece, width))
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return _head(folder, header)


def _body(piece: PieceFile, width: int) -> Iterator[Buffer]:
    """What follows the header: rows and levels of both parts."""
    for tree in (piece.meta, piece.data):
        for row in tree.rows:
            named = bytes([len(row.multihash)]) + row.multihash.ljust(width, b"\0")
            yield named + row.leaves.to_bytes(_UNITS_BYTES, "big") + row.root
        yield from tree.levels[-_kept_levels(len(tree.rows)) :]


def _checksum(parts: Iterable[Buffer]) -> int:
    checksum = 0
    for part in parts:
        checksum = crc32(part, checksum)
    return checksum


def load_head(folder: Path, name: str) -> PieceHead:
    """Read what a node has in mind of a piece. Raises CorruptStore for a damaged file, OSError."""
    path = folder / name
    with path.open("rb", buffering=0) as source:
        start = source.read(_HEAD.size + MAX_HEADER_BYTES)
        size_bytes = os.fstat(source.fileno()).st_size
    with _damage_named(path):
        header, at = _header(start)
        end = at + sum(sum(_part_bytes(header[part][0], header["width"])) for part in ("meta", "data"))
        if size_bytes != end:
            raise ValueError(f"{size_bytes} bytes where {end} belong")
        return _head(folder, header)


def read_head(path: Path) -> PieceHead:
    """As `load_head`, whatever is behind the header: for who makes the rest anew."""
    with path.open("rb") as source:
        start = source.read(_HEAD.size + MAX_HEADER_BYTES)
    with _damage_named(path):
        header, _ = _header(start)
        return _head(path.parent, header)


def load(path: Path) -> PieceFile:
    """Map a piece's file. Raises CorruptStore for a damaged one, OSError."""
    with _damage_named(path):
        view = memoryview(_map(path))
        return _parse(view, *_header(view))


def check(path: Path) -> PieceFile:
    """As `load`, and reads all of it to see whether it is as it was written."""
    with _damage_named(path):
        view = memoryview(_map(path))
        header, at = _header(view)
        piece = _parse(view, header, at)
        if crc32(view[at:]) != header["checksum"]:
            raise ValueError("the rows or levels are not those that were written")
        return piece


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OtherRelease as error:
        raise OtherRelease(f"{path} {error}") from None
    except (MerkledagError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CorruptStore(f"{path} is damaged: {error}") from error


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as source:
        if os.fstat(source.fileno()).st_size < _HEAD.size:
            raise ValueError("it is too short")
        return mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)


def names(folder: Path) -> list[str]:
    """The names of the files of all pieces in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(SUFFIX))


def blocks_of_pieces(folder: Path) -> Iterator[bytes]:
    """The multihashes of every piece in a folder, whether its node runs or not.

    Raises CorruptStore for a damaged one: nobody knows what it needs.
    """
    for path in map(folder.joinpath, names(folder)):
        try:
            yield from check(path).multihashes()
        except FileNotFoundError:
            continue  # its node has just let go of it
        except (CorruptStore, OSError) as error:
            raise CorruptStore(f"{error}; nothing may be deleted, as nobody knows what it needs") from error


def _header(start: bytes | memoryview) -> tuple[dict[str, Any], int]:
    """The header, and where the rows begin."""
    if len(start) < _HEAD.size:
        raise ValueError("it is too short")
    magic, checksum, length = _HEAD.unpack_from(start)
    if magic != MAGIC and magic[:-1] == MAGIC[:-1]:
        raise OtherRelease(
            "was written by another release: use that one, or move the file away if its deal is over"
        )
    if magic != MAGIC:
        raise ValueError("not a piece file")
    if length > MAX_HEADER_BYTES:
        raise ValueError("the header is too long")
    encoded = bytes(start[_HEAD.size : _HEAD.size + length])
    if crc32(encoded) != checksum:
        raise ValueError("the header's checksum is another")
    header = dag_cbor.decode(encoded)
    if not isinstance(header, dict) or not 0 <= header["width"] <= MAX_MULTIHASH_BYTES:
        raise ValueError("the header is none")
    return header, _HEAD.size + length


def _head(folder: Path, header: Any) -> PieceHead:
    roots = [SumNode(digest, total) for _, digest, total in (header["meta"], header["data"])]
    proof = ProofKind(header["proof"])
    return PieceHead(
        folder, header["deal"], header["shard"], header["content"], header["manifest"], proof, *roots
    )


def _parse(view: memoryview, header: dict[str, Any], at: int) -> PieceFile:
    """The piece behind a header; its rows begin at `at`."""
    kind = ProofKind(header["proof"])
    trees: list[PieceTree] = []
    for part in ("meta", "data"):
        count = header[part][0]
        rows_bytes, *level_bytes = _part_bytes(count, header["width"])
        rows = Rows(view[at : at + rows_bytes], count, header["width"])
        at += rows_bytes
        levels: list[memoryview] = []
        for size in level_bytes:
            levels.append(view[at : at + size])
            at += size
        trees.append(PieceTree(rows, levels, kind))
    if at != len(view):
        raise ValueError(f"{len(view)} bytes where {at} belong")
    return PieceFile(
        header["deal"], header["shard"], header["content"], header["manifest"], trees[0], trees[1]
    )


def _row_bytes(width: int) -> int:
    return 1 + width + _UNITS_BYTES + HASH_BYTES


def _kept_levels(rows: int) -> int:
    """How many levels of a part's tree are kept: at least the root."""
    return max(1, top_level(rows) + 1 - KEPT_FROM_LEVEL)


def _part_bytes(rows: int, width: int) -> list[int]:
    """The bytes of a part's rows and of each of its kept levels."""
    top = top_level(rows)
    kept = range(top + 1 - _kept_levels(rows), top + 1)
    return [rows * _row_bytes(width), *(width_at(rows, level) * NODE_BYTES for level in kept)]
