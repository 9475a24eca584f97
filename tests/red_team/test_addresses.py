"""Endpoints that a hostile provider registers so that others connect where they should not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import web

from merkledag.cid import CID
from storage_node.client import NodeClient
from storage_node.endpoints import open_session, parse_endpoint
from storage_node.errors import EndpointRefused, PeerUnreachable

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


@pytest.mark.parametrize("host", ["innocent.example", "0x7f000001", "0x7f.0.0.1"])
async def test_a_name_that_leads_to_this_machine_is_not_followed(
    canary: Canary, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Red team 27: what a name resolves to is looked at when the connection is made, not before."""

    def resolved(*_args: object, **_more: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", canary.port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", _asynchronous(resolved), raising=False)
    async with open_session(allow_private=False) as session:
        client = NodeClient(session, f"http://{host}:{canary.port}", clock=lambda: 0.0)
        with pytest.raises(PeerUnreachable):
            await client.get_block(HIDDEN)
    assert canary.visits == 0
    async with open_session(allow_private=True) as session:  # the same way leads there where it is allowed
        client = NodeClient(session, f"http://{host}:{canary.port}", clock=lambda: 0.0, allow_private=True)
        assert await client.get_block(HIDDEN)
    assert canary.visits == 1


def _asynchronous(function: object) -> object:
    async def call(*args: object, **more: object) -> object:
        return function(*args, **more)  # type: ignore[operator]

    return call


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
