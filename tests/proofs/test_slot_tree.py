"""The dataset's sum tree over slots."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proofs.commitment import EMPTY, MAX_SUM, SumNode, sum_node
from proofs.errors import SumOverflow
from proofs.slot_tree import (
    MAX_DEPTH,
    MemoryNodes,
    empty_node,
    grow,
    locate,
    path,
    root,
    set_slot,
    set_slots,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "proofs.json"


def piece(leaves: int) -> SumNode:
    return SumNode(leaves.to_bytes(32, "big"), leaves)


def naive_root(slots: list[SumNode]) -> SumNode:
    while len(slots) > 1:
        slots = [sum_node(left, right) for left, right in zip(slots[::2], slots[1::2], strict=True)]
    return slots[0]


@pytest.mark.parametrize("depth", range(6))
def test_the_root_follows_every_change(depth: int) -> None:
    rng = random.Random(depth)
    store, slots = MemoryNodes(), [EMPTY] * (1 << depth)
    assert root(store, depth) == naive_root(slots) == empty_node(depth)
    for _ in range(40):
        slot = rng.randrange(1 << depth)
        slots[slot] = EMPTY if rng.random() < 0.4 else piece(rng.randint(1, 10**6))
        assert set_slot(store, depth, slot, slots[slot]) == root(store, depth) == naive_root(slots)


def test_history_leaves_no_trace() -> None:
    store = MemoryNodes()
    for slot in (3, 9, 4):
        set_slot(store, 4, slot, piece(slot))
    for slot in (9, 4, 3):
        set_slot(store, 4, slot, EMPTY)
    assert store.nodes == {}


def test_growing_keeps_what_is_there() -> None:
    store = MemoryNodes()
    set_slot(store, 0, 0, piece(5))
    for depth in range(4):
        grown = grow(store, depth)
        assert grown == root(store, depth + 1) == naive_root([piece(5)] + [EMPTY] * ((2 << depth) - 1))
    set_slot(store, 4, 15, piece(6))
    assert root(store, 4) == naive_root([piece(5)] + [EMPTY] * 14 + [piece(6)])
    with pytest.raises(ValueError, match="cannot grow"):
        grow(store, MAX_DEPTH)


def test_growing_an_empty_tree_stores_nothing() -> None:
    store = MemoryNodes()
    assert grow(store, 2) == empty_node(3)
    assert store.nodes == {}


def test_a_path_joins_a_slot_to_the_root() -> None:
    store = MemoryNodes()
    for slot in range(0, 16, 3):
        set_slot(store, 4, slot, piece(slot + 1))
    for slot in range(16):
        node = store.get(0, slot)
        for level, sibling in enumerate(path(store, 4, slot)):
            node = sum_node(sibling, node) if slot >> level & 1 else sum_node(node, sibling)
        assert node == root(store, 4)


def test_locate_agrees_with_counting() -> None:
    counts = [4, 0, 0, 3, 1, 0, 0, 2]
    store = MemoryNodes()
    for slot, leaves in enumerate(counts):
        set_slot(store, 3, slot, piece(leaves) if leaves else EMPTY)
    expected = [(slot, offset) for slot, leaves in enumerate(counts) for offset in range(leaves)]
    assert [locate(store, 3, leaf) for leaf in range(10)] == expected
    for leaf in (-1, 10):
        with pytest.raises(ValueError, match="leaf"):
            locate(store, 3, leaf)


def test_the_vector_of_another_sum_tree() -> None:
    vector = json.loads(VECTORS.read_text())["sum_tree"]
    store = MemoryNodes()
    for slot, leaves in enumerate(vector["counts"]):
        set_slot(store, 3, slot, piece(leaves))
    for slot in (2, 5):
        set_slot(store, 3, slot, EMPTY)
    # Slots are not renumbered by a removal, as in that system.
    assert locate(store, 3, 330) == (vector["leaf_330_is"]["piece"], vector["leaf_330_is"]["offset"])
    assert root(store, 3).sum == vector["after_removing_indices_2_and_5"][-1]


@pytest.mark.parametrize(("depth", "slot"), [(3, 8), (3, -1), (MAX_DEPTH + 1, 0), (-1, 0)])
def test_slots_that_are_not_there_are_refused(depth: int, slot: int) -> None:
    with pytest.raises(ValueError, match="slot"):
        set_slot(MemoryNodes(), depth, slot, piece(1))
    with pytest.raises(ValueError, match="slot"):
        set_slots(MemoryNodes(), depth, {slot: piece(1)})


def test_a_piece_without_leaves_is_an_empty_slot_and_nothing_else() -> None:
    """A proof does not show the hash of a side without leaves: it must follow from there being none."""
    store = MemoryNodes()
    for change in (set_slot, lambda store, depth, slot, kept: set_slots(store, depth, {slot: kept})):
        with pytest.raises(ValueError, match="without leaves"):
            change(store, 2, 1, SumNode(b"\x01" * 32, 0))
    assert store.nodes == {}


def test_an_overflow_changes_nothing() -> None:
    store = MemoryNodes()
    set_slot(store, 3, 0, piece(MAX_SUM))
    before = dict(store.nodes)
    with pytest.raises(SumOverflow):
        set_slot(store, 3, 7, piece(1))
    assert store.nodes == before


def test_known_answers() -> None:
    known = json.loads((Path(__file__).parent / "vectors.json").read_text())["empty_node"]
    assert {level: empty_node(int(level)).hash.hex() for level in known} == known


class CountingNodes(MemoryNodes):
    """Counts what is looked up and what is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.gets = self.puts = 0

    def get(self, level: int, index: int) -> SumNode:
        self.gets += 1
        return super().get(level, index)

    def put(self, level: int, index: int, node: SumNode) -> None:
        self.puts += 1
        super().put(level, index, node)


