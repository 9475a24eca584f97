"""Endpoints that a hostile provider registers so that others connect where they should not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import dns.asyncresolver
import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from aiohttp import ClientError, web
from aiohttp.abc import AbstractResolver, ResolveResult
from dns.nameserver import Do53Nameserver

from merkledag.cid import CID
from storage_node.client import NodeClient
from storage_node.endpoints import open_session, parse_endpoint
from storage_node.errors import EndpointRefused, PeerUnreachable
from tests.storage_node.dns_server import Zone, dns_server

HIDDEN = CID.of(b"what only this machine may read")

# Each of them is 127.0.0.1, or another address that is not public, in some way of writing.
PRIVATE = [
    "http://127.0.0.1",
    "http://127.1",
    "http://127.0.0.1.",
    "http://2130706433",
    "http://0177.0.0.1",
    "http://0",
    "http://0.0.0.0",
    "http://[::1]",
    "http://[::]",
    "http://[::ffff:127.0.0.1]",
    "http://[::ffff:7f00:1]",
    "http://[2002:7f00:1::]",
    "http://[2001:0:7f00:1::]",
    "http://[fe80::1%25lo]",
    "http://[fd00::1]",
    "http://localhost",
    "http://LOCALHOST.",
    "http://a.localhost",
    "http://169.254.169.254",
    "http://10.0.0.1",
    "http://192.168.0.1",
    "http://100.64.0.1",
    "http://224.0.0.1",
    "http://255.255.255.255",
    "http://１２７.0.0.1",
    "http://127。0。0。1",
]
NO_ENDPOINTS = [
    "http://user@203.0.113.1",
    "http://8.8.8.8@127.0.0.1",
    "http://8.8.8.8/path",
    "http://8.8.8.8?query",
    "http://8.8.8.8#fragment",
    "ftp://8.8.8.8",
    "file:///etc/passwd",
    "unix:///run/x",
    "http://",
    "http://[",
    "http://8.8.8.8:99999",
    "8.8.8.8",
    "",
    "http://" + "a" * 300,
]


@pytest.mark.parametrize("endpoint", PRIVATE + NO_ENDPOINTS)
def test_what_is_not_a_public_address_is_refused_unread(endpoint: str) -> None:
    """Red team 27: a provider's record, in every way of writing that was thought of."""
    with pytest.raises(EndpointRefused):
        parse_endpoint(endpoint, allow_private=False)


@dataclass
class Canary:
    """A server on this machine that counts who comes."""

    port: int
    visits: int = 0


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    found = Canary(0)

    async def visited(_request: web.Request) -> web.Response:
        found.visits += 1
        return web.Response(body=b"what only this machine may read")

    app = web.Application()
    app.router.add_get("/{tail:.*}", visited)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = int(runner.addresses[0][1])
    yield found
    await runner.cleanup()


class Rebinding(Zone):
    """Answers each question for an address with the next one of its list, which holds for no time."""

    def __init__(self, *addresses: str) -> None:
        super().__init__()
        self.addresses = list(addresses)

    def answer(self, wire: bytes) -> dns.message.Message:
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        self.asked.append(query.question[0].name.to_text())
        address = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        kind = "AAAA" if ":" in address else "A"
        if query.question[0].rdtype == dns.rdatatype.from_text(kind):
            response.answer.append(dns.rrset.from_text(query.question[0].name, 0, "IN", kind, address))
        return response


class StubResolver(AbstractResolver):
    """Asks one DNS server, each time anew."""

    def __init__(self, port: int, kind: str) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = [Do53Nameserver("127.0.0.1", port)]
        self._kind = kind

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, self._kind)
        real = socket.AF_INET6 if self._kind == "AAAA" else socket.AF_INET
        return [
            ResolveResult(hostname=host, host=record.to_text(), port=port, family=real, proto=0, flags=0)
            for record in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "224.0.0.1",
        "0.0.0.0",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "2001:0:7f00:1::1",
        "fe80::1",
        "fd00::1",
    ],
)
async def test_a_name_that_leads_to_no_public_address_is_not_followed(canary: Canary, address: str) -> None:
    """Red team 27: what a name resolves to is looked at when the connection is made, not before."""
    kind = "AAAA" if ":" in address else "A"
    async with (
        dns_server(Rebinding(address)) as zone,
        open_session(allow_private=False, resolver=StubResolver(zone.port, kind)) as session,
    ):
        client = NodeClient(session, f"http://innocent.example:{canary.port}", clock=lambda: 0.0)
        with pytest.raises(PeerUnreachable, match="not a public address"):
            await client.get_block(HIDDEN)
    assert zone.asked
    assert canary.visits == 0


async def test_a_name_that_is_rebound_after_it_was_looked_at_is_not_followed(canary: Canary) -> None:
    """Red team 27: DNS rebinding: a public address for who looks first, this machine for who connects."""
    async with (
        dns_server(Rebinding("198.51.100.1", "127.0.0.1")) as zone,
        open_session(allow_private=False, resolver=StubResolver(zone.port, "A")) as session,
    ):
        looked_at = await StubResolver(zone.port, "A").resolve("innocent.example", canary.port)
        assert looked_at[0]["host"] == "198.51.100.1"
        client = NodeClient(session, f"http://innocent.example:{canary.port}", clock=lambda: 0.0)
        with pytest.raises(PeerUnreachable, match="not a public address"):
            await client.get_block(HIDDEN)
        assert canary.visits == 0
        resolver = StubResolver(zone.port, "A")
        async with open_session(allow_private=True, resolver=resolver) as allowed:  # the same way leads there
            client = NodeClient(
                allowed, f"http://innocent.example:{canary.port}", clock=lambda: 0.0, allow_private=True
            )
            assert await client.get_block(HIDDEN)
    assert canary.visits == 1


@pytest.mark.parametrize("host", ["0x7f000001", "0x7f.0.0.1", "017700000001", "127.0.0.1", "[::1]"])
async def test_the_systems_own_ways_of_writing_addresses_lead_nowhere(canary: Canary, host: str) -> None:
    """Red team 27: what the system's resolver makes of a host, and literals that nobody has looked at."""
    async with open_session(allow_private=False) as session:
        with pytest.raises(ClientError, match=r"not a (public|canonical IPv4) address"):
            await session.get(f"http://{host}:{canary.port}/ipfs/{HIDDEN}", allow_redirects=False)
    assert canary.visits == 0


async def test_a_redirect_is_not_followed(canary: Canary) -> None:
    """Red team 27: a node that answers with a redirect to this machine has not got the block."""

    async def sends_away(request: web.Request) -> web.Response:
        raise web.HTTPFound(f"http://127.0.0.1:{canary.port}{request.path_qs}")

    app = web.Application()
    app.router.add_get("/{tail:.*}", sends_away)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with open_session(allow_private=True) as session:
            endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
            client = NodeClient(session, endpoint, clock=lambda: 0.0, allow_private=True)
            with pytest.raises(PeerUnreachable, match="302"):
                await client.get_block(HIDDEN)
            with pytest.raises(Exception, match="302"):
                await client.status()
    finally:
        await runner.cleanup()
    assert canary.visits == 0
