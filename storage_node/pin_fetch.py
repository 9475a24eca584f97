"""Brings whole DAGs into the store: what is here is kept, what is missing is fetched, many blocks at once.

A node is durable no later than what it links to, because its links are followed when it has come and blocks
are written in the order in which they came. So whatever was fetched is reachable from the root, also after
`kill -9`, and a collection that knows the root (`pin_jobs.roots`) keeps it: leases are needed for moments
only, and a fetch of days holds up no collection.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from merkledag.cid import CID
from merkledag.codecs import links
from merkledag.errors import DecodeError, LimitExceeded, UnsupportedCodec
from merkledag.steps import inline
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import BlockNotFound, DamagedBlock, PeerUnreachable
from storage_node.fingerprints import FingerprintSet
from storage_node.pins import may_link
from storage_node.reach import node_links, refuse_unreadable

MAX_REQUESTS = 48
LOOK_BLOCKS = 512  # looked at in the store at once
MAX_ABSENT = 4096  # then nothing more is looked at before some were fetched
MAX_PENDING = 1 << 22  # links seen and not yet followed
WRITE_BYTES = 8 << 20
WRITE_BLOCKS = 512
WRITE_EVERY_S = 1.0
FIRST_RETRY_S = 0.5  # doubled with every try
MAX_RETRY_S = 30.0

Ask = Callable[[CID], Awaitable[bytes]]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch is: blocks and bytes that came and are durable, blocks that were here before."""

    blocks: int = 0
    size_bytes: int = 0
    found: int = 0
    waiting_for: CID | None = None  # the block that was asked for first of those that have not come
    waiting_s: float = 0.0  # for how long


class FetchTimeout(TimeoutError):
    """Nothing came for longer than the caller wants to wait."""


