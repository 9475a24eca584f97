"""Providers of blocks that routers name: asked of all routers at once, remembered for a while."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from merkledag.cid import CID
from storage_node.endpoints import parse_endpoint
from storage_node.errors import EndpointRefused, PeerBusy, PeerUnreachable
from storage_node.pool import NodePool
from storage_node.provider_routing import ProviderRouter
from storage_node.trail import NAMES_NOBODY, UNREACHABLE, Trail

MAX_LOOKUPS = 16  # at once: strangers choose the CIDs
MAX_REMEMBERED = 4_096
NAMED_S = 300.0  # an answer with providers holds so long
NOBODY_S = 30.0  # … and one without
REST_S = 30.0  # a router that gives no answer is left alone for
_log = logging.getLogger(__name__)
ROUTERS = "the routers"  # as they are called where people are told who was asked


@dataclass(slots=True)
class _Answer:
    until_s: float
    endpoints: tuple[str, ...]


class RoutedProviders:
    """Whom routers name. ``pool`` is for strangers: what it refuses to connect to is passed over."""

    def __init__(self, routers: Sequence[ProviderRouter], pool: NodePool) -> None:
        self.pool = pool
        self._routers = tuple(routers)
        self._rest_until_s = [float("-inf")] * len(self._routers)
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._slots = asyncio.Semaphore(MAX_LOOKUPS)

    def known(self, cid: CID) -> tuple[str, ...]:
        """Who was named for a block lately."""
        answer = self._answers.get(cid.multihash)
        return answer.endpoints if answer is not None and self.pool.clock() < answer.until_s else ()

    async def find(self, cid: CID, trail: Trail) -> AsyncGenerator[str, None]:
        """Endpoints of providers, as routers name them; notes where none is named or nobody answers."""
        answer = self._answers.get(cid.multihash)
        if answer is not None and self.pool.clock() < answer.until_s:
            for endpoint in self.pool.ranked(answer.endpoints):
                yield endpoint
            if not answer.endpoints:
                trail.begins(ROUTERS)
                trail.ends(ROUTERS, NAMES_NOBODY)
            return
        named: dict[str, None] = {}
        found: asyncio.Queue[str | None] = asyncio.Queue()
        trail.begins(ROUTERS)
        asking = [asyncio.create_task(self._ask(number, cid, found)) for number in range(len(self._routers))]
        try:
            left = len(asking)
            while left:
                url = await found.get()
                if url is None:
                    left -= 1
                elif url not in named:
                    named[url] = None
                    yield url
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            if named:
                self._remember(cid, tuple(named), NAMED_S)
        answered = all(task.result() for task in asking)
        if answered and not named:
            self._remember(cid, (), NOBODY_S)
        trail.ends(ROUTERS, NAMES_NOBODY if answered or named else UNREACHABLE)

    async def _ask(self, number: int, cid: CID, found: asyncio.Queue[str | None]) -> bool:
        """Puts whom one router names, then None; whether it gave an answer."""
        clock = self.pool.clock
        try:
            async with self._slots:
                if clock() < self._rest_until_s[number]:
                    return False
                async with aclosing(self._routers[number].gateways(cid)) as urls:
                    async for url in urls:
                        if self._may_ask(url):
                            found.put_nowait(url)
                return True
        except PeerUnreachable as error:
            _log.info("%s", error)
            rest_s = error.retry_after_s if isinstance(error, PeerBusy) else REST_S
            self._rest_until_s[number] = clock() + min(rest_s, REST_S)
            return False
        finally:
            found.put_nowait(None)

    def _may_ask(self, url: str) -> bool:
        try:
            parse_endpoint(url, allow_private=self.pool.allow_private)
        except EndpointRefused:
            return False
        return True

    def _remember(self, cid: CID, endpoints: tuple[str, ...], seconds: float) -> None:
        self._answers[cid.multihash] = _Answer(self.pool.clock() + seconds, endpoints)
        self._answers.move_to_end(cid.multihash)
        while len(self._answers) > MAX_REMEMBERED:
            self._answers.popitem(last=False)
