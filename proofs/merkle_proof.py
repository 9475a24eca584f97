"""The default proof of a period: the drawn leaves and their Merkle paths, made and checked.

A proof names no position. The verifier draws the leaves itself and finds its way down by the sums it is
shown, which the hashes bind; so each byte of a proof is either forced or hashed. Format: docs/proofs.md,
"Merkle proof".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from merkledag import dag_cbor
from merkledag.block import MAX_BLOCK_BYTES
from merkledag.errors import MerkledagError
from proofs import slot_tree
from proofs.challenge import MAX_DRAWN, meta_seed, sample
from proofs.commitment import (
    HASH_BYTES,
    LEAF_BYTES,
    MAX_MULTIHASH_BYTES,
    MAX_SUM,
    Buffer,
    PieceRow,
    PieceTree,
    SumNode,
    inner_hash,
    leaf_count,
    leaf_hash,
    piece_leaf,
    proof_root,
    split_point,
    sum_hash,
)
from proofs.errors import InvalidProof, ViewMismatch
from proofs.opened_block import OpenedBlock

KIND = "merkle"
VERSION = 1
DEFAULT_CHALLENGES = 30
DEFAULT_META_CHALLENGES = 4
MAX_PIECE_DEPTH = 32
MAX_LEVELS = slot_tree.MAX_DEPTH + MAX_PIECE_DEPTH
# The most one leaf can take: itself, 11 hashes in its block, its row, and a sum and a hash a level above.
MAX_BYTES_PER_LEAF = LEAF_BYTES + 11 * HASH_BYTES + (MAX_MULTIHASH_BYTES + 9) + MAX_LEVELS * (9 + HASH_BYTES)
MAX_PROOF_BYTES = 4 * 1024 * 1024  # two draws of `MAX_DRAWN` leaves fit


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a node must show: `k` leaves of its data tree and `meta_k` of its metadata tree (all, if fewer).

    `data` and `meta` are the roots of the dataset's two slot trees as they stood when the period began, from
    the ledger; `seed` is `challenge.period_seed`. Raises ValueError for values that no ledger has.
    """

    seed: bytes
    data: SumNode
    data_depth: int
    meta: SumNode
    meta_depth: int
    k: int = DEFAULT_CHALLENGES
    meta_k: int = DEFAULT_META_CHALLENGES

    def __post_init__(self) -> None:
        for depth in (self.data_depth, self.meta_depth):
            if not 0 <= depth <= slot_tree.MAX_DEPTH:
                raise ValueError(f"a tree of depth {depth}; at most {slot_tree.MAX_DEPTH}")
        for root in (self.data, self.meta):
            if len(root.hash) != HASH_BYTES or not 0 <= root.sum <= MAX_SUM:
                raise ValueError(f"not the root of a tree: {root}")
        for count in (self.k, self.meta_k):
            if not 0 <= count <= MAX_DRAWN:
                raise ValueError(f"{count} leaves in one draw; at most {MAX_DRAWN}")
        if len(self.seed) != HASH_BYTES:
            raise ValueError(f"a seed of {len(self.seed)} bytes; {HASH_BYTES} are needed")

    def data_leaves(self) -> tuple[int, ...]:
        """The drawn leaves of the data tree, ascending."""
        return sample(self.seed, self.data.sum, self.k)

    def meta_leaves(self) -> tuple[int, ...]:
        """The drawn leaves of the metadata tree, ascending."""
        return sample(meta_seed(self.seed), self.meta.sum, self.meta_k)

    def max_proof_bytes(self) -> int:
        """No proof of this challenge is longer."""
        drawn = min(self.k, self.data.sum) + min(self.meta_k, self.meta.sum)
        return min(MAX_PROOF_BYTES, 128 + drawn * MAX_BYTES_PER_LEAF)


@dataclass(frozen=True, slots=True)
class TreeView:
    """A node's mirror of one slot tree, with the tree of each slot's piece on request (it may be cached)."""

    nodes: slot_tree.NodeStore
    piece: Callable[[int], PieceTree]


@dataclass(frozen=True, slots=True)
class DatasetView:
    """What a node knows of one dataset, as it stood when the period began."""

    data: TreeView
    meta: TreeView


Read = Callable[[bytes, int, int], Buffer]
Subtrees = Callable[[bytes], bytes | None]