class DagFetch:
    """One fetch. `ask` returns verified bytes or raises BlockNotFound or PeerUnreachable.

    With `tries`, a block that everybody asked lacks so many times ends the fetch (BlockNotFound); with
    `timeout_s`, that long without any block does (FetchTimeout). Without, they are asked for again for ever.
    """

    def __init__(
        self, store: Blockstore, ask: Ask, *, clock: Clock, timeout_s: float = 0, tries: int = 0
    ) -> None:
        self._store = store
        self._ask = ask
        self._clock = clock
        self._timeout_s = timeout_s
        self._tries = tries
        self._recursive = True
        self._pending: list[CID] = []
        self._seen = FingerprintSet()
        self._absent: deque[CID] = deque()
        self._later: list[tuple[float, int, CID]] = []  # when to ask again
        self._asked_s: dict[CID, float] = {}  # since when a block is wanted
        self._misses: dict[CID, int] = {}  # times that everybody lacked it
        self._failures: dict[CID, int] = {}  # times that it could not be had
        self._requests: dict[asyncio.Task[bytes], CID] = {}
        self._damaged: set[bytes] = set()
        self._came: list[tuple[CID, bytes]] = []
        self._came_bytes = 0
        self._written_s = self._moved_s = clock()
        self._blocks = self._size_bytes = self._found = 0
        self._said = ""

    def progress(self) -> Progress:
        """Where it is now."""
        oldest = min(self._asked_s, key=self._asked_s.__getitem__, default=None)
        waiting_s = 0.0 if oldest is None else self._clock() - self._asked_s[oldest]
        return Progress(self._blocks, self._size_bytes, self._found, oldest, waiting_s)

    async def run(self, roots: Iterable[CID], *, recursive: bool = True) -> None:
        """Fetch what is missing of the DAGs (or of the root blocks alone) and make all of it OWN.

        What came is kept, also when this is cancelled. Raises BlockNotFound, FetchTimeout, BlockRefused for a
        block that its CID's codec cannot read, and what the store raises.
        """
        self._recursive = recursive
        self._pending += roots
        self._moved_s = self._clock()
        try:
            while await self._step():
                pass
        finally:
            for request in self._requests:
                request.cancel()
            await asyncio.gather(*self._requests, return_exceptions=True)
            self._requests.clear()
            self._asked_s.clear()
            self._write()

    async def _step(self) -> bool:
        """Look, ask, wait, write; False when everything is here."""
        while self._pending and len(self._absent) < MAX_ABSENT:
            await asyncio.to_thread(self._look)
        now_s = self._clock()
        while self._later and self._later[0][0] <= now_s:
            self._absent.append(heapq.heappop(self._later)[2])
        while self._absent and len(self._requests) < MAX_REQUESTS:
            cid = self._absent.popleft()
            self._asked_s.setdefault(cid, now_s)
            self._requests[asyncio.create_task(_asked(self._ask, cid))] = cid
        if self._requests or self._later:
            await self._wait(now_s)
        idle = not (self._requests or self._later or self._absent or self._pending)
        due = self._clock() - self._written_s >= WRITE_EVERY_S
        if idle or due or len(self._came) >= WRITE_BLOCKS or self._came_bytes >= WRITE_BYTES:
            await asyncio.to_thread(self._write)
        return not idle

    # --- in the store, in a thread ---

    def _look(self) -> None:
        """Take some links, stamp the blocks that are here, follow them, and note the absent ones."""
        group: dict[bytes, list[CID]] = {}
        while self._pending and len(group) < LOOK_BLOCKS:
            cid = self._pending.pop()
            if not self._seen.add(bytes(cid.to_v1())):
                continue
            data = inline(cid)
            if data is None:
                group.setdefault(cid.multihash, []).append(cid)
            else:
                self._follow(cid, data)
        with self._store.lease():
            absent = set(self._store.touch_many(group))
        found = 0
        for multihash, cids in group.items():
            for cid in cids:
                if multihash in absent or not self._is_intact(cid):
                    self._absent.append(cid)
                else:
                    found += 1
        if found:
            self._found += found
            self._moved_s = self._clock()

    def _is_intact(self, cid: CID) -> bool:
        """Follow the links of a node that is here; False if it is gone or damaged after all."""
        if not self._recursive or not may_link(cid):
            return True
        gone: list[CID] = []
        try:
            found = node_links(self._store, cid, gone.append, refuse_unreadable)
        except DamagedBlock:
            self._damaged.add(cid.multihash)
            return False
        self._extend(found)
        return not gone

    def _write(self) -> None:
        """Make what came durable; a damaged block that is here is replaced."""
        came, came_bytes = self._came, self._came_bytes
        self._came, self._came_bytes = [], 0
        self._written_s = self._clock()
        if not came:
            return
        with self._store.lease():
            self._store.put_many((cid.multihash, data) for cid, data in came)
            for cid, data in came if self._damaged else ():
                if cid.multihash in self._damaged:
                    self._store.replace(cid.multihash, data)
                    self._damaged.discard(cid.multihash)
        self._blocks += len(came)
        self._size_bytes += came_bytes

    # --- from peers ---

    async def _wait(self, now_s: float) -> None:
        """Until a request ends, another one is due, or it takes too long."""
        until = [now_s + WRITE_EVERY_S]
        if self._later:
            until.append(self._later[0][0])
        if self._timeout_s:
            until.append(self._moved_s + self._timeout_s)
        patience_s = max(0.0, min(until) - now_s)
        if self._requests:
            done, _ = await asyncio.wait(
                self._requests, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
            )
        else:
            done = set()
            await asyncio.sleep(patience_s)
        for request in done:
            self._ended(self._requests.pop(request), request)
        now_s = self._clock()
        if self._timeout_s and now_s - self._moved_s >= self._timeout_s:
            oldest = self.progress().waiting_for
            said = f" ({self._said})" if self._said else ""
            raise FetchTimeout(f"nothing came for {self._timeout_s:g} s; waiting for {oldest}{said}")

    def _ended(self, cid: CID, request: asyncio.Task[bytes]) -> None:
        try:
            data = request.result()
        except BlockNotFound as error:
            self._misses[cid] = self._misses.get(cid, 0) + 1
            if self._misses[cid] == self._tries:
                raise
            self._again(cid, str(error))
            return
        except PeerUnreachable as error:
            self._again(cid, str(error))
            return
        self._asked_s.pop(cid, None)
        self._misses.pop(cid, None)
        self._failures.pop(cid, None)
        self._came.append((cid, data))
        self._came_bytes += len(data)
        self._moved_s = self._clock()
        self._follow(cid, data)

    def _again(self, cid: CID, said: str) -> None:
        self._said = said
        self._failures[cid] = failures = self._failures.get(cid, 0) + 1
        wait_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2 ** min(failures - 1, 10))
        heapq.heappush(self._later, (self._clock() + wait_s, len(self._later), cid))

    # --- links ---

    def _follow(self, cid: CID, data: bytes) -> None:
        if not self._recursive:
            return
        try:
            self._extend(links(cid, data))
        except UnsupportedCodec:
            return  # as a collection has it: what it refers to is not known
        except DecodeError as error:
            refuse_unreadable(cid, error)

    def _extend(self, found: list[CID]) -> None:
        found.reverse()
        self._pending += found
        if len(self._pending) > MAX_PENDING:
            raise LimitExceeded(f"more than {MAX_PENDING} links wait to be followed")


async def _asked(ask: Ask, cid: CID) -> bytes:
    return await ask(cid)
