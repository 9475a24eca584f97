"""Path, subdomain and DNSLink gateway by host, the ways between them, and proxies, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from gateway.settings import GatewaySettings
from gateway.source import NameTarget
from merkledag.cid import CID
from tests.gateway.support import Answer, Client, MemoryNames, MemorySource, add_tree, serving

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
            "files": {"a b.txt": b"hello\n"},
            "ipfs": {"x": b"inner"},
            "healthz": b"the site's own",
            "ä?#%.txt": b"odd",
        },
    )
    names = MemoryNames(
        {
            KEY: NameTarget(f"/ipfs/{root}", 60),
            "my-site.example.org": NameTarget(f"/ipfs/{root}", 60),
            "sub.example.org": NameTarget(f"/ipfs/{root}/files", 60),
            "gw.example": NameTarget(f"/ipfs/{root}/files", 60),
            "docs.gw.example": NameTarget(f"/ipfs/{root}", 60),
            "long-" + "x" * 50 + ".example.org": NameTarget(f"/ipfs/{root}", 60),
            "xn--bcher-kva.example": NameTarget(f"/ipfs/{root}", 60),
            "only-paths.example": NameTarget(f"/ipfs/{root}", 60),
            "verified.example": NameTarget(f"/ipfs/{root}", 60),
        }
    )
    settings = GatewaySettings(
        subdomain_hosts=("localhost", "gw.example", "*.wild.example", "v.gw.example"),
        path_hosts=("only-paths.example", "files.gw.example"),
        trustless_hosts=("verified.example", "*.verified.example", "v.gw.example"),
    )
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


async def test_a_gateways_own_name_may_have_a_site(origins: Origins) -> None:
    assert (await origins.get("gw.example", "/a%20b.txt")).body == b"hello\n"
    assert (await origins.get("gw.example", f"/ipfs/{origins.root}/")).status == 301
    assert (await origins.get("docs.gw.example", "/")).body == b"<h1>index"
    assert (await origins.get("localhost", "/")).status == 200
    assert (await origins.get("localhost", "/a")).status == 404


async def test_a_host_that_is_named_as_path_gateway_is_never_a_site(origins: Origins) -> None:
    for host in ("only-paths.example", "files.gw.example"):
        assert (await origins.get(host, f"/ipfs/{origins.root}/")).body == b"<h1>index"
        assert (await origins.get(host, "/files/")).status == 404


async def test_wildcards_stand_for_one_label(origins: Origins) -> None:
    root = origins.root
    assert (await origins.get("eu.wild.example:81", f"/ipfs/{root}/")).headers["location"] == (
        f"http://{root}.ipfs.eu.wild.example:81/"
    )
    assert (await origins.get(f"{root}.ipfs.eu.wild.example", "/")).body == b"<h1>index"
    assert (await origins.get(f"{root}.ipfs.wild.example", "/")).status == 400
    assert (await origins.get("a.b.wild.example", f"/ipfs/{root}/files/a%20b.txt")).status == 400


async def test_letters_dots_and_ports_make_no_other_host(origins: Origins) -> None:
    root = str(origins.root)
    for host in (
        f"{root.upper()}.IPFS.GW.Example", f"{root}.ipfs.gw.example.", f"{root}.ipfs.gw.example.:8080",
        f"{root}.ipfs.gw.example:", "MY-SITE.example.ORG.", "My--Site-Example-org.ipns.gw.example",
    ):  # fmt: skip
        assert (await origins.get(host, "/")).body == b"<h1>index", host
    for host in (f"{KEY.upper()}.ipns.gw.example", "Sub.Example.Org.IPNS.localhost:1"):
        assert (await origins.get(host, "/")).status == 200
    cased = await origins.get("GW.Example.:81", f"/ipfs/{root}?a=b")
    assert cased.headers["location"] == f"http://{root}.ipfs.gw.example:81/?a=b"


@pytest.mark.parametrize(
    "host",
    [
        "gw.example:81@evil.example", "gw.example:81/x", "gw.example:99999", "gw.example:8x", ".gw.example",
        "a..gw.example", "gw.example:1:2", "[::1", "[::1]x", "[gw.example]", "gw.example\\",
        "b\u00e4h.example", "*",
    ],
)  # fmt: skip
async def test_what_is_no_host_is_400(origins: Origins, host: str) -> None:
    for path in ("/", f"/ipfs/{origins.root}/"):
        answer = await origins.get("inner", path, X_Forwarded_Host=host)
        assert (answer.status, "location" in answer.headers) == (400, False)


async def test_old_cids_and_keys_as_hosts_redirect_if_their_letters_are_right(
    origins: Origins,
) -> None:
    old = CID.parse("QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR")
    answer = await origins.get(f"{old}.ipfs.gw.example:81", "/a/?b=c")
    assert (answer.status, answer.headers["location"]) == (
        301, f"http://{old.to_v1()}.ipfs.gw.example:81/a/?b=c",
    )  # fmt: skip
    key = "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK"
    answer = await origins.get(f"{key}.ipns.gw.example", "/x", X_Forwarded_Proto="https")
    assert answer.headers["location"] == f"https://{KEY}.ipns.gw.example/x"
    assert (await origins.get(f"{key.lower()}.ipns.gw.example", "/x")).status == 400


async def test_cids_too_long_for_a_label(origins: Origins) -> None:
    long = CID.of(b"x", hash_code=0x13)
    for host, path in (("gw.example", f"/ipfs/{long}/"), (f"{long}.ipfs.gw.example", "/")):
        answer = await origins.get(host, path)
        assert answer.status == 400
        assert "CID incompatible with DNS label length limit of 63" in answer.text
    ed25519 = "bafzaajaiaejca4syrpdu6gdx4wsdnokxkprgzxf4wrstuc34gxw5k5jrag2so5gk"
    answer = await origins.get("gw.example", f"/ipfs/{ed25519}")
    assert answer.headers["location"] == (
        "http://k51qzi5uqu5dj16qyiq0tajolkojyl9qdkr254920wxv7ghtuwcz593tp69z9m.ipfs.gw.example/"
    )


async def test_names_too_long_for_a_label(origins: Origins) -> None:
    name = "long-" + "x" * 50 + ".example.org"
    answer = await origins.get("gw.example", f"/ipns/{name}/")
    assert (answer.status, "limit of 63" in answer.text) == (400, True)
    # Without TLS there is no certificate that would have to fit.
    assert (await origins.get(f"{name}.ipns.gw.example", "/")).body == b"<h1>index"


async def test_inlined_names_on_paths_are_read_where_subdomains_are(origins: Origins) -> None:
    answer = await origins.get("gw.example", "/ipns/my--site-example-org/files/")
    assert answer.headers["location"] == "http://my--site-example-org.ipns.gw.example/files/"


async def test_names_in_other_scripts(origins: Origins) -> None:
    for path in ("/ipns/b%C3%BCcher.example/", "/ipns/B%C3%9CCHER.Example./", "/ipns/xn--bcher-kva.example/"):
        assert (await origins.get("node", path)).body == b"<h1>index"
        assert (await origins.get("gw.example", path)).headers["location"] == (
            "http://xn----bcher--kva-example.ipns.gw.example/"
        )
    assert (await origins.get("xn----bcher--kva-example.ipns.gw.example", "/")).body == b"<h1>index"
    assert (await origins.get("node", "/ipns/%ff.example/")).status == 400


async def test_what_proxies_say(origins: Origins) -> None:
    root = origins.root
    answer = await origins.get(
        "inner:8080",
        f"/ipfs/{root}/",
        X_Forwarded_Host="GW.example, proxy.example",
        X_Forwarded_Proto="HTTPS, http",
    )
    assert answer.headers["location"] == f"https://{root}.ipfs.gw.example/"
    assert (await origins.get("inner", "/", X_Forwarded_Host=f"{root}.ipfs.gw.example")).body == b"<h1>index"
    odd = await origins.get(
        "gw.example", f"/ipfs/{root}/", X_Forwarded_Proto="javascript", X_Forwarded_Host=""
    )
    assert odd.headers["location"] == f"http://{root}.ipfs.gw.example/"


async def test_redirects_keep_the_path_as_it_is(origins: Origins) -> None:
    path = "/%C3%A4%3F%23%25.txt?q=%26&r=a+b"
    answer = await origins.get("gw.example", f"/ipfs/{origins.root}{path}")
    assert answer.headers["location"] == f"http://{origins.root}.ipfs.gw.example{path}"
    assert (await origins.get(f"{origins.root}.ipfs.gw.example", path)).body == b"odd"
    split = await origins.get("gw.example", f"/ipfs/{origins.root}/a%0D%0ASet-Cookie:%20x")
    assert split.headers["location"].endswith("/a%0D%0ASet-Cookie:%20x")


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/ipfs", 400, None),
        ("/ipfs/", 400, None),
        ("/ipns/", 400, None),
        ("/ipfs/ipfs/", 400, None),
        ("/ipfs/ipns", 400, None),
        ("/ipfs/ipfs/nonsense", 400, None),
        ("/ipfs/ipfs/CID/a%20b/?x=1", 301, "/ipfs/CID/a%20b/?x=1"),
        ("/ipfs/ipfs/ipfs/CID", 301, "/ipfs/CID"),
        ("/ipfs/ipns/dnslink.example", 301, "/ipns/dnslink.example"),
        ("/ipns/ipfs/CID", 400, None),
        ("/ipns/12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK?keep=x", 302, f"/ipns/{KEY}?keep=x"),
        (
            "/ipns/QmcJM7PRfkSbcM5cf1QugM5R37TLRKyJGgBEhXjLTB8uA2/root2/", 302,
            "/ipns/k2k4r8ol4m8kkcqz509c1rcjwunebj02gcnm5excpx842u736nja8ger/root2/",
        ),
        (f"/ipns/{KEY.upper()}/a%20b", 302, f"/ipns/{KEY}/a%20b"),
        ("/ipns/%0D%0A%0D%0Ahello", 400, None),
    ],
)  # fmt: skip
async def test_paths_that_are_not_quite_right(
    origins: Origins, path: str, status: int, location: str | None
) -> None:
    cid = str(origins.root)
    answer = await origins.get("127.0.0.1", path.replace("CID", cid))
    wanted = None if location is None else location.replace("CID", cid)
    assert (answer.status, answer.headers.get("location")) == (status, wanted)
    if "/ipfs/ip" in path:  # a site may have such folders
        assert (await origins.get("my-site.example.org", path.replace("CID", cid))).status == 404


async def test_service_workers_are_registered_below_a_slash_only(origins: Origins) -> None:
    script = {"Service_Worker": "script"}
    for host in ("node", "gw.example"):
        for path in (
            f"/ipfs/{origins.root}",
            f"/ipns/{KEY}",
            "/ipns/12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK",
        ):
            assert (await origins.get(host, path, **script)).status == 400
    assert (await origins.get("node", f"/ipfs/{origins.root}/", **script)).status == 200
    assert (await origins.get("node", f"/ipfs/{origins.root}/index.html", **script)).status == 200
    assert (await origins.get(f"{origins.root}.ipfs.gw.example", "/", **script)).status == 200


async def test_every_answer_may_be_read_from_other_origins(origins: Origins) -> None:
    root = origins.root
    for host, path in (
        ("node", f"/ipfs/{root}/"), ("node", f"/ipfs/{root}"), ("node", "/ipfs/b"), ("node", "/"),
        ("gw.example", f"/ipfs/{root}"), ("node", f"/ipfs/ipfs/{root}"), ("unknown.example.org", "/"),
        (f"{root}.ipfs.gw.example", "/none"), ("node", f"/ipfs/{root}/?format=car"), ("node", "/ipns/x"),
    ):  # fmt: skip
        for method in ("GET", "HEAD", "OPTIONS", "POST"):
            answer = await origins.client.ask(path, {"Host": host, "Origin": "null"}, method=method)
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
            for name in ("Content-Type", "Range", "User-Agent", "X-Requested-With"):
                assert name in answer.headers["access-control-allow-headers"]
            for name in ("Content-Range", "Content-Length", "X-Ipfs-Path", "X-Ipfs-Roots"):
                assert name in answer.headers["access-control-expose-headers"]
            if method == "OPTIONS":  # a preflight that is redirected is refused by browsers
                assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
            assert "access-control-allow-credentials" not in answer.headers


class TestTrustless:
    async def test_a_host_serves_what_can_be_verified_and_others_all(self, origins: Origins) -> None:
        root = origins.root
        for path, accept, status in (
            (f"/ipfs/{root}", "*/*", 400),
            (f"/ipfs/{root}/", "text/html", 406),
            (f"/ipfs/{root}/?format=tar", "*/*", 406),
            (f"/ipfs/{root}/?format=dag-json", "*/*", 406),
            (f"/ipfs/{root}?format=raw", "*/*", 200),
            (f"/ipfs/{root}", "application/vnd.ipld.raw", 200),
            (f"/ipfs/{root}", "text/html, application/vnd.ipld.raw;q=0.5", 200),
            (f"/ipfs/{root}", "application/vnd.ipld.car, text/html;q=0.5", 200),
            (f"/ipfs/{root}/files/a%20b.txt?format=raw", "*/*", 406),
            (f"/ipfs/{root}/files/a%20b.txt?format=car", "*/*", 200),
            (f"/ipns/{KEY}/?format=raw", "*/*", 406),
            (f"/ipns/{KEY}/?format=car", "*/*", 406),
        ):
            answer = await origins.get("eu.verified.example", path, Accept=accept)
            assert answer.status == status, (path, accept, answer.text)
        assert (await origins.get("node", f"/ipfs/{root}/")).body == b"<h1>index"

    async def test_subdomains_of_a_trustless_host_are(self, origins: Origins) -> None:
        host = f"{origins.root}.ipfs.v.gw.example"
        assert (await origins.get(host, "/", Accept="text/html")).status == 406
        assert (await origins.get(host, "/?format=raw")).status == 200
        assert (await origins.get("verified.example", "/", Accept="text/html")).status == 406

    async def test_a_known_answer_does_not_pass_by_the_rule(self, origins: Origins) -> None:
        path = f"/ipfs/{origins.root}/files/a%20b.txt"
        for _ in range(2):
            assert (await origins.get("node", path)).status == 200
            assert (await origins.get("eu.verified.example", path)).status == 400

    async def test_only_named_hosts_in_full(self) -> None:
        source = MemorySource()
        root, _ = add_tree(source, {"index.html": b"<h1>index"})
        settings = GatewaySettings(deserialize=False, full_hosts=("full.example",))
        async with serving(source, MemoryNames({}), settings) as client:
            for host, status in (("full.example", 200), ("full.example:81", 200), ("node", 400), ("", 400)):
                assert (await client.ask(f"/ipfs/{root}/", {"Host": host})).status == status


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("ipfs://CID", "/ipfs/CID"),
        ("ipfs://CID/", "/ipfs/CID/"),
        ("IPFS://CID/a%20b/", "/ipfs/CID/a%20b/"),
        ("ipfs://CID/wiki/ąę.html?a=t-ę.htm&b=c#top", "/ipfs/CID/wiki/%C4%85%C4%99.html?a=t-%C4%99.htm&b=c"),
        ("ipns://en.wikipedia-on-ipfs.org/wiki/", "/ipns/en.wikipedia-on-ipfs.org/wiki/"),
        ("ipns://CID", "/ipns/CID"),
        ("http://evil.example", None),
        ("ipfs:CID", None),
        ("ipfs://", None),
        ("ipfs://nonsense", None),
        ("ipns:////evil.example", None),
        ("ipfs://CID/../..", None),
    ],
)  # fmt: skip
async def test_the_uri_router(origins: Origins, uri: str, location: str | None) -> None:
    cid = str(origins.root)
    asked = quote(uri.replace("CID", cid), safe="")
    for host in ("gw.example", "node"):
        for namespace in ("/ipfs/", "/ipns/", "/ipfs"):
            answer = await origins.get(host, f"{namespace}?uri={asked}")
            wanted = None if location is None else location.replace("CID", cid)
            assert (answer.headers.get("location"), answer.status) == (wanted, 301 if location else 400)
    # It is a parameter of content as any other elsewhere.
    assert (await origins.get(f"{cid}.ipfs.gw.example", f"/?uri={asked}")).body == b"<h1>index"
    assert (await origins.get("node", f"/ipfs/{cid}/?uri={asked}")).body == b"<h1>index"


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
