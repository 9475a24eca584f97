"""UnixFS files and raw blocks as what they are: bytes, ranges, types, names (path gateway)."""

from __future__ import annotations

import pytest

from merkledag import unixfs
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.multihash import IDENTITY
from tests.gateway.site import CHUNK, IMMUTABLE, LARGE, Site, add_node
from tests.gateway.support import MemorySource, add_file, add_tree, serving


async def test_a_small_file_comes_whole_with_its_headers(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}/a.txt")
    cid = CID.of(b"hello\n")
    assert (answer.status, answer.body) == (200, b"hello\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == "6"
    assert answer.headers["etag"] == f'"{cid}"'
    assert answer.headers["cache-control"] == IMMUTABLE
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-ipfs-path"] == f"/ipfs/{site.root}/a.txt"
    assert answer.headers["x-ipfs-roots"] == f"{site.root},{cid}"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "set-cookie" not in answer.headers
    assert "content-disposition" not in answer.headers
    # The second time the short way is taken; nobody can tell.
    again = await site.get(f"/ipfs/{site.root}/a.txt")
    for headers in (answer.headers, again.headers):
        headers.pop("date")
    assert again == answer


async def test_a_large_file_streams_in_order_and_in_ranges(site: Site) -> None:
    whole = await site.get(f"/ipfs/{site.large}")
    assert (whole.status, whole.body) == (200, LARGE)
    for start, end in ((0, 1), (CHUNK - 1, CHUNK + 1), (5, 700_000), (len(LARGE) - 1, len(LARGE))):
        part = await site.get(f"/ipfs/{site.large}", {"Range": f"bytes={start}-{end - 1}"})
        assert part.status == 206
        assert part.body == LARGE[start:end]
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(LARGE)}"
        assert part.headers["content-length"] == str(end - start)
        assert part.headers["etag"] == whole.headers["etag"]


async def test_a_range_reads_only_the_blocks_it_needs(site: Site) -> None:
    await site.get(f"/ipfs/{site.large}", {"Range": "bytes=0-0"})
    before = site.source.viewed
    await site.get(f"/ipfs/{site.large}", {"Range": "bytes=100-199"})
    assert site.source.viewed - before <= 2


async def test_several_ranges_come_as_parts(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.large}", {"Range": "bytes=10-19,-5,100000-200000"})
    assert answer.status == 206
    kind, _, boundary = answer.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    parts = answer.body.split(f"--{boundary}".encode())
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    bodies = [part.split(b"\r\n\r\n", 1) for part in parts[1:-1]]
    assert [body[:-2] for _, body in bodies] == [LARGE[10:20], LARGE[-5:], LARGE[100_000:200_001]]
    assert b"Content-Range: bytes 10-19/" in bodies[0][0]
    assert b"Content-Type: application/octet-stream" in bodies[0][0]


async def test_ranges_outside_and_too_many_are_416(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}/a.txt", {"Range": "bytes=6-"})
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */6")
    many = "bytes=" + ",".join(f"{n}-{n}" for n in range(1000))
    assert (await site.get(f"/ipfs/{site.large}", {"Range": many})).status == 416


async def test_head_has_the_headers_of_get(site: Site) -> None:
    for path in (
        f"/ipfs/{site.root}/a.txt",
        f"/ipfs/{site.large}",
        f"/ipfs/{site.root}/data",
        f"/ipfs/{site.root}/a.txt?format=raw",
        f"/ipfs/{site.root}/site/",
        f"/ipfs/{site.root}/nothing",
    ):
        get, head = await site.get(path), await site.get(path, method="HEAD")
        assert head.body == b""
        assert head.status == get.status
        get.headers.pop("date"), head.headers.pop("date")
        assert head.headers == get.headers, path


async def test_types_come_from_the_name_else_from_the_content(site: Site) -> None:
    for path, kind in (
        ("data", "application/json"),
        ("page", "text/html; charset=utf-8"),
        ("data?filename=x.png", "image/png"),
        ("site/style.css", "text/css; charset=utf-8"),
        ("link", "inode/symlink"),
    ):
        assert (await site.get(f"/ipfs/{site.root}/{path}")).headers["content-type"] == kind


async def test_downloads_and_file_names(site: Site) -> None:
    path = f"/ipfs/{site.root}/a.txt"
    named = await site.get(path + "?filename=b%20c.txt")
    assert named.headers["content-disposition"] == 'inline; filename="b c.txt"'
    saved = await site.get(path + "?download=true")
    assert saved.headers["content-disposition"] == 'attachment; filename="a.txt"'
    # Folder pages encode the name twice.
    twice = await site.get(path + "?filename=file-%25C5%25BA.txt")
    assert "filename*=UTF-8''file-%C5%BA.txt" in twice.headers["content-disposition"]
    hostile = await site.get(path + "?download=true&filename=%22%0d%0aX:%20y")
    assert "x" not in hostile.headers


