"""Fetches what is not here before its turn: round trips do not add up in a file, nor in a whole DAG."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from gateway.settings import MIB, GatewaySettings
from gateway.source import BlockSource
from merkledag import filenode
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.errors import MerkledagError
from merkledag.steps import inline

FIRST_WINDOW_BYTES = 4 * MIB  # a player that seeks mostly reads no more
MAX_NEXT = 65_536  # blocks that are known and not asked for yet
LIKELY_BYTES = MIB // 4  # what a block is taken for before one has come
LATEST = 64  # blocks that were wanted; what lies before all of them is wanted no more
BLOCKS_A_TURN = 64  # that are here, looked at before others get a turn

Links = Callable[[CID, bytes], Sequence[CID]]


class LookAhead(Protocol):
    """What knows the blocks that a reader will want. Nothing happens before the first `take`."""

    def wants(self, cid: CID, position: int) -> None:
        """The reader wants this block now, at this byte of a file; what comes before it is not wanted."""
        ...

    async def take(self, cid: CID) -> bytes | None:
        """The block, once it has come; None where it is not on its way, or could not be had.

        Raises what the source raises where that happens while the reader waits.
        """
        ...

    async def close(self) -> None:
        """Ends what is under way."""
        ...


class _Came(NamedTuple):
    """A block that has come. `data` is None where the source has it now: then nobody need hold it as well."""

    size_bytes: int
    data: bytes | None


class _Coming:
    """Blocks on their way to a reader, or here and not used yet.

    `scout` asks for them; it begins with the first `take`.

    `prefetch_blocks` at once; the window is how many bytes they may have. It begins small and is doubled
    whenever the reader has to wait, up to `lookahead_bytes`.
    """

    def __init__(
        self, source: BlockSource, settings: GatewaySettings, scout: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        self._source = source
        self._scout = scout
        self._scouting: asyncio.Task[None] | None = None
        self._most_blocks = settings.prefetch_blocks
        self.most_bytes = settings.lookahead_bytes
        self.window_bytes = min(FIRST_WINDOW_BYTES, self.most_bytes)
        self._flying: dict[bytes, asyncio.Task[bytes]] = {}
        self._came: dict[bytes, _Came] = {}
        self.ahead_bytes = 0  # of what came
        self.likely_bytes = LIKELY_BYTES
        self.changed = asyncio.Event()

    @property
    def begun(self) -> bool:
        """Whether anything was taken yet."""
        return self._scouting is not None

    @property
    def flying(self) -> int:
        """How many are on their way."""
        return len(self._flying)

    @property
    def has_place(self) -> bool:
        """Whether one more may be asked for, as far as their number and what has come say."""
        return self.flying < self._most_blocks and self.ahead_bytes < 2 * self.most_bytes

    def begin(self, cid: CID, landed: Callable[[bytes | None], None]) -> None:
        """Asks for a block; `landed` is given it, or None where it cannot be had; never after `drop`."""
        multihash = cid.multihash
        task = self._flying[multihash] = asyncio.create_task(self._fetch(cid))

        def done(task: asyncio.Task[bytes]) -> None:
            failed = task.cancelled() or task.exception() is not None  # seen: nobody need be waiting
            if self._flying.get(multihash) is task:
                del self._flying[multihash]
                landed(None if failed else task.result())
            self.changed.set()

        task.add_done_callback(done)

    async def _fetch(self, cid: CID) -> bytes:
        data = await self._source.get(cid)
        size = len(data)
        self._came[cid.multihash] = _Came(size, None if await self._source.has(cid) else data)
        self.ahead_bytes += size
        self.likely_bytes = max(size, (15 * self.likely_bytes + size) // 16)
        return data

    def is_flying(self, cid: CID) -> bool:
        """Whether a block is on its way."""
        return cid.multihash in self._flying

    async def here(self, cid: CID) -> tuple[bool, bytes | None]:
        """Whether a block is here, and its bytes if it is and may have links."""
        carried = inline(cid)
        if carried is not None:
            return True, carried
        came = self._came.get(cid.multihash)
        if came is not None and came.data is not None:
            return True, came.data
        if not await self._source.has(cid):
            return False, None
        view = None if cid.codec == RAW else self._source.view(cid)
        if view is None:
            return True, None
        with view as block:
            return True, bytes(block)

    def drop(self, multihash: bytes) -> None:
        """It is not wanted any more."""
        came, task = self._came.pop(multihash, None), self._flying.pop(multihash, None)
        if came is not None:
            self.ahead_bytes -= came.size_bytes
        if task is not None:
            task.cancel()

    async def take(self, cid: CID) -> bytes | None:
        """See LookAhead."""
        if self._scouting is None:
            self._scouting = asyncio.create_task(self._scout(), name=f"look-ahead {cid}")
            await asyncio.sleep(0)
        came = self._came.get(cid.multihash)
        if came is not None:
            return came.data
        self.window_bytes = min(2 * self.window_bytes, self.most_bytes)
        self.changed.set()
        task = self._flying.get(cid.multihash)
        return None if task is None else await asyncio.shield(task)

    async def close(self) -> None:
        """Ends all, and who asks for more."""
        tasks: list[asyncio.Task[bytes] | asyncio.Task[None]] = list(self._flying.values())
        self._flying.clear()
        self._came.clear()
        if self._scouting is not None:
            tasks.append(self._scouting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Use:
    """Where a block of a file is used: its places, and where the last use ends in the file."""

    end: int
    bases: list[int]


class FileAhead:
    """What a reader of bytes `start` to `end` of one file will want, in the order of the file.

    From the first `take` on the nodes of the file are read as they come, and all is fetched that begins
    within the window in front of the reader; a reader that does not move stops everything, so no more than a
    window is held. What is here already is left to the reader.
    """

    def __init__(
        self, source: BlockSource, cid: CID, start: int, end: int, settings: GatewaySettings
    ) -> None:
        self._source = source
        self._start = self._position = start
        self._end = end
        self._coming = _Coming(source, settings, self._run)
        self._next: list[tuple[int, int, CID, int]] = [(0, 0, cid, end)]  # a heap: (base, number, CID, size)
        self._numbers = 0
        self._uses: dict[bytes, _Use] = {}
        self._order: deque[bytes] = deque()  # of the uses, as they were begun

    def wants(self, cid: CID, position: int) -> None:
        """See LookAhead."""
        if not self._coming.begun:
            return
        self._position = position
        while self._order and self._uses[self._order[0]].end <= position:
            multihash = self._order.popleft()
            del self._uses[multihash]
            self._coming.drop(multihash)
        self._coming.changed.set()

    async def take(self, cid: CID) -> bytes | None:
        """See LookAhead."""
        return await self._coming.take(cid)

    async def close(self) -> None:
        """See LookAhead."""
        await self._coming.close()

    async def _run(self) -> None:
        while self._next or self._coming.flying:
            while self._next and self._coming.has_place and self._within(self._next[0]):
                base, _, cid, size = heappop(self._next)
                if base + size > self._position or size == 0:
                    await self._begin(cid, base, size)
            self._coming.changed.clear()
            await self._coming.changed.wait()

    def _within(self, item: tuple[int, int, CID, int]) -> bool:
        """Whether it is time for a block; nodes are not read while more than enough of them wait."""
        base, _, cid, size = item
        if base + size > self._position and cid.codec == DAG_PB and len(self._next) > MAX_NEXT:
            return False
        return base < self._position + self._coming.window_bytes

    async def _begin(self, cid: CID, base: int, size: int) -> None:
        use = self._uses.get(cid.multihash)
        # A node is used once, before its children; what lies before the wanted bytes is used at their start.
        end = base + size if cid.codec == RAW else max(base, self._start) + 1
        if use is not None:  # the same bytes again
            use.end = max(use.end, end)
            if self._coming.is_flying(cid):
                use.bases.append(base)
                return
        is_here, block = await self._coming.here(cid)
        if is_here:
            self._expand(cid, block, base)
        elif use is None:
            use = self._uses[cid.multihash] = _Use(end, [base])
            self._order.append(cid.multihash)
            self._coming.begin(cid, lambda block: self._arrived(cid, size, block, use.bases))

    def _arrived(self, cid: CID, size: int, block: bytes | None, bases: list[int]) -> None:
        # The reader will not come past a block that cannot be had, or that is larger than was said.
        if block is None or (cid.codec == RAW and len(block) > size):
            self._next.clear()
            return
        for base in bases:
            self._expand(cid, block, base)

    def _expand(self, cid: CID, block: bytes | None, base: int) -> None:
        """Notes the children of a node that lie within the wanted bytes."""
        if cid.codec != DAG_PB or block is None:
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


class DagAhead:
    """What a reader of a whole DAG will want, depth first, parents before children, as in a CAR or TAR.

    From the first `take` on nodes are read as they come or where they are here, and what `links` says of them
    is fetched in that order, as far as the window reaches: in it are the blocks that have come and were not
    read yet, and those on their way, each taken to be as large as the larger ones before it.
    """

    def __init__(self, source: BlockSource, root: CID, links: Links, settings: GatewaySettings) -> None:
        self._source = source
        self._links = links
        self._coming = _Coming(source, settings, self._run)
        # A heap: a block comes behind its parent, and before what comes behind that.
        self._next: list[tuple[tuple[int, ...], CID]] = [((), root)]
        self._places: dict[bytes, tuple[int, ...]] = {}
        self._order: list[tuple[tuple[int, ...], bytes]] = []  # a heap of the places, with some that are gone
        self._read = b""  # the block that was wanted last
        # Readers go back a little: they read a folder's names before the first entry.
        self._latest: deque[tuple[int, ...]] = deque(maxlen=LATEST)

    def wants(self, cid: CID, position: int) -> None:
        """See LookAhead. `position` says nothing here."""
        if self._read != cid.multihash:
            self._drop(self._read)
            self._read = cid.multihash
        place = self._places.get(cid.multihash)
        if place is None:
            return
        self._latest.append(place)
        earliest = min(self._latest)
        while self._order and self._order[0][0] < earliest:
            self._drop(heappop(self._order)[1])
        self._coming.changed.set()

    def _drop(self, multihash: bytes) -> None:
        if self._places.pop(multihash, None) is not None:
            self._coming.drop(multihash)

    async def take(self, cid: CID) -> bytes | None:
        """See LookAhead."""
        return await self._coming.take(cid)

    async def close(self) -> None:
        """See LookAhead."""
        await self._coming.close()

    async def _run(self) -> None:
        turn = 0
        while self._next or self._coming.flying:
            while self._next and self._has_room():
                await self._begin(*heappop(self._next))
                turn += 1
                if turn % BLOCKS_A_TURN == 0:
                    await asyncio.sleep(0)
            self._coming.changed.clear()
            await self._coming.changed.wait()

    def _has_room(self) -> bool:
        coming = self._coming
        taken_bytes = coming.ahead_bytes + coming.flying * coming.likely_bytes
        fits = taken_bytes == 0 or taken_bytes + coming.likely_bytes <= coming.window_bytes
        return fits and coming.has_place

    async def _begin(self, place: tuple[int, ...], cid: CID) -> None:
        if cid.multihash in self._places:
            return
        is_here, block = await self._coming.here(cid)
        if is_here:
            self._expand(place, cid, block)
            return
        self._places[cid.multihash] = place
        heappush(self._order, (place, cid.multihash))
        self._coming.begin(cid, lambda block: self._arrived(place, cid, block))

    def _arrived(self, place: tuple[int, ...], cid: CID, block: bytes | None) -> None:
        if block is None:
            self._next.clear()  # the reader will not come past it
        else:
            self._expand(place, cid, block)

    def _expand(self, place: tuple[int, ...], cid: CID, block: bytes | None) -> None:
        if cid.codec == RAW or block is None or len(self._next) > MAX_NEXT:
            return  # of what lies below too many the reader has to ask itself
        try:
            links = self._links(cid, block)
        except MerkledagError:
            return  # the reader will see it and say so
        for number, link in enumerate(links):
            heappush(self._next, ((*place, number), link))
