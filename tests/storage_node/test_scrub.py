"""Scrubbing: rounds that go on where they were, damaged blocks that are listed and healed, and the pace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from merkledag.cid import CID
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import Store
from storage_node.meta import Meta, Table
from storage_node.scrub import Damaged, Pace, Round, Rounds, heal_listed, recheck, scrub
from tests.storage_node.content import a_store, some_bytes

BLOCKS = {CID.of(data).multihash: data for data in (some_bytes(1000 + n, n) for n in range(300))}


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Scrubbed:
    """A store of 300 blocks with its records."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = a_store(folder / "blocks")
        self.store.put_many(BLOCKS.items())
        self.meta = Meta(folder / "meta")
        self.time = Time()
        self.rounds = Rounds(self.meta, "scrub")
        self.damaged = Damaged(self.meta)

    def scrub(self, bytes_per_s: int | None = None, slices: int | None = None) -> Round:
        """One round, or so many groups of it."""
        done = 0

        def stop() -> bool:
            nonlocal done
            done += 1
            return slices is not None and done >= slices

        pace = Pace(bytes_per_s, self.time, self.time.sleep)
        return scrub(self.store, self.rounds, self.damaged, clock=self.time, pace=pace, threads=2, stop=stop)

    def spoil(self, *multihashes: bytes) -> None:
        """What a disk does, without a hint to anybody."""
        for multihash in multihashes:
            self.store.replace(multihash, bytes(len(BLOCKS[multihash])))


@pytest.fixture
def scrubbed(tmp_path: Path) -> Iterator[Scrubbed]:
    made = Scrubbed(tmp_path)
    yield made
    made.store.close()


def test_a_round_reads_every_block_once_however_often_it_is_stopped(scrubbed: Scrubbed) -> None:
    now = scrubbed.scrub(slices=1)
    stops = 1
    while now.ended_s is None:
        assert scrubbed.rounds.current() == now
        now = scrubbed.scrub(slices=1)
        stops += 1
    assert stops > 3
    assert (now.blocks, now.size_bytes) == (len(BLOCKS), sum(map(len, BLOCKS.values())))
    assert scrubbed.rounds.current() is None
    assert scrubbed.rounds.last() == now
    assert scrubbed.scrub().began_s == 1000


def test_damaged_blocks_are_listed_once_and_until_they_are_well(scrubbed: Scrubbed) -> None:
    first, second, third = list(BLOCKS)[:3]
    scrubbed.spoil(first, second, third)
    assert scrubbed.scrub().damaged == 3
    assert scrubbed.scrub().damaged == 3
    assert (set(scrubbed.damaged), scrubbed.damaged.count()) == ({first, second, third}, 3)
    scrubbed.store.replace(first, BLOCKS[first])
    scrubbed.store.delete_many([second])
    recheck(scrubbed.store, scrubbed.damaged)
    assert (list(scrubbed.damaged), scrubbed.damaged.count()) == ([third], 1)
    scrubbed.store.replace(third, BLOCKS[third])
    scrubbed.scrub()
    assert scrubbed.damaged.count() == 0


def test_what_others_have_heals_and_wrong_bytes_do_not(scrubbed: Scrubbed) -> None:
    good, wrong, nowhere = list(BLOCKS)[:3]
    scrubbed.spoil(good, wrong, nowhere)
    scrubbed.scrub()

    def find(multihashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        have = {good: BLOCKS[good], wrong: b"not that"}
        return {multihash: have[multihash] for multihash in multihashes if multihash in have}

    done = heal_listed(scrubbed.store, scrubbed.damaged, find)
    assert (done.healed, done.dropped, set(done.lost)) == (1, 0, {wrong, nowhere})
    assert set(scrubbed.damaged) == {wrong, nowhere}
    assert scrubbed.store.get(good) == BLOCKS[good]


def test_damaged_cache_goes_and_nobody_is_asked_for_it(scrubbed: Scrubbed) -> None:
    data = some_bytes(500, 999)
    cached = CID.of(data).multihash
    scrubbed.store.put_many([(cached, data)], BlockClass.CACHE)
    scrubbed.store.replace(cached, bytes(500))
    scrubbed.scrub()
    asked: list[bytes] = []

    def find(multihashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        asked.extend(multihashes)
        return {}

    assert heal_listed(scrubbed.store, scrubbed.damaged, find).dropped == 1
    assert not asked
    assert not scrubbed.store.has(cached)
    assert scrubbed.damaged.count() == 0


def test_healing_that_was_stopped_goes_on_behind_what_it_tried(scrubbed: Scrubbed) -> None:
    spoiled = list(BLOCKS)[:40]
    scrubbed.spoil(*spoiled)
    scrubbed.scrub()
    asked: list[bytes] = []

    def find(multihashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        asked.extend(multihashes)
        return {}

    done = heal_listed(scrubbed.store, scrubbed.damaged, find, stop=lambda: True)
    while done.after is not None:
        done = heal_listed(scrubbed.store, scrubbed.damaged, find, lambda: True, done.after)
    assert sorted(asked) == sorted(spoiled)


def test_the_pace_holds_over_slices(scrubbed: Scrubbed) -> None:
    size_bytes = sum(map(len, BLOCKS.values()))
    began_s = scrubbed.time()
    scrubbed.scrub(bytes_per_s=10_000)
    assert scrubbed.time() - began_s == pytest.approx(size_bytes / 10_000)
    pace = Pace(10, scrubbed.time, scrubbed.time.sleep)
    pace.spend(100, stop=lambda: True)
    before_s = scrubbed.time()
    pace.spend(10, stop=lambda: False)
    assert scrubbed.time() - before_s == pytest.approx(11)


def test_a_list_that_lost_its_count_is_worked_off_all_the_same(tmp_path: Path) -> None:
    meta = Meta(tmp_path / "meta")
    damaged = Damaged(meta)
    damaged.add([b"one", b"two"], 1)
    meta.delete(Table.RECORDS, b"damaged-count")
    damaged.remove([b"one"])
    assert (list(damaged), damaged.count()) == ([b"two"], 0)
