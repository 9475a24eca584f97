"""A dataset's Merkle-sum tree over slots, each empty or holding one piece.

The ledger keeps the nodes in its state and every storage node mirrors its own datasets. Level 0 is the
slots; the root of a tree of depth d is node (d, 0), with 2^d slots below it. An empty slot is `EMPTY` (zero
hash, sum 0); every inner node is a sum node of its two children, also where both are empty. A store leaves
out the nodes with nothing below them, so setting a slot and emptying it again leaves no trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Protocol

from proofs.commitment import EMPTY, SumNode, sum_node

MAX_DEPTH = 20


class NodeStore(Protocol):
    """Where a tree's nodes are kept."""

    def get(self, level: int, index: int) -> SumNode:
        """The node last put there, `EMPTY` if none."""

    def put(self, level: int, index: int, node: SumNode) -> None:
        """Keeps the node; `EMPTY` means that the store may forget this place."""


class MemoryNodes:
    """A `NodeStore` in memory."""

    __slots__ = ("nodes",)

    def __init__(self) -> None:
        self.nodes: dict[tuple[int, int], SumNode] = {}

    def get(self, level: int, index: int) -> SumNode:
        return self.nodes.get((level, index), EMPTY)

    def put(self, level: int, index: int, node: SumNode) -> None:
        if node == EMPTY:
            self.nodes.pop((level, index), None)
        else:
            self.nodes[level, index] = node


@cache
def empty_node(level: int) -> SumNode:
    """The node of this level above nothing but empty slots."""
    if level == 0:
        return EMPTY
    below = empty_node(level - 1)
    return sum_node(below, below)


def node(store: NodeStore, level: int, index: int) -> SumNode:
    """The node at this place, also where the store has none."""
    found = store.get(level, index)
    return empty_node(level) if found == EMPTY else found


def root(store: NodeStore, depth: int) -> SumNode:
    """The root of the tree with 2^depth slots."""
    return node(store, depth, 0)


def set_slot(store: NodeStore, depth: int, slot: int, piece: SumNode) -> SumNode:
    """Puts a piece's root (or `EMPTY`) into a slot and returns the new root; O(depth).

    Raises ValueError if there is no such slot or piece, SumOverflow if the sum would not fit: then nothing is
    changed.
    """
    _check(depth, {slot: piece})
    current = piece
    changed = [current]
    for level in range(depth):
        index = slot >> level
        other = node(store, level, index ^ 1)
        current = sum_node(other, current) if index & 1 else sum_node(current, other)
        changed.append(current)
    for level, new in enumerate(changed):
        store.put(level, slot >> level, EMPTY if new == empty_node(level) else new)
    return current


def _check(depth: int, pieces: Mapping[int, SumNode]) -> None:
    for slot, piece in pieces.items():
        if not 0 <= depth <= MAX_DEPTH or not 0 <= slot < 1 << depth:
            raise ValueError(f"slot {slot} of a tree of depth {depth}")
        if piece.sum == 0 and piece != EMPTY:  # proofs derive the hash of what has no leaves
            raise ValueError(f"slot {slot}: a piece without leaves is an empty slot")


def set_slots(store: NodeStore, depth: int, pieces: Mapping[int, SumNode]) -> SumNode:
    """As `set_slot` for many: no node is hashed twice.

    Raises as it does, but after SumOverflow the tree is of no use any more.
    """
    _check(depth, pieces)
    for slot, piece in pieces.items():
        store.put(0, slot, piece)
    changed = set(pieces)
    for level in range(1, depth + 1):
        changed = {index // 2 for index in changed}
        for index in changed:
            new = sum_node(node(store, level - 1, 2 * index), node(store, level - 1, 2 * index + 1))
            store.put(level, index, EMPTY if new == empty_node(level) else new)
    return root(store, depth)


def grow(store: NodeStore, depth: int) -> SumNode:
    """Doubles the slots of a tree of `depth`; returns the new root. Raises ValueError at `MAX_DEPTH`."""
    if not 0 <= depth < MAX_DEPTH:
        raise ValueError(f"a tree of depth {depth} cannot grow; at most {MAX_DEPTH}")
    new = sum_node(root(store, depth), empty_node(depth))
    store.put(depth + 1, 0, EMPTY if new == empty_node(depth + 1) else new)
    return new


def path(store: NodeStore, depth: int, slot: int) -> list[SumNode]:
    """The siblings of a slot from the lowest level to just below the root."""
    return [node(store, level, (slot >> level) ^ 1) for level in range(depth)]


def locate(store: NodeStore, depth: int, leaf: int) -> tuple[int, int]:
    """(slot, leaf counted from the slot's first) of a leaf of the dataset.

    Raises ValueError if the dataset has no such leaf.
    """
    if not 0 <= leaf < root(store, depth).sum:
        raise ValueError(f"leaf {leaf} of a dataset of {root(store, depth).sum}")
    slot = 0
    for level in range(depth - 1, -1, -1):
        slot *= 2
        left = store.get(level, slot).sum
        if leaf >= left:
            leaf -= left
            slot += 1
    return slot, leaf
