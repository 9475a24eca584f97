"""Turns at the processor: long work waits in a line, so that what is short is answered meanwhile."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from itertools import count
from time import monotonic

SLICE_S = 0.002  # of one page, before others get a turn
PLACE_S = 0.25  # of one page, before it goes to the end of the line


class Turns:
    """One line of an event loop: `a_round` of those who wait go on in each of its rounds, first come first.

    Between two rounds the loop looks at all connections, so that nobody outside the line waits for more than
    that. Who waits may be cancelled.
    """

    def __init__(self, a_round: int = 1) -> None:
        self._a_round = a_round
        self._line: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._runs = False

    def place(self) -> int:
        """A place at the end of the line."""
        return next(self._numbers)

    async def turn(self, place: int | None = None) -> None:
        """Returns when it is the caller's turn, in a later round than this one; who has no place gets one."""
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        number = self.place()
        heappush(self._line, (number if place is None else place, number, waiting))
        if not self._runs:
            self._runs = True
            loop.call_soon(self._next)
        await waiting

    def _next(self) -> None:
        line, left = self._line, self._a_round
        while line and left:
            _, _, waiting = heappop(line)
            if not waiting.done():  # else it was cancelled
                waiting.set_result(None)
                left -= 1
        self._runs = bool(line)
        if line:
            asyncio.get_running_loop().call_soon(self._next)


class Work:
    """What one request makes, in slices of `SLICE_S`, each of which waits for its turn.

    A page that was begun goes on before others are begun, so that few are held half made at once. It holds up
    nobody while it waits for blocks or its client, and one that takes long gets behind those who came since.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._place: int | None = None
        self._left_s = 0.0  # of its place
        self._until = 0.0
        self.waited_s = 0.0  # in the line, all in all

    async def go_on(self) -> None:
        """To be called before each piece of work, which are to be much smaller than a slice."""
        now = monotonic()
        if now < self._until:
            return
        self._left_s -= SLICE_S
        if self._place is None or self._left_s <= 0:
            self._place, self._left_s = self._turns.place(), PLACE_S
        await self._turns.turn(self._place)
        began = monotonic()
        self.waited_s += began - now
        self._until = began + SLICE_S
