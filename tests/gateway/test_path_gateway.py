"""Files, folders, formats and errors over HTTP, on real sockets (path and trustless gateway specs)."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest
from aiohttp import ClientError, ClientSession, web

from gateway.app import add_trustless_routes
from gateway.listener import listen
from gateway.settings import GatewaySettings
from gateway.source import NameRecord, NameTarget
from merkledag import car, dag_cbor, dag_pb, unixfs
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_PB, JSON
from merkledag.directory import DirEntry, build_directory
from merkledag.profile import UNIXFS_V1_2025
from tests.gateway.support import (
    Answer,
    Client,
    MemoryNames,
    MemorySource,
    add_file,
    add_tree,
    serving,
)

LARGE = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(40_000))  # 1.2 MiB, no repetition
CHUNK = 64 * 1024
IMMUTABLE = "public, max-age=29030400, immutable"
HOSTILE = "<img src=x onerror=alert(1)> \"'&"


@dataclass
class Site:
    """A gateway with a folder in it."""

    client: Client
    source: MemorySource
    root: CID
    large: CID

    async def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        answer = await self.client.ask(path, headers, method=method)
        assert self.source.open_views == 0
        return answer


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    source = MemorySource()
    large, _ = add_file(source, LARGE, CHUNK)
    root, _ = add_tree(
        source,
        {
            "a.txt": b"hello\n",
            "data": b'{"a": [1, 2]}',
            "page": b"<!doctype html><p>hi",
            "ąę": {"file-źł.txt": b"utf8", "deep": {"x": b"x"}},
            "site": {"index.html": b"<h1>index</h1>", "style.css": b"p{}"},
            "link": "a.txt",
            HOSTILE: b"hostile",
            "empty": {},
        },
    )
    async with serving(source) as client:
        yield Site(client, source, root, large)


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


async def test_if_range_decides_whether_a_range_is_served(site: Site) -> None:
    etag = f'"{site.large}"'
    path = f"/ipfs/{site.large}"
    assert (await site.get(path, {"Range": "bytes=0-0", "If-Range": etag})).status == 206
    assert (await site.get(path, {"Range": "bytes=0-0", "If-Range": '"other"'})).status == 200


@pytest.mark.parametrize("header", ['"{}"', 'W/"{}"', '"x", "y", "{}"', "*"])
async def test_what_the_client_has_is_not_sent_again(site: Site, header: str) -> None:
    cid = CID.of(b"hello\n")
    answer = await site.get(f"/ipfs/{site.root}/a.txt", {"If-None-Match": header.format(cid)})
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == f'"{cid}"'


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


async def test_index_html_stands_for_its_folder(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}/site/")
    assert (answer.status, answer.body) == (200, b"<h1>index</h1>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    folder = answer.headers["x-ipfs-roots"].split(",")[-1]
    assert answer.headers["etag"] == f'"{folder}"'
    assert answer.headers["cache-control"] == IMMUTABLE
    assert (await site.get(f"/ipfs/{site.root}/site/", {"If-None-Match": f'"{folder}"'})).status == 304


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: dict[str, str] = {}
        self._href = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)
        if tag == "a":
            self._href = dict(attrs).get("href") or ""

    def handle_data(self, data: str) -> None:
        if self._href:
            self.links.setdefault(data, self._href)
            self._href = ""


async def test_a_listing_names_and_links_every_entry_safely(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}/")
    page = _Page(answer.text)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert re.fullmatch(rf'"DirIndex-\w+_CID-{site.root}"', answer.headers["etag"])
    assert "immutable" not in answer.headers["cache-control"]
    assert not {"img", "script", "iframe", "form", "base"} & set(page.tags)
    assert page.links["a.txt"] == f"/ipfs/{site.root}/a.txt"
    assert page.links["ąę"] == f"/ipfs/{site.root}/%C4%85%C4%99"
    assert HOSTILE in page.links
    assert (await site.get(page.links[HOSTILE])).body == b"hostile"
    assert "8 entries" in answer.text
    assert ".." not in page.links
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


async def test_a_listing_reads_no_block_of_an_entry(site: Site) -> None:
    entries = [DirEntry(f"f{n}", CID.of(str(n).encode()), 1) for n in range(5000)]
    link, blocks = build_directory(UNIXFS_V1_2025, entries)
    site.source.add(blocks)
    answer = await site.get(f"/ipfs/{link.cid}/")
    assert len(_Page(answer.text).links) > 5000
    assert site.source.fetched == []
    assert "5,000 entries" in answer.text
    # Sorted, although the blocks hold them in the order of their hashes.
    numbers = [int(number) for number in re.findall(r">f(\d+)</a>", answer.text)]
    assert numbers == sorted(numbers, key=str)


async def test_a_folder_too_large_to_sort_or_to_list_whole_says_so() -> None:
    source = MemorySource()
    entries = [DirEntry(f"f{n}", CID.of(str(n).encode()), 1) for n in range(700)]
    link, blocks = build_directory(UNIXFS_V1_2025, entries)
    source.add(blocks)
    few = GatewaySettings(sorted_listing_entries=10, max_listing_entries=650)
    async with serving(source, settings=few) as client:
        answer = await client.ask(f"/ipfs/{link.cid}/")
    assert len(re.findall(r">f\d+</a>", answer.text)) == 650
    assert "The first 650 entries." in answer.text


async def test_a_subfolder_links_up_and_empty_says_so(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}/%C4%85%C4%99/deep/")
    assert f'<a href="/ipfs/{site.root}/%C4%85%C4%99/deep/..">..</a>' in answer.text
    assert "This folder is empty." in (await site.get(f"/ipfs/{site.root}/empty/")).text


async def test_errors_are_one_line_for_programs_and_a_page_for_people(site: Site) -> None:
    path = f"/ipfs/{site.root}/<b>/x"
    line = await site.get(path)
    assert line.status == 404
    assert line.headers["content-type"].startswith("text/plain")
    assert line.text.count("\n") == 1
    assert str(site.root) in line.text
    page = await site.get(path, {"Accept": "text/html"})
    assert page.status == 404
    assert "<b>" not in page.text
    assert page.headers["cache-control"] == "no-store"
    _Page(page.text)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ipfs/QmInvalid", 400),
        ("/ipfs/{root}?format=gif", 400),
        ("/ipfs/{root}/../x", 400),
        ("/ipfs/{root}/%2e%2e/x", 400),
        ("/ipfs/{root}/a%00", 400),
        ("/ipfs/", 400),
        ("/ipns/not_a_name", 400),
        ("/nothing", 404),
        ("/ipfs/{root}/a.txt/x", 404),
        ("/ipfs/bafkreib6afhnrnp3xqnpgxk7zlmb4cayrsvjoabqujgllpswf6sotaxdga", 404),
        ("/ipfs/{root}/a.txt?format=dag-json", 406),
        ("/ipfs/{root}/a.txt?format=json", 406),
        ("/ipfs/" + "a" * 9000, 400),
    ],
)
async def test_what_cannot_be_served_has_the_right_status(site: Site, path: str, status: int) -> None:
    answer = await site.get(path.format(root=site.root))
    assert answer.status == status, answer.text


async def test_methods(site: Site) -> None:
    options = await site.get(f"/ipfs/{site.root}", method="OPTIONS")
    assert options.status == 204
    assert options.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    post = await site.get(f"/ipfs/{site.root}", method="POST")
    assert (post.status, post.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_service_workers_are_not_registered_above_a_root(site: Site) -> None:
    worker = {"Service-Worker": "script"}
    assert (await site.get(f"/ipfs/{CID.of(b'x')}", worker)).status == 400
    assert (await site.get(f"/ipfs/{site.root}/a.txt", worker)).status == 200


async def test_raw_blocks(site: Site) -> None:
    path = f"/ipfs/{site.root}"
    for answer in (
        await site.get(path + "?format=raw"),
        await site.get(path, {"Accept": "application/vnd.ipld.raw"}),
        await site.get(path + "?format=raw", {"Accept": "application/vnd.ipld.car"}),
    ):
        assert CID.of(answer.body, DAG_PB) == site.root
        assert answer.headers["content-type"] == "application/vnd.ipld.raw"
        assert answer.headers["content-disposition"] == f'attachment; filename="{site.root}.bin"'
        assert answer.headers["etag"] == f'"{site.root}.raw"'
    by_accept = await site.get(path, {"Accept": "application/vnd.ipld.raw"})
    assert by_accept.headers["content-location"] == f"{path}?format=raw"
    part = await site.get(path + "?format=raw", {"Range": "bytes=2-9"})
    assert (part.status, part.body) == (206, site.source.here[site.root.multihash][2:10])


async def test_the_probe_path_of_trustless_gateways(site: Site) -> None:
    raw = await site.get("/ipfs/bafkqaaa?format=raw")
    assert (raw.status, raw.body) == (200, b"")
    car_answer = await site.get("/ipfs/bafkqaaa?format=car")
    decoded = read_car(car_answer.body)
    assert decoded == ([CID.parse("bafkqaaa")], [])


def read_car(data: bytes) -> tuple[list[CID], list[CID]]:
    """Roots and blocks; every block verified."""
    decoder = car.CarDecoder()
    decoder.feed(data)
    header = decoder.next()
    assert isinstance(header, car.CarHeader)
    cids = []
    while (block := decoder.next()) is not None:
        assert isinstance(block, Block)
        cids.append(block.cid)
    decoder.finish()
    return list(header.roots), cids


async def test_a_car_holds_the_path_and_what_is_in_scope(site: Site) -> None:
    root, large = site.root, site.large
    whole = await site.get(f"/ipfs/{large}?format=car")
    assert whole.headers["content-type"] == "application/vnd.ipld.car; version=1; order=dfs; dups=n"
    assert whole.headers["accept-ranges"] == "none"
    assert whole.headers["etag"].startswith('W/"')
    roots, cids = read_car(whole.body)
    assert roots == [large]
    assert len(cids) == 1 + -(-len(LARGE) // CHUNK)
    block = await site.get(f"/ipfs/{root}/%C4%85%C4%99/deep?format=car&dag-scope=block")
    assert len(read_car(block.body)[1]) == 3
    entity = await site.get(f"/ipfs/{root}?format=car&dag-scope=entity")
    assert read_car(entity.body)[1] == [root]
    part = await site.get(f"/ipfs/{large}?format=car&dag-scope=entity&entity-bytes={CHUNK}:{CHUNK}")
    assert read_car(part.body)[1] == [large, CID.of(LARGE[CHUNK : 2 * CHUNK])]
    assert len({answer.headers["etag"] for answer in (whole, block, entity, part)}) == 4


async def test_car_duplicates_are_sent_on_demand_only(site: Site) -> None:
    twice, _ = add_tree(site.source, {"a": b"same", "b": b"same"})
    once = await site.get(f"/ipfs/{twice}?format=car")
    every = await site.get(f"/ipfs/{twice}", {"Accept": "application/vnd.ipld.car; order=dfs; dups=y"})
    assert (len(read_car(once.body)[1]), len(read_car(every.body)[1])) == (2, 3)
    assert "dups=y" in every.headers["content-type"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("format=car&dag-scope=some", 400),
        ("format=car&entity-bytes=x", 400),
        ("format=car&entity-bytes=0:*&dag-scope=all", 400),
        ("format=car&car-version=2", 406),
        ("format=car&car-order=bfs", 406),
    ],
)
async def test_wrong_car_requests(site: Site, query: str, status: int) -> None:
    assert (await site.get(f"/ipfs/{site.large}?{query}")).status == status


async def test_entity_bytes_outside_the_file_are_refused(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.large}?format=car&entity-bytes=99999999:*")
    assert answer.status == 400


async def test_a_missing_child_breaks_the_car_visibly(site: Site) -> None:
    missing = CID.of(LARGE[5 * CHUNK : 6 * CHUNK])
    del site.source.here[missing.multihash]
    with pytest.raises(ClientError):
        await site.get(f"/ipfs/{site.large}?format=car")
    with pytest.raises(ClientError):
        await site.get(f"/ipfs/{site.large}")
    before = await site.get(f"/ipfs/{site.large}", {"Range": "bytes=0-99"})
    assert before.body == LARGE[:100]


async def test_a_tree_as_tar(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}?format=tar&filename=%D1%82%D0%B5%D1%81%D1%82.tar")
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["content-disposition"].startswith('attachment; filename="____.tar"')
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        names = archive.getnames()
        assert names[0] == str(site.root)
        assert f"{site.root}/ąę/file-źł.txt" in names
        assert archive.getmember(f"{site.root}/link").linkname == "a.txt"
        file = archive.extractfile(f"{site.root}/a.txt")
        assert file is not None
        assert file.read() == b"hello\n"
    large = await site.get(f"/ipfs/{site.large}?format=tar")
    with tarfile.open(fileobj=io.BytesIO(large.body)) as archive:
        file = archive.extractfile(str(site.large))
        assert file is not None
        assert file.read() == LARGE


def raw_folder(source: MemorySource, name: str, target: CID) -> CID:
    """A folder with a name that no builder would write."""
    message = unixfs.encode(unixfs.Data(unixfs.Kind.DIRECTORY))
    data = dag_pb.encode(dag_pb.PBNode((dag_pb.PBLink(target, name, 1),), message))
    block = Block(CID.of(data, DAG_PB), data)
    source.add([block])
    return block.cid


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..", "a\0b"])
async def test_a_tar_never_leaves_its_folder(site: Site, name: str) -> None:
    folder = raw_folder(site.source, name, CID.of(b"hello\n"))
    answer = await site.get(f"/ipfs/{folder}?format=tar")
    assert answer.status == 406
    listing = await site.get(f"/ipfs/{folder}/")
    assert listing.status == 200


@pytest.mark.parametrize("target", ["/etc", "../../x", "a/../../.."])
async def test_a_tar_holds_no_link_out_of_its_folder(site: Site, target: str) -> None:
    folder, _ = add_tree(site.source, {"link": target})
    assert (await site.get(f"/ipfs/{folder}?format=tar")).status == 406


async def test_nodes_in_their_own_codec(site: Site) -> None:
    data = dag_cbor.encode({"file": CID.of(b"hello\n"), "n": {"m": 1}})
    node = Block(CID.of(data, DAG_CBOR), data)
    plain = Block(CID.of(b'{"a":1}', JSON), b'{"a":1}')
    site.source.add([node, plain])
    path = f"/ipfs/{node.cid}"
    native = await site.get(path)
    assert (native.body, native.headers["content-type"]) == (data, "application/vnd.ipld.dag-cbor")
    assert native.headers["content-disposition"] == f'attachment; filename="{node.cid}.cbor"'
    assert (await site.get(path + "?format=cbor")).headers["content-type"] == "application/cbor"
    assert (await site.get(path + "?format=dag-json")).status == 406
    assert (await site.get(path + "/file")).body == b"hello\n"
    assert (await site.get(path + "/n/m")).status == 501
    assert (await site.get(path + "/x")).status == 404
    page = await site.get(path, {"Accept": "text/html"})
    assert page.headers["etag"].startswith('"DagIndex-')
    assert _Page(page.text).links[str(CID.of(b"hello\n"))] == f"/ipfs/{CID.of(b'hello' + bytes([10]))}"
    json_answer = await site.get(f"/ipfs/{plain.cid}")
    assert json_answer.headers["content-type"] == "application/json"
    assert json_answer.headers["content-disposition"] == f'inline; filename="{plain.cid}.json"'


async def test_only_if_cached_never_fetches() -> None:
    source = MemorySource()
    cid, _ = add_file(source, b"here")
    async with serving(source) as client:
        cached = {"Cache-Control": "only-if-cached"}
        for query in ("", "?format=raw", "?format=car"):
            for method in ("GET", "HEAD"):
                assert (await client.ask(f"/ipfs/{cid}{query}", cached, method=method)).status == 200
                missing = await client.ask(f"/ipfs/{CID.of(b'elsewhere')}{query}", cached, method=method)
                assert missing.status == 412
        assert source.fetched == []


async def test_content_from_elsewhere_is_fetched_ahead() -> None:
    source = MemorySource()
    cid, _ = add_file(source, LARGE, CHUNK)
    source.move_to_remote()
    async with serving(source) as client:
        assert (await client.ask(f"/ipfs/{cid}?filename=x.bin")).body == LARGE
        assert len(set(source.fetched)) == 1 + -(-len(LARGE) // CHUNK)


async def test_what_does_not_arrive_is_504_and_what_nobody_has_404() -> None:
    source = MemorySource()
    source.arrive.clear()
    async with serving(source, settings=GatewaySettings(retrieval_timeout_s=0.05)) as client:
        late = await client.ask(f"/ipfs/{CID.of(b'late')}")
        assert (late.status, "retry-after" in late.headers) == (504, True)
        source.arrive.set()
        assert (await client.ask(f"/ipfs/{CID.of(b'late')}")).status == 404


async def test_names_lead_to_content_with_their_time_to_live() -> None:
    source = MemorySource()
    root, _ = add_tree(source, {"sub": {"a.txt": b"hello\n", "dir": {}}})
    key = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8"
    names = MemoryNames(
        {
            key: NameTarget(f"/ipfs/{root}/sub", 60),
            "site.example": NameTarget(f"/ipns/{key}", 30),
            "loop.example": NameTarget("/ipns/loop.example", 1),
        },
        {key: NameRecord(b"record", 60)},
    )
    async with serving(source, names, records=names) as client:
        answer = await client.ask(f"/ipns/{key}/a.txt")
        assert answer.body == b"hello\n"
        assert answer.headers["cache-control"] == "public, max-age=60"
        assert answer.headers["x-ipfs-path"] == f"/ipns/{key}/a.txt"
        by_dns = await client.ask("/ipns/site.example/a.txt")
        assert by_dns.headers["cache-control"] == "public, max-age=30"
        moved = await client.ask("/ipns/12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK/a.txt?x=1")
        assert (moved.status, moved.headers["location"]) == (302, f"/ipns/{key}/a.txt?x=1")
        assert (await client.ask("/ipns/unknown.example/")).status == 500
        assert (await client.ask("/ipns/loop.example/")).status == 400
        record = await client.ask(f"/ipns/{key}?format=ipns-record")
        assert (record.status, record.body) == (200, b"record")
        assert (await client.ask(f"/ipns/{key}/a.txt?format=ipns-record")).status == 400


async def test_a_storage_node_serves_what_can_be_verified_and_nothing_else() -> None:
    source = MemorySource()
    root, _ = add_tree(source, {"a.txt": b"hello\n"})
    app = web.Application()
    add_trustless_routes(app, source)
    listener = await listen(app, "127.0.0.1", 0, GatewaySettings())
    try:
        async with ClientSession() as session:
            client = Client(listener, session)
            assert (await client.ask(f"/ipfs/{root}?format=raw")).status == 200
            archive = await client.ask(f"/ipfs/{root}/a.txt?format=car")
            assert read_car(archive.body)[0] == [CID.of(b"hello\n")]
            for path in (f"/ipfs/{root}/a.txt", f"/ipfs/{root}/", f"/ipfs/{root}/a.txt?format=raw"):
                assert (await client.ask(path)).status == 400
            assert (await client.ask(f"/ipfs/{root}?format=tar")).status == 406
            assert (await client.ask(f"/ipns/{root}?format=car")).status == 404
    finally:
        await listener.close()


async def test_concurrent_requests_are_limited() -> None:
    source = MemorySource()
    cid, _ = add_file(source, b"x")
    source.move_to_remote()
    source.arrive.clear()
    async with serving(source, settings=GatewaySettings(max_concurrent_requests=2)) as client:
        waiting = [asyncio.ensure_future(client.ask(f"/ipfs/{cid}")) for _ in range(2)]
        while source.waiting < 2:  # noqa: ASYNC110 (the requests come over a socket)
            await asyncio.sleep(0)
        busy = await client.ask(f"/ipfs/{cid}")
        assert (busy.status, busy.headers["retry-after"]) == (429, "5")
        assert (await client.ask("/healthz")).status == 200
        source.arrive.set()
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200, 200]
