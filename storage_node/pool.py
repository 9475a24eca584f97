"""The other nodes as one talks to them: a client an endpoint, who failed lately, who was useful last."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from storage_node.client import NodeClient

PENALTY_S = 15.0  # doubled with every failure after such a rest
MAX_PENALTY_S = 240.0
MIN_BUSY_S = 0.5
MAX_BUSY_S = 60.0
MAX_REMEMBERED = 256
# A node that takes so many times as long as it mostly does is slow, but none is so before MIN_PATIENCE_S.
PATIENCE = 4.0
MIN_PATIENCE_S = 0.1

V = TypeVar("V")


@dataclass(slots=True)
class _Rest:
    """A node that failed is asked last until then; `penalty_s` is how long that was.

    `over`: it has given an answer since.
    """

    until_s: float
    penalty_s: float
    over: bool = False


class NodePool:
    """The nodes we talk to: one client an endpoint, who failed lately, and who was useful last."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
        allow_private: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`wall_clock` gives Unix seconds, `clock` monotonic ones, in which `sleep` counts too."""
        self._session = session
        self._wall_clock = wall_clock
        self.clock = clock
        self.sleep = sleep
        self.allow_private = allow_private
        self._clients: OrderedDict[str, NodeClient] = OrderedDict()
        self._resting: OrderedDict[str, _Rest] = OrderedDict()
        self._busy_until_s: OrderedDict[str, float] = OrderedDict()
        self._answer_s: OrderedDict[str, float] = OrderedDict()  # moving means
        self._useful: OrderedDict[str, None] = OrderedDict()

    def client(self, endpoint: str) -> NodeClient:
        """The client of an endpoint; EndpointRefused when we do not connect there."""
        known = self._clients.get(endpoint)
        if known is None:
            known = NodeClient(
                self._session, endpoint, clock=self._wall_clock, allow_private=self.allow_private
            )
            _remember(self._clients, endpoint, known)
        return known

    def failed(self, endpoint: str) -> None:
        """Ask this node last for a while: longer each time that it fails again after its rest."""
        if self.rests(endpoint):
            return  # of many requests at once each may fail
        rest = self._resting.get(endpoint)
        penalty_s = PENALTY_S if rest is None else min(2 * rest.penalty_s, MAX_PENALTY_S)
        _remember(self._resting, endpoint, _Rest(self.clock() + penalty_s, penalty_s))
        self._useful.pop(endpoint, None)

    def answered(self, endpoint: str) -> None:
        """It gave an answer: it need not rest. Should it fail again, it rests for longer."""
        if (rest := self._resting.get(endpoint)) is not None:
            rest.over = True

    def is_busy(self, endpoint: str, seconds: float) -> None:
        """It asks to be left alone for so long, which is no failure."""
        until_s = self.clock() + min(max(seconds, MIN_BUSY_S), MAX_BUSY_S)
        _remember(self._busy_until_s, endpoint, until_s)

    def busy_s(self, endpoint: str) -> float:
        """For how long it wants to be left alone, 0 where it does not."""
        return max(0.0, self._busy_until_s.get(endpoint, 0.0) - self.clock())

    def was_useful(self, endpoint: str, seconds: float) -> None:
        """Ask this node first next time: it gave a block within so many seconds."""
        self._resting.pop(endpoint, None)
        self._useful.pop(endpoint, None)
        _remember(self._useful, endpoint, None)
        before_s = self._answer_s.get(endpoint, seconds)
        _remember(self._answer_s, endpoint, 0.8 * before_s + 0.2 * seconds)

    def patience_s(self, endpoint: str, at_most_s: float) -> float:
        """How long to wait for this node before another is asked as well."""
        mean_s = self._answer_s.get(endpoint)
        if mean_s is None:
            return at_most_s
        return min(at_most_s, max(MIN_PATIENCE_S, PATIENCE * mean_s))

    def useful(self) -> list[str]:
        """Endpoints by their last success, the latest first."""
        return list(reversed(self._useful))

    def rests(self, endpoint: str) -> bool:
        """Whether this node failed lately."""
        rest = self._resting.get(endpoint)
        return rest is not None and not rest.over and self.clock() < rest.until_s

    def failed_last(self, endpoint: str) -> bool:
        """Whether this node failed when it was last asked, however long ago."""
        rest = self._resting.get(endpoint)
        return rest is not None and not rest.over

    def ranked(self, endpoints: Iterable[str]) -> list[str]:
        """The endpoints once each, in the given order; the busy come behind, who failed lately last."""
        distinct = dict.fromkeys(endpoints)
        return sorted(distinct, key=lambda each: 2 if self.rests(each) else int(self.busy_s(each) > 0))


def _remember(cache: OrderedDict[str, V], key: str, value: V) -> None:
    cache[key] = value
    while len(cache) > MAX_REMEMBERED:
        cache.popitem(last=False)
