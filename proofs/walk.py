"""The way from a dataset's root down to its drawn leaves: walked by the prover and by the verifier.

One for every kind of proof: the prover is told by a callback what it shows of a block, the verifier rebuilds
the root and returns what was shown. A proof names no position. The verifier draws the leaves itself and finds
its way down by the sums it is shown, which the hashes bind; so each byte of a proof is either forced or
hashed. Each of the two trees has a *part* of the proof, one byte string that is taken from its front. Format:
docs/proofs.md, "Merkle proof".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from merkledag import dag_cbor
from merkledag.block import MAX_BLOCK_BYTES
from merkledag.errors import MerkledagError
from proofs import slot_tree
from proofs.challenge import MAX_PIECE_DEPTH, Challenge
from proofs.commitment import (
    HASH_BYTES,
    MAX_MULTIHASH_BYTES,
    PieceRow,
    PieceTree,
    SumNode,
    SumStep,
    inner_hash,
    path_levels,
    path_top,
    piece_leaf,
    proof_root,
    split_point,
    sum_hash,
    sum_path,
    unit_hash,
)
from proofs.errors import InvalidProof, ViewMismatch
from proofs.kinds import ProofKind

_from_bytes = int.from_bytes


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


class Opened(Protocol):
    """What a prover shows of one block: the drawn units, ascending, and the hashes beside their paths.

    `hashes` are the nodes of the block's tree that the verifier cannot compute, as `climb` finds them;
    `length` is the block's, in bytes.
    """

    @property
    def shown(self) -> Sequence[bytes]: ...
    @property
    def hashes(self) -> Sequence[bytes]: ...
    @property
    def length(self) -> int: ...


OpenBlock = Callable[[PieceRow, list[int]], Opened]


class ShownUnit(NamedTuple):
    """One drawn unit as a verified proof shows it: `unit` is its number in its block of `length` bytes."""

    multihash: bytes
    length: int
    unit: int
    data: bytes


def show(challenge: Challenge, view: DatasetView, open_block: OpenBlock) -> tuple[bytes, bytes]:
    """The data and the metadata part of a proof.

    `open_block(row, drawn)` opens one block at the drawn units (counted in the block, ascending). Raises
    ViewMismatch if `view` is not what was challenged; what `open_block` raises passes through.
    """
    data = _Prover(view.data, challenge.kind, challenge.data_leaves(), open_block)
    meta = _Prover(view.meta, challenge.kind, challenge.meta_leaves(), open_block)
    return (
        data.part(challenge.data, challenge.data_depth),
        meta.part(challenge.meta, challenge.meta_depth),
    )


def climb(count: int, drawn: list[int], node: Callable[[int, int], bytes]) -> tuple[bytes, list[bytes]]:
    """The top of a block's tree over `count` units, and the hashes beside the paths of the `drawn` ones.

    `node(start, count)` is the hash above `count` units from `start` on. On the way from the top down, a side
    with nothing drawn is taken before the other one is entered; of two sides with drawn units the left first.
    """
    beside: list[bytes] = []
    return _enter(0, count, drawn, node, beside), beside


def _enter(
    start: int, count: int, drawn: list[int], node: Callable[[int, int], bytes], beside: list[bytes]
) -> bytes:
    if count == 1:
        return node(start, 1)
    split = split_point(count)
    middle = bisect_left(drawn, start + split)
    if middle == len(drawn):
        right = node(start + split, count - split)
        beside.append(right)
        return inner_hash(_enter(start, split, drawn, node, beside), right)
    if middle == 0:
        left = node(start, split)
        beside.append(left)
    else:
        left = _enter(start, split, drawn[:middle], node, beside)
    return inner_hash(left, _enter(start + split, count - split, drawn[middle:], node, beside))


def check(challenge: Challenge, data: object, meta: object) -> list[ShownUnit]:
    """The shown units, data first, each part ascending, if both parts lead to their roots.

    Raises InvalidProof otherwise, and never anything else, whatever the parts are.
    """
    return [
        *_Verifier(data, challenge.kind, challenge.data_leaves()).check(challenge.data, challenge.data_depth),
        *_Verifier(meta, challenge.kind, challenge.meta_leaves()).check(challenge.meta, challenge.meta_depth),
    ]


def open_envelope(
    challenge: Challenge, proof: bytes, version: int, keys: frozenset[str]
) -> dict[str, object]:
    """The proof's map of exactly `keys`, of the challenge's kind and this version; raises InvalidProof.

    Nothing is parsed of bytes that are longer than any proof of this challenge, and no more values are made
    than such a map has.
    """
    if len(proof) > challenge.max_proof_bytes():
        raise InvalidProof(f"a proof of {len(proof)} bytes; at most {challenge.max_proof_bytes()} here")
    try:
        content = dag_cbor.decode(proof, max_items=1 + 2 * len(keys))
    except (MerkledagError, RecursionError) as error:
        raise InvalidProof(f"the proof is not canonical DAG-CBOR: {error}") from error
    if not isinstance(content, dict) or content.keys() != keys:
        raise InvalidProof(f"a proof is a map of {', '.join(sorted(keys))}")
    if content["kind"] != challenge.kind or type(content["version"]) is not int:
        raise InvalidProof(f"not a proof of kind {challenge.kind.value!r}")
    if content["version"] != version:
        raise InvalidProof(f"not version {version} of a proof of kind {challenge.kind.value!r}")
    return content


class _Prover:
    """Walks one tree from the root to the drawn leaves and writes down what the verifier needs, in order."""

    def __init__(
        self, tree: TreeView, kind: ProofKind, leaves: tuple[int, ...], open_block: OpenBlock
    ) -> None:
        self.tree = tree
        self.kind = kind
        self.leaves = leaves
        self.open_block = open_block
        self.out = bytearray()

    def part(self, root: SumNode, depth: int) -> bytes:
        """The whole tree's."""
        if self.leaves:
            if slot_tree.root(self.tree.nodes, depth) != root:
                raise ViewMismatch(
                    "the mirrored dataset is not the one challenged; read it from the ledger again"
                )
            self.slots(depth, 0, root.sum, 0, 0, len(self.leaves))
        return bytes(self.out)

    def slots(self, level: int, index: int, total: int, base: int, low: int, high: int) -> None:
        """The slot tree below one node; `leaves[low:high]` are drawn below it, its first leaf is `base`."""
        if level == 0:
            piece = self.tree.piece(index)
            if piece.root != self.tree.nodes.get(0, index) or piece.kind is not self.kind:
                raise ViewMismatch(f"the rows of the piece in slot {index} are not those on the ledger")
            self.piece(piece, piece.top, 0, base, low, high)
            return
        level, index = level - 1, 2 * index
        left, right = (slot_tree.node(self.tree.nodes, level, side) for side in (index, index + 1))
        middle = self.fork(left, right, base, low, high)
        if low < middle:
            self.slots(level, index, left.sum, base, low, middle)
        if middle < high:
            self.slots(level, index + 1, right.sum, base + left.sum, middle, high)

    def piece(self, piece: PieceTree, level: int, index: int, base: int, low: int, high: int) -> None:
        """The piece's tree below one node."""
        while level and 2 * index + 1 >= piece.width(level - 1):
            level, index = level - 1, 2 * index  # an odd last node rose from here
        if level == 0:
            self.row(piece.rows[index], [leaf - base for leaf in self.leaves[low:high]])
            return
        level, index = level - 1, 2 * index
        left, right = piece.node(level, index), piece.node(level, index + 1)
        middle = self.fork(left, right, base, low, high)
        if low < middle:
            self.piece(piece, level, index, base, low, middle)
        if middle < high:
            self.piece(piece, level, index + 1, base + left.sum, middle, high)

    def fork(self, left: SumNode, right: SumNode, base: int, low: int, high: int) -> int:
        """Writes the left sum and the side with nothing drawn; returns where the right leaves begin."""
        self.number(left.sum, left.sum + right.sum)
        middle = bisect_left(self.leaves, base + left.sum, low, high)
        if middle == high and right.sum:
            self.out += right.hash
        if middle == low and left.sum:
            self.out += left.hash
        return middle

    def row(self, row: PieceRow, drawn: list[int]) -> None:
        opened = self.open_block(row, drawn)
        self.number(0, row.leaves)  # no left child: this is a row
        self.number(len(row.multihash), MAX_MULTIHASH_BYTES)
        self.out += row.multihash
        self.number(opened.length, row.leaves * self.kind.rules.unit_bytes)
        for each in (*opened.shown, *opened.hashes):
            self.out += each

    def number(self, value: int, most: int) -> None:
        self.out += value.to_bytes(width(most), "big")


