"""What the public gateway conformance suite checks of subdomains, DNSLinks, `_redirects` and proxies.

As test_public_suite.py: on the suite's own files, against a gateway here and a real one.
"""

from __future__ import annotations

import asyncio

import pytest
from yarl import URL

from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from merkledag.multihash import SHA2_512
from merkledag.peer import name_text, parse_name
from tests.gateway.public_suite import CACHE, HELLO, LISTED, Suite

GATEWAY = "example.com"
SITES = "QmQyqMY5vUBSbSxyitJqthgwZunCQjDVtNd8ggVCxzuPQ4"  # of the archive about _redirects
APP = "bafybeib5lboymwd6p2eo4qb2lkueaine577flvsjjeuevmp2nlio72xv5q"
SUBDOMAINS = "QmYiPNLU7Hc739sqcBH5DgVmk5mKTQVzKSqvJJeNGWTgrE"
PERCENT = "bafybeig675grnxcmshiuzdaz2xalm6ef4thxxds6o6ypakpghm5kghpc34"
LONG = str(CID.of(b"hello\n", hash_code=SHA2_512))
TOO_LONG = "CID incompatible with DNS label length limit of 63"
WIKIPEDIA = "en.wikipedia-on-ipfs.example.org"
WIKIPEDIA_LABEL = "en-wikipedia--on--ipfs-example-org"
RSA_NAME = "QmVujd5Vb7moysJj8itnGufN7MEtPRCNHkKpNuA4onsRa3"
ED25519_NAME = "12D3KooWLQzUv2FHWGVPXTXSZpdHs7oHbXub2G5WC8Tx4NQhyd2d"


def label(cid: CID | str) -> str:
    return str((CID.parse(cid) if isinstance(cid, str) else cid).to_v1())


def origin(cid: CID | str) -> str:
    return f"{label(cid)}.ipfs.{GATEWAY}"


# ------------------------------------------------------------------------------------------------ subdomains


async def test_listings_on_subdomains(suite: Suite) -> None:
    host = origin(LISTED)
    assert '<a href="/..">..</a>' not in (await suite.ask("/", host)).text
    moved = await suite.ask("/ą/ę", host)
    assert (moved.status, moved.headers["location"]) == (301, "/%C4%85/%C4%99/")
    page = await suite.ask("/ą/ę/", host)
    assert page.headers["etag"].startswith('"DirIndex-')
    assert "Index of" in page.text
    assert '<a href="/%C4%85/%C4%99/..">..</a>' in page.text
    assert '<a href="/%C4%85/%C4%99/file-%C5%BA%C5%82.txt">file-źł.txt</a>' in page.text
    for path, name in (("", LISTED), ("/%C4%85", "ą"), ("/%C4%85/%C4%99", "ę")):
        assert f'<a href="//{GATEWAY}/ipfs/{LISTED}{path}">{name}</a>' in page.text
    file = suite.cid(LISTED, "ą", "ę", "file-źł.txt")
    assert f'href="//{GATEWAY}/ipfs/{file}?filename=file-%25C5%25BA%25C5%2582.txt"' in page.text


async def test_content_paths_move_to_subdomains(suite: Suite) -> None:
    folder = suite.cid(SUBDOMAINS, "testdirlisting")
    v0 = suite.cid(SUBDOMAINS, "hello-CIDv0")
    to_https = {"X_Forwarded_Proto": "https"}
    for path, target, headers in (
        (f"/ipfs/{HELLO}/", f"http://{origin(HELLO)}/", {}),
        (f"/ipfs/{folder}/", f"http://{origin(folder)}/", {}),
        (f"/ipfs/{v0}/", f"http://{origin(v0)}/", {}),
        (f"/ipfs/{HELLO}/", f"https://{origin(HELLO)}/", to_https),
        (f"/ipfs/{HELLO}/", f"http://{origin(HELLO)}/", {"X_Forwarded_Proto": "http"}),
        (
            f"/ipfs/{PERCENT}/Portugal%252C+España=Peninsula%20Ibérica.txt",
            f"http://{origin(PERCENT)}/Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt",
            {},
        ),
    ):
        moved = await suite.ask(path, GATEWAY, **headers)
        assert moved.status == 301
        assert URL(moved.headers["location"], encoded=True).path == URL(target, encoded=True).path
        assert moved.headers["location"].startswith(target.rpartition("/")[0])


