"""Whole DAGs that are not here, as CAR and TAR: asked for ahead over all folders, once, and within bounds."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.lookahead import DagAhead
from gateway.settings import GatewaySettings
from merkledag.builder import build_file
from merkledag.car import CarDecoder
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.directory import DirEntry, build_directory
from merkledag.profile import UNIXFS_V1_2025
from merkledag.steps import adrive_walk
from merkledag.traverse import links_in, walk_dag
from tests.gateway.support import MemorySource, Tree, add_tree, serving
from tests.gateway.test_fetching_ahead import FarSource
from tests.gateway.test_hostile_clients import connect, until

NARROW = replace(UNIXFS_V1_2025, max_links=3, hamt_threshold_bytes=600)
FOLDERS: Tree = {
    f"folder{n}": {f"file{m}": f"{n} {m}".encode() for m in range(10)} for n in range(10)
}  # by folders of ten, nobody would ask for more than ten at once


def far(tree: Tree) -> tuple[FarSource, CID]:
    source = FarSource()
    root, _ = add_tree(source, tree)
    source.move_to_remote()
    return source, root


def blocks_of(car: bytes) -> list[CID]:
    decoder, found = CarDecoder(), []
    decoder.feed(car)
    while (item := decoder.next()) is not None:
        if hasattr(item, "cid"):
            found.append(item.cid)
    decoder.finish()
    return found


@pytest.mark.parametrize("kind", ["car", "tar"])
async def test_all_folders_are_asked_for_ahead_and_each_block_once(kind: str) -> None:
    source, root = far(FOLDERS)
    async with serving(source) as client:
        answer = await client.ask(f"/ipfs/{root}?format={kind}")
    counted = Counter(source.fetched)
    del counted[root]  # the way to it is resolved before
    assert set(counted.values()) == {1}
    assert len(counted) == 10 + 100
    assert source.most_waiting > 20
    if kind == "car":
        assert len(blocks_of(answer.body)) == 111
    else:
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            assert sum(member.isfile() for member in archive) == 100


@pytest.mark.parametrize(("query", "folders"), [("dag-scope=entity", 1), ("dag-scope=block", 1), ("", 11)])
async def test_no_more_is_asked_for_than_the_scope_needs(query: str, folders: int) -> None:
    source, root = far(FOLDERS)
    async with serving(source) as client:
        answer = await client.ask(f"/ipfs/{root}?format=car&{query}")
    assert set(source.fetched) == set(blocks_of(answer.body))
    assert len([cid for cid in set(source.fetched) if cid.codec != RAW]) == folders


@pytest.mark.parametrize("kind", ["car", "tar"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_without_a_reader_nothing_is_asked_for_ahead(kind: str, method: str) -> None:
    source, root = far(FOLDERS)
    headers = {"Cache-Control": "only-if-cached"} if method == "GET" else {}
    async with serving(source) as client:
        await client.ask(f"/ipfs/{root}?format={kind}", headers, method=method)
    assert set(source.fetched) <= {root}


async def test_a_client_that_leaves_ends_all_that_was_asked_for() -> None:
    source, root = far(FOLDERS)
    last = CID.of(b"0 3")
    source.late[last] = asyncio.Event()
    async with serving(source) as client:
        before = asyncio.all_tasks()
        sock = connect(client)
        request = f"GET /ipfs/{root}?format=car HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        await asyncio.get_running_loop().sock_sendall(sock, request)
        await until(lambda: source.waiting == 1 and last in source.fetched)
        sock.close()
        await until(lambda: source.waiting == 0)
        await until(lambda: not [task for task in asyncio.all_tasks() - before if "/gateway/" in repr(task)])


async def test_a_reader_that_does_not_read_stops_the_look_ahead_whatever_sizes_are_declared() -> None:
    """Files of 20,000 bytes, of which their folder says that they have one."""
    source = FarSource()
    entries = []
    for number in range(500):
        link, blocks = build_file(UNIXFS_V1_2025, [number.to_bytes(4) * 5_000])
        source.add(blocks)
        entries.append(DirEntry(f"file{number:03}", link.cid, 1))
    top, folder = build_directory(UNIXFS_V1_2025, entries)
    source.add(folder)
    source.move_to_remote()
    limits = GatewaySettings(lookahead_bytes=1_000_000, prefetch_blocks=8)
    ahead = DagAhead(source, top.cid, links_in("all"), limits)
    assert await ahead.take(top.cid) == source.remote[top.cid.multihash]
    for _ in range(2000):
        await asyncio.sleep(0)
    asked = len(source.fetched)
    assert 30 < asked <= 50
    for number in range(20):
        ahead.wants(entries[number].cid, 0)
        assert await ahead.take(entries[number].cid) is not None
    for _ in range(2000):
        await asyncio.sleep(0)
    assert asked + 10 < len(source.fetched) <= asked + 30
    await ahead.close()
    assert source.waiting == 0


leaf = st.binary(min_size=1, max_size=3).map(lambda data: data * 3)
trees = st.recursive(
    leaf, lambda below: st.dictionaries(st.text("abc", min_size=1), below, max_size=6), max_leaves=40
)


@settings(max_examples=60, deadline=None)
@given(
    trees, st.integers(1, 12), st.integers(1, 5000), st.sets(st.integers(0, 60), max_size=20), st.booleans()
)
def test_any_dag_comes_right_whatever_is_here_already(
    tree: Tree | bytes, parallel: int, window_bytes: int, here: set[int], dedupe: bool
) -> None:
    async def read() -> tuple[list[CID], list[CID]]:
        source = FarSource()
        root, _ = add_tree(source, {"top": tree}, NARROW)
        known = MemorySource()
        known.here = dict(source.here)
        source.move_to_remote()
        for number, key in enumerate(list(source.remote)):
            if number in here:
                source.here[key] = source.remote.pop(key)
        limits = GatewaySettings(prefetch_blocks=parallel, lookahead_bytes=window_bytes)
        ahead = DagAhead(source, root, links_in("all"), limits)

        async def get(want: object) -> bytes:
            asked: CID = want.cid  # type: ignore[attr-defined]
            ahead.wants(asked, 0)
            if asked.multihash in source.here:
                return source.here[asked.multihash]
            found = await ahead.take(asked)
            return await source.get(asked) if found is None else found

        found = [block.cid async for block in adrive_walk(walk_dag(root, dedupe=dedupe), get)]
        await ahead.close()
        assert source.waiting == 0

        async def all_here(want: object) -> bytes:
            return known.here[want.cid.multihash]  # type: ignore[attr-defined]

        return found, [block.cid async for block in adrive_walk(walk_dag(root, dedupe=dedupe), all_here)]

    found, expected = asyncio.run(read())
    assert found == expected
