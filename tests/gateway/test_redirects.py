"""`_redirects`: how the file is read, which rule a path meets, and what a site's visitors get for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.addresses.redirects import InvalidRedirectsError, find_rule, parse_redirects, with_query
from gateway.errors import GatewayError, UriTooLong
from gateway.settings import GatewaySettings
from gateway.source import NameTarget
from merkledag.cid import CID
from tests.gateway.support import Answer, Client, MemoryNames, MemorySource, Tree, add_tree, serving

GATEWAY = "gw.example"
IMMUTABLE = "public, max-age=29030400, immutable"


# -- the file ----------------------------------------------------------------------------------------------


def met(file: str, path: str) -> tuple[str, int] | None:
    """Where the first rule leads that `path` meets, and its status."""
    segments = tuple(segment for segment in path.split("/") if segment)
    found = find_rule(parse_redirects(file.encode()), segments, slash=path.endswith("/"))
    return None if found is None else (found[1], found[0].status)


def test_lines_comments_and_white_space() -> None:
    file = "# a comment\r\n\r\n \t# another\n/one /two\r\n  /three \t /four   302\t\n/five /six"
    assert met(file, "/one") == ("/two", 301)
    assert met(file, "/three/") == ("/four", 302)
    assert met(file, "/five") == ("/six", 301)
    assert met(file, "/six") is None


def test_the_first_rule_counts() -> None:
    file = "/a /first\n/a /second 302\n/* /rest 200\n/b /never"
    assert met(file, "/a") == ("/first", 301)
    assert met(file, "/b") == ("/rest", 200)


def test_placeholders() -> None:
    file = (
        "/posts/:year/:slug /articles/:slug/:year/:slug 303\n/p/:id/:identity /:identity-:id\n/:x /t?q=:x&r=1"
    )
    assert met(file, "/posts/22/a b") == ("/articles/a%20b/22/a%20b", 303)
    assert met(file, "/posts/22") is None
    assert met(file, "/p/1/2") == ("/2-1", 301)
    # What stands for one parameter cannot add another one, nor end the line or the header.
    assert met(file, "/x&y=z#f?+") == ("/t?q=x%26y%3Dz%23f%3F%2B&r=1", 301)
    assert met("/:x /:x", "/a\r\nSet-Cookie: b") == ("/a%0D%0ASet-Cookie:%20b", 301)
    assert met("/:x /:y/:x", "/1") == ("/:y/1", 301)


def test_the_splat_takes_what_is_left() -> None:
    file = "/s/* /t/:splat 200\n/deep/:a/* https://example.net:8080/:a/:splat?a=1 307\n/blog-* /b/:splat"
    assert met(file, "/s/a/b") == ("/t/a/b", 200)
    assert met(file, "/s/") == ("/t/", 200)
    assert met(file, "/s") is None
    assert met(file, "/deep/x/y/z") == ("https://example.net:8080/x/y/z?a=1", 307)
    assert met(file, "/blog-2022/05") == ("/b/2022/05", 301)
    assert met(file, "/blog") is None
    assert met("/* /:splat", "//evil.example/x") == ("/evil.example/x", 301)
    assert met("/* /:splat", "/\\evil.example") == ("/%5Cevil.example", 301)


def test_paths_are_met_decoded_and_as_written() -> None:
    assert met("/%C4%85 /one\n/ę /two", "/ą") == ("/one", 301)
    assert met("/%C4%85 /one\n/ę /two", "/ę") == ("/two", 301)
    assert met("/a%20b/* /:splat", "/a b/c") == ("/c", 301)


@pytest.mark.parametrize("status", [200, 301, 302, 303, 307, 308, 404, 410, 451])
def test_every_status(status: int) -> None:
    assert met(f"/a /b {status}", "/a") == ("/b", status)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/a", "from to"),
        ("/a /b 301 x", "from to"),
        ("/a /b 301!", "forced redirects"),
        ("/a /b 200!", "forced redirects"),
        ("/a /b 500", "unsupported redirect status"),
        ("/a /b 0301", "unsupported redirect status"),
        ("/a /b ٣٠١", "unsupported redirect status"),
        ("/a /b " + "9" * 5000, "unsupported redirect status"),
        ("a /b", "must start with"),
        ("https://example.net/a /b", "must start with"),
        ("/a b", "must be a path or an address"),
        ("/a javascript:alert(1)", "must be a path or an address"),
        ("/a //[", "Invalid IPv6"),
        ("/:x/:x /b", "used twice"),
        ("/:splat/* /b", "used twice"),
        ("/: /b", "no name"),
        ("/*/a /b", "end the 'from'"),
        ("/a/** /b", "end the 'from'"),
        ("/" + "a/" * 65 + " /b", "segments"),
        ("/a /b\x01", "control characters"),
    ],
)
def test_what_is_no_rule_is_said_with_its_line(line: str, reason: str) -> None:
    with pytest.raises(InvalidRedirectsError, match=f"could not parse _redirects: line 2: .*{reason}"):
        parse_redirects(f"/fine /too\n{line}\n".encode())


def test_no_rule_makes_much_of_a_request() -> None:
    """What 32,000 placeholders stand for, each as long as an address, would be 256 MB."""
    long = "v" * 8_000
    assert met("/:a /" + ":a" * 4, f"/{long}") == (f"/{long * 4}", 301)
    with pytest.raises(UriTooLong):
        met("/:a /" + ":a" * 5, f"/{long}")
    for target in (":a" * 65, "a" * 8_192):
        with pytest.raises(InvalidRedirectsError, match="line 1: the 'to' has more than"):
            met(f"/:a /{target}", "/x")


def test_a_file_has_at_most_64_kib() -> None:
    assert len(parse_redirects(b"/a /b\n" + b"#" * (65_536 - 6))) == 1
    with pytest.raises(InvalidRedirectsError, match="redirects file size cannot exceed 65536"):
        parse_redirects(b"/a /b\n" + b"#" * (65_536 - 5))
    with pytest.raises(InvalidRedirectsError, match="not UTF-8"):
        parse_redirects(b"/a /\xff")


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(GatewayError):
        find_rule(parse_redirects(data), ("a", "b"), slash=False)


@pytest.mark.parametrize(
    ("target", "query", "merged"),
    [
        ("/t", "", "/t"),
        ("/t?a=1", "", "/t?a=1"),
        ("/t", "b=%20x&b=2&c", "/t?b=%20x&b=2&c"),
        ("/t?a=1&b=2#f", "b=3&c=4", "/t?a=1&b=3&c=4#f"),
        ("/t?a%20b=1&c=2", "a+b=3", "/t?c=2&a+b=3"),
    ],
)
def test_what_the_visitor_asks_for_wins(target: str, query: str, merged: str) -> None:
    assert with_query(target, query) == merged


# -- on sites ----------------------------------------------------------------------------------------------

PAGES: Tree = {
    "index.html": b"<h1>index",
    "404.html": b"nothing here",
    "410.html": b"gone",
    "451.html": b"not allowed",
    "docs": {"index.html": b"<h1>docs", "guide": {"a.txt": b"a"}},
    "a.txt": b"a file",
}


class Sites:
    """Sites of `PAGES` with a `_redirects` file each, on subdomains of a gateway."""

    def __init__(self, client: Client, source: MemorySource, names: MemoryNames) -> None:
        self.client = client
        self.source = source
        self.names = names

    def add(self, rules: bytes | Tree) -> CID:
        """A site's root."""
        return add_tree(self.source, {**PAGES, "_redirects": rules})[0]

    async def get(self, root: CID, path: str, method: str = "GET", **headers: str) -> Answer:
        return await self.at(f"{root}.ipfs.{GATEWAY}", path, method, **headers)

    async def at(self, host: str, path: str, method: str = "GET", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.ask(path, {"Host": host, **named}, method=method)


@contextlib.asynccontextmanager
async def sites() -> AsyncIterator[Sites]:
    source, names = MemorySource(), MemoryNames({})
    async with serving(source, names, GatewaySettings(subdomain_hosts=(GATEWAY,))) as client:
        yield Sites(client, source, names)


async def test_redirects_lead_on_with_the_query() -> None:
    async with sites() as world:
        root = world.add(
            b"/old /new.html?a=1&b=2 308\n/away/* https://example.net/:splat 307\n/u /\xc4\x99 302"
        )
        old = await world.get(root, "/old?b=3&c=%20")
        assert (old.status, old.headers["location"], old.body) == (308, "/new.html?a=1&b=3&c=%20", b"")
        away = await world.get(root, "/away/%E2%82%AC/x?y", "HEAD")
        assert (away.status, away.headers["location"]) == (307, "https://example.net/%E2%82%AC/x?y")
        assert (await world.get(root, "/u")).headers["location"] == "/%C4%99"
        assert old.headers["access-control-allow-origin"] == "*"


async def test_what_exists_is_never_redirected() -> None:
    async with sites() as world:
        root = world.add(b"/a.txt /404.html 404\n/docs/* /index.html 200\n/* /404.html 404")
        assert (await world.get(root, "/a.txt")).body == b"a file"
        assert (await world.get(root, "/docs/guide/a.txt")).body == b"a"
        assert (await world.get(root, "/docs")).headers["location"] == "/docs/"
        assert (await world.get(root, "/")).body == b"<h1>index"
        assert (await world.get(root, "/_redirects")).status == 200
        assert (await world.get(root, "/docs/none")).body == b"<h1>index"
        # A file is no folder: what is asked for below it does not exist either.
        assert (await world.get(root, "/a.txt/below")).status == 404
        assert (await world.get(root, "/a.txt/below")).body == b"nothing here"


async def test_pages_under_other_addresses() -> None:
    async with sites() as world:
        root = world.add(
            b"/app/* /index.html 200\n/help /docs/ 200\n/manual /docs 200\n/gone /410.html 410\n"
            b"/law /451.html 451\n/list /docs/guide 200\n/* /404.html 404"
        )
        app = await world.get(root, "/app/any/where?x=1")
        assert (app.status, app.body, app.headers["content-type"]) == (
            200, b"<h1>index", "text/html; charset=utf-8",
        )  # fmt: skip
        assert app.headers["x-ipfs-path"] == f"/ipfs/{root}/app/any/where"
        assert (await world.get(root, "/app/x", If_None_Match=app.headers["etag"])).status == 304
        assert (await world.get(root, "/app/x", Range="bytes=1-3")).body == b"h1>"
        for path in ("/help", "/manual"):
            assert (await world.get(root, path)).body == b"<h1>docs"
        assert "a.txt" in (await world.get(root, "/list")).text
        for path, status, body in (
            ("/gone", 410, b"gone"), ("/law", 451, b"not allowed"), ("/else", 404, b"nothing here"),
        ):  # fmt: skip
            page = await world.get(root, path)
            assert (page.status, page.body) == (status, body)
            assert page.headers["cache-control"] == IMMUTABLE
            # An error stays one, whatever part or version of its page the client asks for.
            for field in ({"Range": "bytes=0-1"}, {"If_None_Match": page.headers["etag"]}):
                again = await world.get(root, path, **field)
                assert (again.status, again.body) == (status, body)
            head = await world.get(root, path, "HEAD")
            assert (head.status, head.headers["content-length"], head.body) == (status, str(len(body)), b"")


async def test_pages_behind_names_are_as_mutable_as_those() -> None:
    async with sites() as world:
        root = world.add(b"/* /404.html 404")
        world.names.targets["site.example.org"] = NameTarget(f"/ipfs/{root}", 60)
        for host in ("site.example.org", f"site-example-org.ipns.{GATEWAY}"):
            page = await world.at(host, "/none")
            assert (page.status, page.headers["cache-control"]) == (404, "public, max-age=60")


async def test_rules_count_only_where_the_site_has_an_origin_of_its_own() -> None:
    async with sites() as world:
        root = world.add(b"/* /index.html 200")
        assert (await world.at("127.0.0.1", f"/ipfs/{root}/none")).status == 404
        assert (await world.at("other.example.net", f"/ipfs/{root}/none")).status == 404
        sub, _ = add_tree(world.source, {"site": {**PAGES, "_redirects": b"/* /index.html 200"}})
        # Only the file of the root counts.
        assert (await world.get(sub, "/site/none")).status == 404


async def test_rules_are_for_pages_not_for_blocks() -> None:
    async with sites() as world:
        root = world.add(b"/* /index.html 200")
        for query in ("raw", "tar", "dag-json"):
            assert (await world.get(root, f"/none?format={query}")).status == 404
        proof = await world.get(root, "/none?format=car")  # of the blocks that show that it is not there
        assert (proof.status, proof.headers["content-type"][:24]) == (200, "application/vnd.ipld.car")
        assert (await world.get(root, "/none", Accept="application/vnd.ipld.raw")).status == 404
        assert (await world.get(root, "/none", Accept="text/html")).status == 200


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (b"/a /b 301!", "could not parse _redirects: line 1: forced redirects"),
        (b"#" * 65_537, "redirects file size cannot exceed 65536 bytes"),
        ({"a": b"folder"}, "could not parse _redirects: it is not a file"),
        (b"/none /docs 404", "a rule with status 404 must lead to a file"),
        (b"/none https://example.net/ 200", "a rule with status 200 must lead to a path"),
        (b"/none /../x 200", "could not parse _redirects: invalid path"),
    ],
)
async def test_a_bad_file_is_an_error_that_says_so(rules: bytes | Tree, said: str) -> None:
    async with sites() as world:
        root = world.add(rules)
        answer = await world.get(root, "/none")
        assert answer.status == 500
        assert said in answer.text
        assert (await world.get(root, "/a.txt")).body == b"a file"


async def test_a_file_that_cannot_be_had_is_an_error() -> None:
    async with sites() as world:
        rules = b"/* /index.html 200 " + b"\n" * 2
        root = world.add(rules)
        block = CID.of(rules)
        del world.source.here[block.multihash]
        answer = await world.get(root, "/none")
        assert answer.status == 500
        assert "it could not be read" in answer.text


async def test_a_page_that_is_missing_itself_is_not_found() -> None:
    async with sites() as world:
        root = world.add(b"/x /nowhere.html 200\n/y /nowhere.html 410")
        for path in ("/x", "/y"):
            answer = await world.get(root, path)
            assert (answer.status, "nowhere" in answer.text or path in answer.text) == (404, True)
