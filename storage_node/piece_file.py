"""The file in which a node keeps one held piece's rows and tree, so that proving never rehashes the piece.

Layout, all integers big-endian: magic, u32 length and canonical DAG-CBOR header (it names the kind of proof;
files of before there were kinds do not, and are merkle's), then for the metadata part
and the data part each the rows (u8 multihash length, multihash padded to the header's width, u32 leaves,
32-byte root) and the levels of its sum tree as ``proofs.commitment.PieceTree`` keeps them. The file is
written once, under a temporary name, and mapped for reading, so a node's memory does not grow with what it
holds.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.errors import MerkledagError
from proofs.commitment import HASH_BYTES, MAX_MULTIHASH_BYTES, NODE_BYTES, PieceRow, PieceTree
from proofs.kinds import ProofKind
from storage_node.errors import CorruptStore

MAGIC = b"HFPIECE1"
MAX_HEADER_BYTES = 4_096
_LENGTH = struct.Struct(">I")


class Rows(Sequence[PieceRow]):
    """The rows of one part, read from the file as they are asked for."""

    def __init__(self, data: memoryview, count: int, width: int) -> None:
        self._data = data
        self._count = count
        self._width = width
        self._size = 1 + width + 4 + HASH_BYTES

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
        at = index * self._size
        length = self._data[at]
        multihash = bytes(self._data[at + 1 : at + 1 + length])
        at += 1 + self._width
        leaves = int.from_bytes(self._data[at : at + 4], "big")
        return PieceRow(multihash, leaves, bytes(self._data[at + 4 : at + 4 + HASH_BYTES]))

    def __iter__(self) -> Iterator[PieceRow]:
        return (self[index] for index in range(self._count))


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

    def multihashes(self) -> Iterator[bytes]:
        """Every block of the piece."""
        for tree in (self.meta, self.data):
            for row in tree.rows:
                yield row.multihash


def file_name(deal: CID, shard: int) -> str:
    """The name of a piece's file inside the folder of pieces."""
    return f"{deal}-{shard}.piece"


def save(folder: Path, piece: PieceFile) -> Path:
    """Write a piece durably, replacing an older file of the same shard. Raises OSError."""
    width = max((len(row.multihash) for tree in (piece.meta, piece.data) for row in tree.rows), default=0)
    header = dag_cbor.encode(
        {
            "deal": piece.deal,
            "shard": piece.shard,
            "content": piece.content,
            "manifest": piece.manifest,
            "proof": piece.proof.value,
            "width": width,
            "meta": len(piece.meta.rows),
            "data": len(piece.data.rows),
        }
    )
    path = folder / file_name(piece.deal, piece.shard)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as out:
        out.write(MAGIC + _LENGTH.pack(len(header)) + header)
        for tree in (piece.meta, piece.data):
            for row in tree.rows:
                out.write(bytes([len(row.multihash)]) + row.multihash.ljust(width, b"\0"))
                out.write(row.leaves.to_bytes(4, "big") + row.root)
            for level in tree.levels:
                out.write(level)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path


def load(path: Path) -> PieceFile:
    """Map a piece's file. Raises CorruptStore for a damaged one, OSError."""
    with path.open("rb") as source:
        if path.stat().st_size < len(MAGIC) + 4:
            raise CorruptStore(f"{path} is damaged: it is too short")
        view = memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return _parse(view)
    except (MerkledagError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptStore(f"{path} is damaged: {error}") from error


def blocks_of_pieces(folder: Path) -> Iterator[bytes]:
    """The multihashes of every piece in a folder, whether its node runs or not.

    Raises CorruptStore for a damaged one: nobody knows what it needs.
    """
    for path in sorted(folder.glob("*.piece")):
        try:
            yield from load(path).multihashes()
        except FileNotFoundError:
            continue  # its node has just let go of it
        except (CorruptStore, OSError) as error:
            raise CorruptStore(f"{error}; nothing may be deleted, as nobody knows what it needs") from error


def _parse(view: memoryview) -> PieceFile:
    at = len(MAGIC)
    if view[:at] != MAGIC:
        raise ValueError("not a piece file")
    (length,) = _LENGTH.unpack_from(view, at)
    at += _LENGTH.size
    if length > MAX_HEADER_BYTES:
        raise ValueError("the header is too long")
    header = dag_cbor.decode(bytes(view[at : at + length]))
    at += length
    width = header["width"]
    if not 0 <= width <= MAX_MULTIHASH_BYTES:
        raise ValueError("the multihash width is impossible")
    kind = ProofKind(header.get("proof", ProofKind.MERKLE))
    trees: list[PieceTree] = []
    for part in ("meta", "data"):
        count = header[part]
        size = count * (1 + width + 4 + HASH_BYTES)
        rows = Rows(view[at : at + size], count, width)
        at += size
        levels: list[memoryview] = []
        for nodes in _level_widths(count):
            levels.append(view[at : at + nodes * NODE_BYTES])
            at += nodes * NODE_BYTES
        trees.append(PieceTree(rows, levels, kind))
    if at != len(view):
        raise ValueError(f"{len(view)} bytes where {at} belong")
    return PieceFile(
        header["deal"], header["shard"], header["content"], header["manifest"], trees[0], trees[1]
    )


def _level_widths(count: int) -> list[int]:
    """Nodes on each level of a piece's tree over ``count`` rows, as `PieceTree` lays them out."""
    widths = [count]
    while widths[-1] > 1:
        widths.append((widths[-1] + 1) // 2)
    return widths
