"""The state: overlays that leave no trace, keys in order, and a tree whose proofs hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import state_tree, tree_buckets
from ledger.cache import RecentCache
from ledger.errors import CorruptState
from ledger.records import AccountRecord, SlotRecord
from ledger.sorted_keys import SortedKeys
from ledger.state import State
from ledger.state_tree import EMPTY_ROOT, StateProof, StateTree, bucket_of, leaf_hash, simple_root, verify
from ledger.store import MemoryRows
from merkledag.cid import CID

KEYS = st.binary(min_size=1, max_size=3)
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), st.binary(max_size=4)), max_size=12)


@given(st.lists(st.tuples(st.booleans(), CHANGES), max_size=6))
@settings(max_examples=60)
def test_the_overlays_are_a_map_and_what_is_dropped_leaves_no_trace(
    steps: list[tuple[bool, dict[bytes, bytes | None]]],
) -> None:
    rows, model = MemoryRows(), dict[bytes, bytes]()
    state = State(rows)
    state.begin()
    for keep, changes in steps:
        before = dict(model)
        state.begin()
        for key, value in changes.items():
            if value is None:
                state.delete(key)
                model.pop(key, None)
            else:
                state.put(key, value)
                model[key] = value
        assert list(state.scan(b"")) == sorted(model)
        if keep:
            state.keep()
        else:
            state.drop()
            model = before
        for prefix in (b"", b"\x00", b"\x01\x02"):
            assert list(state.scan(prefix)) == sorted(key for key in model if key.startswith(prefix))
        assert all(state.get(key) == model.get(key) for key in {*changes, *model})
    assert list(state.items()) == []
    keep_block(state, rows)
    assert dict(state.items()) == model


def keep_block(state: State, rows: MemoryRows) -> None:
    changes = state.changes()
    rows.apply(changes)
    state.commit(changes)


def test_records_are_bytes_once_committed() -> None:
    rows = MemoryRows()
    state = State(rows)
    state.begin()
    state.put(b"a", AccountRecord(5, 1))
    assert state.get(b"a") == AccountRecord(5, 1).encode()
    assert state.record(b"a", AccountRecord) == AccountRecord(5, 1)
    assert state.committed(b"a", AccountRecord) is None
    keep_block(state, rows)
    assert dict(state.items()) == {b"a": AccountRecord(5, 1).encode()}
    assert State(rows).committed(b"a", AccountRecord) == AccountRecord(5, 1)
    state.begin()
    state.put(b"a", AccountRecord(5, 1))
    state.put(b"b", b"x")
    state.delete(b"b")
    assert state.changes() == {}  # nothing is different
    state.put(b"a", AccountRecord(6, 1))
    assert state.committed(b"a", AccountRecord) == AccountRecord(5, 1)
    keep_block(state, rows)
    assert state.committed(b"a", AccountRecord) == AccountRecord(6, 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers()), max_size=60))
def test_a_cache_is_bounded_and_never_wrong(steps: list[tuple[int, int]]) -> None:
    cache, model = RecentCache[int, int](3), dict[int, int]()
    for key, value in steps:
        if value % 3 == 0:
            cache.forget(key)
            model.pop(key, None)
        elif value % 3 == 1:
            cache.put(key, value)
            model[key] = value
            assert cache.get(key) == value
        assert cache.get(key) in (None, model.get(key))
        assert len(cache) <= 6


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=2)), max_size=400))
@settings(max_examples=30)
def test_sorted_keys_are_a_sorted_set(steps: list[tuple[bool, bytes]]) -> None:
    keys, model = SortedKeys(), set[bytes]()
    for add, key in steps:
        if add and key not in model:
            keys.add(key)
            model.add(key)
        elif not add:
            keys.discard(key)
            model.discard(key)
    assert list(keys.start_at(b"")) == sorted(model)
    assert list(keys.start_at(b"\x80")) == sorted(key for key in model if key >= b"\x80")


def test_sorted_keys_hold_many() -> None:
    numbers = [(i * 7919) % 10_007 for i in range(10_007)]
    keys = SortedKeys()
    for number in numbers:
        keys.add(number.to_bytes(4, "big"))
    for number in numbers[::2]:
        keys.discard(number.to_bytes(4, "big"))
    assert list(keys.start_at(b"")) == [n.to_bytes(4, "big") for n in sorted(numbers[1::2])]


def simple_tree(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1 by its definition."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + simple_tree(leaves[:split]) + simple_tree(leaves[split:])).digest()


@pytest.mark.parametrize("count", range(18))
def test_the_simple_tree_is_that_of_rfc_6962(count: int) -> None:
    leaves = [hashlib.sha256(bytes([i])).digest() for i in range(count)]
    assert simple_root(leaves) == simple_tree(leaves)
    for index in range(count):
        path = state_tree.aunts(state_tree.levels_of(leaves), index)
        assert state_tree.root_from_aunts(leaves[index], index, count, path) == simple_root(leaves)


def test_a_leaf_is_what_cometbft_hashes_for_a_value_operation() -> None:
    value_hash = hashlib.sha256(b"value").digest()
    expected = hashlib.sha256(b"\x00" + b"\x03key" + b"\x20" + value_hash).digest()
    assert leaf_hash(b"key", value_hash) == expected
    long = bytes(200)
    expected = hashlib.sha256(b"\x00" + b"\xc8\x01" + long + b"\x20" + value_hash).digest()
    assert leaf_hash(long, value_hash) == expected


def full_root(items: dict[bytes, bytes]) -> bytes:
    """The app hash by its definition."""
    buckets: dict[int, dict[bytes, bytes]] = {}
    for key, value in items.items():
        buckets.setdefault(int.from_bytes(hashlib.sha256(key).digest(), "big") >> 238, {})[key] = value
    tops = [leaf_hash(b"state", hashlib.sha256(EMPTY_ROOT).digest())] * 2**18
    for number, bucket in buckets.items():
        root = simple_tree([leaf_hash(k, hashlib.sha256(bucket[k]).digest()) for k in sorted(bucket)])
        tops[number] = leaf_hash(b"state", hashlib.sha256(root).digest())
    return simple_root(tops)


class Tree:
    """A tree with its rows, and the state that it is of."""

    def __init__(self, items: dict[bytes, bytes] | None = None) -> None:
        self.items: dict[bytes, bytes] = {}
        self.rows = MemoryRows()
        self.tree = StateTree(self.rows)
        self.apply(items or {})

    @property
    def root(self) -> bytes:
        return self.tree.root

    def apply(self, changes: Mapping[bytes, bytes | None]) -> None:
        before = self.root
        staged = self.tree.stage(changes)
        assert self.root == before
        self.rows.apply(staged.rows)
        self.tree.commit(staged)
        assert self.root == staged.root == StateTree(self.rows).root
        for key, value in changes.items():
            self.items.pop(key, None) if value is None else self.items.update({key: value})

    def prove(self, key: bytes) -> StateProof:
        return self.tree.prove(key, self.items.get)


NEIGHBOURS = [0, 150755, 343389, 517722, 935290, 1451845, 1807137]
NEIGHBOUR = b"0"


def crowded(count: int) -> dict[bytes, bytes]:
    """Keys of one bucket, which took some search."""
    found = {b"%d" % number: b"value of %d" % number for number in NEIGHBOURS[:count]}
    assert len({bucket_of(key) for key in found}) == 1
    return found


def test_the_tree_is_incremental_and_does_not_depend_on_history() -> None:
    tree = Tree()
    assert tree.root == full_root({})
    items = {b"key %d" % i: b"%d" % i for i in range(50)}
    tree.apply(items)
    assert tree.root == full_root(items)
    tree.apply({b"key 3": None, b"key 4": b"other", b"new": b""})
    changed = {**items, b"key 4": b"other", b"new": b""}
    del changed[b"key 3"]
    assert tree.root == full_root(changed) == Tree(changed).root
    assert dict(all_rows(tree.rows)) == dict(all_rows(Tree(changed).rows))
    tree.apply(dict.fromkeys(changed))
    assert tree.root == Tree().root
    assert not dict(all_rows(tree.rows))


def all_rows(rows: MemoryRows) -> Iterator[tuple[bytes, bytes | None]]:
    return ((key, rows.get(key)) for key in rows.scan(b""))


@given(st.lists(CHANGES, max_size=5))
@settings(max_examples=20)
def test_any_changes_lead_to_the_root_of_what_is_left(steps: list[dict[bytes, bytes | None]]) -> None:
    tree = Tree()
    for step, changes in enumerate(steps):
        if step == 2:  # as if opened anew: regions are read from the rows
            tree.tree = StateTree(tree.rows)
        tree.apply(changes)
    assert dict(all_rows(tree.rows)) == dict(all_rows(Tree(tree.items).rows))
    for key in {key for changes in steps for key in changes}:
        proof = tree.prove(key)
        assert proof.value == tree.items.get(key)
        assert verify(proof, tree.root)


def test_presence_and_absence_are_proven_in_a_crowded_bucket() -> None:
    items = crowded(6)
    gone = sorted(items)[3]
    value = items.pop(gone)
    tree = Tree({**items, b"elsewhere": b""})
    for key in items:
        proof = tree.prove(key)
        assert verify(proof, tree.root)
        assert not verify(replace(proof, value=b"other"), tree.root)
        assert not verify(replace(proof, value=None), tree.root)
        assert not verify(replace(proof, value=None, leaf=None), tree.root)
        assert not verify(proof, bytes(32))
        assert not verify(replace(proof, aunts=proof.aunts[:-1]), tree.root)
    absent = tree.prove(gone)
    assert absent.left is not None
    assert absent.right is not None
    assert verify(absent, tree.root)
    assert not verify(replace(absent, value=value), tree.root)
    assert not verify(replace(absent, left=None), tree.root)
    assert not verify(replace(absent, right=None), tree.root)
    outer = tree.prove(sorted(items)[0])
    assert outer.leaf is not None
    assert not verify(replace(absent, left=outer.leaf), tree.root)


def test_absence_is_proven_at_a_buckets_ends_and_in_an_empty_one() -> None:
    items = crowded(5)
    ordered = sorted(items)
    for missing in (ordered[0], ordered[-1]):
        tree = Tree({key: value for key, value in items.items() if key != missing})
        proof = tree.prove(missing)
        assert (proof.left is None) is (missing == ordered[0])
        assert verify(proof, tree.root)
    empty = Tree().prove(b"anything")
    assert (empty.left, empty.right) == (None, None)
    assert verify(empty, Tree().root)
    assert Tree().root != EMPTY_ROOT
    full = Tree(items)
    # An empty bucket elsewhere shows nothing of this one, although all have the same key.
    assert not verify(replace(empty, key=ordered[0]), full.root)
    assert not verify(replace(full.prove(b"anything"), key=ordered[0]), full.root)


def test_a_slot_record_is_a_canonical_map() -> None:
    record = SlotRecord(CID.of(b"x", codec=0x71), 3)
    assert SlotRecord.decode(record.encode()) == record


ITEMS = {**crowded(3), b"a": AccountRecord(5, 1).encode(), b"gone": b"x"}


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"a", AccountRecord(6, 1).encode()), (b"gone", None), (b"came", b"x"), (NEIGHBOUR, b"value of 1")],
)
def test_what_the_tree_does_not_say_is_not_read(key: bytes, value: bytes | None) -> None:
    tree, rows = Tree(ITEMS), MemoryRows()
    rows.apply(ITEMS)
    tree.tree.check(rows)
    rows.apply({key: value})
    state = State(rows, tree.tree.check_value)
    for read in (state.get, state.committed_bytes, lambda key: state.committed(key, AccountRecord)):
        with pytest.raises(CorruptState, match=key.hex()):
            read(key)
    assert state.get(b"never") is None
    with pytest.raises(CorruptState):
        tree.tree.check(rows)


@pytest.mark.parametrize("kind", [b"b", b"t"])
def test_a_damaged_row_of_the_tree_is_no_ground_to_build_on(kind: bytes) -> None:
    tree, rows = Tree(ITEMS), MemoryRows()
    rows.apply(ITEMS)
    number = bucket_of(NEIGHBOUR) // (1 if kind == b"b" else state_tree.TILE)
    at = kind + number.to_bytes(4, "big")
    row = tree.rows.get(at)
    assert row is not None
    for damaged in (row[:-1] + bytes([row[-1] ^ 1]), None):
        tree.rows.apply({at: damaged})
        opened = StateTree(tree.rows)
        with pytest.raises(CorruptState):
            opened.stage({NEIGHBOUR: b"new"})
        with pytest.raises(CorruptState):
            opened.check_value(NEIGHBOUR, ITEMS[NEIGHBOUR])
        with pytest.raises(CorruptState):
            opened.check(rows)


class Counting(MemoryRows):
    """Counts what is read of buckets."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get(self, key: bytes) -> bytes | None:
        self.reads += key.startswith(b"b")
        return super().get(key)


