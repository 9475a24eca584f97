"""Whether a store has room: its quota over all processes and the reserve of free disk, checked while writing.

The quota counts committed bytes, which every process reads, and those in flight, which only their writer
knows. LMDB lets one process at a time write to a shard, so what is in flight is at most MAX_GROUP_BYTES a
shard. Whoever adds bytes takes a lock on `quota.lock`, then the shard's, and adds up what is committed:

- far from the quota, even if every shard adds all it may at once: the lock is held together with others;
- near it: the lock is taken anew, alone. Nobody else adds, and the committed counters are the truth.

The file lock comes first, always, and whoever has a shard's lock without it never waits for it: no deadlock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from storage_node.blockstore.disk import free_bytes
from storage_node.blockstore.environment import Environment
from storage_node.blockstore.group_commit import MAX_GROUP_BYTES
from storage_node.blockstore.tables import Counters, Work
from storage_node.errors import QuotaExceeded, StoreFull
from storage_node.sizes import size_text

DEFAULT_RESERVE_BYTES = 512 * 1024 * 1024
PAGE_OVERHEAD_BYTES = 64 * 1024  # tree pages that a small transaction rewrites
QUOTA_FILE = "quota.lock"
LOOKS = 3  # at counters that change meanwhile, before the lock is taken alone


class Room:
    """Opens a store's write transactions and admits new bytes to them."""

    def __init__(
        self, folder: Path, environments: Sequence[Environment], max_bytes: int | None, reserve_bytes: int
    ) -> None:
        self.max_bytes = max_bytes
        self.reserve_bytes = reserve_bytes
        self._folder = folder
        self._environments = environments

    @contextmanager
    def writing(self, shard: int, adds: bool) -> Iterator[Work]:
        """A write transaction on a shard, durable when the context ends; `adds` if it may add bytes."""
        environment = self._environments[shard]
        if self.max_bytes is None or not adds:
            with environment.write() as txn:
                yield Work(txn)
            return
        handle = os.open(self._folder / QUOTA_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            with environment.write() as txn:
                work = Work(txn)
                if self._is_far(shard, work.counters.bytes):
                    work.most_bytes = work.counters.bytes + MAX_GROUP_BYTES
                    yield work
                    return
            fcntl.flock(handle, fcntl.LOCK_UN)
            fcntl.flock(handle, fcntl.LOCK_EX)
            for other in self._others(shard):
                other.settle()  # what a killed process committed counts
            with environment.write() as txn:
                _, others_bytes = self._committed(shard)
                yield Work(txn, self.max_bytes - others_bytes)
        finally:
            os.close(handle)

    def admit(self, shard: int, work: Work, new_bytes: int) -> None:
        """Let `new_bytes` into the shard whose transaction is open, or raise.

        Raises QuotaExceeded or StoreFull; both clear by themselves once there is room.
        """
        if new_bytes == 0:
            return
        if work.most_bytes is not None and work.counters.bytes + new_bytes > work.most_bytes:
            quota = size_text(self.max_bytes or 0)
            raise QuotaExceeded(
                f"the store's quota of {quota} has no room for {size_text(new_bytes)} more: "
                "unpin content and collect (`holdfast repo gc`), or raise storage.max_bytes"
            )
        needed = new_bytes + PAGE_OVERHEAD_BYTES
        free = free_bytes(self._folder)
        if free - needed < self.reserve_bytes and needed > self._environments[shard].reusable_bytes(work.txn):
            raise StoreFull(
                f"{self._folder}: {size_text(free)} free on the disk, "
                f"{size_text(self.reserve_bytes)} are the reserve (storage.reserve_bytes): free some space"
            )

    def demand(self, size_bytes: int) -> None:
        """Raise StoreFull unless a file of this size leaves the reserve free."""
        free = free_bytes(self._folder)
        if free - size_bytes < self.reserve_bytes:
            raise StoreFull(
                f"{self._folder}: {size_text(free)} free on the disk; {size_text(size_bytes)} are needed, "
                f"{size_text(self.reserve_bytes)} are the reserve (storage.reserve_bytes): free some space"
            )

    def _is_far(self, shard: int, shard_bytes: int) -> bool:
        """Whether the quota holds whatever all shards have in flight, told from counters of one moment."""
        assert self.max_bytes is not None
        before = self._committed(shard)
        for _ in range(LOOKS):
            now = self._committed(shard)
            if now == before:
                in_flight = len(self._environments) * MAX_GROUP_BYTES
                return now[1] + shard_bytes + in_flight <= self.max_bytes
            before = now
        return False

    def _committed(self, shard: int) -> tuple[tuple[int, ...], int]:
        """The last transactions of the other shards, and the bytes that their blocks take together."""
        ids, total = [], 0
        for other in self._others(shard):
            with other.read() as txn:
                ids.append(txn.id())
                total += Counters.read(txn).bytes
        return tuple(ids), total

    def _others(self, shard: int) -> Iterator[Environment]:
        return (each for number, each in enumerate(self._environments) if number != shard)
