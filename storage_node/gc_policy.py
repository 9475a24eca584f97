"""When a server evicts and collects by itself: a pure function of the store's sizes and the settings.

Cache goes first, down to its own bound and, above the high mark, until no more than the low mark is taken.
Where that is not enough, what nothing needs is collected; but not again and again in a store that is full of
what is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage_node.blockstore.interface import StoreStat

AGAIN_AFTER_S = 3600  # above the high mark: content may have been unpinned
AGAIN_AFTER_PERCENT = 1  # of the room: so much new content is worth a look at once


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The settings: bounds of what is taken, in percent of the room, and of the cache, in bytes."""

    high_percent: int
    low_percent: int  # one above the high mark counts as that
    cache_bytes: int


@dataclass(frozen=True, slots=True)
class LastCollection:
    """When a collection ended (Unix time), and the bytes of the blocks that it kept."""

    at_s: int
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now: evict cache down to so many bytes (None: leave it), and whether to collect."""

    evict_to_bytes: int | None
    collect: bool


def room_bytes(stat: StoreStat) -> int:
    """What the store could hold: its quota, or less where the disk has less above the reserve."""
    disk = stat.bytes + stat.reusable_bytes + max(0, stat.disk_free_bytes - stat.reserve_bytes)
    return disk if stat.max_bytes is None else min(stat.max_bytes, disk)


def plan(stat: StoreStat, marks: Watermarks, last: LastCollection | None, now_s: float) -> Plan:
    """What is to be done in a store of these sizes."""
    room = room_bytes(stat)
    high = room * marks.high_percent // 100
    low = min(high, room * marks.low_percent // 100)
    others_bytes = stat.bytes - stat.cache_bytes
    cache_bytes = min(stat.cache_bytes, marks.cache_bytes)
    above = stat.bytes > high
    if above:
        cache_bytes = min(cache_bytes, max(0, low - others_bytes))
    return Plan(
        cache_bytes if cache_bytes < stat.cache_bytes else None,
        above and others_bytes > low and _is_worth_a_look(others_bytes, room, last, now_s),
    )


def _is_worth_a_look(others_bytes: int, room: int, last: LastCollection | None, now_s: float) -> bool:
    if last is None or not 0 <= now_s - last.at_s < AGAIN_AFTER_S:
        return True
    return others_bytes - last.kept_bytes > room * AGAIN_AFTER_PERCENT // 100