async def test_what_a_subdomain_serves(suite: Suite) -> None:
    folder = suite.cid(SUBDOMAINS, "testdirlisting")
    assert (await suite.ask("/", origin(HELLO))).body == b"hello\n"
    assert (await suite.ask(f"/ipfs/{HELLO}/", origin(HELLO))).status == 404
    host = origin(folder)
    assert b"I am a txt file" in (await suite.ask("/ipfs/file.txt", host)).body
    assert b"text-file-content" in (await suite.ask("/ipfs/ipns/bar", host)).body
    top = (await suite.ask("/", host)).text
    assert '<a href="/hello">hello</a>' in top
    assert '<a href="/ipfs">ipfs</a>' in top
    below = (await suite.ask("/ipfs/ipns/", host)).text
    assert '<a href="/ipfs/ipns/..">..</a>' in below
    assert '<a href="/ipfs/ipns/bar">bar</a>' in below
    for path, name in (("", str(folder)), ("/ipfs", "ipfs"), ("/ipfs/ipns", "ipns")):
        assert f'<a href="//{GATEWAY}/ipfs/{folder}{path}">{name}</a>' in below


async def test_what_a_subdomain_cannot_be(suite: Suite) -> None:
    invalid = await suite.ask("/ipfs/QmInvalidCID", GATEWAY)
    assert invalid.status == 400
    assert 'invalid path "/ipfs/QmInvalidCID"' in invalid.text
    for path, host in ((f"/ipfs/{LONG}/", GATEWAY), ("/", f"{LONG}.ipfs.{GATEWAY}")):
        refused = await suite.ask(path, host)
        assert refused.status == 400
        assert TOO_LONG in refused.text


async def test_addresses_of_protocol_handlers(suite: Suite) -> None:
    page = "QmXoypizjW3WknFiJnKLwHCnL72vedxjQkDDP1mXWo6uco/wiki/Diego_Maradona.html"
    for scheme, rest in (("ipfs", page), ("ipns", WIKIPEDIA)):
        moved = await suite.ask(f"/{scheme}/?uri={scheme}%3A%2F%2F{rest.replace('/', '%2F')}", GATEWAY)
        assert moved.status == 301
        assert moved.headers["location"] == f"/{scheme}/{rest}"


async def test_forwarded_hosts(suite: Suite) -> None:
    path, other = f"/ipfs/{HELLO}", "fake.domain.com"
    assert (await suite.ask(path, other)).status == 200
    for scheme, headers in (
        ("http", {}),
        ("https", {"X_Forwarded_Proto": "https"}),
        ("http", {"X_Forwarded_Proto": "http"}),
    ):
        moved = await suite.ask(path, other, X_Forwarded_Host=GATEWAY, **headers)
        assert moved.status == 301
        assert moved.headers["location"] == f"{scheme}://{origin(HELLO)}/"


@pytest.mark.parametrize("name", [RSA_NAME, ED25519_NAME])
async def test_keys_on_subdomains(suite: Suite, name: str) -> None:
    key = parse_name(name)
    canonical = name_text(key)
    target = f"http://{canonical}.ipns.{GATEWAY}/"
    for given in (name, canonical):
        moved = await suite.ask(f"/ipns/{given}", GATEWAY)
        assert (moved.status, moved.headers["location"]) == (301, target)
    assert (await suite.ask("/", f"{canonical}.ipns.{GATEWAY}")).body == b"hello\n"
    wrong_codec = CID(1, DAG_PB, CID.parse(canonical).multihash).encode("base36")
    moved = await suite.ask("/", f"{wrong_codec}.ipns.{GATEWAY}")
    assert (moved.status, moved.headers["location"]) == (301, target)


