"""Whether a store has room: its quota and the reserve of free disk, checked while writing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from storage_node.blockstore.disk import free_bytes
from storage_node.errors import QuotaExceeded, StoreFull

DEFAULT_RESERVE_BYTES = 512 * 1024 * 1024
PAGE_OVERHEAD_BYTES = 64 * 1024  # tree pages that a small transaction rewrites


class Room:
    """Admission of new bytes. The quota is exact within a process.

    Another process's transaction that is not yet committed is not seen, so together they may pass the
    quota by what one transaction of each holds.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int | None,
        reserve_bytes: int,
        committed: Callable[[int], int],
        shards: int,
    ) -> None:
        self.max_bytes = max_bytes
        self.reserve_bytes = reserve_bytes
        self._folder = folder
        self._committed = committed  # shard number -> bytes of its blocks
        self._shards = shards
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}  # shard number -> its bytes when its open transaction commits

    def admit(self, shard: int, shard_bytes: int, new_bytes: int, reusable_bytes: Callable[[], int]) -> None:
        """Let `new_bytes` into a shard whose open transaction holds `shard_bytes` so far, or raise.

        Raises QuotaExceeded or StoreFull; both clear by themselves once there is room.
        """
        if new_bytes == 0:
            return
        if self.max_bytes is not None:
            with self._lock:
                others = sum(
                    self._open[other] if other in self._open else self._committed(other)
                    for other in range(self._shards)
                    if other != shard
                )
                if others + shard_bytes + new_bytes > self.max_bytes:
                    raise QuotaExceeded(
                        f"the store's quota of {self.max_bytes} bytes has no room for {new_bytes} more: "
                        "free blocks (`holdfast repo gc`) or raise the quota"
                    )
                self._open[shard] = shard_bytes + new_bytes
        needed = new_bytes + PAGE_OVERHEAD_BYTES
        free = free_bytes(self._folder)
        if free - needed < self.reserve_bytes and needed > reusable_bytes():
            raise StoreFull(
                f"{self._folder}: {free} bytes free on the disk, {self.reserve_bytes} are kept in reserve: "
                "free some space"
            )

    def demand(self, size_bytes: int) -> None:
        """Raise StoreFull unless a file of this size leaves the reserve free."""
        free = free_bytes(self._folder)
        if free - size_bytes < self.reserve_bytes:
            raise StoreFull(
                f"{self._folder}: {free} bytes free on the disk; {size_bytes} are needed and "
                f"{self.reserve_bytes} kept in reserve: free some space"
            )

    def settle(self, shard: int) -> None:
        """The shard's transaction has ended; its committed bytes count from now on."""
        if self.max_bytes is not None:
            with self._lock:
                self._open.pop(shard, None)
