"""Commitments to blocks and to pieces: Merkle trees over 1 KiB leaves, Merkle-sum trees over blocks.

A block's tree depends on the block's bytes alone, so a block that is in many deals is hashed once. A piece is
an ordered list of blocks. Formulas: docs/proofs.md, "Commitments".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from merkledag.block import MAX_BLOCK_BYTES
from merkledag.multihash import Buffer
from proofs import tags
from proofs.errors import SumOverflow
from proofs.kinds import ProofKind

LEAF_BYTES = ProofKind.MERKLE.rules.unit_bytes
SUBTREE_LEAVES = 128
SUBTREE_BYTES = LEAF_BYTES * SUBTREE_LEAVES
HASH_BYTES = 32
MAX_BLOCK_LEAVES = ProofKind.MERKLE.rules.max_units
MAX_SUM = 2**63 - 1
MAX_MULTIHASH_BYTES = 139  # two varints and the longest digest that merkledag reads
NODE_BYTES = 8 + HASH_BYTES  # a SumNode as stored: u64be sum, hash
SumStep = tuple[int, int, bytes, bool]  # sums of left and right, the sibling, whether it is the left one

_sha256 = hashlib.sha256
# Where many hashes start alike, a copy of the hash so far takes less than joining its start and the rest.
_new_inner = _sha256(tags.INNER).copy
_NODE = struct.Struct(">Q32s")
_SUM_PREIMAGE = struct.Struct(">sQ32sQ32s")


@dataclass(frozen=True, slots=True)
class BlockCommitment:
    """One block's commitment; `subtrees` is the concatenated roots of its 128 KiB subtrees, 32 bytes each."""

    root: bytes
    length: int
    leaves: int
    subtrees: bytes


class PieceRow(NamedTuple):
    """One block of a piece as the piece's tree sees it: `leaves` is its number of units (`proofs.kinds`)."""

    multihash: bytes
    leaves: int
    root: bytes


class SumNode(NamedTuple):
    """A node of a Merkle-sum tree: its hash (32 bytes) and the leaves below it."""

    hash: bytes
    sum: int


EMPTY = SumNode(bytes(HASH_BYTES), 0)


def leaf_count(length_bytes: int) -> int:
    """1 KiB leaves of a block of this length; an empty block has one, empty, leaf."""
    return ProofKind.MERKLE.unit_count(length_bytes)


def split_point(count: int) -> int:
    """Leaves in the left part of a tree of `count` ≥ 2: the largest power of two below it (RFC 6962 §2.1)."""
    return 1 << (count - 1).bit_length() - 1


@cache
def _leaf_starts() -> list[hashlib._Hash]:
    """By its index, a leaf's hash as it is before the leaf's bytes."""
    return [_sha256(tags.LEAF + index.to_bytes(4, "big")) for index in range(MAX_BLOCK_LEAVES)]


def unit_hash(kind: ProofKind, index: int, shown: Buffer) -> bytes:
    """The hash of unit `index` of a block of this kind, from what a proof shows of it."""
    return _sha256(kind.rules.leaf_tag + index.to_bytes(4, "big") + shown).digest()


def leaf_hashes(data: Buffer, first: int) -> list[bytes]:
    """The hashes of consecutive leaves from leaf `first` on; `data` holds at least one, maybe empty."""
    starts = _leaf_starts()
    count = leaf_count(len(data))
    if first + count > len(starts):
        raise ValueError(f"leaf {len(starts)} and beyond; a block has at most {MAX_BLOCK_BYTES} bytes")
    view = memoryview(data)
    hashes = []
    for start, offset in zip(
        starts[first : first + count], range(0, count * LEAF_BYTES, LEAF_BYTES), strict=True
    ):
        leaf = start.copy()
        leaf.update(view[offset : offset + LEAF_BYTES])
        hashes.append(leaf.digest())
    return hashes


def inner_hash(left: bytes, right: bytes) -> bytes:
    """A node inside a block's tree."""
    return _sha256(tags.INNER + left + right).digest()


