"""The other nodes as one talks to them: a client an endpoint, who failed lately, who was useful last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from storage_node.client import NodeClient

PENALTY_S = 15.0  # doubled with every failure after such a rest
MAX_PENALTY_S = 240.0
MAX_REMEMBERED = 256
# A node that takes so many times as long as it mostly does is slow, but none is so before MIN_PATIENCE_S.
PATIENCE = 4.0
MIN_PATIENCE_S = 0.1

V = TypeVar("V")


@dataclass(slots=True)
class _Rest:
    """A node that failed is asked last until then; `penalty_s` is how long that was."""

    until_s: float
    penalty_s: float


class NodePool:
    """The nodes we talk to: one client an endpoint, who failed lately, and who was useful last."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
        allow_private: bool = False,
    ) -> None:
        self._session = session
        self._wall_clock = wall_clock
        self.clock = clock
        self._allow_private = allow_private
        self._clients: OrderedDict[str, NodeClient] = OrderedDict()
        self._resting: OrderedDict[str, _Rest] = OrderedDict()
        self._answer_s: OrderedDict[str, float] = OrderedDict()  # moving means
        self._useful: OrderedDict[str, None] = OrderedDict()

    def client(self, endpoint: str) -> NodeClient:
        """The client of an endpoint; EndpointRefused when we do not connect there."""
        known = self._clients.get(endpoint)
        if known is None:
            known = NodeClient(
                self._session, endpoint, clock=self._wall_clock, allow_private=self._allow_private
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
        return rest is not None and self.clock() < rest.until_s

    def ranked(self, endpoints: Iterable[str]) -> list[str]:
        """The endpoints once each, in the given order, those that failed lately moved to the end."""
        distinct = list(dict.fromkeys(endpoints))
        resting = {endpoint for endpoint in distinct if self.rests(endpoint)}
        rested = [endpoint for endpoint in distinct if endpoint not in resting]
        return rested + [endpoint for endpoint in distinct if endpoint in resting]


def _remember(cache: OrderedDict[str, V], key: str, value: V) -> None:
    cache[key] = value
    while len(cache) > MAX_REMEMBERED:
        cache.popitem(last=False)
