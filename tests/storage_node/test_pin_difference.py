"""Comparing two DAGs: what only the new one has is stamped, and nothing below what both hold is read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from storage_node import gc, pin_jobs
from storage_node.blockstore.memory import MemoryStore
from storage_node.blockstore.store import open_store
from storage_node.blockstore.tables import ROWS, unpack_row
from storage_node.blockstore.verify import GROUP_BLOCKS
from storage_node.errors import BlockRefused, PinNotFound
from storage_node.meta import Meta, Table
from storage_node.pin_difference import protect_difference
from storage_node.pin_verify import MAX_GROUPS, _Check, verify_pins
from storage_node.pins import Pin, PinMode, Pins
from storage_node.reach import reachable
from tests.storage_node.dags import leaf, node, pairs, tree


class Watched(MemoryStore):
    """Notes which blocks were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[bytes] = set()

    def find(self, multihash: bytes) -> Any:
        self.read.add(multihash)
        return super().find(multihash)


def stamped(store: MemoryStore, epoch: int) -> set[bytes]:
    return {multihash for multihash, row in store.rows() if row.epoch == epoch}


def multihashes(blocks: list[Block]) -> set[bytes]:
    return {each.cid.multihash for each in blocks}


def test_only_the_edited_part_is_read_and_stamped() -> None:
    store = Watched()
    shared = [tree(f"shared {number}", 6) for number in range(8)]
    old, new = tree("old"), tree("new")
    before = node(*(each[-1].cid for each in shared), old[-1].cid)
    after = node(*(each[-1].cid for each in shared), new[-1].cid)
    store.put_many(pairs([block for each in shared for block in each] + [*old, *new, before, after]))
    epoch = store.begin_collection()
    with store.lease():
        assert protect_difference(store, before.cid, after.cid) == []
    assert stamped(store, epoch) == multihashes([*new, after])
    assert not store.read & multihashes([block for each in shared for block in each])


def test_what_moved_to_another_depth_is_stamped_all_the_same() -> None:
    store = MemoryStore()
    moved = tree("moved")
    before, after = node(moved[-1].cid), node(node(moved[-1].cid, label="deeper").cid)
    store.put_many(pairs([*moved, before, after, node(moved[-1].cid, label="deeper")]))
    assert protect_difference(store, before.cid, after.cid) == []


@pytest.mark.parametrize("missing", [0, 4, -1])
def test_what_is_missing_is_named(missing: int) -> None:
    store = MemoryStore()
    old, new = tree("old"), tree("new")
    store.put_many(pairs([*old, *(each for each in new if each is not new[missing])]))
    assert protect_difference(store, old[-1].cid, new[-1].cid) == [new[missing].cid]


def test_a_block_that_is_not_what_its_codec_says_is_refused() -> None:
    store = MemoryStore()
    data = b"\xff no cbor"
    broken = Block(CID.of(data, DAG_CBOR), data)
    old, new = node(), node(broken.cid)
    store.put_many(pairs([broken, old, new]))
    with pytest.raises(BlockRefused):
        protect_difference(store, old.cid, new.cid)


@pytest.mark.parametrize("seed", range(8))
def test_everything_of_the_new_dag_is_stamped_or_in_the_old_one(seed: int) -> None:
    chance = random.Random(seed)
    store = MemoryStore()
    blocks = [leaf(str(number)) for number in range(10)]
    for number in range(80):
        children = chance.sample(blocks, chance.randrange(5))
        blocks.append(node(*(each.cid for each in children), label=str(number)))
    store.put_many(pairs(blocks))
    for _ in range(20):
        old, new = chance.choice(blocks).cid, chance.choice(blocks).cid
        epoch = store.begin_collection()
        with store.lease():
            assert protect_difference(store, old, new) == []
        below_old, below_new = ({c.multihash for c in reachable(store, [r], print)} for r in (old, new))
        assert below_new - below_old <= stamped(store, epoch) <= below_new


# --- moving the pin beside a collection that reads pins page by page ---


def test_a_collection_that_saw_neither_pin_keeps_what_they_share(tmp_path: Path) -> None:
    meta = Meta(tmp_path / "meta")
    pins, store = Pins(meta, lambda: 0), MemoryStore()
    shared = tree("shared")
    versions = sorted((node(shared[-1].cid, label=str(number)) for number in range(2)), key=lambda b: b.cid)
    new, old = versions  # in the order of their keys: a collection passes the new one's place first
    store.put_many(pairs([*shared, old, new]))
    pins.add(old.cid)

    class Moving(Pins):
        """The pin is moved while a collection lists pins."""

        def ls(self, *_: object, **__: object) -> Iterator[Pin]:
            with store.lease():
                assert protect_difference(store, old.cid, new.cid) == []
                pins.update(old.cid, new.cid)
            yield from ()

    gc.collect(store, Moving(meta, lambda: 0), partial_roots=pin_jobs.roots(meta))
    assert all(store.has(each.cid.multihash) for each in [*shared, new])
    gc.collect(store, pins, partial_roots=pin_jobs.roots(meta))
    assert all(store.has(each.cid.multihash) for each in [*shared, new])
    assert not store.has(old.cid.multihash)
    pins.rm(new.cid)
    gc.collect(store, pins, partial_roots=pin_jobs.roots(meta))
    assert store.stat().blocks == 0


