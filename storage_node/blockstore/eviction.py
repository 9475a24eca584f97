"""Which cached blocks go first: over all shards those that were used least recently."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from storage_node.blockstore.interface import Evicted
from storage_node.blockstore.shard import Shard

BLOCKS_AT_ONCE = 4096
BYTES_AT_ONCE = 64 * 1024 * 1024

_Candidate = tuple[int, bytes, int, Shard]  # last use, multihash, length, where


def evict(
    shards: Sequence[Shard],
    surplus_bytes: int,
    kept_since: Callable[[], int | None],
    on_freed: Callable[[list[bytes]], None] | None = None,
) -> Evicted:
    """Free `surplus_bytes` of cached blocks or a little more; less only if there is no more.

    What was used at `kept_since` or later stays: live leases cover it, which is asked again in each deletion.
    Reads and writes what it frees and a page of each shard's index; a bounded group at a time.
    """
    candidates = heapq.merge(*(_of(shard) for shard in shards))  # no two have the same multihash
    blocks = freed_bytes = 0
    while freed_bytes < surplus_bytes:
        group = _next(candidates, surplus_bytes - freed_bytes, kept_since())
        if not group:
            break
        for shard in shards:
            mine = [(multihash, used_s) for used_s, multihash, _, where in group if where is shard]
            if mine:
                mine.sort()  # as the rows lie: neighbours share pages
                freed = shard.evict(mine, kept_since)
                blocks += len(freed.multihashes)
                freed_bytes += freed.bytes
                if on_freed is not None and freed.multihashes:
                    on_freed(freed.multihashes)
    return Evicted(blocks, freed_bytes)


def evict_surplus(
    shards: Sequence[Shard],
    surplus_bytes: Callable[[], int],
    kept_since: Callable[[], int | None],
    on_freed: Callable[[list[bytes]], None] | None = None,
) -> Evicted:
    """As `evict`, of a surplus that others lower too: it is looked at again before each group."""
    blocks = freed_bytes = 0
    while (wanted_bytes := surplus_bytes()) > 0:
        gone = evict(shards, min(wanted_bytes, BYTES_AT_ONCE), kept_since, on_freed)
        if not gone.blocks:
            break
        blocks += gone.blocks
        freed_bytes += gone.bytes
    return Evicted(blocks, freed_bytes)


def _of(shard: Shard) -> Iterator[_Candidate]:
    return ((used_s, multihash, length, shard) for used_s, multihash, length in shard.least_used())


def _next(candidates: Iterator[_Candidate], wanted_bytes: int, kept_since: int | None) -> list[_Candidate]:
    """The next candidates, enough for the bytes that are wanted or as many as one step frees."""
    group: list[_Candidate] = []
    size_bytes = 0
    while size_bytes < min(wanted_bytes, BYTES_AT_ONCE) and len(group) < BLOCKS_AT_ONCE:
        candidate = next(candidates, None)
        if candidate is None or (kept_since is not None and candidate[0] >= kept_since):
            break
        group.append(candidate)
        size_bytes += candidate[2]
    return group
