"""Subdomain gateway, DNSLink by Host, `_redirects`, and proxies, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from gateway.settings import GatewaySettings
from gateway.source import NameTarget
from merkledag.cid import CID
from tests.gateway.support import Answer, Client, MemoryNames, MemorySource, add_tree, serving

RULES = b"""/old /new.html
/app/* /index.html 200
/gone/* /404.html 410
/query/* /t?a=1&b=2 302
/away/:x https://example.net/:x 307
"""
KEY = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8"


@dataclass
class Origins:
    client: Client
    root: CID

    async def get(self, host: str, path: str, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.ask(path, {"Host": host, **named})


@pytest.fixture
async def origins() -> AsyncIterator[Origins]:
    source = MemorySource()
    root, _ = add_tree(
        source,
        {
            "index.html": b"<h1>index",
            "404.html": b"nothing here",
            "_redirects": RULES,
            "files": {"a b.txt": b"hello\n"},
            "ipfs": {"x": b"inner"},
            "healthz": b"the site's own",
        },
    )
    names = MemoryNames(
        {
            KEY: NameTarget(f"/ipfs/{root}", 60),
            "my-site.example.org": NameTarget(f"/ipfs/{root}", 60),
            "sub.example.org": NameTarget(f"/ipfs/{root}/files", 60),
        }
    )
    settings = GatewaySettings(subdomain_hosts=("localhost", "gw.example"))
    async with serving(source, names, settings) as client:
        yield Origins(client, root)


async def test_paths_on_a_gateway_host_redirect_to_their_own_origin(origins: Origins) -> None:
    root = origins.root
    answer = await origins.get("gw.example:81", f"/ipfs/{root}/files/a%20b.txt?x=1")
    assert answer.status == 301
    assert answer.headers["location"] == f"http://{root}.ipfs.gw.example:81/files/a%20b.txt?x=1"
    bare = await origins.get("localhost", f"/ipfs/{root}", X_Forwarded_Proto="https")
    assert bare.headers["location"] == f"https://{root}.ipfs.localhost/"
    behind = await origins.get("inner", f"/ipfs/{root}", X_Forwarded_Host="gw.example")
    assert behind.headers["location"] == f"http://{root}.ipfs.gw.example/"
    name = await origins.get("gw.example", "/ipns/my-site.example.org/files/")
    assert name.headers["location"] == "http://my--site-example-org.ipns.gw.example/files/"
    key = await origins.get("gw.example", "/ipns/12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK")
    assert key.headers["location"] == f"http://{KEY}.ipns.gw.example/"


async def test_a_subdomain_is_the_root_of_its_content(origins: Origins) -> None:
    host = f"{origins.root}.ipfs.gw.example"
    assert (await origins.get(host, "/")).body == b"<h1>index"
    file = await origins.get(host, "/files/a%20b.txt")
    assert (file.body, file.headers["x-ipfs-path"]) == (b"hello\n", f"/ipfs/{origins.root}/files/a b.txt")
    assert (await origins.get(host, "/ipfs/x")).body == b"inner"
    assert (await origins.get(host, f"/ipfs/{origins.root}")).status == 404
    assert (await origins.get(host, "/files")).headers["location"] == "/files/"
    assert (await origins.get(host, "/healthz")).body == b"the site's own"
    listing = (await origins.get(host, "/files/")).text
    assert '<a href="/files/a%20b.txt">a b.txt</a>' in listing
    assert f'<a href="//gw.example/ipfs/{origins.root}/files">files</a>' in listing


async def test_names_on_subdomains(origins: Origins) -> None:
    for host in (f"{KEY}.ipns.gw.example", "my--site-example-org.ipns.gw.example"):
        answer = await origins.get(host, "/")
        assert answer.body == b"<h1>index"
        assert answer.headers["cache-control"] == "public, max-age=60"


async def test_a_label_in_another_form_redirects_to_the_canonical_one(origins: Origins) -> None:
    other = origins.root.encode("base36")
    answer = await origins.get(f"{other}.ipfs.gw.example", "/files/?x=1")
    assert answer.status == 301
    assert answer.headers["location"] == f"http://{origins.root}.ipfs.gw.example/files/?x=1"


@pytest.mark.parametrize(
    "host", ["bad.ipfs.gw.example", "x.gw.example", "ipfs.gw.example", "nothing.ipns.gw.example"]
)
async def test_hosts_that_name_no_content_are_400(origins: Origins, host: str) -> None:
    assert (await origins.get(host, "/")).status == 400


async def test_addresses_and_other_hosts_are_path_gateways(origins: Origins) -> None:
    for host in ("127.0.0.1:8080", "[::1]:8080", "node", "other.example.net"):
        assert (await origins.get(host, f"/ipfs/{origins.root}/files/a%20b.txt")).body == b"hello\n"


async def test_a_dnslink_host_is_its_site_and_only_that(origins: Origins) -> None:
    assert (await origins.get("my-site.example.org", "/")).body == b"<h1>index"
    assert (await origins.get("sub.example.org", "/a%20b.txt")).body == b"hello\n"
    # Other content must not run in the site's origin.
    assert (await origins.get("my-site.example.org", f"/ipfs/{origins.root}/")).status == 404
    assert (await origins.get("unknown.example.org", "/")).status == 404


async def test_redirects_apply_to_missing_paths_on_own_origins(origins: Origins) -> None:
    host = f"{origins.root}.ipfs.gw.example"
    old = await origins.get(host, "/old?u=1")
    assert (old.status, old.headers["location"]) == (301, "/new.html?u=1")
    app = await origins.get(host, "/app/any/where")
    assert (app.status, app.body) == (200, b"<h1>index")
    assert app.headers["content-type"] == "text/html; charset=utf-8"
    again = await origins.get(host, "/app/any/where", If_None_Match=app.headers["etag"])
    assert again.status == 304
    gone = await origins.get(host, "/gone/x")
    assert (gone.status, gone.body) == (410, b"nothing here")
    query = await origins.get(host, "/query/x?b=3")
    assert (query.status, query.headers["location"]) == (302, "/t?a=1&b=3")
    assert (await origins.get(host, "/away/%E2%82%AC")).headers["location"] == "https://example.net/%E2%82%AC"
    assert (await origins.get(host, "/none")).status == 404
    # Not on a shared origin.
    assert (await origins.get("127.0.0.1", f"/ipfs/{origins.root}/old")).status == 404


async def test_the_uri_router(origins: Origins) -> None:
    answer = await origins.get("gw.example", f"/ipfs/?uri=ipfs%3A%2F%2F{origins.root}%2Fa%2520b")
    assert (answer.status, answer.headers["location"]) == (301, f"/ipfs/{origins.root}/a%20b")
    assert (await origins.get("gw.example", "/ipfs/?uri=http%3A%2F%2Fevil.example")).status == 400


async def test_proxy_requests_and_tunnels_end_here(origins: Origins) -> None:
    host = f"{origins.root}.ipfs.gw.example"
    listener = origins.client.listener

    async def exchange(*parts: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(listener.host, listener.port)
        for part in parts:
            writer.write(part)
            await writer.drain()
        data = await reader.read()
        writer.close()
        return data

    close = b"Connection: close\r\n\r\n"
    absolute = f"GET http://{host}/files/a%20b.txt HTTP/1.1\r\nHost: {host}\r\n".encode()
    assert (await exchange(absolute + close)).endswith(b"hello\n")
    tunnel = f"CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n".encode()
    inner = f"GET /files/a%20b.txt HTTP/1.1\r\nHost: {host}\r\n".encode()
    answer = await exchange(tunnel[:5], tunnel[5:], inner + close)
    assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK")
    assert answer.endswith(b"hello\n")