async def test_dnslinks_as_labels(suite: Suite) -> None:
    for scheme, headers in (("http", {}), ("https", {"X_Forwarded_Proto": "https"})):
        moved = await suite.ask(f"/ipns/{WIKIPEDIA}/wiki/", GATEWAY, **headers)
        assert moved.headers["location"] == f"{scheme}://{WIKIPEDIA_LABEL}.ipns.{GATEWAY}/wiki/"
    for host in (
        f"dnslink-test.example.org.ipns.{GATEWAY}",
        f"dnslink--test-example-org.ipns.{GATEWAY}",
        f"dnslink-over-ipns.example.org.ipns.{GATEWAY}",
        f"dnslink--over--ipns-example-org.ipns.{GATEWAY}",
        f"dnslink-over-ipns-cidv1.example.org.ipns.{GATEWAY}",
        f"dnslink--over--ipns--cidv1-example-org.ipns.{GATEWAY}",
    ):
        assert (await suite.ask("/", host)).body == b"hello\n", host


# ------------------------------------------------------------------------------------------------ DNSLink


async def test_listings_of_dnslinks(suite: Suite) -> None:
    host = "dnslink-dir-listing.example.org"
    assert '<a href="/..">..</a>' not in (await suite.ask("/", host)).text
    moved = await suite.ask("/ą/ę", host)
    assert (moved.status, moved.headers["location"]) == (301, "/%C4%85/%C4%99/")
    page = await suite.ask("/ą/ę/", host)
    assert "etag" in page.headers
    assert "Index of" in page.text
    assert '<a href="/%C4%85/%C4%99/file-%C5%BA%C5%82.txt">file-źł.txt</a>' in page.text
    for path, name in (("/", host), ("/%C4%85", "ą"), ("/%C4%85/%C4%99", "ę")):
        assert f'<a href="//{host}{path}">{name}</a>' in page.text
    file = suite.cid(LISTED, "ą", "ę", "file-źł.txt")
    assert f'href="https://cid.ipfs.tech/#{file}" target="_blank" rel="noreferrer noopener"' in page.text


async def test_dnslinks_to_paths_and_names(suite: Suite) -> None:
    subpath = await suite.ask("/root3/root4/index.html", "dnslink-subpath.example.org")
    assert subpath.body == suite.block(suite.cid(CACHE, "root2", "root3", "root4", "index.html"))
    for host in ("dnslink-over-ipns.example.org", "dnslink-over-ipns-cidv1.example.org"):
        assert (await suite.ask("/", host)).body == b"hello\n"


# ------------------------------------------------------------------------------------------------ _redirects


@pytest.mark.parametrize(
    ("path", "status", "target"),
    [
        ("/redirect-one", 301, "/one.html"),
        ("/301-redirect-one", 301, "/one.html"),
        ("/302-redirect-two", 302, "/two.html"),
        ("/posts/2022/01/01/hello-world", 301, "/articles/2022/01/01/hello-world"),
        ("/splat/one.html", 301, "/redirected-splat/one.html"),
    ],
)
async def test_rules_that_redirect(suite: Suite, path: str, status: int, target: str) -> None:
    answer = await suite.ask(path, origin(suite.cid(SITES, "examples")))
    assert (answer.status, answer.headers["location"]) == (status, target)


async def test_rules_that_answer(suite: Suite) -> None:
    host = origin(suite.cid(SITES, "examples"))
    for path in ("/200-index", "/catch-all"):
        answer = await suite.ask(path, host)
        assert answer.status == 200
        assert b"my index" in answer.body
    for path, status in (("/not-found/x", 404), ("/gone/x", 410), ("/unavail/x", 451)):
        answer = await suite.ask(path, host)
        page = suite.cid(SITES, "examples", f"{status}.html")
        assert (answer.status, answer.body) == (status, f"my {status}\n".encode())
        assert answer.headers["etag"] == f'"{page}"'
        assert answer.headers["cache-control"] == "public, max-age=29030400, immutable"


