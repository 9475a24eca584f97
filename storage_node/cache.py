"""Keeps what was fetched for readers: many blocks, and many uses of them, in one durable write each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from storage_node.blockstore.interface import BlockClass, Blockstore
from storage_node.errors import StorageNodeError

BATCH_BYTES = 4 * 1024 * 1024
BATCH_BLOCKS = 256
BATCH_AGE_S = 0.5  # a block waits no longer for others
MAX_WAITING_BYTES = 4 * BATCH_BYTES  # then who fetches waits
MAX_USES = 4096
USES_AGE_S = 30.0
EVICT_AHEAD_PART = 16  # above its bound the cache loses one 16th more than it must, so that it pays

_log = logging.getLogger(__name__)


class CacheWriter:
    """Writes blocks and last uses behind the readers' backs. For one event loop; end it by `aclose`."""

    def __init__(
        self, store: Blockstore, max_bytes: int | None, clock: Callable[[], float] = time.time
    ) -> None:
        """The store's cache is kept below `max_bytes`, 0 keeps nothing. `clock` gives Unix seconds."""
        self._store = store
        self._max_bytes = max_bytes
        self._clock = clock
        self._waiting: dict[bytes, bytes] = {}
        self._waiting_bytes = 0
        self._writing: Mapping[bytes, bytes] = {}
        self._damaged: set[bytes] = set()
        self._uses: dict[bytes, None] = {}
        self._blocks_since_s = self._uses_since_s = 0.0  # of the event loop's clock
        self._changed = asyncio.Event()
        self._room = asyncio.Condition()
        self._closing = False
        self._worker: asyncio.Task[None] | None = None

    def find(self, multihash: bytes) -> bytes | None:
        """A block that is not written yet."""
        waiting = self._waiting.get(multihash)
        return self._writing.get(multihash) if waiting is None else waiting

    def used(self, multihash: bytes) -> None:
        """Note that a block of the store was read; the store passes over those that are no cache."""
        if multihash in self._uses or len(self._uses) >= MAX_USES:
            return
        self._uses[multihash] = None
        if len(self._uses) == 1:
            self._uses_since_s = asyncio.get_running_loop().time()
            self._wake()
        elif len(self._uses) == MAX_USES:
            self._wake()

    async def add(self, multihash: bytes, data: bytes, *, damaged: bool = False) -> None:
        """Have a verified block written soon, in place of a `damaged` one; waits while too much is."""
        if self._max_bytes == 0:
            return
        async with self._room:
            await self._room.wait_for(lambda: self._waiting_bytes < MAX_WAITING_BYTES)
            if not self._waiting:
                self._blocks_since_s = asyncio.get_running_loop().time()
            if damaged:
                self._damaged.add(multihash)
            if multihash not in self._waiting:
                self._waiting[multihash] = data
                self._waiting_bytes += len(data)
        self._wake()

    async def aclose(self) -> None:
        """Write what waits. Nothing may be added any more."""
        self._closing = True
        self._changed.set()
        if self._worker is not None:
            await self._worker

    def _wake(self) -> None:
        self._changed.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="cache")

    async def _work(self) -> None:
        while self._waiting or self._uses:
            self._changed.clear()
            left_s = self._due_s() - asyncio.get_running_loop().time()
            if left_s <= 0 or self._closing:
                await self._write()
                continue
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _due_s(self) -> float:
        """When something must be written, on the event loop's clock."""
        full = self._waiting_bytes >= BATCH_BYTES or len(self._waiting) >= BATCH_BLOCKS
        if full or len(self._uses) >= MAX_USES:
            return 0.0
        blocks_s = self._blocks_since_s + BATCH_AGE_S if self._waiting else float("inf")
        return min(blocks_s, self._uses_since_s + USES_AGE_S if self._uses else float("inf"))

    async def _write(self) -> None:
        self._writing, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        uses, self._uses = self._uses, {}
        damaged, self._damaged = self._damaged, set()
        try:
            await asyncio.to_thread(self._store_them, self._writing, damaged, list(uses))
        except StorageNodeError as error:
            _log.info("%d blocks were served but not cached: %s", len(self._writing), error)
        finally:
            self._writing = {}
            async with self._room:
                self._room.notify_all()

    def _store_them(self, blocks: Mapping[bytes, bytes], damaged: set[bytes], uses: list[bytes]) -> None:
        store = self._store
        if uses:
            store.use_many(uses, int(self._clock()))
        for multihash in damaged:
            if store.has(multihash):
                store.replace(multihash, blocks[multihash])
        if blocks:  # of what another process has fetched in the meantime, nothing is written again
            store.put_many(blocks.items(), BlockClass.CACHE)
        if self._max_bytes is not None and store.stat().cache_bytes > self._max_bytes:
            store.evict(self._max_bytes - self._max_bytes // EVICT_AHEAD_PART)
