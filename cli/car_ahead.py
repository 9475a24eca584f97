"""Sections of an archive on their way through two hashing threads, given back as verified blocks in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from merkledag.block import Block
from merkledag.car_sections import Section, SectionHead

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

HASH_THREADS: Final = 2
WINDOW_BYTES: Final = 16 << 20
WINDOW_BLOCKS: Final = 1024
SMALL_BLOCK_BYTES: Final = 32 << 10  # below this, a thread costs more than hashing here


class Ahead:
    """The queue. `verified` makes a block of a section, in a thread if it is large.

    Memory is bounded by `WINDOW_BYTES` of sections.
    """

    def __init__(self, verified: Callable[[Section | SectionHead], Block]) -> None:
        self._verified = verified
        self._pool: ThreadPoolExecutor | None = None
        self._queue: deque[tuple[Block | Future[Block], int, int]] = deque()
        self._size_bytes = 0

    def add(self, item: Section | SectionHead) -> Iterator[tuple[Block, int]]:
        """Takes one more and gives those that are over the bounds."""
        size = len(item.data) if isinstance(item, Section) else item.size_bytes
        block: Block | Future[Block]
        if size < SMALL_BLOCK_BYTES:
            block = self._verified(item)
        else:
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="hash")
            block = self._pool.submit(self._verified, item)
        self._queue.append((block, item.offset, size))
        self._size_bytes += size
        while self._size_bytes > WINDOW_BYTES or len(self._queue) > WINDOW_BLOCKS:
            yield self._first()

    def rest(self) -> Iterator[tuple[Block, int]]:
        """All that are left."""
        while self._queue:
            yield self._first()

    def _first(self) -> tuple[Block, int]:
        block, offset, size = self._queue.popleft()
        self._size_bytes -= size
        return (block if isinstance(block, Block) else block.result()), offset

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
