"""Sources: what readers see of the store, alone and with a network behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from merkledag import multihash as mh
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from storage_node.blockstore.interface import BlockClass, Blockstore, Buffer, PutResult
from storage_node.blockstore.memory import MemoryStore
from storage_node.blockstore.store import open_store
from storage_node.errors import BlockNotFound, DamagedBlock
from storage_node.source import MAX_FETCHES, LocalSource, NetworkSource
from tests.storage_node.dags import leaf
from tests.storage_node.processes import start_python


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blockstore]:
    made: Blockstore = MemoryStore() if request.param == "memory" else open_store(tmp_path / "blocks")
    yield made
    made.close()


class Network:
    """Holds blocks, counts what is asked, and answers when `gate` is open."""

    def __init__(self, *texts: str) -> None:
        self.blocks = {leaf(text).cid: leaf(text).data for text in texts}
        self.asked: list[CID] = []
        self.cancelled = 0
        self.under_way = self.most_under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, cid: CID) -> bytes:
        self.asked.append(cid)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        if cid not in self.blocks:
            raise BlockNotFound(f"{cid} is nowhere")
        return self.blocks[cid]


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_local_blocks_are_read(store: Blockstore) -> None:
    source, here = LocalSource(store), leaf("here")
    store.put_many([(here.cid.multihash, here.data)])
    view = source.view(here.cid)
    assert view is not None
    with view as data:
        assert data == here.data
    assert source.read(here.cid) == await source.get(here.cid) == here.data
    assert await source.get(CID(1, DAG_PB, here.cid.multihash)) == here.data
    assert await source.has(here.cid)
    absent = leaf("absent").cid
    assert source.view(absent) is None
    assert not await source.has(absent)
    with pytest.raises(LookupError):
        await source.get(absent)


async def test_identity_needs_no_store(store: Blockstore) -> None:
    carried = CID.of(b"tiny", RAW, mh.IDENTITY)
    network = Network()
    for source in (LocalSource(store), NetworkSource(LocalSource(store), network)):
        assert await source.get(carried) == b"tiny"
        assert await source.has(carried)
        view = source.view(carried)
        assert view is not None
        with view as data:
            assert bytes(data) == b"tiny"
    assert network.asked == []


async def test_damage_is_noticed_on_read_where_wanted(store: Blockstore) -> None:
    here = leaf("here")
    store.put_many([(here.cid.multihash, here.data)])
    assert await LocalSource(store, verify_on_read=True).get(here.cid) == here.data
    store.replace(here.cid.multihash, b"rotten")
    assert await LocalSource(store).get(here.cid) == b"rotten"
    with pytest.raises(DamagedBlock):
        await LocalSource(store, verify_on_read=True).get(here.cid)


async def test_an_absent_block_is_fetched_verified_and_cached(store: Blockstore) -> None:
    network, there = Network("there"), leaf("there")
    source = NetworkSource(LocalSource(store), network)
    assert source.view(there.cid) is None
    assert not await source.has(there.cid)
    assert await source.get(there.cid) == there.data
    await source.aclose()
    row = store.row(there.cid.multihash)
    assert row is not None
    assert row.block_class is BlockClass.CACHE
    assert await source.get(there.cid) == there.data
    assert network.asked == [there.cid]


async def test_a_damaged_block_is_fetched_anew(store: Blockstore) -> None:
    network, there = Network("there"), leaf("there")
    store.put_many([(there.cid.multihash, there.data)])
    store.replace(there.cid.multihash, b"rotten")
    source = NetworkSource(LocalSource(store, verify_on_read=True), network)
    assert await source.get(there.cid) == there.data
    await source.aclose()
    assert store.get(there.cid.multihash) == there.data


async def test_requests_for_one_block_share_a_fetch(store: Blockstore) -> None:
    network, there = Network("there"), leaf("there")
    network.gate.clear()
    source = NetworkSource(LocalSource(store), network)
    waiting = [asyncio.create_task(source.get(there.cid)) for _ in range(20)]
    await settle()
    waiting[0].cancel()
    network.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results[1:] == [there.data] * 19
    assert len(network.asked) == 1
    await source.aclose()


async def test_a_fetch_that_nobody_waits_for_is_cancelled(store: Blockstore) -> None:
    network, there = Network("there"), leaf("there")
    network.gate.clear()
    source = NetworkSource(LocalSource(store), network)
    waiting = [asyncio.create_task(source.get(there.cid)) for _ in range(3)]
    await settle()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await settle()
    assert network.cancelled == 1
    network.gate.set()
    assert await source.get(there.cid) == there.data
    assert len(network.asked) == 2
    await source.aclose()


async def test_failures_pass_through_and_are_not_remembered(store: Blockstore) -> None:
    network, there = Network(), leaf("there")
    source = NetworkSource(LocalSource(store), network)
    results = await asyncio.gather(*(source.get(there.cid) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(result, LookupError) for result in results)
    network.blocks[there.cid] = there.data
    assert await source.get(there.cid) == there.data
    await source.aclose()


async def test_fetches_under_way_are_bounded() -> None:
    texts = [f"block {number}" for number in range(3 * MAX_FETCHES)]
    network = Network(*texts)
    network.gate.clear()
    source = NetworkSource(LocalSource(MemoryStore()), network)
    waiting = [asyncio.create_task(source.get(leaf(text).cid)) for text in texts]
    await settle()
    assert network.under_way == MAX_FETCHES
    network.gate.set()
    assert await asyncio.gather(*waiting) == [leaf(text).data for text in texts]
    await source.aclose()
    assert network.most_under_way == MAX_FETCHES


async def test_a_full_store_serves_without_caching() -> None:
    network, there = Network("there", "more"), leaf("there")
    full = NetworkSource(LocalSource(MemoryStore(max_bytes=3)), network)
    assert await full.get(there.cid) == there.data
    await full.aclose()
    store = MemoryStore()
    none = NetworkSource(LocalSource(store), network, max_cache_bytes=0)
    assert await none.get(there.cid) == there.data
    await none.aclose()
    assert store.stat().blocks == 0


class Counted(MemoryStore):
    """Notes what each durable write holds, and waits for `gate` before it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock=clock)
        self.writes: list[int] = []
        self.uses: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def put_many(
        self, items: Iterable[tuple[bytes, Buffer]], block_class: BlockClass = BlockClass.OWN
    ) -> PutResult:
        self.gate.wait()
        given = list(items)
        self.writes.append(len(given))
        return super().put_many(given, block_class)

    def use_many(self, multihashes: Iterable[bytes], at_s: int) -> None:
        given = list(multihashes)
        self.uses.append(len(given))
        super().use_many(given, at_s)