async def test_a_folder_redirects_to_its_slash(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}/%C4%85%C4%99?x=1")
    assert (answer.status, answer.headers["location"]) == (301, f"/ipfs/{site.root}/%C4%85%C4%99/?x=1")


async def test_go_get_is_not_sent_elsewhere(site: Site) -> None:
    assert (await site.get(f"/ipfs/{site.root}/site?go-get=1")).body == b"<h1>index</h1>"
    assert (await site.get(f"/ipfs/{site.root}/site?go-get=0")).status == 301


async def test_index_html_stands_for_its_folder(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}/site/")
    assert (answer.status, answer.body) == (200, b"<h1>index</h1>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    folder = answer.headers["x-ipfs-roots"].split(",")[-1]
    assert answer.headers["etag"] == f'"{folder}"'
    assert answer.headers["cache-control"] == IMMUTABLE
    assert (await site.get(f"/ipfs/{site.root}/site/", {"If-None-Match": f'"{folder}"'})).status == 304


async def test_content_from_elsewhere_is_fetched_ahead() -> None:
    source = MemorySource()
    cid, _ = add_file(source, LARGE, CHUNK)
    source.move_to_remote()
    async with serving(source) as client:
        assert (await client.ask(f"/ipfs/{cid}?filename=x.bin")).body == LARGE
        assert len(set(source.fetched)) == 1 + -(-len(LARGE) // CHUNK)


async def test_head_fetches_the_root_alone() -> None:
    source = MemorySource()
    large, _ = add_file(source, LARGE, CHUNK)
    source.move_to_remote()
    async with serving(source) as client:
        answer = await client.ask(f"/ipfs/{large}?filename=x.bin", method="HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(LARGE)))
    assert set(source.fetched) == {large}


async def test_a_range_fetches_only_the_blocks_it_needs() -> None:
    """Not even the first block, for the type, if no name says it: it may be the one that nobody has."""
    source = MemorySource()
    large, _ = add_file(source, LARGE, CHUNK)
    source.move_to_remote()
    wanted = {"Range": f"bytes={5 * CHUNK}-{5 * CHUNK + 9}"}
    async with serving(source) as client:
        part = await client.ask(f"/ipfs/{large}", wanted)
        assert (part.status, part.body) == (206, LARGE[5 * CHUNK : 5 * CHUNK + 10])
        assert part.headers["content-type"] == "application/octet-stream"
        assert set(source.fetched) == {large, CID.of(LARGE[5 * CHUNK : 6 * CHUNK])}


async def test_a_range_has_the_type_of_the_whole(site: Site) -> None:
    path = f"/ipfs/{site.root}/data"
    for wanted in ("bytes=0-1", "bytes=5-", "bytes=-2"):
        part = await site.get(path, {"Range": wanted})
        assert (part.status, part.headers["content-type"]) == (206, "application/json")


@pytest.mark.parametrize(
    ("wanted", "content_range", "body"),
    [
        ("bytes=0-2,1-3", "bytes 0-3/6", b"hell"),
        ("bytes=4-,0-3", "bytes 0-5/6", b"hello\n"),
        ("bytes=-2,99-", "bytes 4-5/6", b"o\n"),
    ],
)
async def test_ranges_that_make_one_are_sent_as_one(
    site: Site, wanted: str, content_range: str, body: bytes
) -> None:
    part = await site.get(f"/ipfs/{site.root}/a.txt", {"Range": wanted})
    assert (part.status, part.headers["content-range"], part.body) == (206, content_range, body)
    assert part.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("wanted", ["bytes=2-1", "lines=0-1", "bytes", "bytes=x-y"])
async def test_ranges_that_make_no_sense_are_ignored(site: Site, wanted: str) -> None:
    whole = await site.get(f"/ipfs/{site.root}/a.txt", {"Range": wanted})
    assert (whole.status, whole.body) == (200, b"hello\n")
    assert "content-range" not in whole.headers


async def test_head_answers_ranges_as_get_does(site: Site) -> None:
    for wanted in ("bytes=1-2", "bytes=0-1,4-5", "bytes=9-"):
        path, asked = f"/ipfs/{site.root}/a.txt", {"Range": wanted}
        get, head = await site.get(path, asked), await site.get(path, asked, method="HEAD")
        assert (head.status, head.body) == (get.status, b"")
        get.headers.pop("date"), head.headers.pop("date")
        assert head.headers == get.headers


async def test_a_file_of_no_bytes(site: Site) -> None:
    empty = add_node(site.source, unixfs.Data(unixfs.Kind.FILE, filesize=0))
    for cid in (empty, CID.of(b"", RAW), CID.parse("bafkqaaa")):
        site.source.add([Block(CID.of(b"", RAW), b"")])
        for asked in ({}, {"Range": "bytes=0-"}, {"Range": "bytes=-5"}):
            answer = await site.get(f"/ipfs/{cid}", asked)
            assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


async def test_content_inside_its_cid(site: Site) -> None:
    cid = CID.of(b"inlined", RAW, IDENTITY)
    answer = await site.get(f"/ipfs/{cid}")
    assert (answer.status, answer.body) == (200, b"inlined")
    assert answer.headers["etag"] == f'"{cid}"'
    part = await site.get(f"/ipfs/{cid}", {"Range": "bytes=2-3"})
    assert (part.status, part.body) == (206, b"li")
    most = CID.of(b"B" * 128, RAW, IDENTITY)
    assert (await site.get(f"/ipfs/{most}")).body == b"B" * 128
    # 129 bytes of A (IPIP-0512, test fixtures).
    more = "bafkqbaib" + "ifaucqkb" * 25 + "ifaucqi"
    assert (await site.get(f"/ipfs/{more}")).status == 400


async def test_a_symbolic_link_is_its_target(site: Site) -> None:
    for target in ("a.txt", "../ą", "/etc/passwd"):
        folder, _ = add_tree(site.source, {"link": target})
        answer = await site.get(f"/ipfs/{folder}/link")
        assert (answer.status, answer.text) == (200, target)
        assert answer.headers["content-type"] == "inode/symlink"
        assert "location" not in answer.headers
        assert "content-disposition" not in answer.headers
        saved = await site.get(f"/ipfs/{folder}/link?download=true")
        assert saved.headers["content-disposition"] == 'attachment; filename="link"'
        named = await site.get(f"/ipfs/{folder}/link?filename=b.txt")
        assert named.headers["content-disposition"] == 'inline; filename="b.txt"'


@pytest.mark.parametrize(
    ("query", "disposition"),
    [
        ("filename=test%D1%82%D0%B5%D1%81%D1%82.pdf", "inline; {}"),
        ("filename=test%D1%82%D0%B5%D1%81%D1%82.pdf&download=false", "inline; {}"),
        ("filename=test%D1%82%D0%B5%D1%81%D1%82.pdf&download=true", "attachment; {}"),
        ("download=true", "attachment"),
        ("download=false", "inline"),
        ("filename=&download=true", "attachment"),
        ("", None),
    ],
)
async def test_whether_to_show_or_to_save(site: Site, query: str, disposition: str | None) -> None:
    names = "filename=\"test____.pdf\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.pdf"
    answer = await site.get(f"/ipfs/{CID.of(b'hello' + bytes([10]))}?{query}")
    expected = None if disposition is None else disposition.format(names)
    assert answer.headers.get("content-disposition") == expected
    assert answer.headers["content-type"] == (
        "application/pdf" if "pdf" in query else "text/plain; charset=utf-8"
    )


async def test_an_old_page_says_its_own_encoding(site: Site) -> None:
    page = "<meta charset=windows-1251><p>привет".encode("windows-1251")
    folder, _ = add_tree(site.source, {"index.html": page, "old.htm": page})
    for path in ("", "old.htm"):
        answer = await site.get(f"/ipfs/{folder}/{path}")
        assert (answer.headers["content-type"], answer.body) == ("text/html", page)


async def test_a_file_does_not_mind_a_slash(site: Site) -> None:
    assert (await site.get(f"/ipfs/{site.root}/a.txt/")).body == b"hello\n"


async def test_pages_elsewhere_may_read_every_header_that_tells_something(site: Site) -> None:
    for method, path in (("GET", "/a.txt"), ("OPTIONS", "/a.txt"), ("GET", "/nothing")):
        headers = (await site.get(f"/ipfs/{site.root}{path}", method=method)).headers
        assert headers["access-control-allow-origin"] == "*"
        assert set(headers["access-control-allow-methods"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
        assert {"Content-Type", "Range", "User-Agent", "X-Requested-With", "Cache-Control"} <= set(
            headers["access-control-allow-headers"].split(", ")
        )
        assert {
            "Content-Length", "Content-Range", "X-Chunked-Output", "X-Ipfs-Path", "X-Ipfs-Roots",
            "X-Stream-Output", "Content-Location", "Content-Disposition", "Etag", "Retry-After",
        } <= set(headers["access-control-expose-headers"].split(", "))  # fmt: skip
        assert "access-control-allow-credentials" not in headers
