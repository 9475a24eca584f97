"""The other nodes as one talks to them: a client an endpoint, who failed lately, who was useful last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeVar

import aiohttp

from storage_node.client import NodeClient

PENALTY_S = 15.0
MAX_REMEMBERED = 256

V = TypeVar("V")


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
        self._clock = clock
        self._allow_private = allow_private
        self._clients: OrderedDict[str, NodeClient] = OrderedDict()
        self._resting: OrderedDict[str, float] = OrderedDict()
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
        """Ask this node last for a while."""
        _remember(self._resting, endpoint, self._clock() + PENALTY_S)
        self._useful.pop(endpoint, None)

    def was_useful(self, endpoint: str) -> None:
        """Ask this node first next time."""
        self._resting.pop(endpoint, None)
        self._useful.pop(endpoint, None)
        _remember(self._useful, endpoint, None)

    def useful(self) -> list[str]:
        """Endpoints by their last success, the latest first."""
        return list(reversed(self._useful))

    def ranked(self, endpoints: Iterable[str]) -> list[str]:
        """The endpoints once each, in the given order, those that failed lately moved to the end."""
        now_s = self._clock()
        distinct = list(dict.fromkeys(endpoints))
        rested = [endpoint for endpoint in distinct if self._resting.get(endpoint, now_s) <= now_s]
        return rested + [endpoint for endpoint in distinct if endpoint not in set(rested)]


def _remember(cache: OrderedDict[str, V], key: str, value: V) -> None:
    cache[key] = value
    while len(cache) > MAX_REMEMBERED:
        cache.popitem(last=False)