async def test_many_blocks_and_uses_are_written_at_once() -> None:
    texts = [f"block {number}" for number in range(50)]
    store, network = Counted(lambda: 1), Network(*texts)
    source = NetworkSource(LocalSource(store), network, clock=lambda: 9)
    for text in texts * 2:
        assert await source.get(leaf(text).cid) == leaf(text).data
    await source.aclose()
    assert (store.writes, store.uses) == ([50], [])
    assert len(network.asked) == 50  # those that waited to be written were read from there
    again = NetworkSource(LocalSource(store), network, clock=lambda: 9)
    for text in texts * 2:
        await again.get(leaf(text).cid)
    await again.aclose()
    assert store.uses == [50]
    assert {row.used_s for _, row in store.rows()} == {9}


async def test_what_two_processes_fetch_at_once_is_written_once() -> None:
    class Replacing(MemoryStore):
        replaced = 0

        def replace(self, multihash: bytes, data: Buffer) -> None:
            self.replaced += 1
            super().replace(multihash, data)

    store, there = Replacing(), leaf("there")
    network = Network("there")
    network.gate.clear()
    sources = [NetworkSource(LocalSource(store), network) for _ in range(2)]
    waiting = [asyncio.create_task(source.get(there.cid)) for source in sources]
    await settle()
    network.gate.set()
    assert await asyncio.gather(*waiting) == [there.data] * 2
    for source in sources:
        await source.aclose()
    assert store.stat().cache_blocks == 1
    assert store.replaced == 0