def prove(challenge: Challenge, view: DatasetView, read: Read, subtrees: Subtrees) -> bytes:
    """The proof that answers `challenge`.

    `read(multihash, offset, length)` returns a block's bytes from `offset`, fewer than `length` only where
    the block ends; what it raises passes through. `subtrees(multihash)` returns the block's
    `BlockCommitment.subtrees`, or None if they are not kept: then the whole block is read, else only the
    drawn 128 KiB. Raises ViewMismatch if `view` is not what was challenged, DamagedBlock if a block's bytes
    have changed.
    """
    parts = []
    for tree, root, depth, leaves in (
        (view.data, challenge.data, challenge.data_depth, challenge.data_leaves()),
        (view.meta, challenge.meta, challenge.meta_depth, challenge.meta_leaves()),
    ):
        if slot_tree.root(tree.nodes, depth) != root and leaves:
            raise ViewMismatch(
                "the mirrored dataset is not the one challenged; read it from the ledger again"
            )
        parts.append(_Prover(tree, leaves, read, subtrees).part(depth))
    return dag_cbor.encode({"data": parts[0], "kind": KIND, "meta": parts[1], "version": VERSION})


def verify(challenge: Challenge, proof: bytes) -> None:
    """Returns if `proof` answers `challenge`, else raises InvalidProof; never anything else, for any bytes.

    The work is bounded by the challenge: O(k · depth) hashes, and nothing for bytes that are too long.
    """
    if len(proof) > challenge.max_proof_bytes():
        raise InvalidProof(f"a proof of {len(proof)} bytes; at most {challenge.max_proof_bytes()} here")
    try:
        content = dag_cbor.decode(proof)
    except (MerkledagError, RecursionError) as error:
        raise InvalidProof(f"the proof is not canonical DAG-CBOR: {error}") from error
    if not isinstance(content, dict) or content.keys() != {"data", "kind", "meta", "version"}:
        raise InvalidProof("a proof is a map of data, kind, meta and version")
    if content["kind"] != KIND or type(content["version"]) is not int or content["version"] != VERSION:
        raise InvalidProof(f"not a proof of kind {KIND!r}, version {VERSION}")
    _Verifier(content["data"], challenge.data_leaves()).check(challenge.data, challenge.data_depth)
    _Verifier(content["meta"], challenge.meta_leaves()).check(challenge.meta, challenge.meta_depth)


class _Prover:
    """Walks one tree from the root to the drawn leaves and writes down what the verifier needs, in order."""

    def __init__(self, tree: TreeView, leaves: tuple[int, ...], read: Read, subtrees: Subtrees) -> None:
        self.tree = tree
        self.leaves = leaves
        self.read = read
        self.subtrees = subtrees
        self.sums: list[int] = []
        self.rows: list[list[bytes | int]] = []
        self.hashes: list[bytes] = []
        self.shown: list[bytes] = []

    def part(self, depth: int) -> list[object]:
        """[left sums, rows, hashes, leaves] of the whole tree, each in pre-order."""
        if self.leaves:
            self.slots(depth, 0, 0, 0, len(self.leaves))
        return [self.sums, self.rows, b"".join(self.hashes), b"".join(self.shown)]

    def slots(self, level: int, index: int, base: int, low: int, high: int) -> None:
        """The slot tree below one node; `leaves[low:high]` are drawn below it, its first leaf is `base`."""
        if level == 0:
            piece = self.tree.piece(index)
            if piece.root != self.tree.nodes.get(0, index):
                raise ViewMismatch(f"the rows of the piece in slot {index} are not those on the ledger")
            self.piece(piece, piece.top, 0, base, low, high)
            return
        left = slot_tree.node(self.tree.nodes, level - 1, 2 * index)
        self.sums.append(left.sum)
        middle = bisect_left(self.leaves, base + left.sum, low, high)
        if low < middle:
            self.slots(level - 1, 2 * index, base, low, middle)
        else:
            self.hashes.append(left.hash)
        if middle < high:
            self.slots(level - 1, 2 * index + 1, base + left.sum, middle, high)
        else:
            self.hashes.append(slot_tree.node(self.tree.nodes, level - 1, 2 * index + 1).hash)

    def piece(self, piece: PieceTree, level: int, index: int, base: int, low: int, high: int) -> None:
        """The piece's tree below one node."""
        while level and 2 * index + 1 >= piece.width(level - 1):
            level, index = level - 1, 2 * index  # an odd last node rose from here
        if level == 0:
            self.sums.append(0)  # no left child: this is a row
            self.row(piece.rows[index], [leaf - base for leaf in self.leaves[low:high]])
            return
        left = piece.node(level - 1, 2 * index)
        self.sums.append(left.sum)
        middle = bisect_left(self.leaves, base + left.sum, low, high)
        if low < middle:
            self.piece(piece, level - 1, 2 * index, base, low, middle)
        else:
            self.hashes.append(left.hash)
        if middle < high:
            self.piece(piece, level - 1, 2 * index + 1, base + left.sum, middle, high)
        else:
            self.hashes.append(piece.node(level - 1, 2 * index + 1).hash)

    def row(self, row: PieceRow, drawn: list[int]) -> None:
        opened = OpenedBlock(row, drawn, self.read, self.subtrees)
        self.rows.append([row.multihash, opened.length])
        self.hashes += opened.hashes
        self.shown += opened.shown