async def test_files_of_rules_good_and_bad(suite: Suite) -> None:
    for folder, path, status, says in (
        ("forced", "/not-found", 500, "could not parse _redirects:"),
        ("too-large", "/not-found", 500, "could not parse _redirects:"),
        ("too-large", "/not-found", 500, "redirects file size cannot exceed"),
        ("bad-codes", "/found.html", 200, "my found"),
    ):
        answer = await suite.ask(path, origin(suite.cid(SITES, folder)))
        assert answer.status == status
        assert says in answer.text
    for folder, path, target in (
        ("newlines", "/redirect-one", "/one.html"),
        ("good-codes", "/a301", "/b301"),
    ):
        answer = await suite.ask(path, origin(suite.cid(SITES, folder)))
        assert (answer.status, answer.headers["location"]) == (301, target)


async def test_rules_of_dnslinks(suite: Suite) -> None:
    host = "dnslink-redirects-examples.example.org"
    moved = await suite.ask("/redirect-one", host)
    assert (moved.status, moved.headers["location"]) == (301, "/one.html")
    lost = await suite.ask("/not-found/has-no-redirects-entry", host)
    assert (lost.status, lost.body[:6]) == (404, b"my 404")
    assert "immutable" not in lost.headers.get("cache-control", "")
    assert "date" in lost.headers


async def test_if_none_match_of_what_a_rule_answers(suite: Suite) -> None:
    name = "dnslink-enabled-with-spa.example.org"
    inlined = "dnslink--enabled--with--spa-example-org"
    for host in (origin(APP), f"{inlined}.ipns.{GATEWAY}", name):
        answer = await suite.ask("/missing-page", host, accept="text/html")
        assert answer.status == 200
        assert answer.body == suite.block(suite.cid(APP, "index.html"))
        tag = answer.headers["etag"]
        again = await suite.ask("/missing-page", host, accept="text/html", If_None_Match=tag)
        assert (again.status, again.body) == (304, b"")


# ------------------------------------------------------------------------------------------------ proxies


async def over_socket(suite: Suite, request: str) -> tuple[str, bytes]:
    """The last answer on a connection: its head, and its body."""
    url = URL(suite.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request.encode())
    data = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await writer.wait_closed()
    if request.startswith("CONNECT"):
        assert data.startswith(b"HTTP/1.1 200 ")
        data = data.partition(b"\r\n\r\n")[2]
    head, _, body = data.partition(b"\r\n\r\n")
    return head.decode(), body


@pytest.mark.parametrize("tunnel", [False, True], ids=["proxy", "tunnel"])
async def test_as_a_proxy(suite: Suite, tunnel: bool) -> None:
    folder, v0 = suite.cid(SUBDOMAINS, "testdirlisting"), suite.cid(SUBDOMAINS, "hello-CIDv0")
    for host, path, status, says in (
        (origin(HELLO), "/", 200, b"hello\n"),
        (origin(folder), "/ipfs/file.txt", 200, b"I am a txt file"),
        (f"{LONG}.ipfs.{GATEWAY}", "/", 400, TOO_LONG.encode()),
        (GATEWAY, f"/ipfs/{v0}/", 301, b""),
    ):
        if tunnel:
            head = f"CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\nGET {path} HTTP/1.1\r\n"
        else:
            head = f"GET http://{host}{path} HTTP/1.1\r\n"
        told, body = await over_socket(suite, f"{head}Host: {host}\r\nConnection: close\r\n\r\n")
        assert told.startswith(f"HTTP/1.1 {status} ")
        assert says in body
        if status == 301:
            assert f"Location: http://{origin(v0)}/\r\n" in told + "\r\n"