class SlotTrees(RuleBasedStateMachine):
    """A ledger's use of a slot tree beside a plain list of slots, from which everything is computed anew."""

    MOST_DEPTH = 6

    @initialize(depth=st.integers(0, 3))
    def start(self, depth: int) -> None:
        self.store = CountingNodes()
        self.slots = [EMPTY] * (1 << depth)

    @property
    def depth(self) -> int:
        return len(self.slots).bit_length() - 1

    def change(self, slot: int, new: SumNode) -> None:
        self.slots[slot] = new
        self.store.gets = self.store.puts = 0
        assert set_slot(self.store, self.depth, slot, new) == naive_root(self.slots)
        assert self.store.gets <= self.depth
        assert self.store.puts <= self.depth + 1

    @rule(leaves=st.integers(1, 5) | st.integers(1, 2**40))
    def add(self, leaves: int) -> None:
        """Into the lowest free slot; a full tree is doubled."""
        if EMPTY not in self.slots:
            if self.depth == self.MOST_DEPTH:
                return
            self.double()
        self.change(self.slots.index(EMPTY), piece(leaves))

    @precondition(lambda self: any(kept.sum for kept in self.slots))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        self.change(data.draw(st.sampled_from([n for n, kept in enumerate(self.slots) if kept.sum])), EMPTY)

    @rule(data=st.data(), leaves=st.integers(1, 9))
    def replace(self, data: st.DataObject, leaves: int) -> None:
        self.change(data.draw(st.integers(0, len(self.slots) - 1)), piece(leaves))

    @rule(data=st.data())
    def several(self, data: st.DataObject) -> None:
        """Many at once, hashing each node above them once."""
        slots = data.draw(st.sets(st.integers(0, len(self.slots) - 1), max_size=12))
        new = {slot: data.draw(st.sampled_from([EMPTY, piece(1), piece(77)])) for slot in slots}
        for slot, kept in new.items():
            self.slots[slot] = kept
        self.store.gets = self.store.puts = 0
        assert set_slots(self.store, self.depth, new) == naive_root(self.slots)
        above = {(level, slot >> level) for slot in slots for level in range(self.depth + 1)}
        assert self.store.puts == len(above)
        assert self.store.gets <= 2 * len(above) + 1

    @precondition(lambda self: self.depth < self.MOST_DEPTH)
    @rule()
    def double(self) -> None:
        self.store.gets = self.store.puts = 0
        depth = self.depth
        self.slots += [EMPTY] * len(self.slots)
        assert grow(self.store, depth) == naive_root(self.slots)
        assert self.store.gets + self.store.puts <= 2

    @precondition(lambda self: any(kept.sum for kept in self.slots))
    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        leaf = data.draw(st.integers(0, sum(kept.sum for kept in self.slots) - 1))
        self.store.gets = 0
        slot, offset = locate(self.store, self.depth, leaf)
        assert self.store.gets <= self.depth + 2
        assert 0 <= offset < self.slots[slot].sum
        assert leaf == sum(kept.sum for kept in self.slots[:slot]) + offset

    @rule(data=st.data())
    def climb(self, data: st.DataObject) -> None:
        slot = data.draw(st.integers(0, len(self.slots) - 1))
        node = self.slots[slot]
        for level, sibling in enumerate(path(self.store, self.depth, slot)):
            node = sum_node(sibling, node) if slot >> level & 1 else sum_node(node, sibling)
        assert node == naive_root(self.slots)

    @invariant()
    def nothing_but_the_slots_decides(self) -> None:
        """The order of changes leaves no trace: the store is that of a tree made of the slots at once."""
        if not hasattr(self, "slots"):
            return
        assert root(self.store, self.depth) == naive_root(self.slots)
        fresh = MemoryNodes()
        for slot, kept in enumerate(self.slots):
            set_slot(fresh, self.depth, slot, kept)
        assert self.store.nodes == fresh.nodes


TestSlotTrees = SlotTrees.TestCase
TestSlotTrees.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