class _Verifier:
    """Walks the same way as the prover, taking what it needs, and rebuilds the root's hash."""

    def __init__(self, part: object, leaves: tuple[int, ...]) -> None:
        if not isinstance(part, list) or len(part) != 4:
            raise InvalidProof("each part of a proof has sums, rows, hashes and leaves")
        sums, rows, hashes, shown = part
        if not (isinstance(sums, list) and isinstance(rows, list)):
            raise InvalidProof("the sums or rows of a proof are not a list")
        if not (isinstance(hashes, bytes) and isinstance(shown, bytes)):
            raise InvalidProof("the hashes or leaves of a proof are not bytes")
        if len(rows) > len(leaves) or len(sums) > len(leaves) * (MAX_LEVELS + 1):
            raise InvalidProof(f"more rows or sums than {len(leaves)} leaves can need")
        if set(map(type, sums)) - {int} or (sums and not 0 <= min(sums) <= max(sums) <= MAX_SUM):
            raise InvalidProof("a sum is not a number of leaves")
        self.leaves = leaves
        self.hashes = hashes
        self.shown = shown
        self.next_sum = iter(sums)
        self.next_row = iter(rows)
        self.at_hash = 0
        self.at_shown = 0

    def check(self, root: SumNode, depth: int) -> None:
        """Raises InvalidProof unless the part shows the drawn leaves below `root` and holds nothing more."""
        if self.leaves and self.walk(depth, root.sum, 0, 0, len(self.leaves)) != root.hash:
            raise InvalidProof("the leaves shown do not hash to the dataset's root")
        if self.at_hash != len(self.hashes) or self.at_shown != len(self.shown):
            raise InvalidProof("the proof has bytes left over")
        if next(self.next_sum, None) is not None or next(self.next_row, None) is not None:
            raise InvalidProof("the proof has sums or rows left over")

    def walk(self, level: int, total: int, base: int, low: int, high: int) -> bytes:
        """The hash of one node of sum `total`, above `level` 0 in the slot tree, from 0 down in a piece's."""
        left_sum = next(self.next_sum, None)
        if left_sum is None:
            raise InvalidProof("the proof ends before its last sum")
        if level <= 0 and left_sum == 0:
            return self.row(total, base, low, high)
        if left_sum > total or (level <= 0 and left_sum == total):
            raise InvalidProof(
                "a sum that leaves less than nothing, or in a piece nothing, for the other side"
            )
        if level <= -MAX_PIECE_DEPTH:
            raise InvalidProof(f"a piece deeper than {MAX_PIECE_DEPTH} levels")
        middle = bisect_left(self.leaves, base + left_sum, low, high)
        left = self.walk(level - 1, left_sum, base, low, middle) if low < middle else self.take_hash()
        if middle < high:
            right = self.walk(level - 1, total - left_sum, base + left_sum, middle, high)
        else:
            right = self.take_hash()
        return sum_hash(left_sum, left, total - left_sum, right)

    def row(self, total: int, base: int, low: int, high: int) -> bytes:
        """The hash of a piece's row, from the block's drawn leaves."""
        row = next(self.next_row, None)
        if not isinstance(row, list) or len(row) != 2:
            raise InvalidProof("a row is a multihash and a length")
        multihash, length = row
        if not isinstance(multihash, bytes) or not 0 < len(multihash) <= MAX_MULTIHASH_BYTES:
            raise InvalidProof("a row's multihash is not one")
        if type(length) is not int or not 0 <= length <= MAX_BLOCK_BYTES or leaf_count(length) != total:
            raise InvalidProof("a row's length does not fit its number of leaves")
        drawn = [leaf - base for leaf in self.leaves[low:high]]
        root = proof_root(length, self.block(drawn, length, 0, total))
        return piece_leaf(PieceRow(multihash, total, root)).hash

    def block(self, drawn: Sequence[int], length: int, start: int, count: int) -> bytes:
        """The hash of the node above `count` leaves of a block from leaf `start` on; `drawn` are below it."""
        if count == 1:
            begin = self.at_shown
            self.at_shown += min(LEAF_BYTES, length - start * LEAF_BYTES)
            if self.at_shown > len(self.shown):
                raise InvalidProof("the proof ends before its last leaf")
            return leaf_hash(start, self.shown[begin : self.at_shown])
        split = split_point(count)
        middle = bisect_left(drawn, start + split)
        left = self.block(drawn[:middle], length, start, split) if middle else self.take_hash()
        if middle < len(drawn):
            right = self.block(drawn[middle:], length, start + split, count - split)
        else:
            right = self.take_hash()
        return inner_hash(left, right)

    def take_hash(self) -> bytes:
        begin = self.at_hash
        self.at_hash += HASH_BYTES
        if self.at_hash > len(self.hashes):
            raise InvalidProof("the proof ends before its last hash")
        return self.hashes[begin : self.at_hash]
