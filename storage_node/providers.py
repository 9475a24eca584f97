"""Who holds what: of the ledger's deals those that somebody asked for, remembered for those who fetch.

The ledger may have a hundred thousand deals, so nobody reads them all: a deal is learnt by its ID, by its
content, or as one of a node's, each a bounded request, and read again when it is old and asked for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerNotFound
from ledger.engine.views import DealView
from ledger.events import Event
from ledger.records import DealStatus, ShardStatus
from merkledag.cid import CID

REFRESH_S = 60.0
MAX_DEALS = 256
MAX_CONTENTS = 4_096
MAX_ENDPOINTS = 16_384
# Deals of one content, or of one node, that are learnt at a time.
MAX_LEARNT = 64
HELD = (ShardStatus.ACCEPTED, ShardStatus.ACTIVE)

# Events after which a deal's holdings, or a node's endpoint, are others.
_DEAL_CHANGES = frozenset(
    {
        "shard_accepted",
        "shard_closed",
        "shard_terminated",
        "shard_handed_over",
        "shard_given_up",
        "deal_ended",
    }
)


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
    """Whoever knows the holdings. The answers of the `learn` methods say whether there is something new.

    They raise what the ledger client raises.
    """

    def holdings(self) -> tuple[Holding, ...]:
        """What is known now, without asking anybody; the deals learnt last come first."""
        ...

    async def refresh(self, manifests: Collection[CID], *, max_age_s: float = REFRESH_S) -> bool:
        """Read the known deals with these manifests again where they are older than ``max_age_s``."""
        ...

    async def learn_content(self, content: CID) -> bool:
        """Learn the deals that keep exactly this content, if there are any."""
        ...

    async def learn_deal(self, deal: CID) -> CID:
        """Learn one deal; returns its content. Raises LedgerNotFound."""
        ...

    async def learn_node(self, endpoint: str) -> bool:
        """Learn deals of the node at an endpoint."""
        ...

    async def learn_some(self) -> None:
        """Learn a page of whatever deals there are: one may have parity of what no node has."""
        ...

    async def endpoints(self) -> tuple[str, ...]:
        """Where all nodes are, for what no deal is known to keep."""
        ...


class NoDirectory:
    """A directory without a ledger: nobody is known. See Directory for the methods."""

    def holdings(self) -> tuple[Holding, ...]:
        """None."""
        return ()

    async def refresh(self, manifests: Collection[CID], *, max_age_s: float = REFRESH_S) -> bool:
        """Nothing is known."""
        return False

    async def learn_content(self, content: CID) -> bool:
        """There is nothing to learn."""
        return False

    async def learn_deal(self, deal: CID) -> CID:
        """Raises LedgerNotFound."""
        raise LedgerNotFound("there is no ledger")

    async def learn_node(self, endpoint: str) -> bool:
        """There is nothing to learn."""
        return False

    async def learn_some(self) -> None:
        """There is nothing to learn."""

    async def endpoints(self) -> tuple[str, ...]:
        """None."""
        return ()


@dataclass(slots=True)
class _Known:
    read_at_s: float
    manifest: CID
    holdings: tuple[Holding, ...]


class ProviderDirectory:
    """The holdings of deals that were asked for. ``clock`` is monotonic seconds.

    ``me`` is left out of every answer.
    """

    def __init__(self, ledger: LedgerClient, *, clock: Callable[[], float], me: bytes | None = None) -> None:
        self._ledger = ledger
        self._clock = clock
        self._me = me
        self._deals: OrderedDict[CID, _Known] = OrderedDict()
        self._flat: tuple[Holding, ...] | None = None
        self._asked: OrderedDict[CID, float] = OrderedDict()
        self._endpoints: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._everyone: tuple[str, ...] = ()
        self._everyone_at_s: float | None = None
        self._some_at_s: float | None = None
        self._lock = asyncio.Lock()

    def note(self, event: Event) -> None:
        """What happened on the ledger: what is known of it is read again when it is asked for next."""
        deal, provider = event.attributes.get("deal"), event.attributes.get("provider")
        if event.kind in _DEAL_CHANGES and isinstance(deal, CID) and deal in self._deals:
            self._deals[deal].read_at_s = float("-inf")
        elif event.kind == "provider_registered" and isinstance(provider, bytes):
            self._endpoints.pop(provider, None)

    def holdings(self) -> tuple[Holding, ...]:
        """See Directory."""
        if self._flat is None:
            known = reversed(self._deals.values())
            self._flat = tuple(holding for deal in known for holding in deal.holdings)
        return self._flat

    async def refresh(self, manifests: Collection[CID], *, max_age_s: float = REFRESH_S) -> bool:
        """See Directory."""
        oldest_s = self._clock() - max_age_s
        async with self._lock:
            stale = [
                deal
                for deal, known in self._deals.items()
                if known.read_at_s <= oldest_s and known.manifest in manifests
            ]
            return any(await asyncio.gather(*(self._reread(deal) for deal in stale)))

    async def _reread(self, deal: CID) -> bool:
        try:
            view = await self._ledger.deal(deal)
        except LedgerNotFound:
            return self._forget(deal)
        return await self._take([view], fresh_endpoints=True)

    def _forget(self, deal: CID) -> bool:
        self._flat = None
        return self._deals.pop(deal, None) is not None

    async def learn_content(self, content: CID) -> bool:
        """See Directory. An answer holds for REFRESH_S, also that there is no such deal."""
        async with self._lock:
            if (asked_s := self._asked.get(content)) is not None and self._clock() - asked_s <= REFRESH_S:
                return False
            views = await self._ledger.deals(content=content, active=True, limit=MAX_LEARNT)
            _remember(self._asked, content, self._clock(), MAX_CONTENTS)
            return await self._take(view for view in views if view.deal.content == content)

    async def learn_deal(self, deal: CID) -> CID:
        """See Directory."""
        async with self._lock:
            view = await self._ledger.deal(deal)
            await self._take([view])
            return view.deal.content

    async def learn_node(self, endpoint: str) -> bool:
        """See Directory."""
        async with self._lock:
            account = next((each for each, (at, _) in self._endpoints.items() if at == endpoint), None)
            if account is None:
                return False
            return await self._take(await self._ledger.deals(provider=account, active=True, limit=MAX_LEARNT))

    async def learn_some(self) -> None:
        """See Directory. At most once in REFRESH_S."""
        async with self._lock:
            now_s = self._clock()
            if self._some_at_s is None or now_s - self._some_at_s > REFRESH_S:
                self._some_at_s = now_s
                await self._take(await self._ledger.deals(active=True, limit=MAX_LEARNT))

    async def endpoints(self) -> tuple[str, ...]:
        """See Directory."""
        async with self._lock:
            now_s = self._clock()
            if self._everyone_at_s is None or now_s - self._everyone_at_s > REFRESH_S:
                providers = [each for each in await self._ledger.providers() if each.account != self._me]
                for each in providers:
                    _remember(self._endpoints, each.account, (each.endpoint, now_s), MAX_ENDPOINTS)
                self._everyone = tuple(each.endpoint for each in providers)
                self._everyone_at_s = now_s
            return self._everyone

    async def _take(self, views: Iterable[DealView], *, fresh_endpoints: bool = False) -> bool:
        """Keep what deals say; True if any was not known, or known otherwise."""
        changed = False
        for view in views:
            if view.deal.status is not DealStatus.OPEN:
                changed = self._forget(view.id) or changed
                continue
            holdings = await self._holdings(view, 0.0 if fresh_endpoints else REFRESH_S)
            known = self._deals.get(view.id)
            changed = changed or known is None or known.holdings != holdings
            _remember(self._deals, view.id, _Known(self._clock(), view.deal.manifest, holdings), MAX_DEALS)
            self._flat = None
        return changed

    async def _holdings(self, view: DealView, max_age_s: float) -> tuple[Holding, ...]:
        """Every accepted shard of a deal whose holder is registered."""
        held = [
            (index, shard.provider)
            for index, shard in enumerate(view.shards)
            if shard.status in HELD and shard.provider != self._me
        ]
        endpoints = await asyncio.gather(*(self._endpoint(provider, max_age_s) for _, provider in held))
        return tuple(
            Holding(view.id, view.deal.content, view.deal.manifest, index, provider, endpoint)
            for (index, provider), endpoint in zip(held, endpoints, strict=True)
            if endpoint is not None
        )

    async def _endpoint(self, provider: bytes, max_age_s: float) -> str | None:
        known = self._endpoints.get(provider)
        if known is not None and self._clock() - known[1] < max_age_s:
            return known[0]
        try:
            endpoint = (await self._ledger.provider(provider)).endpoint
        except LedgerNotFound:
            return None
        _remember(self._endpoints, provider, (endpoint, self._clock()), MAX_ENDPOINTS)
        return endpoint


K = TypeVar("K")
V = TypeVar("V")


def _remember(cache: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    """Put an entry last; what was put longest ago goes."""
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)
