"""Blocks as they are, in their codec, and how a format is chosen (trustless gateway, IPIP-0523, 0524)."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession, web

from gateway.app import add_trustless_routes
from gateway.serving.listener import listen
from gateway.settings import GatewaySettings
from merkledag import dag_cbor
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON
from tests.gateway.site import IMMUTABLE, Page, Site, read_car
from tests.gateway.support import Client, MemorySource, add_tree


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
    link = Page(page.text).links[str(CID.of(b"hello\n"))]
    assert link.startswith(f"/ipfs/{CID.of(b'hello' + bytes([10]))}")
    json_answer = await site.get(f"/ipfs/{plain.cid}")
    assert json_answer.headers["content-type"] == "application/json"
    assert json_answer.headers["content-disposition"] == f'inline; filename="{plain.cid}.json"'


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
            for path in (f"/ipfs/{root}/a.txt", f"/ipfs/{root}/"):
                assert (await client.ask(path)).status == 400
            for path in (f"/ipfs/{root}?format=tar", f"/ipfs/{root}/a.txt?format=raw"):
                assert (await client.ask(path)).status == 406
            # What is served is what can be verified, though something else is liked better.
            for accept in (
                "text/html, application/vnd.ipld.raw;q=0.5",
                "application/x-tar, application/vnd.ipld.raw",
            ):
                answer = await client.ask(f"/ipfs/{root}", {"Accept": accept})
                assert (answer.status, answer.headers["content-type"]) == (200, "application/vnd.ipld.raw")
            assert (await client.ask(f"/ipns/{root}?format=car")).status == 404
    finally:
        await listener.close()


@pytest.mark.parametrize("codec", [JSON, CBOR, DAG_JSON, DAG_CBOR])
async def test_a_codec_is_given_as_itself_and_as_nothing_else(site: Site, codec: int) -> None:
    """IPIP-0524; `json` and `cbor` are also given for their DAG kin, whose bytes are JSON and CBOR."""
    data = dag_cbor.encode({"a": 1}) if codec in (CBOR, DAG_CBOR) else b'{"a":1}'
    block = Block(CID.of(data, codec), data)
    site.source.add([block])
    plain = {JSON: "json", CBOR: "cbor", DAG_JSON: "dag-json", DAG_CBOR: "dag-cbor"}[codec]
    for name in ("json", "cbor", "dag-json", "dag-cbor"):
        media_type = f"application/{'vnd.ipld.' if name.startswith('dag') else ''}{name}"
        given = name in (plain, plain.removeprefix("dag-"))
        for path, headers in ((f"?format={name}", {}), ("", {"Accept": media_type})):
            for method in ("GET", "HEAD"):
                answer = await site.get(f"/ipfs/{block.cid}{path}", headers, method=method)
                assert answer.status == (200 if given else 406)
            if given:
                assert answer.headers["content-type"] == media_type
                assert answer.headers["etag"] == f'"{block.cid}.{name}"'
                assert answer.headers["cache-control"] == IMMUTABLE
                shown = "inline" if "json" in name else "attachment"
                ending = name.removeprefix("dag-")
                named = f'{shown}; filename="{block.cid}.{ending}"'
                assert answer.headers["content-disposition"] == named
    part = await site.get(f"/ipfs/{block.cid}", {"Range": "bytes=1-2"})
    assert (part.status, part.body) == (206, data[1:3])
    saved = await site.get(f"/ipfs/{block.cid}?download=true&filename=x", {"Accept": "text/html"})
    assert (saved.body, saved.headers["content-disposition"]) == (data, 'attachment; filename="x"')


@pytest.mark.parametrize("name", ["dag-json", "dag-cbor", "cbor"])
async def test_unixfs_is_not_converted(site: Site, name: str) -> None:
    for path in ("", "/a.txt", "/data", "/empty", "/link"):
        answer = await site.get(f"/ipfs/{site.root}{path}?format={name}")
        assert answer.status == 406
        assert "format=raw" in answer.text


async def test_json_files_are_given_as_json(site: Site) -> None:
    for path, headers in (
        (f"/ipfs/{site.root}/data", {}),
        (f"/ipfs/{site.root}/data", {"Accept": "application/json"}),
        (f"/ipfs/{site.root}/data?format=json", {}),
        (f"/ipfs/{site.root}/data?format=json", {"Accept": "application/vnd.ipld.raw"}),
        (f"/ipfs/{site.root}/data?filename=x.txt&format=json", {}),
    ):
        answer = await site.get(path, headers)
        assert (answer.status, answer.body) == (200, b'{"a": [1, 2]}')
        assert answer.headers["content-type"] == "application/json"


async def test_what_is_no_json_is_refused_to_who_takes_nothing_else(site: Site) -> None:
    for path in ("a.txt", "empty/", "link", "page"):
        for query, accept in (("?format=json", "*/*"), ("", "application/json")):
            answer = await site.get(f"/ipfs/{site.root}/{path}{query}", {"Accept": accept})
            assert answer.status == 406, path
    for text in (b"NaN", b"[Infinity]", b"{'a': 1}", b"[1,]", b"[" * 5000, b"\xff"):
        folder, _ = add_tree(site.source, {"x": text})
        assert (await site.get(f"/ipfs/{folder}/x?format=json")).status == 406
    # What programs send that want JSON if there is any.
    for accept in ("application/json, text/plain, */*", "application/json, text/*;q=0.5"):
        answer = await site.get(f"/ipfs/{site.root}/a.txt", {"Accept": accept})
        assert (answer.status, answer.body) == (200, b"hello\n")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "content-location" not in answer.headers


async def test_the_next_best_format_is_given_where_the_best_is_not_to_be_had(site: Site) -> None:
    accept = "application/vnd.ipld.dag-json, application/vnd.ipld.raw;q=0.5"
    answer = await site.get(f"/ipfs/{site.root}/a.txt", {"Accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/vnd.ipld.raw")
    assert answer.headers["content-location"] == f"/ipfs/{site.root}/a.txt?format=raw"


@pytest.mark.parametrize(
    ("query", "accept", "location"),
    [
        ("", "*/*", None),
        ("?format=raw", "*/*", None),
        ("?format=raw", "application/vnd.ipld.raw", None),
        ("?format=raw", "text/html,*/*;q=0.8", None),
        ("", "application/vnd.ipld.raw", "?format=raw"),
        ("?format=raw", "application/vnd.ipld.car", "?format=raw"),
        ("?a=b&c=d", "application/vnd.ipld.raw", "?a=b&c=d&format=raw"),
        ("?filename=%26%3D+%C4%85", "application/vnd.ipld.raw", "?filename=%26%3D%20%C4%85&format=raw"),
        ("", "application/x-tar", "?format=tar"),
        ("", "application/vnd.ipld.car", "?format=car"),
        (
            "",
            "application/vnd.ipld.car;version=1;order=dfs;dups=n",
            "?format=car&car-version=1&car-order=dfs&car-dups=n",
        ),
        ("?format=car&car-dups=y", "*/*", None),
        ("?format=car&car-dups=y", "application/vnd.ipld.car;dups=n", "?format=car&car-dups=y"),
    ],
)
async def test_content_location_names_what_accept_chose(
    site: Site, query: str, accept: str, location: str | None
) -> None:
    path = f"/ipfs/{site.root}/%C4%85%C4%99/"
    for method in ("GET", "HEAD"):
        answer = await site.get(path + query, {"Accept": accept}, method=method)
        assert answer.status == 200
        assert answer.headers.get("content-location") == (None if location is None else path + location)
    if location is not None:
        again = await site.get(answer.headers["content-location"])
        assert again.headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize(
    ("query", "accept"),
    [("?format=gif", "*/*"), ("?format=html", "text/html"), ("", "application/vnd.ipld.unheard-of")],
)
async def test_formats_that_nobody_knows(site: Site, query: str, accept: str) -> None:
    assert (await site.get(f"/ipfs/{site.root}/a.txt{query}", {"Accept": accept})).status == 400


async def test_an_empty_format_is_none(site: Site) -> None:
    assert (await site.get(f"/ipfs/{site.root}/a.txt?format=")).body == b"hello\n"


async def test_binary_formats_are_saved_and_never_sniffed(site: Site) -> None:
    for name, ending in (("raw", "bin"), ("car", "car"), ("tar", "tar")):
        path = f"/ipfs/{site.root}?format={name}"
        answer = await site.get(path)
        assert answer.headers["content-disposition"] == f'attachment; filename="{site.root}.{ending}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-ipfs-path"] == f"/ipfs/{site.root}"
        assert answer.headers["x-ipfs-roots"] == str(site.root)
        named = await site.get(f"{path}&filename=my.file&download=false")
        assert named.headers["content-disposition"] == 'attachment; filename="my.file"'


async def test_one_url_with_a_page_for_people_says_that_it_varies(site: Site) -> None:
    data = dag_cbor.encode({"a": 1})
    node = Block(CID.of(data, DAG_CBOR), data)
    site.source.add([node])
    block = await site.get(f"/ipfs/{node.cid}")
    page = await site.get(f"/ipfs/{node.cid}", {"Accept": "text/html"})
    assert (block.headers["vary"], page.headers["vary"]) == ("Accept", "Accept")
    assert block.headers["etag"] != page.headers["etag"]
    assert "immutable" not in page.headers["cache-control"]
    assert "content-disposition" not in page.headers
    saved = await site.get(f"/ipfs/{node.cid}?download=true", {"Accept": "text/html"})
    assert saved.body == data


async def test_accept_may_come_in_several_lines(site: Site) -> None:
    url = f"{site.client.listener.url}/ipfs/{site.root}/a.txt"
    lines = [("Accept", "text/html;q=0.1"), ("Accept", "application/vnd.ipld.raw")]
    async with site.client.session.get(url, headers=lines) as response:
        assert response.headers["Content-Type"] == "application/vnd.ipld.raw"
    tags = [("If-None-Match", '"x"'), ("If-None-Match", f'"{CID.of(b"hello" + bytes([10]))}"')]
    async with site.client.session.get(url, headers=tags) as response:
        assert response.status == 304


async def test_a_missing_root_is_404_in_every_format(site: Site) -> None:
    gone = CID.of(b"gone", DAG_PB)
    for query in ("", "?format=raw", "?format=car", "?format=tar", "?format=json"):
        for method in ("GET", "HEAD"):
            assert (await site.get(f"/ipfs/{gone}{query}", method=method)).status == 404, (query, method)
