"""The batches of one put that are being written by threads, one a shard at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Writes:
    """Batches under way in the pool, at most one a shard: that bounds the memory of a put."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._running: dict[int, Future[tuple[int, int]]] = {}
        self._results: list[tuple[int, int]] = []

    def start(self, shard: int, write: Callable[[], tuple[int, int]]) -> None:
        """Begin a write once the shard's earlier one is done. Raises what that one raised."""
        before = self._running.pop(shard, None)
        if before is not None:
            self._results.append(before.result())
        self._running[shard] = self._pool.submit(write)

    def here(self, write: Callable[[], tuple[int, int]]) -> None:
        """Write in the calling thread: a single small batch needs no other."""
        self._results.append(write())

    def finish(self) -> list[tuple[int, int]]:
        """Wait for all of them; returns (new blocks, new bytes) of each, or raises the first error."""
        wait(self._running.values())
        self._results += [each.result() for each in self._running.values()]
        return self._results
