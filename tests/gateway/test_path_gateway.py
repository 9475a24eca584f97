"""Errors, names and limits over HTTP, on real sockets (path gateway)."""

from __future__ import annotations

import asyncio

import pytest

from gateway.settings import GatewaySettings
from gateway.source import NameRecord, NameTarget
from merkledag.cid import CID
from tests.gateway.site import Page, Site
from tests.gateway.support import (
    MemoryNames,
    MemorySource,
    add_file,
    add_tree,
    serving,
)


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
    Page(page.text)


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
        ("/ipfs/" + "a" * 9000, 414),
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


async def test_what_does_not_arrive_is_504_and_what_nobody_has_404() -> None:
    source = MemorySource()
    source.arrive.clear()
    async with serving(source, settings=GatewaySettings(retrieval_timeout_s=0.5)) as client:
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
