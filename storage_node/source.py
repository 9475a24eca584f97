"""How readers see blocks: by CID, verified, from the store alone or fetched from elsewhere when absent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from merkledag.block import verify_block
from merkledag.cid import CID
from merkledag.errors import HashMismatch
from merkledag.steps import inline
from storage_node.blockstore.interface import Blockstore
from storage_node.cache import CacheWriter
from storage_node.errors import BlockNotFound, BlockRefused, DamagedBlock
from storage_node.trail import Asked

MAX_FETCHES = 128  # under way at once, their bytes included until they are cached

Fetcher = Callable[[CID], Awaitable[bytes]]  # gives verified bytes
WhoWasAsked = Callable[[CID], Sequence[Asked]]


class LocalSource:
    """The blocks of one store. With `verify_on_read` every read is hashed again."""

    def __init__(self, store: Blockstore, verify_on_read: bool = False) -> None:
        self.store = store
        self._verify = verify_on_read

    def view(self, cid: CID) -> AbstractContextManager[memoryview] | None:
        """The block's bytes without a copy, None if not here. Leave the context within a second.

        Raises DamagedBlock.
        """
        carried = inline(cid)
        if carried is not None:
            return nullcontext(memoryview(carried))
        try:
            found = self.store.find(cid.multihash)
        except BlockRefused:
            return None  # its digest has no bytes, or too many: no store keeps such a block
        if found is not None and self._verify:
            return _verified(cid, found)
        return found

    def read(self, cid: CID) -> bytes:
        """A copy of the block. Raises BlockNotFound, DamagedBlock."""
        view = self.view(cid)
        if view is None:
            raise BlockNotFound(f"block {cid} is not in this store")
        with view as block:
            return bytes(block)

    async def get(self, cid: CID) -> bytes:
        """As `read`."""
        return self.read(cid)

    async def has(self, cid: CID) -> bool:
        """Whether the block is here."""
        try:
            return cid.is_identity or self.store.has(cid.multihash)
        except BlockRefused:
            return False


def _verified(cid: CID, found: AbstractContextManager[memoryview]) -> AbstractContextManager[memoryview]:
    """Hash a view's bytes before anyone sees them; they are copied, as a view opens once."""
    with found as block:
        try:
            verify_block(cid, block)
        except HashMismatch as error:
            raise DamagedBlock(
                f"block {cid} is damaged; run `holdfast repo verify`", cid.multihash
            ) from error
        return nullcontext(memoryview(bytes(block)))


@dataclass(slots=True)
class _Fetch:
    task: asyncio.Task[None]
    answer: asyncio.Future[bytes]
    waiting: int = 0


class NetworkSource:
    """A local source that fetches what it lacks and keeps it as evictable cache.

    Requests for one block share one fetch, which is cancelled when nobody waits for it any more. Belongs
    to the event loop it is used in; `aclose` ends what is under way.
    """

    def __init__(
        self,
        local: LocalSource,
        fetcher: Fetcher,
        max_cache_bytes: int | None = None,
        *,
        asked: WhoWasAsked = lambda _: (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`fetcher` gives bytes that it has verified, so that it can ask elsewhere if they are wrong.

        It raises a LookupError for what is nowhere, TimeoutError for what takes too long.

        `asked` tells of a block that does not come whom the fetcher has asked for it.

        `max_cache_bytes` bounds the store's cache: what was used least recently leaves it. 0 caches nothing.
        `clock` gives Unix seconds.
        """
        self._local = local
        self._fetcher = fetcher
        self._asked = asked
        self._cache = CacheWriter(local.store, max_cache_bytes, clock)
        self._fetches: dict[bytes, _Fetch] = {}
        self._slots = asyncio.Semaphore(MAX_FETCHES)

    def view(self, cid: CID) -> AbstractContextManager[memoryview] | None:
        """As LocalSource; a damaged block counts as absent, so that `get` fetches it anew."""
        waiting = self._cache.find(cid.multihash)
        if waiting is not None:
            return nullcontext(memoryview(waiting))
        try:
            found = self._local.view(cid)
        except DamagedBlock:
            return None
        if found is not None and not cid.is_identity:
            self._cache.used(cid.multihash)
        return found

    async def has(self, cid: CID) -> bool:
        """Whether `get` would answer without fetching."""
        return self._cache.find(cid.multihash) is not None or await self._local.has(cid)

    async def get(self, cid: CID) -> bytes:
        """The block, from here or fetched and verified.

        Raises what the fetcher raises.
        """
        view = self.view(cid)
        if view is not None:
            with view as block:
                return bytes(block)
        fetch = self._fetches.get(cid.multihash)
        if fetch is None:
            fetch = self._start(cid)
        fetch.waiting += 1
        try:
            return await asyncio.shield(fetch.answer)
        finally:
            fetch.waiting -= 1
            if fetch.waiting == 0 and not fetch.answer.done():
                self._fetches.pop(cid.multihash, None)  # a later request starts afresh
                fetch.task.cancel()

    def asked(self, cid: CID) -> Sequence[Asked]:
        """Who has been asked for a block that is being fetched, or was a moment ago."""
        return self._asked(cid)

    async def aclose(self) -> None:
        """Cancel the fetches under way and wait until they and the cache writes have ended.

        Who waits for one is given a TimeoutError.
        """
        tasks = [fetch.task for fetch in self._fetches.values()]
        for fetch in list(self._fetches.values()):
            if not fetch.answer.done():
                fetch.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._cache.aclose()

    def _start(self, cid: CID) -> _Fetch:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._run(cid, answer), name=f"fetch {cid}")
        fetch = self._fetches[cid.multihash] = _Fetch(task, answer)
        task.add_done_callback(lambda _: self._forget(cid.multihash, fetch))
        return fetch

    def _forget(self, multihash: bytes, fetch: _Fetch) -> None:
        if self._fetches.get(multihash) is fetch:
            del self._fetches[multihash]
        if not fetch.answer.done():
            # Cancelled, it would cancel whoever waits: their requests hung up, and nobody was told why.
            fetch.answer.set_exception(TimeoutError("the fetch was given up: this process stops"))
            fetch.answer.exception()  # seen: nobody need be waiting

    async def _run(self, cid: CID, answer: asyncio.Future[bytes]) -> None:
        async with self._slots:
            damaged = await self._local.has(cid)  # it would not be fetched if it were sound
            try:
                data = await self._fetcher(cid)
            except Exception as error:
                if not answer.done():
                    answer.set_exception(error)
                    answer.exception()  # seen: the waiters may all have gone
                return
            if not answer.done():
                answer.set_result(data)
            await self._cache.add(
                cid.multihash, data, damaged=damaged
            )  # after the answer: nobody waits for the disk
