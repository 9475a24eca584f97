"""Who holds what: the ledger's active deals and provider endpoints, cached for those who fetch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ledger.engine.client import LedgerClient
from ledger.records import ShardStatus
from merkledag.cid import CID

REFRESH_S = 5.0
MAX_HOLDINGS = 100_000
HELD = (ShardStatus.ACCEPTED, ShardStatus.ACTIVE)


@dataclass(frozen=True, slots=True)
class Holding:
    """One accepted shard of an active deal, at the node that holds it."""

    deal: CID
    content: CID
    manifest: CID
    shard: int
    provider: bytes
    endpoint: str


class Directory(Protocol):
    """Whoever knows the holdings."""

    async def holdings(self, *, max_age_s: float = REFRESH_S) -> tuple[Holding, ...]:
        """All holdings, at most ``max_age_s`` old."""
        ...


class ProviderDirectory:
    """The holdings of all active deals. ``clock`` is monotonic seconds.

    ``me`` is left out of every answer.
    """

    def __init__(self, ledger: LedgerClient, *, clock: Callable[[], float], me: bytes | None = None) -> None:
        self._ledger = ledger
        self._clock = clock
        self._me = me
        self._holdings: tuple[Holding, ...] = ()
        self._read_at_s: float | None = None
        self._lock = asyncio.Lock()

    def invalidate(self) -> None:
        """Read the ledger again at the next question (call it when a deal changed)."""
        self._read_at_s = None

    async def holdings(self, *, max_age_s: float = REFRESH_S) -> tuple[Holding, ...]:
        """All holdings, at most ``max_age_s`` old. Raises what the ledger client raises."""
        async with self._lock:
            now_s = self._clock()
            if self._read_at_s is None or now_s - self._read_at_s > max_age_s:
                self._holdings = await self._read()
                self._read_at_s = now_s
            return self._holdings

    async def _read(self) -> tuple[Holding, ...]:
        """Every accepted shard of every open deal, the newest deals first."""
        endpoints = {provider.account: provider.endpoint for provider in await self._ledger.providers()}
        deals = await self._ledger.deals(active=True)
        found = [
            Holding(view.id, view.deal.content, view.deal.manifest, index, shard.provider, endpoint)
            for view in sorted(deals, key=lambda view: view.deal.created_at, reverse=True)
            for index, shard in enumerate(view.shards)
            if shard.status in HELD and shard.provider != self._me
            if (endpoint := endpoints.get(shard.provider)) is not None
        ]
        return tuple(found[:MAX_HOLDINGS])
