"""What every blockstore must do; subclass and give a `store` fixture."""

from __future__ import annotations

import threading
from itertools import islice

import pytest

from merkledag import multihash as mh
from merkledag.block import MAX_BLOCK_BYTES
from storage_node.blockstore.interface import BlockClass, Blockstore, Evicted, PutResult
from storage_node.blockstore.verify import heal, verify
from storage_node.errors import BlockNotFound, BlockRefused, DamagedBlock


def block(number: int, size_bytes: int = 100) -> tuple[bytes, bytes]:
    """A block that depends on `number` alone, under its multihash."""
    data = (number.to_bytes(8, "big") * (size_bytes // 8 + 1))[:size_bytes]
    return mh.digest(data), data


def blocks(count: int, size_bytes: int = 100, first: int = 0) -> list[tuple[bytes, bytes]]:
    return [block(first + number, size_bytes) for number in range(count)]


class Clock:
    """A time that a test sets, in seconds."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def classes(store: Blockstore, count: int) -> list[BlockClass | None]:
    """The classes of the first `count` blocks."""
    rows = [store.row(multihash) for multihash, _ in blocks(count)]
    return [None if row is None else row.block_class for row in rows]


OWN, CACHE, DEAL = BlockClass.OWN, BlockClass.CACHE, BlockClass.DEAL


class BlockstoreConformance:
    """Given an empty store and the clock that it was made with, each method keeps its promise."""

    def test_it_is_a_blockstore(self, store: Blockstore) -> None:
        assert isinstance(store, Blockstore)

    def test_what_was_put_is_there(self, store: Blockstore) -> None:
        some = [*blocks(50), *blocks(3, 1 << 20, first=100), (mh.digest(b""), b"")]
        assert store.put_many(iter(some)) == PutResult(54, 0, sum(len(data) for _, data in some))
        for multihash, data in some:
            assert store.get(multihash) == data
            assert store.has(multihash)
            assert store.size(multihash) == len(data)
            with store.view(multihash) as view:
                assert view == data
                assert view.readonly
            found = store.find(multihash)
            assert found is not None
            assert len(found) == len(data)
            with found as view:
                assert bytes(view) == data

    def test_what_was_not_put_is_not_there(self, store: Blockstore) -> None:
        store.put_many(blocks(5))
        absent, _ = block(99)
        assert not store.has(absent)
        assert store.size(absent) is None
        assert store.row(absent) is None
        assert store.find(absent) is None
        with pytest.raises(BlockNotFound):
            store.get(absent)
        with pytest.raises(LookupError):
            store.view(absent)
        with pytest.raises(BlockNotFound):
            store.replace(absent, b"x")

    def test_many_are_found_within_one_context(self, store: Blockstore) -> None:
        some = dict(blocks(20))
        store.put_many(some.items())
        with store.reading() as find:
            for multihash, data in some.items():
                found = find(multihash)
                assert found is not None
                assert bytes(found) == data
            assert find(block(99)[0]) is None
            assert find(b"\0\1x") is None
        with store.reading() as find:
            assert find(next(iter(some))) is not None

    def test_putting_again_stores_nothing_twice(self, store: Blockstore) -> None:
        store.put_many(blocks(10))
        assert store.put_many(blocks(12)) == PutResult(2, 10, 200)
        assert store.put_many([block(20), block(20)]) == PutResult(1, 1, 100)
        assert store.put_many([]) == PutResult(0, 0, 0)
        assert store.stat().blocks == 13
        assert store.stat().bytes == 1300

    def test_a_memoryview_can_be_put(self, store: Blockstore) -> None:
        multihash, data = block(1)
        store.put_many([(multihash, memoryview(data))])
        assert store.get(multihash) == data

    def test_keys_are_listed_and_paged(self, store: Blockstore) -> None:
        some = dict(blocks(2500, 8))
        store.put_many(some.items())
        keys = list(store)
        assert len(keys) == len(some)
        assert set(keys) == set(some)
        paged: list[bytes] = []
        while page := list(islice(store.keys(paged[-1] if paged else None), 700)):
            paged += page
        assert paged == keys
        assert [multihash for multihash, _ in store.rows()] == keys
        assert list(store.rows(keys[2])) == list(store.rows())[3:]

    def test_keys_go_on_behind_a_deleted_one(self, store: Blockstore) -> None:
        store.put_many(blocks(20))
        keys = list(store)
        store.delete_many([keys[7]])
        assert list(store.keys(keys[7])) == keys[8:]

    def test_deleting(self, store: Blockstore) -> None:
        store.put_many(blocks(10))
        gone = [multihash for multihash, _ in blocks(4)]
        freed = store.delete_many([*gone, block(99)[0]])
        assert sorted(freed.multihashes) == sorted(gone)
        assert freed.bytes == 400
        assert not any(store.has(multihash) for multihash in gone)
        assert store.stat().blocks == 6
        assert store.stat().bytes == 600
        assert store.put_many(blocks(10)).new == 4

    def test_identity_blocks_are_their_own_store(self, store: Blockstore) -> None:
        carried = mh.digest(b"tiny", mh.IDENTITY)
        assert store.put_many([(carried, b"tiny"), block(1)]) == PutResult(1, 0, 100)
        assert not store.has(carried)
        assert store.find(carried) is None
        assert store.touch_many([carried]) == []
        assert store.delete_many([carried]).multihashes == []
        with pytest.raises(BlockNotFound):
            store.get(carried)

    @pytest.mark.parametrize("multihash", [b"", b"\x12", b"\x12" * 256])
    def test_impossible_keys_are_refused(self, store: Blockstore, multihash: bytes) -> None:
        with pytest.raises(BlockRefused):
            store.put_many([(multihash, b"data")])

    def test_blocks_over_the_limit_are_refused(self, store: Blockstore) -> None:
        at_limit, over = bytes(MAX_BLOCK_BYTES), bytes(MAX_BLOCK_BYTES + 1)
        assert store.put_many([(mh.digest(at_limit), at_limit)]).new == 1
        with pytest.raises(BlockRefused):
            store.put_many([(mh.digest(over), over)])
        with pytest.raises(BlockRefused):
            store.replace(mh.digest(at_limit), over)

    def test_an_error_of_the_giver_passes_through(self, store: Blockstore) -> None:
        def items() -> object:
            yield block(1)
            raise RuntimeError("reading failed")

        with pytest.raises(RuntimeError, match="reading failed"):
            store.put_many(items())  # type: ignore[arg-type]
        assert store.put_many([block(2)]).new == 1

    def test_cached_becomes_own_and_never_back(self, store: Blockstore) -> None:
        store.put_many(blocks(3), BlockClass.CACHE)
        assert (store.stat().cache_blocks, store.stat().cache_bytes) == (3, 300)
        store.put_many([block(0)])
        assert store.touch_many([block(1)[0]]) == []
        assert (store.stat().cache_blocks, store.stat().cache_bytes) == (1, 100)
        store.put_many(blocks(3), BlockClass.CACHE)
        assert [store.row(multihash).block_class for multihash, _ in blocks(3)] == [  # type: ignore[union-attr]
            BlockClass.OWN,
            BlockClass.OWN,
            BlockClass.CACHE,
        ]
        assert store.stat().blocks == 3
        assert store.stat().bytes == 300

    @pytest.mark.parametrize("first", list(BlockClass))
    @pytest.mark.parametrize("second", list(BlockClass))
    def test_a_put_or_touch_makes_the_class_stronger_and_never_weaker(
        self, store: Blockstore, first: BlockClass, second: BlockClass
    ) -> None:
        store.put_many(blocks(2), first)
        store.put_many([block(0)], second)
        store.touch_many([block(1)[0]], second)
        strongest = OWN if OWN in (first, second) else DEAL if DEAL in (first, second) else CACHE
        assert classes(store, 2) == [strongest, strongest]
        stat = store.stat()
        assert (stat.blocks, stat.bytes) == (2, 200)
        assert (stat.cache_blocks, stat.cache_bytes) == ((2, 200) if strongest is CACHE else (0, 0))
        assert (stat.deal_blocks, stat.deal_bytes) == ((2, 200) if strongest is DEAL else (0, 0))

    def test_old_blocks_are_given_another_class_and_young_ones_not(self, store: Blockstore) -> None:
        store.put_many(blocks(4))
        limit = store.begin_collection()
        store.touch_many([block(3)[0]])
        wanted = [multihash for multihash, _ in blocks(6)]
        assert store.reclass_many(wanted, DEAL, limit) == 3
        assert classes(store, 4) == [DEAL, DEAL, DEAL, OWN]
        assert (store.stat().deal_blocks, store.stat().deal_bytes) == (3, 300)
        assert store.reclass_many(wanted, DEAL, limit) == 0
        assert store.reclass_many(wanted[:1], CACHE, limit) == 1
        assert store.evict(0) == Evicted(1, 100)
        assert classes(store, 4) == [None, DEAL, DEAL, OWN]

    def test_cached_blocks_remember_their_last_use(self, store: Blockstore, clock: Clock) -> None:
        store.put_many(blocks(3), CACHE)
        store.put_many([block(3)])
        wanted = [multihash for multihash, _ in blocks(5)]
        store.use_many(wanted[1:], 1500)
        store.use_many(wanted[1:2], 1400)
        clock.now_s = 2000.5
        store.put_many([block(2)], CACHE)
        assert [row.used_s for row in map(store.row, wanted) if row is not None] == [1000, 1500, 2000, 0]
        assert classes(store, 4) == [CACHE, CACHE, CACHE, OWN]

    def test_what_was_used_least_recently_is_evicted_first(self, store: Blockstore) -> None:
        store.put_many(blocks(40), CACHE)
        store.put_many(blocks(5, first=100))
        store.put_many(blocks(5, first=200), DEAL)
        order = [multihash for multihash, _ in blocks(40)]
        for number, multihash in enumerate(order):
            store.use_many([multihash], 2000 + (number * 7) % 40)
        by_use = sorted(order, key=lambda each: 2000 + (order.index(each) * 7) % 40)
        gone: list[bytes] = []
        assert store.evict(4000, gone.extend) == Evicted(0, 0)
        assert store.evict(2950, gone.extend) == Evicted(11, 1100)
        assert sorted(gone) == sorted(by_use[:11])
        assert store.stat().cache_bytes == 2900
        store.use_many([by_use[11]], 9000)
        assert store.evict(100) == Evicted(28, 2800)
        assert store.has(by_use[11])
        assert store.evict(0) == Evicted(1, 100)
        assert store.evict(0) == Evicted(0, 0)
        assert (store.stat().blocks, store.stat().cache_bytes) == (10, 0)

    def test_what_is_cached_under_a_lease_is_not_evicted_before_it_ends(
        self, store: Blockstore, clock: Clock
    ) -> None:
        store.put_many(blocks(10), CACHE)
        clock.now_s += 1
        with store.lease():
            store.put_many(blocks(10, first=10), CACHE)
            assert store.touch_many([block(4)[0]], CACHE) == []
            assert store.evict(0) == Evicted(9, 900)
            clock.now_s += 100
            assert store.evict(0) == Evicted(0, 0)
        assert store.evict(0) == Evicted(11, 1100)

    def test_what_became_stronger_or_was_deleted_is_not_evicted(self, store: Blockstore) -> None:
        store.put_many(blocks(4), CACHE)
        store.touch_many([block(0)[0]])
        store.put_many([block(1)], DEAL)
        store.delete_many([block(2)[0]])
        assert store.evict(0) == Evicted(1, 100)
        assert classes(store, 4) == [OWN, DEAL, None, None]

    def test_touching_names_what_is_absent(self, store: Blockstore) -> None:
        store.put_many(blocks(5))
        wanted = [multihash for multihash, _ in blocks(8)]
        assert sorted(store.touch_many(wanted)) == sorted(wanted[5:])

    def test_old_unleased_blocks_are_freed_and_young_ones_stay(self, store: Blockstore) -> None:
        store.put_many(blocks(4))
        limit = store.begin_collection()
        store.put_many([block(1), block(9)])
        store.touch_many([block(2)[0]])
        freed = store.free_many([multihash for multihash, _ in [*blocks(4), block(9)]], limit)
        assert sorted(freed.multihashes) == sorted([block(0)[0], block(3)[0]])
        assert store.has(block(1)[0])
        assert store.has(block(2)[0])
        assert store.has(block(9)[0])

    def test_a_lease_holds_the_limit_down(self, store: Blockstore) -> None:
        store.put_many(blocks(2))
        assert store.begin_collection() > 0
        with store.lease():
            store.put_many([block(5), block(1)])
            for _ in range(3):
                limit = store.begin_collection()
                assert store.lease_floor() == limit
                freed = store.free_many([block(0)[0], block(1)[0], block(5)[0]], limit)
                assert set(freed.multihashes) <= {block(0)[0]}
        assert not store.has(block(0)[0])
        limit = store.begin_collection()
        assert len(store.free_many(list(store), limit).multihashes) == 2

    def test_freeing_can_be_bound_to_the_cache(self, store: Blockstore) -> None:
        store.put_many(blocks(2), BlockClass.CACHE)
        store.touch_many([block(0)[0]])
        freed = store.free_many(list(store), store.begin_collection(), BlockClass.CACHE)
        assert freed.multihashes == [block(1)[0]]

    def test_damage_is_found_and_healed(self, store: Blockstore) -> None:
        some = blocks(200, 3000)
        store.put_many(some)
        multihash, data = some[7]
        store.replace(multihash, b"rotten")
        store.replace(some[9][0], bytes(3000))
        report = verify(store)
        assert report.blocks == 200
        assert sorted(report.damaged) == sorted([multihash, some[9][0]])
        assert verify(store, [multihash, block(999)[0]]).damaged == (multihash,)
        with pytest.raises(DamagedBlock):
            heal(store, multihash, b"rotten too")
        heal(store, multihash, data)
        heal(store, *some[9])
        assert verify(store).damaged == ()
        assert store.get(multihash) == data
        assert store.stat().bytes == 200 * 3000

    def test_what_cannot_be_hashed_is_not_damaged(self, store: Blockstore) -> None:
        unknown = bytes([0x7F, 32]) + bytes(32)
        store.put_many([(unknown, b"data"), block(1)])
        report = verify(store)
        assert (report.damaged, report.unverifiable) == ((), 1)

    def test_threads_may_do_everything_at_once(self, store: Blockstore) -> None:
        failures: list[BaseException] = []

        def work(seed: int) -> None:
            try:
                for turn in range(15):
                    mine = blocks(8, 64, first=1000 * seed + 8 * turn)
                    shared = blocks(4, 64, first=turn)
                    store.put_many([*mine, *shared])
                    assert all(store.get(multihash) == data for multihash, data in mine)
                    store.touch_many([multihash for multihash, _ in shared])
                    assert len(store.delete_many([mine[0][0]]).multihashes) == 1
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        rows = dict(store.rows())
        assert len(rows) == 6 * 15 * 7 + 18 == store.stat().blocks
        assert store.stat().bytes == sum(row.length for row in rows.values())
