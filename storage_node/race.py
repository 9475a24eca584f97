"""Asks several nodes for one block: the likeliest first, the next when one has it not, fails or is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Container, Iterable
from contextlib import aclosing
from typing import NamedTuple

from ledger.errors import LedgerError
from merkledag.cid import CID
from storage_node.errors import EndpointRefused, PeerBusy, PeerMisbehaved, PeerUnreachable
from storage_node.pool import NodePool
from storage_node.trail import BUSY, HAS_NOT, UNREACHABLE, Trail, outcome_of

MAX_PARALLEL = 4
MAX_RESTING = 8  # of those that failed lately, asked when nobody else is left
# Where nobody is left but nodes that failed when they were last asked, and of which nothing says that they
# should have the block.
LAST_RESORT_S = 2.0
BUSY_S = 20.0  # so long in all a node may say that it is to be asked later


class Found(NamedTuple):
    """A verified block, and who had it."""

    data: bytes
    endpoint: str


class _Everybody:
    def __contains__(self, _: object) -> bool:
        return True


EVERYBODY: Container[str] = _Everybody()


class Racing:
    """How the nodes of a pool are asked. ``hedge_s``: how long one may take before another is asked as well.

    `misses` counts the answers that a node has not got a block.
    """

    def __init__(self, pool: NodePool, hedge_s: float) -> None:
        self._pool = pool
        self._hedge_s = hedge_s
        self.misses = 0

    async def first(
        self,
        cid: CID,
        endpoints: AsyncGenerator[str, None],
        trail: Trail | None = None,
        expected: Container[str] = (),
    ) -> Found | None:
        """The block from the first that has it; None when nobody has.

        `expected` are those who should have it: that they give no answer is always worth telling. Of others
        it is, unless they gave none when they were last asked. What `endpoints` raises is raised once those
        who are being asked have not got the block either.
        """
        async with aclosing(endpoints):
            race = _Race(self, self._pool, cid, trail, expected)
            try:
                return await race.run(endpoints, self._hedge_s)
            finally:
                await race.close()

    async def ask(self, cid: CID, endpoint: str, trail: Trail | None, *, counts: bool) -> bytes | None:
        """The block from one node; None where it has not got it or gives no answer that can be used.

        A node that asks for it is left in peace for a while and asked again. `counts`: whether no answer
        leaves open where the block is.
        """
        pool, trail = self._pool, trail or Trail(self._pool.clock)
        trail.begins(endpoint)
        waited_s = 0.0
        while True:
            if (wait_s := pool.busy_s(endpoint)) > 0:
                waited_s += wait_s
                if waited_s > BUSY_S:
                    trail.ends(endpoint, BUSY, counts=counts)
                    return None
                trail.remarks(endpoint, BUSY)
                await pool.sleep(wait_s)
            began_s = pool.clock()
            try:
                data = await pool.client(endpoint).get_block(cid)
            except PeerBusy as busy:
                pool.is_busy(endpoint, busy.retry_after_s)
                continue
            except (PeerUnreachable, PeerMisbehaved, EndpointRefused) as error:
                pool.failed(endpoint)
                trail.ends(endpoint, outcome_of(error), counts=counts)
                return None
            if data is None:
                self.misses += 1
                pool.answered(endpoint)
                trail.ends(endpoint, HAS_NOT)
            else:
                pool.was_useful(endpoint, pool.clock() - began_s)
            return data


class _Race:
    """One block's."""

    def __init__(
        self, racing: Racing, pool: NodePool, cid: CID, trail: Trail | None, expected: Container[str]
    ) -> None:
        self._racing = racing
        self._pool = pool
        self._cid = cid
        self._trail = trail
        self._expected = expected
        self._asked: dict[asyncio.Task[bytes | None], str] = {}  # in their order
        self._hopeless: set[str] = set()
        self._next: asyncio.Task[str | None] | None = None  # who is to be asked is being found out
        self._ended = False  # nobody else is known
        self._trouble: LedgerError | None = None
        self._resting: list[str] = []

    async def close(self) -> None:
        """Ends what is under way."""
        tasks: list[asyncio.Task[bytes | None] | asyncio.Task[str | None]] = list(self._asked)
        if self._next is not None:
            tasks.append(self._next)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run(self, endpoints: AsyncGenerator[str, None], hedge_s: float) -> Found | None:
        parallel, patience_s = 1, hedge_s
        while True:
            while not self._ended and self._next is None and len(self._asked) < parallel:
                if self._asked:  # they may answer before it is known whom to ask next
                    self._next = asyncio.create_task(self._following(endpoints))
                elif (chosen := self._choose(await self._following(endpoints))) is not None:
                    patience_s = self._pool.patience_s(chosen, hedge_s)
            if self._ended and not self._asked:
                if not self._resting:
                    break
                for endpoint in self._resting[:MAX_RESTING]:
                    self._ask(endpoint)
                self._resting.clear()
            hopeless = self._ended and self._hopeless.issuperset(self._asked.values())
            waits = self._ended or self._next is not None or parallel == MAX_PARALLEL
            limit_s = LAST_RESORT_S if hopeless else None if waits else patience_s
            waiting = {*self._asked} if self._next is None else {*self._asked, self._next}
            done, _ = await asyncio.wait(waiting, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in self._asked if task in done]:
                if (data := task.result()) is not None:
                    return Found(data, self._won(task))
                del self._asked[task]
            if self._next is not None and self._next.done():
                found, self._next = self._next.result(), None
                if (chosen := self._choose(found)) is not None:
                    patience_s = self._pool.patience_s(chosen, hedge_s)
            if not done:
                if hopeless:
                    self._give_up()
                    break
                parallel += 1
        if self._trouble is not None:
            raise self._trouble
        return None

    async def _following(self, endpoints: AsyncGenerator[str, None]) -> str | None:
        try:
            return await anext(endpoints, None)
        except LedgerError as error:
            self._trouble = error
            return None

    def _choose(self, endpoint: str | None) -> str | None:
        """Asks whoever has been found to be next, and returns it; not one that failed lately."""
        if endpoint is None:
            self._ended = True
        elif self._pool.rests(endpoint):
            self._resting.append(endpoint)
        else:
            self._ask(endpoint)
            return endpoint
        return None

    def _ask(self, endpoint: str) -> None:
        hopeless = endpoint not in self._expected and self._pool.failed_last(endpoint)
        if hopeless:
            self._hopeless.add(endpoint)
        asking = self._racing.ask(self._cid, endpoint, self._trail, counts=not hopeless)
        self._asked[asyncio.create_task(asking)] = endpoint

    def _won(self, winner: asyncio.Task[bytes | None]) -> str:
        """Who was asked before the winner, and waited for in vain, is asked later next time."""
        for task, endpoint in self._asked.items():
            if task is winner:
                return endpoint
            if not self._pool.busy_s(endpoint):
                self._pool.failed(endpoint)
        raise AssertionError("a winner that was not asked")

    def _give_up(self) -> None:
        for endpoint in self._asked.values():
            self._pool.failed(endpoint)
            if self._trail is not None:
                self._trail.ends(endpoint, UNREACHABLE, counts=False)


async def each(endpoints: Iterable[str]) -> AsyncGenerator[str, None]:
    """Endpoints that are known already."""
    for endpoint in endpoints:
        yield endpoint
