"""What did not change is not sent again: Etags, dates, and what is here already (RFC 9110, 9111)."""

from __future__ import annotations

import time

import pytest

from gateway.source import NameTarget
from merkledag import dag_cbor, dag_pb, unixfs
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from merkledag.unixfs import Mtime
from tests.gateway.site import IMMUTABLE, KEY, Site, add_node
from tests.gateway.support import MemoryNames, MemorySource, add_file, add_tree, serving


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


MTIME = 1_600_000_000
DATE = "Sun, 13 Sep 2020 12:26:40 GMT"
BEFORE, AFTER = "Sun, 13 Sep 2020 12:26:39 GMT", "Sun, 13 Sep 2020 12:26:41 GMT"


def dated_file(source: MemorySource, mtime_s: int = MTIME) -> CID:
    """A file that says when it was changed (UnixFS 1.5), with a fraction of a second."""
    return add_node(source, unixfs.Data(unixfs.Kind.FILE, b"dated", 5, mtime=Mtime(mtime_s, 999_999_999)))


async def test_a_file_says_when_it_was_changed(site: Site) -> None:
    cid = dated_file(site.source)
    answer = await site.get(f"/ipfs/{cid}")
    assert (answer.body, answer.headers["last-modified"]) == (b"dated", DATE)
    part = await site.get(f"/ipfs/{cid}", {"Range": "bytes=1-2"})
    assert (part.status, part.headers["last-modified"]) == (206, DATE)
    # A time that is yet to come, or none, says nothing.
    for mtime_s in (int(time.time()) + 10_000, 0, -1000):
        other = await site.get(f"/ipfs/{dated_file(site.source, mtime_s)}")
        assert "last-modified" not in other.headers
    assert "last-modified" not in (await site.get(f"/ipfs/{site.root}/a.txt")).headers


@pytest.mark.parametrize(
    ("date", "status"), [(BEFORE, 200), (DATE, 304), (AFTER, 304), ("x", 200), ("", 200)]
)
async def test_if_modified_since(site: Site, date: str, status: int) -> None:
    cid = dated_file(site.source)
    for method in ("GET", "HEAD"):
        answer = await site.get(f"/ipfs/{cid}", {"If-Modified-Since": date}, method=method)
        assert answer.status == status
        assert answer.headers["etag"] == f'"{cid}"'
        assert answer.headers["cache-control"] == IMMUTABLE
    # Etags decide where they are given.
    for etag, by_etag in ((f'"{cid}"', 304), ('"other"', 200)):
        both = {"If-Modified-Since": date, "If-None-Match": etag}
        assert (await site.get(f"/ipfs/{cid}", both)).status == by_etag


async def test_what_has_no_date_is_sent_whatever_date_is_asked_for(site: Site) -> None:
    folder, _ = add_tree(site.source, {"a": b"a"})
    dated = dated_file(site.source)
    listing = add_node(site.source, unixfs.Data(unixfs.Kind.DIRECTORY, mtime=Mtime(MTIME)))
    for path in (
        f"{folder}/a",
        f"{dated}?format=raw",
        f"{dated}?format=car",
        f"{dated}?format=tar",
        f"{listing}/",
    ):
        answer = await site.get(f"/ipfs/{path}", {"If-Modified-Since": AFTER})
        assert answer.status == 200, path
        assert "last-modified" not in answer.headers


