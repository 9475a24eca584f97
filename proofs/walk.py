"""The way from a dataset's root down to its drawn leaves: walked by the prover and by the verifier.

One for every kind of proof: the prover is told by a callback what it shows of a block, the verifier rebuilds
the root and returns what was shown. A proof names no position. The verifier draws the leaves itself and finds
its way down by the sums it is shown, which the hashes bind; so each byte of a proof is either forced or
hashed. Format: docs/proofs.md, "Merkle proof".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from merkledag import dag_cbor
from merkledag.block import MAX_BLOCK_BYTES
from merkledag.errors import MerkledagError
from proofs import slot_tree
from proofs.challenge import MAX_LEVELS, MAX_PIECE_DEPTH, Challenge
from proofs.commitment import (
    HASH_BYTES,
    MAX_MULTIHASH_BYTES,
    MAX_SUM,
    PieceRow,
    PieceTree,
    SumNode,
    inner_hash,
    piece_leaf,
    proof_root,
    split_point,
    sum_hash,
    unit_hash,
)
from proofs.errors import InvalidProof, ViewMismatch
from proofs.kinds import ProofKind


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

    `hashes` are the nodes of the block's tree that the verifier cannot compute, in pre-order; `length` is the
    block's, in bytes.
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


def show(challenge: Challenge, view: DatasetView, open_block: OpenBlock) -> tuple[object, object]:
    """The data and the metadata part of a proof, as CBOR values.

    `open_block(row, drawn)` opens one block at the drawn units (counted in the block, ascending). Raises
    ViewMismatch if `view` is not what was challenged; what `open_block` raises passes through.
    """
    data = _Prover(view.data, challenge.kind, challenge.data_leaves(), open_block)
    meta = _Prover(view.meta, challenge.kind, challenge.meta_leaves(), open_block)
    return (
        data.part(challenge.data, challenge.data_depth),
        meta.part(challenge.meta, challenge.meta_depth),
    )


def check(challenge: Challenge, data: object, meta: object) -> list[ShownUnit]:
    """The shown units, data first, each part ascending, if both parts lead to their roots.

    Raises InvalidProof otherwise, and never anything else, whatever the parts are.
    """
    shown = _Verifier(data, challenge.kind, challenge.data_leaves()).check(
        challenge.data, challenge.data_depth
    )
    shown += _Verifier(meta, challenge.kind, challenge.meta_leaves()).check(
        challenge.meta, challenge.meta_depth
    )
    return shown


def open_envelope(
    challenge: Challenge, proof: bytes, version: int, keys: frozenset[str]
) -> dict[str, object]:
    """The proof's map of exactly `keys`, of the challenge's kind and this version; raises InvalidProof.

    Nothing is parsed of bytes that are longer than any proof of this challenge.
    """
    if len(proof) > challenge.max_proof_bytes():
        raise InvalidProof(f"a proof of {len(proof)} bytes; at most {challenge.max_proof_bytes()} here")
    try:
        content = dag_cbor.decode(proof)
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
        self.sums: list[int] = []
        self.rows: list[list[bytes | int]] = []
        self.hashes: list[bytes] = []
        self.shown: list[bytes] = []

    def part(self, root: SumNode, depth: int) -> list[object]:
        """[left sums, rows, hashes, leaves] of the whole tree, each in pre-order."""
        if self.leaves:
            if slot_tree.root(self.tree.nodes, depth) != root:
                raise ViewMismatch(
                    "the mirrored dataset is not the one challenged; read it from the ledger again"
                )
            self.slots(depth, 0, 0, 0, len(self.leaves))
        return [self.sums, self.rows, b"".join(self.hashes), b"".join(self.shown)]

    def slots(self, level: int, index: int, base: int, low: int, high: int) -> None:
        """The slot tree below one node; `leaves[low:high]` are drawn below it, its first leaf is `base`."""
        if level == 0:
            piece = self.tree.piece(index)
            if piece.root != self.tree.nodes.get(0, index) or piece.kind is not self.kind:
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
        opened = self.open_block(row, drawn)
        self.rows.append([row.multihash, opened.length])
        self.hashes += opened.hashes
        self.shown += opened.shown


class _Verifier:
    """Walks the same way as the prover, taking what it needs, and rebuilds the root's hash."""

    def __init__(self, part: object, kind: ProofKind, leaves: tuple[int, ...]) -> None:
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
        self.kind = kind
        self.rules = kind.rules
        self.leaves = leaves
        self.hashes = hashes
        self.shown = shown
        self.units: list[ShownUnit] = []
        self.next_sum = iter(sums)
        self.next_row = iter(rows)
        self.at_hash = 0
        self.at_shown = 0

    def check(self, root: SumNode, depth: int) -> list[ShownUnit]:
        """The drawn leaves; raises InvalidProof unless they are below `root` and the part holds no more."""
        if self.leaves and self.walk(depth, root.sum, 0, 0, len(self.leaves)) != root.hash:
            raise InvalidProof("the leaves shown do not hash to the dataset's root")
        if self.at_hash != len(self.hashes) or self.at_shown != len(self.shown):
            raise InvalidProof("the proof has bytes left over")
        if next(self.next_sum, None) is not None or next(self.next_row, None) is not None:
            raise InvalidProof("the proof has sums or rows left over")
        return self.units

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
        if type(length) is not int or not 0 <= length <= MAX_BLOCK_BYTES:
            raise InvalidProof("a row's length is not a block's")
        if self.kind.unit_count(length) != total:
            raise InvalidProof("a row's length does not fit its number of leaves")
        drawn = [leaf - base for leaf in self.leaves[low:high]]
        root = proof_root(length, self.block(multihash, drawn, length, 0, total), self.kind)
        return piece_leaf(PieceRow(multihash, total, root), self.kind).hash

    def block(self, name: bytes, drawn: Sequence[int], length: int, start: int, count: int) -> bytes:
        """The hash of the node above `count` leaves of a block from leaf `start` on; `drawn` are below it."""
        if count == 1:
            begin = self.at_shown
            self.at_shown += self.rules.shown_bytes(length, start)
            if self.at_shown > len(self.shown):
                raise InvalidProof("the proof ends before its last leaf")
            data = self.shown[begin : self.at_shown]
            self.units.append(ShownUnit(name, length, start, data))
            return unit_hash(self.kind, start, data)
        split = split_point(count)
        middle = bisect_left(drawn, start + split)
        left = self.block(name, drawn[:middle], length, start, split) if middle else self.take_hash()
        if middle < len(drawn):
            right = self.block(name, drawn[middle:], length, start + split, count - split)
        else:
            right = self.take_hash()
        return inner_hash(left, right)

    def take_hash(self) -> bytes:
        begin = self.at_hash
        self.at_hash += HASH_BYTES
        if self.at_hash > len(self.hashes):
            raise InvalidProof("the proof ends before its last hash")
        return self.hashes[begin : self.at_hash]
