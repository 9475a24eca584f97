"""A mirror that is brought up to date is the one that is made at once, and the one that the ledger makes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag.cid import CID
from proofs.commitment import EMPTY, SumNode
from proofs.slot_tree import MemoryNodes, node, set_slot
from storage_node.duties import ShardKey
from storage_node.mirror import Mirror, mirror

DEPTH = 8
KEYS = [ShardKey(CID.of(b"deal"), number) for number in range(12)]

slots = st.dictionaries(st.integers(0, (1 << DEPTH) - 1), st.sampled_from(KEYS), max_size=12)


def roots(key: ShardKey) -> tuple[SumNode, SumNode]:
    """Metadata, data; two keys have the same ones."""
    number = max(1, key.shard)
    return SumNode(bytes([number]) * 32, number), SumNode(bytes([100 + number]) * 32, 10 * number)


def nodes_of(found: Mirror) -> list[SumNode]:
    return [
        node(tree, level, index)
        for tree in (found.meta, found.data)
        for level in range(DEPTH + 1)
        for index in range(1 << (DEPTH - level))
    ]


@settings(max_examples=30)
@given(st.lists(slots, min_size=1, max_size=4))
def test_a_mirror_follows_every_change(states: list[dict[int, ShardKey]]) -> None:
    found: Mirror | None = None
    for state in states:
        before = None if found is None else nodes_of(found)
        new = mirror(DEPTH, state, roots, found)
        assert found is None or nodes_of(found) == before  # others may be using it
        found = new
        ledgers = MemoryNodes(), MemoryNodes()
        for slot, key in state.items():
            for tree, piece in zip(ledgers, roots(key), strict=True):
                set_slot(tree, DEPTH, slot, piece)
        assert nodes_of(new) == nodes_of(Mirror(DEPTH, {}, data=ledgers[1], meta=ledgers[0]))  # type: ignore[arg-type]
        assert new.slots == state


def test_a_mirror_whose_slots_are_emptied_is_empty() -> None:
    full = mirror(DEPTH, {3: KEYS[0]}, roots)
    assert full.data.get(0, 3) != EMPTY
    again = mirror(DEPTH, {}, roots, full)
    assert again.data.get(DEPTH, 0) == EMPTY