async def test_what_must_not_have_changed(site: Site) -> None:
    cid = dated_file(site.source)
    for asked, status in (
        ({"If-Match": f'"{cid}"'}, 200),
        ({"If-Match": f'"x", "{cid}"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": f'W/"{cid}"'}, 412),
        ({"If-Unmodified-Since": DATE}, 200),
        ({"If-Unmodified-Since": BEFORE}, 412),
        ({"If-Unmodified-Since": BEFORE, "If-Match": "*"}, 200),
        ({"If-Unmodified-Since": "x"}, 200),
    ):
        assert (await site.get(f"/ipfs/{cid}", asked)).status == status, asked


async def test_what_is_answered_by_the_short_way_obeys_the_same_headers(site: Site) -> None:
    path = f"/ipfs/{site.root}/a.txt"
    for _ in range(2):
        assert (await site.get(path)).status == 200
    assert (await site.get(path, {"If-Match": '"x"'})).status == 412
    assert (await site.get(path, {"If-None-Match": "*"})).status == 304
    assert (await site.get(path, {"Range": "bytes=0-0"})).status == 206
    assert (await site.get(path, {"Accept": "application/vnd.ipld.dag-json"})).status == 406
    lines = [("Accept", "text/html;q=0.1"), ("Accept", "application/vnd.ipld.raw")]
    async with site.client.session.get(site.client.listener.url + path, headers=lines) as response:
        assert response.headers["Content-Type"] == "application/vnd.ipld.raw"


async def test_if_range_by_date(site: Site) -> None:
    path = f"/ipfs/{dated_file(site.source)}"
    for condition, status in ((DATE, 206), (BEFORE, 200), (AFTER, 200), ("x", 200)):
        asked = {"Range": "bytes=0-0", "If-Range": condition}
        assert (await site.get(path, asked)).status == status
    weak = await site.get(path, {"Range": "bytes=0-0", "If-Range": f'W/"{path[6:]}"'})
    assert weak.status == 200


async def test_unchanged_answers_tell_what_a_cache_needs_and_no_more(site: Site) -> None:
    dated = dated_file(site.source)
    data = dag_cbor.encode({"a": 1})
    node = Block(CID.of(data, DAG_CBOR), data)
    site.source.add([node])
    root = f"/ipfs/{site.root}"
    for path, accept in (
        (f"{root}/a.txt", "*/*"), (f"/ipfs/{dated}", "*/*"), (f"{root}/", "*/*"), (f"{root}/site/", "*/*"),
        (f"{root}?format=raw", "*/*"), (root, "application/vnd.ipld.car"), (f"{root}?format=tar", "*/*"),
        (f"/ipfs/{node.cid}", "*/*"), (f"/ipfs/{node.cid}/", "text/html"),
        (f"{root}/data?format=json", "*/*"),
    ):  # fmt: skip
        full = await site.get(path, {"Accept": accept})
        assert full.status == 200
        etag = full.headers["etag"]
        weak = etag if etag.startswith("W/") else f"W/{etag}"
        for known in (etag, weak, f'"x", {etag}', "*"):
            for method in ("GET", "HEAD"):
                answer = await site.get(path, {"Accept": accept, "If-None-Match": known}, method=method)
                assert (answer.status, answer.body) == (304, b""), path
                for name in ("etag", "cache-control", "vary", "content-location", "x-ipfs-roots"):
                    assert answer.headers.get(name) == full.headers.get(name), (path, name)
                for name in ("last-modified", "content-length", "content-type", "content-disposition"):
                    assert name not in answer.headers, (path, name)


async def test_every_representation_has_a_tag_of_its_own(site: Site) -> None:
    json_path = f"/ipfs/{site.root}/data"
    cid = (await site.get(json_path)).headers["x-ipfs-roots"].split(",")[-1]
    tags = {
        query: (await site.get(f"{json_path}{query}")).headers["etag"]
        for query in ("", "?format=raw", "?format=car", "?format=tar", "?format=json")
    }
    assert tags[""] == f'"{cid}"'
    assert tags["?format=raw"] == f'"{cid}.raw"'
    assert tags["?format=json"] == f'"{cid}.json"'
    assert tags["?format=tar"] == f'W/"{cid}.x-tar"'
    assert tags["?format=car"].startswith(f'W/"{cid}.car')
    assert len(set(tags.values())) == 5


async def test_behind_a_name_the_name_says_since_when() -> None:
    source = MemorySource()
    dated = dated_file(source, MTIME - 5000)
    folder = add_node(
        source,
        unixfs.Data(unixfs.Kind.DIRECTORY),
        dag_pb.PBLink(dated, "file", 1),
        dag_pb.PBLink(dated, "x.html", 1),
    )
    names = MemoryNames(
        {
            KEY: NameTarget(f"/ipfs/{folder}", 60, MTIME),
            "unknown.example": NameTarget(f"/ipfs/{folder}", 0),
        }
    )
    async with serving(source, names) as client:
        for query in ("", "?format=raw", "?format=car", "?format=tar"):
            path = f"/ipns/{KEY}/file{query}"
            answer = await client.ask(path)
            assert answer.headers["last-modified"] == DATE, query
            assert answer.headers["cache-control"] == "public, max-age=60"
            # Rolled back to an older file, it is another one all the same.
            assert (await client.ask(path, {"If-Modified-Since": BEFORE})).status == 200
            assert (await client.ask(path, {"If-Modified-Since": DATE})).status == 304
        listing = await client.ask(f"/ipns/{KEY}/")
        assert "last-modified" not in listing.headers
        assert listing.headers["cache-control"] == "public, max-age=60, stale-while-revalidate=2678400"
        for path in ("/ipns/unknown.example/file", "/ipns/unknown.example/"):
            answer = await client.ask(path)
            assert answer.status == 200
            assert "last-modified" not in answer.headers
            assert "cache-control" not in answer.headers


async def test_pages_made_here_are_not_immutable(site: Site) -> None:
    answer = await site.get(f"/ipfs/{site.root}/")
    assert answer.headers["cache-control"] == "public, max-age=604800, stale-while-revalidate=2678400"


async def test_only_if_cached_holds_for_every_format() -> None:
    source = MemorySource()
    folder, _ = add_tree(source, {"data": b"{}", "more": b"1"})
    data = dag_cbor.encode({"a": 1})
    node = Block(CID.of(data, DAG_CBOR), data)
    source.add([node])
    asked = [
        f"/ipfs/{folder}/",
        f"/ipfs/{folder}/data",
        f"/ipfs/{node.cid}",
        f"/ipfs/{node.cid}?format=dag-cbor",
    ]
    asked += [f"/ipfs/{folder}?format={name}" for name in ("raw", "car", "tar")]
    asked += [f"/ipfs/{folder}/data?format=json"]
    cached = {"Cache-Control": "no-transform, only-if-cached"}
    async with serving(source) as client:
        for path in asked:
            for method in ("GET", "HEAD"):
                assert (await client.ask(path, cached, method=method)).status == 200, path
    source.move_to_remote()
    async with serving(source) as client:
        for path in asked:
            for method in ("GET", "HEAD"):
                missing = await client.ask(path, cached, method=method)
                assert (missing.status, missing.body) == (412, b""), path
    assert source.fetched == []
