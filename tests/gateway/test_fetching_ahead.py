"""Files that are not here: sent as they arrive, fetched ahead of the reader, and no more than is wanted."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.lookahead import FileAhead
from gateway.settings import GatewaySettings
from merkledag import dag_pb, unixfs
from merkledag.builder import build_file
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.profile import UNIXFS_V0_2015, UNIXFS_V1_2025, ImportProfile
from merkledag.reader import read_file
from merkledag.steps import adrive_walk
from tests.gateway.support import MemorySource, serving
from tests.gateway.test_hostile_clients import connect, until

CHUNK = 1000
DATA = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(3000))  # 96 chunks, all different
NARROW = replace(UNIXFS_V1_2025, max_links=3)


class FarSource(MemorySource):
    """Everything is elsewhere; notes how many blocks were asked for at once, and whether twice."""

    def __init__(self) -> None:
        super().__init__()
        self.most_waiting = 0
        self.cancelled = 0
        self.late: dict[CID, asyncio.Event] = {}

    async def get(self, cid: CID) -> bytes:
        self.fetched.append(cid)
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            await self.late.get(cid, self.arrive).wait()
            for _ in range(3):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return self.remote[cid.multihash]


def far_file(
    data: bytes = DATA, profile: ImportProfile = NARROW, chunk_bytes: int = CHUNK
) -> tuple[FarSource, CID]:
    source = FarSource()
    link, blocks = build_file(
        profile, [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    )
    source.add(blocks)
    source.move_to_remote()
    return source, link.cid


@pytest.mark.parametrize(
    "profile", [NARROW, replace(NARROW, layout="trickle"), replace(UNIXFS_V0_2015, max_links=4)]
)
async def test_a_file_that_is_elsewhere_comes_whole_and_each_block_is_asked_for_once(
    profile: ImportProfile,
) -> None:
    source, cid = far_file(profile=profile)
    async with serving(source) as client:
        assert (await client.ask(f"/ipfs/{cid}?filename=a.bin")).body == DATA
    beyond_the_root = [asked for asked in source.fetched if asked != cid]
    assert len(beyond_the_root) == len(set(beyond_the_root))
    assert source.most_waiting > 8


async def test_what_has_arrived_is_sent_before_the_rest_arrives() -> None:
    source, cid = far_file(profile=UNIXFS_V1_2025)
    arrive = source.late[CID.of(DATA[5 * CHUNK : 6 * CHUNK])] = asyncio.Event()
    async with serving(source) as client, client.stream(f"/ipfs/{cid}?filename=a.bin") as response:
        first = await response.content.readexactly(5 * CHUNK)
        assert first == DATA[: 5 * CHUNK]
        arrive.set()
        assert first + await response.read() == DATA


async def test_a_range_asks_only_for_what_it_needs() -> None:
    source, cid = far_file(profile=UNIXFS_V1_2025)
    async with serving(source) as client:
        wanted = {"Range": f"bytes={30 * CHUNK}-{33 * CHUNK - 1}"}
        answer = await client.ask(f"/ipfs/{cid}?filename=a.bin", wanted)
    assert (answer.status, answer.body) == (206, DATA[30 * CHUNK : 33 * CHUNK])
    leaves = {CID.of(DATA[at * CHUNK : (at + 1) * CHUNK]) for at in (30, 31, 32)}
    assert set(source.fetched) == leaves | {cid}


async def test_a_client_that_leaves_ends_all_that_was_asked_for() -> None:
    source, cid = far_file()
    async with serving(source) as client:
        await client.ask(f"/ipfs/{cid}?filename=a.bin", method="HEAD")  # the root has come
        source.arrive.clear()
        sock = connect(client)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, f"GET /ipfs/{cid}?filename=a.bin HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: source.waiting > 0)
        sock.close()
        await until(lambda: source.waiting == 0)
        assert source.cancelled > 0


async def test_a_reader_that_does_not_read_stops_the_look_ahead() -> None:
    source, cid = far_file()
    limits = GatewaySettings(lookahead_bytes=10 * CHUNK, prefetch_blocks=64)
    ahead = FileAhead(source, cid, 0, len(DATA), limits)
    assert await ahead.take(cid) == source.remote[cid.multihash]
    for _ in range(1000):
        await asyncio.sleep(0)
    leaves = [asked for asked in source.fetched if asked.codec == RAW]
    assert len(leaves) == 10
    ahead.wants(cid, 5 * CHUNK)
    for _ in range(1000):
        await asyncio.sleep(0)
    leaves = [asked for asked in source.fetched if asked.codec == RAW]
    assert len(leaves) == 15
    await ahead.close()
    assert source.waiting == 0


async def test_the_window_grows_while_the_reader_waits_and_is_bounded_in_blocks() -> None:
    source, cid = far_file(profile=UNIXFS_V1_2025)
    source.arrive.clear()
    ahead = FileAhead(source, cid, 0, len(DATA), GatewaySettings(prefetch_blocks=7))
    waiting = asyncio.create_task(ahead.take(cid))
    await until(lambda: source.waiting == 1)
    source.arrive.set()
    await waiting
    source.arrive.clear()
    await until(lambda: source.waiting == 7)
    for _ in range(100):
        await asyncio.sleep(0)
    assert source.waiting == 7
    await ahead.close()
    assert source.waiting == 0


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, len(DATA)),
    st.integers(0, len(DATA)),
    st.integers(1, 12),
    st.sampled_from(["balanced", "trickle"]),
    st.booleans(),
    st.sets(st.integers(0, 80), max_size=30),
)
def test_any_range_comes_right_whatever_is_here_already(
    one: int, other: int, parallel: int, layout: str, repeats: bool, here: set[int]
) -> None:
    data = DATA[: 4 * CHUNK] * 16 if repeats else DATA
    start, end = min(one, other, len(data)), min(max(one, other), len(data))

    async def read() -> bytes:
        source, cid = far_file(data, replace(NARROW, layout=layout))  # type: ignore[arg-type]
        for number, key in enumerate(list(source.remote)):
            if number in here:
                source.here[key] = source.remote.pop(key)
        limits = GatewaySettings(prefetch_blocks=parallel, lookahead_bytes=5 * CHUNK)
        ahead = FileAhead(source, cid, start, end, limits)
        position = start
        parts = []

        async def get(want: object) -> bytes:
            asked: CID = want.cid  # type: ignore[attr-defined]
            ahead.wants(asked, position)
            if asked.multihash in source.here:
                return source.here[asked.multihash]
            found = await ahead.take(asked)
            return await source.get(asked) if found is None else found

        walk: AsyncIterator[bytes | memoryview] = adrive_walk(read_file(cid, start, end), get)
        async for item in walk:
            parts.append(bytes(item))
            position += len(item)
        await ahead.close()
        assert source.waiting == 0
        return b"".join(parts)

    assert asyncio.run(read()) == data[start:end]


@pytest.mark.parametrize("path", ["", "?format=raw", "?format=car", "?format=tar"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_only_if_cached_fetches_nothing(path: str, method: str) -> None:
    source, cid = far_file()
    async with serving(source) as client:
        answer = await client.ask(f"/ipfs/{cid}{path}", {"Cache-Control": "only-if-cached"}, method=method)
    assert answer.status == 412
    assert source.fetched == []


@pytest.mark.parametrize(
    "written", ["Only-If-Cached", "no-cache, only-if-cached", "max-age=0,only-if-cached"]
)
async def test_only_if_cached_is_understood_among_others(written: str) -> None:
    source, cid = far_file()
    async with serving(source) as client:
        assert (await client.ask(f"/ipfs/{cid}", {"Cache-Control": written})).status == 412
        other = await client.ask(f"/ipfs/{cid}", {"Cache-Control": "x-only-if-cached-or-not"})
    assert other.status == 200


@pytest.mark.parametrize(
    ("query", "etag"), [("", "{}"), ("?format=raw", "{}.raw"), ("?filename=a.html", "{}")]
)
async def test_a_version_that_the_client_has_need_not_be_fetched_to_say_so(query: str, etag: str) -> None:
    source, cid = far_file()
    known = f'"{etag.format(cid)}"'
    async with serving(source) as client:
        answer = await client.ask(f"/ipfs/{cid}{query}", {"If-None-Match": known})
        assert (answer.status, answer.headers["etag"], source.fetched) == (304, known, [])
        other = await client.ask(f"/ipfs/{cid}{query}", {"If-None-Match": '"another"'})
        assert other.status == 200


async def test_a_car_asks_for_what_comes_next_early() -> None:
    source, cid = far_file(profile=UNIXFS_V1_2025)
    async with serving(source) as client:
        answer = await client.ask(f"/ipfs/{cid}?format=car")
    assert len(answer.body) > len(DATA)
    assert source.most_waiting > 8
    leaves = [asked for asked in source.fetched if asked.codec == RAW]
    assert len(leaves) == len(set(leaves)) == 96


async def test_head_fetches_no_more_than_its_headers_need() -> None:
    source, cid = far_file()
    async with serving(source) as client:
        answer = await client.ask(f"/ipfs/{cid}?filename=a.bin", method="HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(DATA)))
    assert source.fetched == [cid]


async def test_a_file_that_lies_about_its_parts_makes_nobody_hold_them() -> None:
    """Parts of 1,000 bytes of which their node says that they have one; the first of them does not come."""
    source, cid = far_file(profile=UNIXFS_V1_2025)
    node = dag_pb.decode(source.remote[cid.multihash])
    lying = unixfs.encode(unixfs.Data(unixfs.Kind.FILE, None, 96, blocksizes=(1,) * 96))
    block = dag_pb.encode(dag_pb.PBNode(node.links, lying))
    root = CID.of(block, DAG_PB)
    source.remote[root.multihash] = block
    source.late[node.links[0].cid] = asyncio.Event()
    ahead = FileAhead(source, root, 0, 96, GatewaySettings(prefetch_blocks=4))
    await ahead.take(root)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert len(source.fetched) <= 1 + 4
    await ahead.close()


async def test_what_the_store_has_got_by_now_is_not_held_as_well() -> None:
    class Keeping(FarSource):
        """Keeps what it fetched, as a store with a cache does."""

        async def get(self, cid: CID) -> bytes:
            data = self.here[cid.multihash] = await super().get(cid)
            return data

    far, cid = far_file(profile=UNIXFS_V1_2025)
    source = Keeping()
    source.remote = far.remote
    leaves = [source.remote[CID.of(DATA[at * CHUNK : (at + 1) * CHUNK]).multihash] for at in range(96)]
    ahead = FileAhead(source, cid, 0, len(DATA), GatewaySettings())
    await ahead.take(cid)
    await until(lambda: len(source.here) == 1 + 96)
    for _ in range(10):
        await asyncio.sleep(0)
    # By both dictionaries, the list, the loop and the call.
    assert {sys.getrefcount(leaf) for leaf in leaves} == {5}
    await ahead.close()