def path_levels(index: int, count: int) -> int:
    """How many hashes stand beside the path from unit `index` to the top of a block's tree over `count`.

    The path leaves the tree's right edge where `index` and the last unit's number first differ. Below, each
    level has a sibling; along the edge only those where the path is the right child, each a 1 in `index`.
    """
    below = (index ^ (count - 1)).bit_length()
    return below + (index >> below).bit_count()


def path_top(node: bytes, index: int, count: int, beside: bytes) -> bytes:
    """The top of a block's tree over `count` units from the hash of unit `index` and those beside its path.

    `beside` are `path_levels` hashes of 32 bytes, the highest first; missing bytes give another top.
    """
    sha256, tag = _sha256, tags.INNER
    below = (index ^ (count - 1)).bit_length()
    end = len(beside)
    for level in range(below):
        sibling = beside[end - HASH_BYTES : end]
        end -= HASH_BYTES
        node = sha256(tag + sibling + node if index >> level & 1 else tag + node + sibling).digest()
    while end > 0:
        node = sha256(tag + beside[end - HASH_BYTES : end] + node).digest()
        end -= HASH_BYTES
    return node


def fold_level(nodes: list[bytes]) -> list[bytes]:
    """One level up in a block's tree: neighbours are joined and an odd last node rises as it is.

    Repeated to the top this is the tree of RFC 6962.
    """
    above = []
    for left, right in zip(nodes[::2], nodes[1::2], strict=False):
        node = _new_inner()
        node.update(left + right)
        above.append(node.digest())
    if len(nodes) % 2:
        above.append(nodes[-1])
    return above


def fold(nodes: list[bytes]) -> bytes:
    """The top of the tree over `nodes` (at least one)."""
    while len(nodes) > 1:
        nodes = fold_level(nodes)
    return nodes[0]


def proof_root(length_bytes: int, top: bytes, kind: ProofKind = ProofKind.MERKLE) -> bytes:
    """A block's proof root, from its length and the top of its tree."""
    return _sha256(kind.rules.root_tag + length_bytes.to_bytes(4, "big") + top).digest()


def commit_block(data: Buffer) -> BlockCommitment:
    """The commitment of a block's bytes; raises ValueError over `MAX_BLOCK_BYTES`."""
    length = len(data)
    if length > MAX_BLOCK_BYTES:
        raise ValueError(f"a block of {length} bytes; at most {MAX_BLOCK_BYTES}")
    leaves = leaf_hashes(data, 0)
    roots = [fold(leaves[start : start + SUBTREE_LEAVES]) for start in range(0, len(leaves), SUBTREE_LEAVES)]
    return BlockCommitment(proof_root(length, fold(roots)), length, len(leaves), b"".join(roots))


def piece_leaf(row: PieceRow, kind: ProofKind = ProofKind.MERKLE) -> SumNode:
    """The leaf of a piece's tree that stands for one block."""
    header = row.leaves.to_bytes(4, "big")
    return SumNode(_sha256(kind.rules.row_tag + row.multihash + header + row.root).digest(), row.leaves)


def sum_node(left: SumNode, right: SumNode) -> SumNode:
    """The parent of two nodes of a piece's or a dataset's tree; raises SumOverflow above 2⁶³ − 1."""
    total = left.sum + right.sum
    if total > MAX_SUM:
        raise SumOverflow(f"{total} leaves in one tree; at most {MAX_SUM}")
    return SumNode(sum_hash(left.sum, left.hash, right.sum, right.hash), total)


def sum_hash(left_sum: int, left: bytes, right_sum: int, right: bytes) -> bytes:
    """The hash alone of the parent of two nodes, whose sums the caller has bounded."""
    return _sha256(_SUM_PREIMAGE.pack(tags.SUM_NODE, left_sum, left, right_sum, right)).digest()


def sum_path(node: bytes, steps: Sequence[SumStep]) -> bytes:
    """The hash of the node of a sum tree that is `steps` above `node`; the last step is the lowest."""
    sha256, pack, tag = _sha256, _SUM_PREIMAGE.pack, tags.SUM_NODE
    for left_sum, right_sum, beside, is_left in reversed(steps):
        if is_left:
            node = sha256(pack(tag, left_sum, beside, right_sum, node)).digest()
        else:
            node = sha256(pack(tag, left_sum, node, right_sum, beside)).digest()
    return node