def test_what_was_stamped_before_a_collection_may_be_moved_in_it_and_others_after_it(tmp_path: Path) -> None:
    meta = Meta(tmp_path / "meta")
    pins, store = Pins(meta, lambda: 0), MemoryStore()
    shared, one, two = tree("shared"), leaf("one"), leaf("two")
    old, new = node(shared[-1].cid, label="old"), node(shared[-1].cid, label="new")
    store.put_many(pairs([*shared, old, new, one, two]))
    pins.add_many([old.cid, one.cid])
    store.begin_collection()

    class Moving(Pins):
        """Two pins are moved while a collection lists pins."""

        def ls(self, *_: object, **__: object) -> Iterator[Pin]:
            pins.update(old.cid, new.cid)
            with store.lease():
                assert protect_difference(store, one.cid, two.cid) == []
                pins.update(one.cid, two.cid)
            yield from ()

    with store.lease():
        assert protect_difference(store, old.cid, new.cid) == []
        gc.collect(store, Moving(meta, lambda: 0), partial_roots=pin_jobs.roots(meta))
    assert all(store.has(each.cid.multihash) for each in [*shared, new, two])


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_next_collection_forgets_what_moved_before_it(tmp_path: Path, dry_run: bool) -> None:
    meta = Meta(tmp_path / "meta")
    pins = Pins(meta, lambda: 0)
    pins.add(leaf("0").cid)
    for number in range(3):
        pins.update(leaf(str(number)).cid, leaf(str(number + 1)).cid, unpin=number == 1)
    moved = [bytes(leaf(each).cid) for each in "23"]
    assert sorted(key for key, _ in meta.items(Table.PIN_MOVES)) == sorted(moved)
    store = MemoryStore()
    store.put_many(pairs([leaf(str(number)) for number in range(4)]))
    gc.collect(store, pins, partial_roots=pin_jobs.roots(meta), dry_run=dry_run)
    assert bool(list(meta.items(Table.PIN_MOVES))) is dry_run
    assert [store.has(leaf(each).cid.multihash) for each in "0123"] == [True, dry_run, True, True]
    with pytest.raises(PinNotFound):
        pins.update(leaf("elsewhere").cid, leaf("1").cid)


# --- verification ---


@pytest.mark.parametrize("hashed", [False, True])
def test_every_pin_that_is_hit_is_named(hashed: bool) -> None:
    store = MemoryStore()
    shared, mine, fine = tree("shared"), tree("mine"), tree("fine", 9)
    one, two = (node(shared[-1].cid, each[-1].cid) for each in (mine, fine))
    store.put_many(pairs([*shared, *mine, *fine, one, two]))
    store.delete_many([shared[0].cid.multihash, mine[4].cid.multihash])
    store.replace(shared[1].cid.multihash, b"damaged")
    pins = [Pin(each.cid, PinMode.RECURSIVE, each.cid.encode()) for each in (fine[-1], one, two)]
    pins += [Pin(each.cid, PinMode.DIRECT) for each in (shared[0], fine[-1])]
    checks = list(verify_pins(store, pins, hashed=hashed))
    assert [check.pin for check in checks] == pins
    damaged = [shared[1].cid] if hashed else []
    assert [check.damaged for check in checks] == [[], damaged, damaged, [], []]
    assert [set(check.missing) for check in checks] == [
        set(),
        {shared[0].cid, mine[4].cid},
        {shared[0].cid},
        {shared[0].cid},
        set(),
    ]
    assert [check.is_whole for check in checks] == [True, False, False, False, True]


def test_a_damaged_node_is_found_without_hashing_and_hides_what_is_below() -> None:
    store = MemoryStore()
    dag = tree("dag")
    store.put_many(pairs(dag))
    store.replace(dag[4].cid.multihash, b"\xff damaged")
    seen: list[int] = []
    (check,) = verify_pins(store, [Pin(dag[-1].cid, PinMode.RECURSIVE)], progress=seen.append)
    assert (check.missing, check.damaged) == ([], [dag[4].cid])
    assert 1 < sum(seen) < len(dag)


def test_a_block_that_lost_its_bytes_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path, reserve_bytes=0)
    dag = tree("dag")
    store.put_many(pairs(dag))
    lost = dag[0].cid
    shard = store.shards[lost.multihash[-1] % len(store.shards)]
    with shard.environment.write() as txn:
        row = unpack_row(txn.get(ROWS + lost.multihash))
        assert row is not None
        txn.delete(row.data_key)
    (check,) = verify_pins(store, [Pin(dag[-1].cid, PinMode.RECURSIVE)], hashed=True)
    assert (check.missing, check.damaged) == ([], [lost])
    store.close()


def test_the_groups_that_wait_to_be_hashed_are_bounded() -> None:
    store = MemoryStore()
    leaves = [leaf(str(number)) for number in range(GROUP_BLOCKS * MAX_GROUPS * 2)]
    root = node(*(each.cid for each in leaves))
    store.put_many(pairs([*leaves, root]))
    store.replace(leaves[7].cid.multihash, b"damaged")
    with ThreadPoolExecutor(1) as threads:
        check = _Check(store, threads, lambda _: None)
        walked = check.walk(Pin(root.cid, PinMode.RECURSIVE))
        assert len(walked.groups) <= MAX_GROUPS
        assert check.result(walked).damaged == [leaves[7].cid]


def test_many_pins_are_verified_in_their_order() -> None:
    store = MemoryStore()
    leaves = [leaf(str(number)) for number in range(3000)]
    store.put_many(pairs(leaves))
    store.replace(leaves[77].cid.multihash, b"damaged")
    pins = [Pin(each.cid, PinMode.RECURSIVE) for each in leaves]
    checks = list(verify_pins(store, pins, hashed=True))
    assert [check.pin for check in checks] == pins
    assert [check.pin for check in checks if not check.is_whole] == [pins[77]]
