"""Fetches the parts of a file that are not here before their turn: round trips do not add up."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

from gateway.settings import MIB, GatewaySettings
from gateway.source import BlockSource
from merkledag import filenode
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.errors import MerkledagError
from merkledag.steps import Buffer, inline

FIRST_WINDOW_BYTES = 4 * MIB  # a player that seeks mostly reads no more


@dataclass(slots=True)
class _Part:
    """A block on its way, or here and not used yet. `end`: where its last use ends in the file."""

    task: asyncio.Task[bytes]
    end: int
    bases: list[int]


class FileAhead:
    """What a reader of bytes `start` to `end` of one file will want, in the order of the file.

    Nothing happens before the first `take`. From then on the nodes of the file are read as they come, and
    all is fetched that begins within a window in front of the reader, `prefetch_blocks` at once. The window
    begins small and is doubled whenever the reader has to wait, up to `lookahead_bytes`; a reader that does
    not move stops everything, so no more than a window is held. What is here already is left to the reader.
    End it by `close`.
    """

    def __init__(
        self, source: BlockSource, cid: CID, start: int, end: int, settings: GatewaySettings
    ) -> None:
        self._source = source
        self._start = self._position = start
        self._end = end
        self._most_bytes = settings.lookahead_bytes
        self._most_parts = settings.prefetch_blocks
        self._window_bytes = min(FIRST_WINDOW_BYTES, self._most_bytes)
        self._next: list[tuple[int, int, CID, int]] = [(0, 0, cid, end)]  # a heap: (base, number, CID, size)
        self._numbers = 0
        self._parts: dict[bytes, _Part] = {}
        self._order: deque[bytes] = deque()  # of the parts, as they were begun
        self._flying = 0
        self._changed = asyncio.Event()
        self._scout: asyncio.Task[None] | None = None

    def moved(self, position: int) -> None:
        """The reader is at `position`; it wants nothing before it any more."""
        if self._scout is None:
            return
        self._position = position
        while self._order and self._parts[self._order[0]].end <= position:
            self._parts.pop(self._order.popleft()).task.cancel()
        self._changed.set()

    async def take(self, cid: CID) -> bytes | None:
        """The block, once it has come; None where it is not on its way, or could not be had.

        Raises what the source raises where that happens while the reader waits.
        """
        if self._scout is None:
            self._scout = asyncio.create_task(self._run(), name=f"look-ahead {cid}")
            await asyncio.sleep(0)
        part = self._parts.get(cid.multihash)
        if part is not None and part.task.done():
            return None if part.task.cancelled() or part.task.exception() else part.task.result()
        self._window_bytes = min(2 * self._window_bytes, self._most_bytes)
        self._changed.set()
        return None if part is None else await asyncio.shield(part.task)

    async def close(self) -> None:
        """Ends what is under way."""
        tasks: list[asyncio.Task[bytes] | asyncio.Task[None]] = [part.task for part in self._parts.values()]
        if self._scout is not None:
            tasks.append(self._scout)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while self._next or self._flying:
            while self._next and self._flying < self._most_parts and self._within(self._next[0][0]):
                base, _, cid, size = heappop(self._next)
                await self._begin(cid, base, size)
            self._changed.clear()
            await self._changed.wait()

    def _within(self, base: int) -> bool:
        return base < self._position + self._window_bytes

    async def _begin(self, cid: CID, base: int, size: int) -> None:
        part = self._parts.get(cid.multihash)
        # A node is used once, before its children; what lies before the wanted bytes is used at their start.
        end = base + size if cid.codec == RAW else max(base, self._start) + 1
        if part is not None:  # the same bytes again
            part.end = max(part.end, end)
            if part.task.done():
                self._arrived(cid, part.task, [base])
            else:
                part.bases.append(base)
            return
        block = inline(cid)
        if block is None and await self._source.has(cid):
            if cid.codec == RAW or (view := self._source.view(cid)) is None:
                return
            with view as found:
                block = bytes(found)
        if block is not None:
            self._expand(cid, block, base)
            return
        self._flying += 1
        task = asyncio.create_task(self._source.get(cid))
        bases = [base]
        self._parts[cid.multihash] = _Part(task, end, bases)
        self._order.append(cid.multihash)
        task.add_done_callback(lambda done: self._landed(cid, done, bases))

    def _landed(self, cid: CID, task: asyncio.Task[bytes], bases: list[int]) -> None:
        self._flying -= 1
        self._changed.set()
        self._arrived(cid, task, bases)

    def _arrived(self, cid: CID, task: asyncio.Task[bytes], bases: list[int]) -> None:
        if task.cancelled():
            return
        if task.exception() is not None:
            self._next.clear()  # the reader will not come past this block
            return
        for base in bases:
            self._expand(cid, task.result(), base)

    def _expand(self, cid: CID, block: Buffer, base: int) -> None:
        """Notes the children of a node that lie within the wanted bytes."""
        if cid.codec != DAG_PB:
            return
        try:
            node = filenode.parse(cid, block)
            children, bounds = node.children(max(self._start - base, 0), self._end - base)
        except MerkledagError:
            return  # the reader will see it and say so
        for number, child in enumerate(children):
            low, high = bounds[number], bounds[number + 1]
            if low < high and base + high > self._position:
                self._numbers += 1
                heappush(self._next, (base + low, self._numbers, child, high - low))
