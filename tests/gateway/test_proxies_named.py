"""Whose X-Forwarded-Host and -Proto are believed: peers at several addresses of loopback, on real sockets."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession, TCPConnector

from gateway.settings import GatewaySettings
from tests.gateway.support import MemorySource, add_file, fetch, serving

_NAMED = ("127.0.0.2/32", "10.0.0.0/8")


async def _location(settings: GatewaySettings, peer: str, forwarded: dict[str, str]) -> str | None:
    """Where a peer is redirected that asks `localhost` for a path, with these headers."""
    source = MemorySource()
    cid, _ = add_file(source, b"hello")
    async with (
        serving(source, settings=settings) as client,
        ClientSession(connector=TCPConnector(local_addr=(peer, 0))) as session,
    ):
        headers = {"Host": "localhost", **forwarded}
        answer = await fetch(session, f"{client.listener.url}/ipfs/{cid}", headers, "GET")
    assert answer.status in (200, 301)
    location = answer.headers.get("location")
    return None if location is None else location.replace(str(cid), "CID")


_FORWARDED = {"X-Forwarded-Host": "localhost:444", "X-Forwarded-Proto": "https"}


@pytest.mark.parametrize(
    ("settings", "peer", "believed"),
    [
        (GatewaySettings(), "127.0.0.1", True),  # this machine is named by default
        (GatewaySettings(trusted_proxies=_NAMED), "127.0.0.2", True),
        (GatewaySettings(trusted_proxies=_NAMED), "127.0.0.1", False),
        (GatewaySettings(trusted_proxies=()), "127.0.0.3", True),
        (GatewaySettings(trusted_proxies=(), trust_forwarded_headers=False), "127.0.0.3", False),
        (GatewaySettings(trusted_proxies=_NAMED, trust_forwarded_headers=False), "127.0.0.2", False),
    ],
)
async def test_who_may_say_host_and_scheme(settings: GatewaySettings, peer: str, believed: bool) -> None:
    expected = "https://CID.ipfs.localhost:444/" if believed else "http://CID.ipfs.localhost/"
    assert await _location(settings, peer, _FORWARDED) == expected


async def test_each_of_the_two_headers_is_judged_by_itself() -> None:
    settings = GatewaySettings(trusted_proxies=_NAMED)
    for name, value in _FORWARDED.items():
        assert await _location(settings, "127.0.0.1", {name: value}) == "http://CID.ipfs.localhost/"
    # A stranger cannot get out of the subdomain gateway by naming another host, either.
    assert await _location(settings, "127.0.0.1", {"X-Forwarded-Host": "192.0.2.1"}) is not None
    assert await _location(settings, "127.0.0.2", {"X-Forwarded-Host": "192.0.2.1"}) is None
    # What a stranger adds to X-Forwarded-For makes it no proxy.
    claims = {**_FORWARDED, "X-Forwarded-For": "127.0.0.2"}
    assert await _location(settings, "127.0.0.1", claims) == "http://CID.ipfs.localhost/"