FILLING = """
import asyncio, sys
from pathlib import Path
from merkledag.cid import CID
from storage_node.blockstore.store import open_store
from storage_node.source import LocalSource, NetworkSource

async def main(folder, mine, most):
    blocks = {CID.of(data): data for data in (str(n).encode() * 5_000 for n in range(200))}
    async def fetch(cid):
        await asyncio.sleep(0)
        return blocks[cid]
    store = open_store(Path(folder))
    source = NetworkSource(LocalSource(store), fetch, most)
    print("ready", flush=True)
    sys.stdin.readline()
    cids = list(blocks)
    for at in range(0, 200, 20):
        part = [cids[(n + mine * 100) % 200] for n in range(at, at + 20)]
        assert await asyncio.gather(*map(source.get, part)) == [blocks[cid] for cid in part]
    await source.aclose()
    store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@pytest.mark.parametrize("most", [10**9, 800_000])
def test_processes_that_fill_one_cache_do_each_others_work_no_harm(tmp_path: Path, most: int) -> None:
    running = [start_python(FILLING, str(tmp_path / "blocks"), str(mine), str(most)) for mine in range(2)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.communicate("go\n", timeout=30)
    assert [process.returncode for process in running] == [0, 0]
    store = open_store(tmp_path / "blocks")
    blocks = {CID.of(data).multihash: data for data in (str(n).encode() * 5_000 for n in range(200))}
    kept = dict(store.rows())
    assert all(store.get(multihash) == blocks[multihash] for multihash in kept)
    assert all(row.block_class is BlockClass.CACHE for row in kept.values())
    stat = store.stat()
    assert stat.cache_bytes == sum(len(blocks[multihash]) for multihash in kept)
    if most == 10**9:
        assert len(kept) == 200
    else:
        assert most // 2 < stat.cache_bytes <= most
    store.close()


async def test_what_was_used_least_recently_leaves_a_full_cache() -> None:
    texts = [f"block {number}" for number in range(8)]
    now_s = 0

    def clock() -> float:
        return now_s

    store, network = MemoryStore(clock=clock), Network(*texts)
    size = len(leaf(texts[0]).data)
    for number, text in enumerate(texts):
        now_s = number
        source = NetworkSource(LocalSource(store), network, max_cache_bytes=4 * size, clock=clock)
        await source.get(leaf(text).cid)
        if number:
            await source.get(leaf(texts[0]).cid)
        await source.aclose()
    kept = {text for text in texts if store.has(leaf(text).cid.multihash)}
    assert texts[0] in kept  # the oldest, but read all the time
    assert texts[-1] in kept
    assert store.stat().cache_bytes <= 4 * size


async def test_fetching_waits_while_too_much_is_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.cache.MAX_WAITING_BYTES", 30)
    monkeypatch.setattr("storage_node.cache.BATCH_BYTES", 10)
    texts = [f"block {number:02}" for number in range(3 * MAX_FETCHES)]
    store, network = Counted(lambda: 1), Network(*texts)
    store.gate.clear()
    source = NetworkSource(LocalSource(store), network)
    waiting = [asyncio.create_task(source.get(leaf(text).cid)) for text in texts]
    await settle()
    assert len(network.asked) <= MAX_FETCHES + 8
    store.gate.set()
    assert await asyncio.gather(*waiting) == [leaf(text).data for text in texts]
    await source.aclose()
    assert store.stat().cache_blocks == len(texts)


async def test_closing_ends_what_is_under_way_and_tells_whoever_waits() -> None:
    """Who is not cancelled must not look so: a request hangs up then, and a task ends without a word."""
    network = Network("there")
    network.gate.clear()
    source = NetworkSource(LocalSource(MemoryStore()), network)
    waiting = [asyncio.create_task(source.get(leaf("there").cid)) for _ in range(3)]
    await settle()
    await source.aclose()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [TimeoutError] * 3
    assert network.cancelled == 1