class _Verifier:
    """Walks the same way as the prover, taking what it needs, and rebuilds the root's hash.

    Taking beyond the end gives short or empty bytes, which are harmless as the end is checked in each row and
    at last.
    """

    def __init__(self, part: object, kind: ProofKind, leaves: tuple[int, ...]) -> None:
        if not isinstance(part, bytes):
            raise InvalidProof("a part of a proof is not bytes")
        self.part = part
        self.at = 0
        self.kind = kind
        self.rules = kind.rules
        self.leaves = leaves
        self.shown: list[ShownUnit] = []

    def check(self, root: SumNode, depth: int) -> list[ShownUnit]:
        """The drawn leaves; raises InvalidProof unless they are below `root` and the part holds no more."""
        if self.leaves and self.node(depth, root.sum, 0, 0, len(self.leaves)) != root.hash:
            raise InvalidProof("the leaves shown do not hash to the dataset's root")
        if self.at != len(self.part):
            raise InvalidProof("a part of the proof has bytes left over")
        return self.shown

    def node(self, level: int, total: int, base: int, low: int, high: int) -> bytes:
        """The hash of one node of sum `total`, `level` levels above the slots; in a piece, from 0 down.

        `leaves[low:high]` are drawn below it, its first leaf is `base`. Goes down in a loop while all that is
        drawn is on one side, then up again.
        """
        part, at, leaves = self.part, self.at, self.leaves
        first, last = leaves[low], leaves[high - 1]
        passed: list[SumStep] = []
        while True:
            size = (total.bit_length() + 7) >> 3
            left = _from_bytes(part[at : at + size], "big")
            at += size
            if level <= 0:
                if left == 0:
                    self.at = at
                    result = self.row(total, base, low, high)
                    break
                if left >= total or level <= -MAX_PIECE_DEPTH:
                    raise InvalidProof("a piece too deep, or with a side without leaves")
            elif left > total:
                raise InvalidProof("a sum that leaves less than nothing for the other side")
            level -= 1
            right = total - left
            middle = base + left
            if last < middle:
                if right:
                    beside = part[at : at + HASH_BYTES]
                    at += HASH_BYTES
                else:
                    beside = slot_tree.empty_node(level).hash
                passed.append((left, right, beside, False))
                total = left
            elif first >= middle:
                if left:
                    beside = part[at : at + HASH_BYTES]
                    at += HASH_BYTES
                else:
                    beside = slot_tree.empty_node(level).hash
                passed.append((left, right, beside, True))
                total, base = right, middle
            else:
                self.at = at
                cut = bisect_left(leaves, middle, low, high)
                below = self.node(level, left, base, low, cut)
                result = sum_hash(left, below, right, self.node(level, right, middle, cut, high))
                break
        return sum_path(result, passed)

    def row(self, total: int, base: int, low: int, high: int) -> bytes:
        """The hash of a piece's row, from the block's drawn units."""
        kind, rules, part, at = self.kind, self.rules, self.part, self.at
        size = _from_bytes(part[at : at + 1], "big")
        multihash = part[at + 1 : at + 1 + size]
        at += 1 + size
        most = total * rules.unit_bytes
        size = width(most)
        length = _from_bytes(part[at : at + size], "big")
        at += size
        if not 0 < len(multihash) <= MAX_MULTIHASH_BYTES or total > rules.max_units:
            raise InvalidProof("a row is not one of a block")
        if length > MAX_BLOCK_BYTES or kind.unit_count(length) != total:
            raise InvalidProof("a row's length does not fit its number of leaves")
        hashes = []
        for leaf in self.leaves[low:high]:
            index = leaf - base
            size = rules.shown_bytes(length, index)
            shown = part[at : at + size]
            at += size
            self.shown.append(ShownUnit(multihash, length, index, shown))
            hashes.append(unit_hash(kind, index, shown))
        if at > len(part):
            raise InvalidProof("a part of the proof ends before its last leaf")
        self.at = at
        top = self.block(iter(hashes), base, total, low, high)
        return piece_leaf(PieceRow(multihash, total, proof_root(length, top, kind)), kind).hash

    def block(self, units: Iterator[bytes], start: int, count: int, low: int, high: int) -> bytes:
        """The hash of the node above `count` units, the first being leaf `start`; `units`: the drawn ones."""
        if high - low == 1:
            index = self.leaves[low] - start
            return path_top(next(units), index, count, self.take(path_levels(index, count) * HASH_BYTES))
        split = split_point(count)
        middle = start + split
        cut = bisect_left(self.leaves, middle, low, high)
        if cut == high:
            right = self.take(HASH_BYTES)
            return inner_hash(self.block(units, start, split, low, high), right)
        left = self.take(HASH_BYTES) if cut == low else self.block(units, start, split, low, cut)
        return inner_hash(left, self.block(units, middle, count - split, cut, high))

    def take(self, size: int) -> bytes:
        begin = self.at
        self.at += size
        return self.part[begin : self.at]


def width(most: int) -> int:
    """The bytes of a number that is at most `most`: as many as `most` itself has, big-endian."""
    return (most.bit_length() + 7) >> 3