def top_level(rows: int) -> int:
    """The level of the root of a piece of so many rows."""
    return max(0, rows - 1).bit_length()


def width_at(rows: int, level: int) -> int:
    """The nodes on a level of the tree over so many rows."""
    return -(-rows >> level)


class PieceTree:
    """The Merkle-sum tree over the rows of one piece; immutable.

    `levels[l]` holds the nodes of level l (0 = rows) as 40-byte entries, u64be sum ‖ hash. A node may keep
    `levels` on disk and hand them back, which spares all hashing; without the lowest ones, if it likes: what
    is asked for of them is made from the rows. They are its own notes, so they are not checked here (a proof
    made from wrong ones does not verify). `rows` may be any sequence, also a lazy one.
    """

    __slots__ = ("_low", "kind", "levels", "rows")

    rows: Sequence[PieceRow]
    levels: tuple[Buffer, ...]
    kind: ProofKind

    def __init__(
        self,
        rows: Sequence[PieceRow],
        levels: Iterable[Buffer] | None = None,
        kind: ProofKind = ProofKind.MERKLE,
    ) -> None:
        """Raises SumOverflow, and ValueError for a row that no block can have or levels of other rows."""
        self.rows = rows
        self.kind = kind
        self.levels = tuple(levels) if levels is not None else _levels(rows, kind)
        self._low = top_level(len(rows)) + 1 - len(self.levels)
        if self._low < 0 or not self.levels:
            raise ValueError("the stored levels do not reach from these rows to a root")
        for level, nodes in enumerate(self.levels, self._low):
            if len(nodes) != self.width(level) * NODE_BYTES:
                raise ValueError("the stored levels do not belong to these rows")

    @property
    def root(self) -> SumNode:
        """The piece's commitment; `EMPTY` for a piece without rows."""
        return self.node(self.top, 0) if len(self.rows) else EMPTY

    @property
    def top(self) -> int:
        """The level of the root."""
        return self._low + len(self.levels) - 1

    def node(self, level: int, index: int) -> SumNode:
        """The node at `level`, `index` from the left; an odd last node is on each level it rises through."""
        if level >= self._low:
            total, digest = _NODE.unpack_from(self.levels[level - self._low], index * NODE_BYTES)
            return SumNode(digest, total)
        if level == 0:
            return piece_leaf(self.rows[index], self.kind)
        left = self.node(level - 1, 2 * index)
        if 2 * index + 1 == self.width(level - 1):
            return left
        return sum_node(left, self.node(level - 1, 2 * index + 1))

    def width(self, level: int) -> int:
        """The number of nodes on `level`."""
        return width_at(len(self.rows), level)

    def path(self, row: int) -> list[SumNode]:
        """The siblings from row to root, lowest first; levels on which the node rises alone have none."""
        siblings = []
        for level in range(self.top):
            sibling = (row >> level) ^ 1
            if sibling < self.width(level):
                siblings.append(self.node(level, sibling))
        return siblings


def _levels(rows: Sequence[PieceRow], kind: ProofKind) -> tuple[bytes, ...]:
    nodes = []
    most = kind.rules.max_units
    for row in rows:
        if not 1 <= row.leaves <= most or len(row.root) != HASH_BYTES:
            raise ValueError(f"not a row of a piece: {row.leaves} leaves, root of {len(row.root)} bytes")
        if not 0 < len(row.multihash) <= MAX_MULTIHASH_BYTES:
            raise ValueError(f"a multihash of {len(row.multihash)} bytes")
        nodes.append(piece_leaf(row, kind))
    levels = [_pack(nodes)]
    while len(nodes) > 1:
        above = [sum_node(left, right) for left, right in zip(nodes[::2], nodes[1::2], strict=False)]
        if len(nodes) % 2:
            above.append(nodes[-1])
        nodes = above
        levels.append(_pack(nodes))
    return tuple(levels)


def _pack(nodes: list[SumNode]) -> bytes:
    return b"".join([_NODE.pack(node.sum, node.hash) for node in nodes])
