"""When a store makes room by itself, and how much of its cache goes: a decision from its sizes alone."""

from __future__ import annotations

from dataclasses import dataclass

from storage_node.blockstore.interface import StoreStat


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Bounds of a store: of its cache in bytes, of all its blocks in percent of the room there is.

    The room is the quota, and no more than what blocks take and the disk still offers above the reserve. A
    low mark above the high one counts as that.
    """

    cache_bytes: int
    high_percent: int
    low_percent: int

    def is_high(self, stat: StoreStat) -> bool:
        """Whether so much of the room is taken that something must go."""
        return stat.bytes * 100 >= self.high_percent * room_bytes(stat)

    def cache_target(self, stat: StoreStat) -> int:
        """How many bytes of cache may stay: above the high mark only what leaves the use at the low one."""
        allowed = self.cache_bytes
        if self.is_high(stat):
            low_bytes = min(self.low_percent, self.high_percent) * room_bytes(stat) // 100
            allowed = min(allowed, stat.cache_bytes - (stat.bytes - low_bytes))
        return max(0, allowed)


def room_bytes(stat: StoreStat) -> int:
    """What blocks may take in all."""
    on_disk = stat.bytes + stat.reusable_bytes + max(0, stat.disk_free_bytes - stat.reserve_bytes)
    return on_disk if stat.max_bytes is None else min(stat.max_bytes, on_disk)
