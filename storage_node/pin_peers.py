"""Whom a pin job asks for blocks: trustless gateways by URL, a ledger's nodes, providers that routers name.

Everything that is received is verified, so a peer can be slow, absent or wrong, and no more. A block is asked
of the peer that answers best; others are asked as well when that one takes long, fails or has not got it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Protocol

import aiohttp
from yarl import URL

from merkledag.block import MAX_BLOCK_BYTES
from merkledag.cid import CID
from merkledag.errors import MerkledagError
from storage_node.client import NETWORK_ERRORS, reason, verify_received
from storage_node.endpoints import parse_endpoint
from storage_node.errors import BlockNotFound, EndpointRefused, PeerError, PeerMisbehaved, PeerUnreachable
from storage_node.provider_routing import ProviderRouter
from storage_node.wire import RAW_TYPE

REQUEST_TIMEOUT_S = 60.0  # a gateway may have to look for the block itself
HEDGE_S = 2.0
MAX_PARALLEL = 3  # peers asked for one block at once
PENALTY_S = 2.0  # doubled with every failure in a row
MAX_PENALTY_S = 60.0
MAX_LIES = 3  # then a peer is not asked again
MAX_PEERS = 64
ASK_ROUTERS_EVERY_S = 60.0  # for one block
MAX_ROUTED = 1024

Clock = Callable[[], float]


class Peer(Protocol):
    """Something that has blocks."""

    label: str

    async def get(self, cid: CID) -> bytes | None:
        """The verified block, None where the peer says that it has not got it.

        Raises PeerUnreachable or PeerMisbehaved.
        """
        ...


class GatewayPeer:
    """A trustless gateway, by the URL in front of `/ipfs/…`. Redirects are not followed."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.label = url
        self._session = session
        self._base = url.rstrip("/")

    async def get(self, cid: CID) -> bytes | None:
        """As `Peer.get`."""
        url = URL(f"{self._base}/ipfs/{cid}", encoded=True).with_query(format="raw")
        try:
            async with (
                asyncio.timeout(REQUEST_TIMEOUT_S),
                self._session.get(url, allow_redirects=False, headers={"Accept": RAW_TYPE}) as answer,
            ):
                if answer.status in {404, 410}:
                    return None
                if answer.status != 200:
                    raise PeerUnreachable(f"{self._base} answers {answer.status}")
                data = await _bounded(answer, MAX_BLOCK_BYTES, self._base)
        except TimeoutError as error:
            raise PeerUnreachable(f"{self._base} does not answer in time") from error
        except NETWORK_ERRORS as error:
            raise PeerUnreachable(f"{self._base} does not answer: {reason(error)}") from error
        try:
            await verify_received(cid, data)
        except MerkledagError as error:
            raise PeerMisbehaved(f"{self._base} sent bytes that are not {cid}") from error
        return data


class NetworkPeer:
    """The nodes of a ledger, through `NetworkFetcher.fetch`."""

    label = "the ledger's nodes"

    def __init__(self, fetch: Callable[[CID], Awaitable[bytes]]) -> None:
        self._fetch = fetch

    async def get(self, cid: CID) -> bytes | None:
        """As `Peer.get`."""
        try:
            return await self._fetch(cid)
        except BlockNotFound as error:
            if error.unsure:
                raise PeerUnreachable(str(error)) from error
            return None
        except TimeoutError as error:
            raise PeerUnreachable("the ledger's nodes do not answer in time") from error


class _Standing:
    """What is known of one peer."""

    __slots__ = ("answer_s", "asked", "failures", "lies", "peer", "rests_until_s")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.asked = 0  # requests under way
        self.answer_s = 0.0  # a moving mean
        self.failures = 0  # in a row
        self.lies = 0
        self.rests_until_s = 0.0


