"""How often the gateway looks into the store: guards of its speed that count and do not time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.content import MAX_REMEMBERED_CHARS, Node, PathCache
from gateway.settings import GatewaySettings
from merkledag.cid import CID
from tests.gateway.support import MemorySource, Tree, add_file, add_tree, serving

PLAIN = GatewaySettings(subdomain_hosts=(), dnslink_hosts=False)
CHUNK_BYTES = 1_000


@contextmanager
def looks(source: MemorySource, expected: int) -> Iterator[None]:
    before = source.viewed
    yield
    assert source.viewed - before == expected


@pytest.fixture
def folders() -> tuple[MemorySource, str]:
    source = MemorySource()
    tree: Tree = {f"d{a}": {f"f{b}.txt": b"%d %d" % (a, b) for b in range(5)} for a in range(3)}
    root, _ = add_tree(source, tree)
    return source, f"/ipfs/{root}"


async def test_a_file_that_was_served_is_looked_at_once(folders: tuple[MemorySource, str]) -> None:
    source, root = folders
    async with serving(source, settings=PLAIN) as client:
        await client.ask(f"{root}/d0/f0.txt")
        with looks(source, 1):
            assert (await client.ask(f"{root}/d0/f0.txt")).body == b"0 0"


async def test_what_is_known_of_a_file_needs_no_look(folders: tuple[MemorySource, str]) -> None:
    source, root = folders
    async with serving(source, settings=PLAIN) as client:
        etag = (await client.ask(f"{root}/d0/f0.txt")).headers["etag"]
        with looks(source, 0):
            assert (await client.ask(f"{root}/d0/f0.txt", {"If-None-Match": etag})).status == 304
            head = await client.ask(f"{root}/d0/f0.txt", method="HEAD")
        assert head.headers["content-length"] == "3"


async def test_folders_on_the_way_are_looked_at_once(folders: tuple[MemorySource, str]) -> None:
    source, root = folders
    async with serving(source, settings=PLAIN) as client:
        await client.ask(f"{root}/d0/f0.txt")
        with looks(source, 1):
            assert (await client.ask(f"{root}/d0/f1.txt")).body == b"0 1"
        with looks(source, 2):  # and a folder that is new
            assert (await client.ask(f"{root}/d1/f0.txt")).body == b"1 0"


async def test_a_range_of_a_large_file_is_one_look() -> None:
    source = MemorySource()
    data = bytes(range(256)) * 40
    cid, _ = add_file(source, data, CHUNK_BYTES)
    async with serving(source, settings=PLAIN) as client:
        await client.ask(f"/ipfs/{cid}", {"Range": "bytes=0-99"})
        with looks(source, 1):
            answer = await client.ask(f"/ipfs/{cid}", {"Range": "bytes=5000-5099"})
    assert answer.status == 206
    assert answer.body == data[5000:5100]


def test_what_is_remembered_of_paths_is_bounded_in_number_and_length() -> None:
    cid = CID.of(b"x")
    paths, long = PathCache(2), ("n" * (MAX_REMEMBERED_CHARS + 1),)
    for segments in (("a",), ("b",), ("c",), long):
        assert paths.put((cid, segments, 0), Node(cid, "", str(cid))).cid == cid
    assert [paths.get((cid, segments, 0)) is None for segments in (("a",), ("b",), ("c",), long)] == [
        True,
        False,
        False,
        True,
    ]


async def test_a_very_long_path_is_served_every_time() -> None:
    source = MemorySource()
    name = "n" * 250
    root, _ = add_tree(source, {name: {name: {name: {name: b"far"}}}})
    async with serving(source, settings=PLAIN) as client:
        for _ in range(2):
            assert (await client.ask(f"/ipfs/{root}" + f"/{name}" * 4)).body == b"far"