@pytest.mark.parametrize("most", [tree_buckets.MAX_HELD_KEYS, 8])
def test_a_crowded_bucket_is_looked_at_once_however_often_it_is_read(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever chooses keys can put thousands into one bucket: a read would take longer than a signature."""
    monkeypatch.setattr(tree_buckets, "MAX_HELD_KEYS", most)
    items = crowded(len(NEIGHBOURS))
    rows, values = Counting(), MemoryRows()
    rows.apply(Tree(items).rows._values)
    values.apply(items)
    tree = StateTree(rows)
    state = State(values, tree.check_value)
    for value in (b"a", b"b"):
        assert [state.get(key) for key in items] == [values.get(key) for key in items]
        changes = {NEIGHBOUR: value}
        staged = tree.stage(changes)
        rows.apply(staged.rows)
        values.apply(changes)
        tree.commit(staged)
        assert tree.root == StateTree(rows).root == Tree(dict(state.items())).root
    assert rows.reads == 1
    others = [b"other %d" % each for each in range(64)]
    assert all(state.get(key) is None for key in others)
    assert state.get(NEIGHBOUR) == b"b"
    assert rows.reads == 1 + len({*map(bucket_of, others)} - {bucket_of(NEIGHBOUR)}) + (most == 8)
    assert tree._buckets._count <= most


def test_many_keys_of_a_crowded_bucket_are_proven_at_the_cost_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree({**crowded(len(NEIGHBOURS)), b"other": b"x"})
    hashed: list[bytes] = []
    plain = state_tree.inner_hash

    def counted(left: bytes, right: bytes) -> bytes:
        hashed.append(left)
        return plain(left, right)

    monkeypatch.setattr(state_tree, "inner_hash", counted)
    for value in (b"a", b"b"):
        hashed.clear()
        proofs = [tree.prove(key) for key in crowded(len(NEIGHBOURS))]
        assert len(hashed) == len(NEIGHBOURS) - 1
        assert all(verify(proof, tree.root) for proof in proofs)
        tree.apply({NEIGHBOUR: value})
