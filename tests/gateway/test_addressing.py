"""No host, path or query makes the gateway fail for a reason of ours, or sends a visitor elsewhere."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.addresses.host_names import parse_host
from gateway.addresses.hosts import Hosts
from gateway.addresses.request import read_target, split_proxied
from gateway.addresses.target import Addressing
from gateway.errors import GatewayError
from gateway.settings import GatewaySettings
from tests.gateway.support import MemoryNames

SETTINGS = GatewaySettings(subdomain_hosts=("gw.example", "*.wild.example"))
ADDRESSING = Addressing(MemoryNames({}), SETTINGS)
HOSTS = Hosts(SETTINGS)
CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
KEY = "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK"

ODD = ["", "@", ":81", ":", ".", "..", "/", "\\", "%0d%0a", "%2f", "//", "?", "#", "\udcff", "evil.example"]
hosts = st.lists(
    st.sampled_from([*ODD, "gw.example", "eu.wild.example", "ipfs", "ipns", CID, KEY, "a-b", "[::1]"]),
    max_size=5,
).flatmap(lambda parts: st.sampled_from([".".join(parts), "".join(parts)]))
paths = st.lists(
    st.sampled_from([*ODD, "ipfs", "ipns", CID, KEY, "a b", "?uri=ipfs://", "?uri=ipns://evil.example/"]),
    max_size=6,
).map(lambda parts: "/" + "/".join(parts))


@settings(max_examples=200, deadline=None)
@given(hosts, paths, st.booleans())
def test_redirects_stay_here(host: str, path: str, service_worker: bool) -> None:
    target, proxied = split_proxied(path)
    refused = None
    try:
        origin = HOSTS.read(host if proxied is None else proxied[1], "http")
        asked = asyncio.run(
            ADDRESSING.asked(origin, read_target(target, SETTINGS), service_worker=service_worker)
        )
    except GatewayError as error:
        refused = error
    if refused is not None:
        assert refused.status < 500
        return
    if not isinstance(asked, web.Response) or asked.status == 200:
        return
    location = asked.headers["Location"]
    assert location.isascii()
    assert location.isprintable()
    assert not set(location) & set(" \\<>\"'") - {"'"}
    parts = urlsplit(location)
    if parts.netloc:
        name = parts.netloc.partition(":")[0]
        assert name.endswith((".ipfs.gw.example", ".ipns.gw.example", ".wild.example"))
    else:
        assert location.startswith(("/ipfs/", "/ipns/"))


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_what_is_a_host_can_stand_in_a_url(text: str) -> None:
    parsed = parse_host(text)
    if parsed is None or parsed.name.startswith("["):
        return
    parts = urlsplit(f"http://{parsed.name}{parsed.port}/a")
    assert (parts.netloc, parts.path, parts.username) == (parsed.name + parsed.port, "/a", None)
