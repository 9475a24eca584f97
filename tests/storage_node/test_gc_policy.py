"""When a store is evicted and collected by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_node.blockstore.interface import StoreStat
from storage_node.gc_policy import AGAIN_AFTER_S, LastCollection, Plan, Watermarks, plan, room_bytes

MARKS = Watermarks(high_percent=90, low_percent=80, cache_bytes=500)


def stat(others: int, cache: int, *, quota: int | None = 1000, free: int = 10_000) -> StoreStat:
    return StoreStat(
        blocks=2,
        bytes=others + cache,
        cache_blocks=1,
        cache_bytes=cache,
        deal_blocks=0,
        deal_bytes=0,
        file_bytes=0,
        reusable_bytes=0,
        disk_free_bytes=free,
        max_bytes=quota,
        reserve_bytes=100,
    )


@pytest.mark.parametrize(
    ("others", "cache", "expected"),
    [
        (0, 0, Plan(None, False)),
        (400, 500, Plan(None, False)),  # at the high mark, not above it
        (100, 501, Plan(500, False)),  # the cache's own bound
        (600, 301, Plan(200, False)),  # above the high mark: down to the low one
        (800, 200, Plan(0, False)),  # without cache it is at the low mark
        (801, 200, Plan(0, True)),  # evicting all of it does not get there
        (950, 0, Plan(None, True)),
    ],
)
def test_cache_goes_first(others: int, cache: int, expected: Plan) -> None:
    assert plan(stat(others, cache), MARKS, None, 0) == expected


def test_the_room_is_what_quota_and_disk_allow() -> None:
    assert room_bytes(stat(300, 100)) == 1000
    assert room_bytes(stat(300, 100, quota=None, free=700)) == 1000
    assert room_bytes(stat(300, 100, free=300)) == 600
    assert room_bytes(stat(300, 100, quota=None, free=50)) == 400
    assert plan(stat(600, 0, free=150), MARKS, None, 0).collect


def test_a_store_full_of_what_is_needed_is_not_collected_again_and_again() -> None:
    last = LastCollection(at_s=1000, kept_bytes=950)
    assert not plan(stat(950, 0), MARKS, last, 1000 + AGAIN_AFTER_S - 1).collect
    assert plan(stat(950, 0), MARKS, last, 1000 + AGAIN_AFTER_S).collect
    assert plan(stat(961, 0), MARKS, last, 1001).collect  # more than a hundredth of the room came since
    assert plan(stat(950, 0), MARKS, last, 0).collect  # the clock was set back


@given(
    st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 100), st.integers(0, 100), st.integers(0, 2000)
)
def test_eviction_never_goes_deeper_than_it_must(
    others: int, cache: int, high: int, low: int, bound: int
) -> None:
    found = plan(stat(others, cache), Watermarks(high, low, bound), None, 0)
    left = cache if found.evict_to_bytes is None else found.evict_to_bytes
    assert 0 <= left <= min(cache, bound)
    above = others + cache > 1000 * high // 100
    goal = 1000 * min(low, high) // 100
    if above:
        assert others + left <= goal or left == 0
    if left < min(cache, bound):
        assert above
        assert left == max(0, goal - others)
    assert found.collect == (above and others > goal)
