"""A blockstore in memory with the same promises, except that it dies with its process."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from merkledag.block import MAX_BLOCK_BYTES
from storage_node.blockstore.interface import (
    BlockClass,
    BlockRow,
    Buffer,
    Evicted,
    Find,
    Freed,
    PutResult,
    StoreStat,
    storable,
    stronger,
)
from storage_node.errors import BlockNotFound, BlockRefused, QuotaExceeded


class MemoryStore:
    """See `Blockstore`. For tests, and for commands that keep nothing."""

    def __init__(self, max_bytes: int | None = None, clock: Callable[[], float] = time.time) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.RLock()
        self._blocks: dict[bytes, tuple[bytes, BlockRow]] = {}
        self._bytes = 0
        self._epoch = 1
        self._leases: list[_Lease] = []

    def find(self, multihash: bytes) -> _MemoryView | None:
        """See Blockstore."""
        if not storable(multihash):
            return None
        found = self._blocks.get(multihash)
        return None if found is None else _MemoryView(found[0])

    def view(self, multihash: bytes) -> _MemoryView:
        """See Blockstore."""
        return _MemoryView(self.get(multihash))

    def get(self, multihash: bytes) -> bytes:
        """See Blockstore."""
        found = self._blocks.get(multihash) if storable(multihash) else None
        if found is None:
            raise BlockNotFound(f"block {multihash.hex()} is not in this store")
        return found[0]

    @contextmanager
    def reading(self) -> Iterator[Find]:
        """See Blockstore."""

        def find(multihash: bytes) -> memoryview | None:
            found = self._blocks.get(multihash) if storable(multihash) else None
            return None if found is None else memoryview(found[0])

        yield find

    def row(self, multihash: bytes) -> BlockRow | None:
        """See Blockstore."""
        found = self._blocks.get(multihash) if storable(multihash) else None
        return None if found is None else found[1]

    def size(self, multihash: bytes) -> int | None:
        """See Blockstore."""
        row = self.row(multihash)
        return None if row is None else row.length

    def has(self, multihash: bytes) -> bool:
        """See Blockstore."""
        return self.row(multihash) is not None

    def rows(self, after: bytes | None = None) -> Iterator[tuple[bytes, BlockRow]]:
        """See Blockstore."""
        for multihash in self.keys(after):
            row = self.row(multihash)
            if row is not None:
                yield multihash, row

    def keys(self, after: bytes | None = None) -> Iterator[bytes]:
        """See Blockstore. Ascending, as they stood at the call."""
        with self._lock:
            ordered = sorted(self._blocks)
        yield from ordered if after is None else ordered[bisect_right(ordered, after) :]

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def stat(self) -> StoreStat:
        """See Blockstore. There are no files: their sizes are 0."""
        with self._lock:
            rows = [row for _, row in self._blocks.values()]
            cached = [row for row in rows if row.block_class is BlockClass.CACHE]
            for_deals = [row for row in rows if row.block_class is BlockClass.DEAL]
            return StoreStat(
                blocks=len(self._blocks),
                bytes=self._bytes,
                cache_blocks=len(cached),
                cache_bytes=sum(row.length for row in cached),
                deal_blocks=len(for_deals),
                deal_bytes=sum(row.length for row in for_deals),
                file_bytes=0,
                reusable_bytes=0,
                disk_free_bytes=0,
                max_bytes=self._max_bytes,
                reserve_bytes=0,
            )

    def put_many(
        self, items: Iterable[tuple[bytes, Buffer]], block_class: BlockClass = BlockClass.OWN
    ) -> PutResult:
        """See Blockstore."""
        self._cover(block_class)
        new = present = new_bytes = 0
        for multihash, block in items:
            if not storable(multihash):
                continue
            if len(block) > MAX_BLOCK_BYTES:
                raise BlockRefused(f"a block of {len(block)} bytes; at most {MAX_BLOCK_BYTES} are stored")
            with self._lock:
                if self._touch(multihash, block_class):
                    present += 1
                    continue
                self._make_room(len(block))
                used_s = int(self._clock()) if block_class is BlockClass.CACHE else 0
                row = BlockRow(len(block), self._epoch, block_class, used_s)
                self._blocks[multihash] = (bytes(block), row)
                self._bytes += len(block)
            new += 1
            new_bytes += len(block)
        return PutResult(new, present, new_bytes)

    def _make_room(self, new_bytes: int) -> None:
        if self._max_bytes is None or self._bytes + new_bytes <= self._max_bytes:
            return
        cache_bytes = self.stat().cache_bytes
        wanted = self._bytes + new_bytes - self._max_bytes
        if wanted > cache_bytes or self.evict(cache_bytes - wanted).bytes < wanted:
            raise QuotaExceeded(f"the store's quota of {self._max_bytes} bytes has no room for {new_bytes}")

    def _cover(self, block_class: BlockClass) -> None:
        """Keep cached blocks that are used from now on from eviction, under the leases there are."""
        with self._lock:
            for lease in self._leases:
                if block_class is BlockClass.CACHE and lease.cached_s is None:
                    lease.cached_s = int(self._clock())

    def touch_many(
        self, multihashes: Iterable[bytes], block_class: BlockClass = BlockClass.OWN
    ) -> list[bytes]:
        """See Blockstore."""
        self._cover(block_class)
        with self._lock:
            return [each for each in multihashes if storable(each) and not self._touch(each, block_class)]

    def _touch(self, multihash: bytes, block_class: BlockClass) -> bool:
        found = self._blocks.get(multihash)
        if found is None:
            return False
        block, row = found
        kept = stronger(row.block_class, block_class)
        used_s = max(row.used_s, int(self._clock())) if kept is BlockClass.CACHE else 0
        self._blocks[multihash] = (block, BlockRow(row.length, self._epoch, kept, used_s))
        return True

    def use_many(self, multihashes: Iterable[bytes], at_s: int) -> None:
        """See Blockstore."""
        with self._lock:
            for multihash in multihashes:
                row = self.row(multihash)
                if row is not None and row.block_class is BlockClass.CACHE and row.used_s < at_s:
                    self._blocks[multihash] = (self._blocks[multihash][0], row._replace(used_s=at_s))

    def evict(self, target_bytes: int, on_freed: Callable[[list[bytes]], None] | None = None) -> Evicted:
        """See Blockstore."""
        with self._lock:
            cached = [
                (row.used_s, multihash, row.length)
                for multihash, (_, row) in self._blocks.items()
                if row.block_class is BlockClass.CACHE
            ]
            surplus = sum(length for _, _, length in cached) - target_bytes
            covered = [each.cached_s for each in self._leases if each.cached_s is not None]
            kept_since = min(covered, default=math.inf)
            gone: list[bytes] = []
            freed_bytes = 0
            for _, multihash, length in sorted(cached):
                if freed_bytes >= surplus or self._blocks[multihash][1].used_s >= kept_since:
                    break
                del self._blocks[multihash]
                gone.append(multihash)
                freed_bytes += length
            self._bytes -= freed_bytes
        if on_freed is not None and gone:
            on_freed(gone)
        return Evicted(len(gone), freed_bytes)

    def delete_many(self, multihashes: Iterable[bytes]) -> Freed:
        """See Blockstore."""
        return self.free_many(multihashes, self._epoch + 1)

    def free_many(
        self, multihashes: Iterable[bytes], before_epoch: int, only_class: BlockClass | None = None
    ) -> Freed:
        """See Blockstore."""
        gone, freed_bytes = [], 0
        with self._lock:
            for multihash in multihashes:
                row = self.row(multihash)
                if row is None or row.epoch >= before_epoch:
                    continue
                if only_class is not None and row.block_class is not only_class:
                    continue
                del self._blocks[multihash]
                self._bytes -= row.length
                gone.append(multihash)
                freed_bytes += row.length
        return Freed(gone, freed_bytes)

    def reclass_many(self, multihashes: Iterable[bytes], block_class: BlockClass, before_epoch: int) -> int:
        """See Blockstore."""
        changed = 0
        with self._lock:
            for multihash in multihashes:
                row = self.row(multihash)
                if row is None or row.epoch >= before_epoch or row.block_class is block_class:
                    continue
                used_s = int(self._clock()) if block_class is BlockClass.CACHE else 0
                changed_row = row._replace(block_class=block_class, used_s=used_s)
                self._blocks[multihash] = (self._blocks[multihash][0], changed_row)
                changed += 1
        return changed

    def replace(self, multihash: bytes, data: Buffer) -> None:
        """See Blockstore."""
        if len(data) > MAX_BLOCK_BYTES:
            raise BlockRefused(f"a block of {len(data)} bytes; at most {MAX_BLOCK_BYTES} are stored")
        with self._lock:
            row = self.row(multihash)
            if row is None:
                raise BlockNotFound(f"block {multihash.hex()} is not in this store")
            self._blocks[multihash] = (bytes(data), row._replace(length=len(data)))
            self._bytes += len(data) - row.length

    @contextmanager
    def lease(self) -> Iterator[None]:
        """See Blockstore."""
        with self._lock:
            lease = _Lease(self._epoch)
            self._leases.append(lease)
        try:
            yield
        finally:
            with self._lock:
                self._leases.remove(lease)

    def begin_collection(self) -> int:
        """See Blockstore."""
        with self._lock:
            self._epoch += 1
            return min([self._epoch, *(each.epoch for each in self._leases)])

    def lease_floor(self) -> int:
        """See Blockstore."""
        with self._lock:
            return min([self._epoch + 1, *(each.epoch for each in self._leases)])

    def close(self) -> None:
        """See Blockstore."""


@dataclass(slots=True, eq=False)
class _Lease:
    """Blocks stamped `epoch` or later are not collected, cached ones used from `cached_s` on not evicted."""

    epoch: int
    cached_s: int | None = None


class _MemoryView:
    """A block's bytes as a context manager."""

    __slots__ = ("_view",)

    def __init__(self, block: bytes) -> None:
        self._view = memoryview(block)

    def __len__(self) -> int:
        return len(self._view)

    def __enter__(self) -> memoryview:
        return self._view

    def __exit__(self, *_: object) -> None:
        self._view.release()