class Peers:
    """All peers of one job. `clock` is monotonic seconds."""

    def __init__(
        self,
        peers: Iterable[Peer],
        *,
        clock: Clock,
        routers: Iterable[ProviderRouter] = (),
        open_gateway: Callable[[str], Peer] | None = None,
        hedge_s: float = HEDGE_S,
    ) -> None:
        """`open_gateway` makes a peer of a URL that a router named; it may raise EndpointRefused."""
        self._peers = [_Standing(peer) for peer in peers]
        self._clock = clock
        self._routers = list(routers)
        self._open_gateway = open_gateway
        self._hedge_s = hedge_s
        self._routed_s: dict[CID, float] = {}  # when routers were asked for a block
        self.troubles: dict[str, str] = {}  # label → what a peer did wrong last

    def __bool__(self) -> bool:
        return bool(self._peers or self._routers)

    async def get(self, cid: CID) -> bytes:
        """The verified block.

        Raises BlockNotFound if every peer says that it has not got it, PeerUnreachable if some gave no
        answer that can be used.
        """
        ranked = self._ranked()
        data, unsure = await self._ask(cid, ranked)
        banned = len(ranked) < len(self._peers)
        if data is None and (found := await self._from_routers(cid)):
            data, unsure_too = await self._ask(cid, found)
            unsure |= unsure_too
        if data is not None:
            return data
        if unsure or banned:
            raise PeerUnreachable(self.trouble() or "nobody answers")
        raise BlockNotFound(f"nobody who was asked has {cid}")

    def trouble(self) -> str:
        """What peers did wrong lately, for people."""
        return "; ".join(list(self.troubles.values())[-3:])

    def _ranked(self) -> list[_Standing]:
        """Those that may be asked, the quickest and least busy first, those that failed lately last."""
        now_s = self._clock()
        honest = [each for each in self._peers if each.lies < MAX_LIES]
        return sorted(
            honest,
            key=lambda each: (
                max(0.0, each.rests_until_s - now_s),
                (each.answer_s + 0.001) * (each.asked + 1),
            ),
        )

    async def _ask(self, cid: CID, ranked: list[_Standing]) -> tuple[bytes | None, bool]:
        """The block from the first that has it, and whether somebody gave no clear answer."""
        left = iter(ranked)
        tasks: set[asyncio.Task[tuple[bytes | None, bool]]] = set()
        parallel, exhausted = 1, False
        unsure = False
        try:
            while True:
                while not exhausted and len(tasks) < parallel:
                    standing = next(left, None)
                    if standing is None:
                        exhausted = True
                    else:
                        tasks.add(asyncio.create_task(self._ask_one(cid, standing)))
                if not tasks:
                    return None, unsure
                patience = None if exhausted or parallel == MAX_PARALLEL else self._hedge_s
                done, tasks = await asyncio.wait(tasks, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                parallel += not done
                for task in done:
                    data, doubtful = task.result()
                    unsure |= doubtful
                    if data is not None:
                        return data, unsure
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_one(self, cid: CID, standing: _Standing) -> tuple[bytes | None, bool]:
        began_s = self._clock()
        standing.asked += 1
        try:
            data = await standing.peer.get(cid)
        except (PeerError, OSError, ValueError, aiohttp.ClientError) as error:
            standing.lies += isinstance(error, PeerMisbehaved)
            standing.failures += 1
            penalty_s = min(MAX_PENALTY_S, PENALTY_S * 2 ** min(standing.failures - 1, 10))
            standing.rests_until_s = self._clock() + penalty_s
            self.troubles[standing.peer.label] = str(error)
            return None, True
        finally:
            standing.asked -= 1
        took_s = self._clock() - began_s
        standing.answer_s = took_s if not standing.answer_s else 0.8 * standing.answer_s + 0.2 * took_s
        standing.failures, standing.rests_until_s = 0, 0.0
        self.troubles.pop(standing.peer.label, None)
        return data, False

    async def _from_routers(self, cid: CID) -> list[_Standing]:
        """Peers that the routers name for a block and that were not known before."""
        now_s = self._clock()
        if not self._routers or now_s - self._routed_s.get(cid, -ASK_ROUTERS_EVERY_S) < ASK_ROUTERS_EVERY_S:
            return []
        if len(self._routed_s) >= MAX_ROUTED:
            self._routed_s.clear()
        self._routed_s[cid] = now_s
        known = {each.peer.label for each in self._peers}
        fresh: list[_Standing] = []
        for router in self._routers:
            urls: list[str] = []
            try:
                async with aclosing(router.gateways(cid)) as named:
                    urls += [url async for url in named]
            except PeerUnreachable as error:
                self.troubles["router"] = str(error)
            for url in urls:
                if url in known or len(self._peers) >= MAX_PEERS:
                    continue
                known.add(url)
                assert self._open_gateway is not None
                try:
                    fresh.append(_Standing(self._open_gateway(url)))
                except EndpointRefused:
                    continue
        self._peers += fresh
        return fresh


def open_gateway(session: aiohttp.ClientSession, url: str, *, allow_private: bool) -> GatewayPeer:
    """A peer at an address that a stranger named. Raises EndpointRefused."""
    return GatewayPeer(session, str(parse_endpoint(url, allow_private=allow_private)))


async def _bounded(answer: aiohttp.ClientResponse, limit_bytes: int, who: str) -> bytes:
    """The whole body; PeerMisbehaved for more than may be."""
    received = bytearray()
    async for part in answer.content.iter_any():
        received += part
        if len(received) > limit_bytes:
            raise PeerMisbehaved(f"{who} sent more than {limit_bytes} bytes for one block")
    return bytes(received)
