"""Drives the traversals of `merkledag` over a block source: local blocks at once, others awaited in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from gateway.denylists.screen import ScreenedSource
from gateway.errors import (
    ContentInvalid,
    ContentMissing,
    GatewayError,
    NotCached,
    ProvidersFailed,
    RetrievalTimeout,
    first_line,
)
from gateway.lookahead import DagAhead, FileAhead, Links, LookAhead
from gateway.serving.body import Body
from gateway.settings import GatewaySettings
from gateway.source import Asking, BlockSource, Retrieval
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.nodes import Nodes
from merkledag.reader import read_file
from merkledag.steps import Buffer, Steps, Walk, Want, adrive_walk, inline

T = TypeVar("T")

_KEPT_BYTES = 64 * 1024  # a raw block of up to so many is kept until the request ends


class Blocks:
    """The blocks of one request.

    `only_cached` refuses what is not here (NotCached). Raises ContentMissing and RetrievalTimeout for blocks
    that do not come; whatever a traversal itself raises passes on. `close` cancels what was fetched ahead.
    `nodes` keeps what several requests need of inner nodes.
    """

    def __init__(
        self,
        source: BlockSource,
        settings: GatewaySettings,
        *,
        only_cached: bool = False,
        nodes: Nodes | None = None,
    ) -> None:
        self._source = source
        self._require = source.require if isinstance(source, ScreenedSource) else None
        self.nodes = nodes
        self._settings = settings
        self._only_cached = only_cached
        self._ahead: dict[CID, asyncio.Task[bytes]] = {}
        self._following: LookAhead | None = None
        self._missed = False  # something was not here: from now on, what comes next is asked for early
        self._last: tuple[CID, bytes] | None = None
        self.step = ""  # what the blocks are wanted for now, as errors tell it

    async def close(self) -> None:
        """Ends the fetches that nobody waits for any more."""
        if self._following is not None:
            await self._following.close()
        if self._ahead:
            tasks = list(self._ahead.values())
            self._ahead.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def here_only(self) -> Blocks:
        """The same blocks as far as they are here; raises NotCached for others."""
        return Blocks(self._source, self._settings, only_cached=True, nodes=self.nodes)

    def follow(self, root: CID, links: Links) -> None:
        """From now on what `links` leads to from `root` is wanted, depth first; for once a request."""
        self._following = DagAhead(self._source, root, links, self._settings)

    async def get(self, want: Want) -> bytes:
        """The wanted block, copied."""
        data = await self._at_hand(want.cid)
        if data is not None:
            await self.look_ahead(want)
            return data
        if self._following is not None:
            self._following.wants(want.cid, 0)
            return await self._in_time(want.cid, self._coming(want.cid, self._following))
        self._missed = True
        task = self._ahead.pop(want.cid, None)
        if not self._only_cached:
            await self._fetch_ahead(want.ahead)
        return await self._in_time(want.cid, self._source.get(want.cid) if task is None else task)

    async def look_ahead(self, want: Want) -> None:
        """What comes after a block that is here is asked for early, once something was not here."""
        if self._following is not None:
            self._following.wants(want.cid, 0)
        elif self._missed:
            self._ahead.pop(want.cid, None)
            await self._fetch_ahead(want.ahead)

    def _raw_view(self, cid: CID) -> AbstractContextManager[memoryview] | None:
        """The view of a raw block that is here; a small one that was just seen is not looked up again."""
        if cid.codec != RAW or cid.is_identity:
            return None
        if self._last is not None and self._last[0] == cid:
            return nullcontext(memoryview(self._last[1]))
        return self._source.view(cid)

    async def run(self, steps: Steps[T]) -> T:
        """The value of `steps`."""
        try:
            want = next(steps)
            while True:
                cid = want.cid
                # A raw block has no structure that a traversal could keep: it is looked at in place.
                view = self._raw_view(cid)
                if view is not None:
                    with view as block:
                        if len(block) <= _KEPT_BYTES:
                            self._last = (cid, bytes(block))
                        want = steps.send(block)
                else:
                    want = steps.send(await self.get(want))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    def iterate(self, walk: Walk[T]) -> AsyncGenerator[T, None]:
        """The items of `walk`, made from copies of the blocks."""
        return adrive_walk(walk, self.get)

    async def send_file(self, body: Body, cid: CID, start: int, end: int) -> None:
        """Sends bytes `start` to `end` of a UnixFS file or raw block; local leaves go from their views."""
        await body.open_piece(end - start)
        self.step = "content of the file"
        position = start
        while position < end:
            position = await self._send_walk(body, cid, position, end)
        body.close_piece()

    async def read_file(self, cid: CID, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a file, as far as there are so many; for small parts."""
        parts: list[bytes] = []
        walk = read_file(cid, start, end, nodes=self.nodes)
        try:
            item = next(walk)
            while True:
                if not isinstance(item, Want):
                    parts.append(bytes(item))
                    item = walk.send(None)
                    continue
                # A part of a large block is copied, not the block.
                view = self._raw_view(item.cid)
                if view is None:
                    item = walk.send(await self.get(item))
                    continue
                with view as block:
                    item = walk.send(block)
                    if not isinstance(item, Want):
                        parts.append(bytes(item))
                if not isinstance(item, Want):
                    item = walk.send(None)
        except StopIteration:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            walk.close()

    async def read_range(self, cid: CID, start: int, end: int) -> bytes:
        """As `read_file`, all of them; raises ContentInvalid where the file has fewer than it says."""
        self.step = "content of the file"
        data = await self.read_file(cid, start, end)
        if len(data) < end - start:
            raise ContentInvalid(f"the file {cid} has fewer bytes than it says")
        return data

    async def _send_walk(self, body: Body, cid: CID, position: int, end: int) -> int:
        """Sends from `position`; returns where it stopped: `end`, or earlier to be started again."""
        walk = read_file(cid, position, end, nodes=self.nodes)
        first = position
        ahead = self._following or FileAhead(self._source, cid, position, end, self._settings)
        try:
            item = next(walk)
            while True:
                if not isinstance(item, Want):
                    await _push_all(body, item)
                    position += len(item)
                    item = walk.send(None)
                    continue
                want = item
                ahead.wants(want.cid, position)
                await body.ready()
                view = self._raw_view(want.cid)
                if view is None:
                    item = walk.send(await self._part(want.cid, ahead))
                    continue
                with view as block:
                    block_bytes = len(block)
                    item = walk.send(block)
                    if isinstance(item, Want):
                        continue
                    item_bytes = len(item)
                    done = await body.push(item, self._settings.view_hold_s)
                if done < item_bytes:
                    offset = _offset(block_bytes, item_bytes, position == first, position + item_bytes == end)
                    if offset is None:
                        return position + done
                    await self._send_rest(body, want, offset + done, offset + item_bytes)
                position += item_bytes
                del item
                item = walk.send(None)
        except StopIteration:
            if position < end:
                raise ContentInvalid(f"the file {cid} has fewer bytes than it says") from None
            return position
        finally:
            walk.close()
            if ahead is not self._following:
                await ahead.close()

    def local_size(self, cid: CID) -> int | None:
        """The size of a block that is here now; None for others and for identity CIDs."""
        view = None if cid.is_identity else self._source.view(cid)
        if view is None:
            return None
        with view as block:
            return len(block)

    async def open_block(self, cid: CID) -> tuple[int, bytes | None]:
        """A block's size, and its bytes unless they can be had again at once from a view."""
        size = self.local_size(cid)
        if size is not None:
            return size, None
        data = await self.get(Want(cid))
        return len(data), data

    async def send_block(self, body: Body, cid: CID, data: bytes | None, start: int, end: int) -> None:
        """Sends a part of a block as one piece: from `data`, or from the source if None."""
        await body.open_piece(end - start)
        if data is not None:
            await _push_all(body, memoryview(data)[start:end])
        else:
            await self._send_rest(body, Want(cid), start, end)
        body.close_piece()

    async def read_part(self, cid: CID, data: bytes | None, start: int, end: int) -> bytes:
        """A small part of a block: of `data`, or from the source if None."""
        view = self._source.view(cid) if data is None and not cid.is_identity else None
        if view is None:
            return (await self.get(Want(cid)) if data is None else data)[start:end]
        with view as block:
            return bytes(block[start:end])

    async def _send_rest(self, body: Body, want: Want, start: int, end: int) -> None:
        """Sends a part of one block to a client that may be slow: each view stays open for a moment only."""
        while start < end:
            await body.ready()
            view = None if want.cid.is_identity else self._source.view(want.cid)
            if view is None:
                await _push_all(body, memoryview(await self.get(want))[start:end])
                return
            with view as block:
                start += await body.push(block[start:end], self._settings.view_hold_s)

    async def _at_hand(self, cid: CID) -> bytes | None:
        """A copy of a block that is here; None for others. Raises NotCached where nothing else may do."""
        data = inline(cid)
        if data is not None:
            if self._require is not None:
                self._require(cid)
            return data
        view = self._source.view(cid)
        if view is not None:
            with view as block:
                return bytes(block)
        if self._only_cached and not await self._source.has(cid):
            raise NotCached(f"block {cid} is not cached here", cid=cid, step=self.step)
        return None

    async def _part(self, cid: CID, ahead: LookAhead) -> bytes:
        """A part of a file that was, or will be, asked for ahead of its turn."""
        data = await self._at_hand(cid)
        return await self._in_time(cid, self._coming(cid, ahead)) if data is None else data

    async def _coming(self, cid: CID, ahead: LookAhead) -> bytes:
        data = None if self._only_cached else await ahead.take(cid)
        return await self._source.get(cid) if data is None else data

    async def _in_time(self, cid: CID, coming: Awaitable[bytes]) -> bytes:
        """The block, or the error that says what was asked of whom."""
        limit_s = self._settings.retrieval_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await coming
        except LookupError as error:
            raise _missing(cid, self.step, error) from error
        except TimeoutError as error:
            raise RetrievalTimeout(
                f"block {cid} did not arrive within {limit_s:g} s",
                cid=cid,
                step=self.step,
                asked=self._source.asked(cid) if isinstance(self._source, Asking) else (),
            ) from error

    async def _fetch_ahead(self, cids: tuple[CID, ...]) -> None:
        """Starts fetching what a reader will want next, so that it waits once and not for each block."""
        for cid in cids[: self._settings.prefetch_blocks]:
            if len(self._ahead) >= self._settings.prefetch_blocks:
                return
            if cid not in self._ahead and not cid.is_identity and not await self._source.has(cid):
                task = asyncio.ensure_future(self._source.get(cid))
                # A block that is never asked for may fail unseen.
                task.add_done_callback(lambda done: done.cancelled() or done.exception())
                self._ahead[cid] = task


async def _push_all(body: Body, data: Buffer) -> None:
    offset, size = 0, len(data)
    while offset < size:
        offset += await body.push(memoryview(data)[offset:], None)


def _offset(block_bytes: int, item_bytes: int, first: bool, last: bool) -> int | None:
    """Where an item lies in its block: the first may be cut in front, the last behind; None = unknown."""
    if item_bytes == block_bytes or not first:
        return 0
    return None if last else block_bytes - item_bytes


def _missing(cid: CID, step: str, error: LookupError) -> GatewayError:
    """404 where nobody has the block; 502 where somebody may have it and did not answer."""
    message = f"block {cid} could not be found: {first_line(error)}"
    if not isinstance(error, Retrieval):
        return ContentMissing(message, cid=cid, step=step)
    failed = ProvidersFailed if error.unsure else ContentMissing
    return failed(message, cid=cid, step=step, asked=error.asked)
