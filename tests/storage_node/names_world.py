"""Names in tests: two keys, time that tests move, and a resolver with servers that really listen."""

from __future__ import annotations

from contextlib import AsyncExitStack

from merkledag import ipns, peer
from merkledag.ed25519 import Ed25519Signer
from merkledag.rfc3339 import SECOND_NS
from storage_node.endpoints import open_session
from storage_node.names import NameStore
from storage_node.names_dns import DnsLinks, Links
from storage_node.names_doh import DohLinks
from storage_node.names_resolver import NameResolver
from storage_node.names_routing import DelegatedRouter, Router
from tests.storage_node.dns_server import Zone, dns_server
from tests.storage_node.doh_server import Doh, doh_server
from tests.storage_node.router_server import Routed, router_server

ALICE = Ed25519Signer.from_seed(b"a" * 32)
BOB = Ed25519Signer.from_seed(b"b" * 32)
ONE, TWO = "/ipfs/bafkqaaa", "/ipfs/bafkqaddwgevxmmraojswg33smq"
HOUR_S = 3600


def name_of(signer: Ed25519Signer) -> bytes:
    return peer.peer_cid(signer.public_key).multihash


def text_of(signer: Ed25519Signer) -> str:
    return peer.peer_text(signer.public_key)


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def ns(self) -> int:
        return int(self.now_s * SECOND_NS)

    def s(self) -> float:
        return self.now_s


def record(
    signer: Ed25519Signer, clock: Clock, value: str = ONE, *, sequence: int = 0, lifetime_s: int = HOUR_S,
    ttl_s: int = 60,
) -> bytes:  # fmt: skip
    made = ipns.create(
        signer, value, sequence=sequence, eol_ns=clock.ns() + lifetime_s * SECOND_NS, ttl_ns=ttl_s * SECOND_NS
    )
    return made.raw


class World:
    """A resolver with routers and a DNS server that really listen."""

    def __init__(self, store: NameStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> World:
        self._session = await self._stack.enter_async_context(open_session(allow_private=True))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def router(self, routed: Routed) -> DelegatedRouter:
        await self._stack.enter_async_context(router_server(routed))
        return DelegatedRouter(self._session, routed.url)

    async def links(self, zone: Zone) -> DnsLinks:
        await self._stack.enter_async_context(dns_server(zone))
        return DnsLinks([("127.0.0.1", zone.port)])

    async def doh(self, *servers: Doh) -> DohLinks:
        for server in servers:
            await self._stack.enter_async_context(doh_server(server))
        return DohLinks(self._session, [server.url for server in servers])

    def resolver(
        self, *routers: Router, links: Links | None = None, static: dict[str, str] | None = None
    ) -> NameResolver:
        return NameResolver(self.store, self.clock.s, routers=routers, links=links, static=static)

    def dead_router(self) -> DelegatedRouter:
        return DelegatedRouter(self._session, "http://127.0.0.1:1")
