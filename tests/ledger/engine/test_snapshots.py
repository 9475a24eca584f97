"""Snapshots of the state while blocks are made: consistent, checked, served by ranges, the newest alone."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import ClassVar

import aiohttp
import pytest

from ledger import snapshot
from ledger.engine import rpc_export
from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import LedgerUnreachable
from ledger.engine.export import fetch_snapshot
from ledger.engine.rpc_common import Settings
from ledger.engine.snapshots import FOLDER, HELD_S, KEPT, MOST_KEPT, PAUSES, Snapshots
from ledger.ingest import memory_store
from ledger.snapshot import SnapshotManifest
from ledger.state_tree import StateTree
from ledger.store import Writes
from merkledag import car
from merkledag.block import Block
from tests.ledger.engine.conftest import CHAIN, Chain, ManualClock, until
from tests.ledger.engine.test_rpc import Http, served
from tests.ledger.engine.test_state_store import stored


@pytest.fixture
async def engine(chain: Chain, clock: ManualClock) -> AsyncIterator[EmbeddedEngine]:
    app = chain.load()
    assert chain.storage is not None
    running = EmbeddedEngine(
        app,
        chain.storage,
        chain.operator,
        chain.beacons,
        clock,
        monotonic=clock.monotonic,
        sleep=clock.sleep,
        snapshot_blocks=3,
    )
    await running.start()
    yield running
    await running.stop()
    chain.close()


def read(raw: bytes) -> tuple[SnapshotManifest, dict[bytes, bytes]]:
    """A snapshot's manifest and state; every section is checked against its CID."""
    decoder = car.CarDecoder()
    decoder.feed(raw)
    header = decoder.next()
    assert isinstance(header, car.CarHeader)
    nodes: list[Block] = []
    while (node := decoder.next()) is not None:
        assert isinstance(node, Block)
        nodes.append(node)
    decoder.finish()
    manifest = SnapshotManifest.decode(nodes[0].data)
    assert [nodes[0].cid] == list(header.roots) == [manifest.cid]
    chunks = {node.cid: node.data for node in nodes[1:]}
    return manifest, dict(snapshot.read(manifest, chunks.__getitem__))


def root_of(state: dict[bytes, bytes]) -> bytes:
    return StateTree(memory_store(state.items()).tree).root


async def test_every_few_blocks_the_state_is_written_and_handed_out(
    engine: EmbeddedEngine, chain: Chain
) -> None:
    async with served(engine) as url, aiohttp.ClientSession() as session:
        http = Http(url, session)
        assert "none" in (await http.get("/v1/snapshot/latest", 404))["error"]
        for nonce in range(10):
            await engine.submit(chain.transfer(nonce, to=f"friend {nonce}"))
            if nonce % 3 == 2:
                await until(lambda: bool(engine.snapshots.heights()))
        await until(lambda: engine.snapshots.heights()[-1] >= 9 and len(engine.snapshots.heights()) == KEPT)
        height = engine.snapshots.heights()[-1]
        async with session.get(f"{url}/v1/snapshot/latest") as response:
            assert (response.status, response.content_type) == (200, "application/vnd.ipld.car")
            whole = await response.read()
        async with session.get(f"{url}/v1/snapshot/{height}", headers={"Range": "bytes=50-"}) as response:
            assert response.status == 206
            assert await response.read() == whole[50:]
        await http.get("/v1/snapshot/1", 404)
        await http.get("/v1/snapshot/no", 400)
    root, state = read(whole)
    block = engine.history.block(root.height)
    assert block is not None
    assert (root.height, root.chain) == (height, CHAIN)
    assert root_of(state) == root.app_hash == block.app_hash


async def test_readers_that_take_nothing_do_not_keep_the_streams_from_others(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent by the kernel, a file has no unsent bytes here that would tell of a slow reader."""
    monkeypatch.setattr(rpc_export, "MIN_BYTES_S", 1 << 40)
    engine.snapshots.path(9).parent.mkdir()
    engine.snapshots.path(9).touch()
    os.truncate(engine.snapshots.path(9), 64 << 20)
    settings = Settings(max_streams=1, write_timeout_s=1.0)
    async with served(engine, settings) as url, aiohttp.ClientSession() as session:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), limit=1)
        writer.write(b"GET /v1/snapshot/latest HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(1)
        async with session.get(f"{url}/v1/snapshot/latest") as response:
            assert response.status == 503
        status = 503
        while status == 503:
            async with session.get(f"{url}/v1/events") as response:
                status = response.status
        assert status == 200
        writer.close()


def made(snapshots: Snapshots) -> int | None:
    write = snapshots.begin()
    assert write is not None
    return write()


async def test_a_snapshot_is_of_its_height_however_late_it_is_written(chain: Chain) -> None:
    """Else each validator would have another one, and none a second source."""
    app, running = chain.load(), None
    assert chain.storage is not None
    snapshots = Snapshots(chain.storage, CHAIN, 1)
    write = snapshots.begin()
    assert write is not None
    assert snapshots.begin() is None  # one at a time
    running = EmbeddedEngine(
        app, chain.storage, chain.operator, chain.beacons, chain.clock, sleep=chain.clock.sleep
    )
    await running.start()
    await running.submit(chain.transfer(0))
    assert write() == 0
    assert made(snapshots) == 1
    await running.stop()
    chain.close()
    for height in (0, 1):
        manifest, state = read(snapshots.path(height).read_bytes())
        assert (manifest.height, manifest.app_hash) == (height, root_of(state))


def test_what_is_read_stays_until_its_readers_are_through(chain: Chain) -> None:
    app = chain.load()
    storage = chain.storage
    assert storage is not None
    now = 0.0
    snapshots = Snapshots(storage, CHAIN, 1, lambda: now)

    def another() -> int | None:
        storage.apply(stored(storage.height() + 1, Writes({}, {}, {}), app.app_hash))
        return made(snapshots)

    for _ in range(3):
        another()
    assert snapshots.heights() == [2, 3]
    snapshots.note_read(2)
    for _ in range(2):
        now += HELD_S - 1
        snapshots.note_read(2)
        another()
    assert snapshots.heights() == [2, 4, 5]
    now += HELD_S
    another()
    assert snapshots.heights() == [5, 6]
    # Whoever reads on and on keeps neither new ones away nor one for ever
    for height in range(7, 20):
        for known in snapshots.heights():
            snapshots.note_read(known)
        assert another() == height
        assert snapshots.heights() == list(range(max(5, height - MOST_KEPT + 1), height + 1))
    chain.close()


def test_a_snapshot_leaves_most_of_the_time_to_others(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """All validators make one after the same block."""
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 1)
    chain.load()
    assert chain.storage is not None
    now = 0.0

    def working() -> float:
        nonlocal now
        now += 0.001
        return now

    snapshots = Snapshots(chain.storage, CHAIN, 1, working)
    paused: list[float | None] = []
    monkeypatch.setattr(snapshots._closing, "wait", paused.append)
    assert made(snapshots) == 0
    manifest, _ = read(snapshots.path(0).read_bytes())
    assert paused == pytest.approx([PAUSES * 0.001] * len(manifest.chunks))
    assert len(paused) > 3
    chain.close()


def test_a_ledger_that_stops_does_not_wait_for_a_snapshot(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 1)
    chain.load()
    assert chain.storage is not None
    hours = itertools.count(0, 3_600)
    snapshots = Snapshots(chain.storage, CHAIN, 1, lambda: next(hours))
    snapshots.note_block(0)
    snapshots.close()
    assert snapshots.heights() == []
    # What it left is cleared by the next one
    assert made(Snapshots(chain.storage, CHAIN, 1)) == 0
    assert [path.name for path in (chain.folder / FOLDER).iterdir()] == [f"{0:020d}.car"]
    chain.close()


class _Breaking(LedgerClient):
    """A client whose streams break off after some bytes each."""

    asked: ClassVar[list[int]] = []

    async def stream(self, path: str, query: dict[str, str], offset: int = 0) -> AsyncGenerator[bytes, None]:
        self.asked.append(offset)
        whole = b"".join([data async for data in super().stream(path, query, offset)])
        yield whole[:200]
        if len(whole) > 200:
            raise LedgerUnreachable("cut")


async def test_a_snapshot_is_fetched_on_where_the_connection_broke_off(
    engine: EmbeddedEngine, chain: Chain, tmp_path: Path
) -> None:
    for nonce in range(3):
        await engine.submit(chain.transfer(nonce))
    await until(lambda: engine.snapshots.newest() >= 3)

    async def no_sleep(_seconds: float) -> None:
        return

    async with served(engine) as url, _Breaking(url, sleep=no_sleep) as client:
        height = (await client.status())["snapshot_height"]
        block = await fetch_snapshot(client, height, tmp_path / "got.car")
    assert (tmp_path / "got.car").read_bytes() == engine.snapshots.path(height).read_bytes()
    assert _Breaking.asked[:3] == [0, 200, 400]
    assert block == engine.history.block(height)


async def test_a_snapshot_is_of_one_moment_whatever_is_written_meanwhile(
    engine: EmbeddedEngine, chain: Chain
) -> None:
    await engine.submit(chain.transfer(0))
    assert chain.storage is not None
    with chain.storage.moment() as moment:
        first = next(moment.items)
        for nonce in range(1, 3):
            await engine.submit(chain.transfer(nonce, to=f"friend {nonce}"))
        state = dict([first, *moment.items])
    block = engine.history.block(1)
    assert block is not None
    assert moment.height == 1
    assert root_of(state) == moment.app_hash == block.app_hash


def test_what_cannot_be_written_stops_nothing(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    app = chain.load()
    assert chain.storage is not None
    folder: Path = chain.folder / FOLDER
    folder.write_bytes(b"in the way")
    assert made(Snapshots(chain.storage, CHAIN, 1)) is None
    assert "no snapshot could be made" in caplog.text
    folder.unlink()
    folder.mkdir()
    (folder / "chunks.tmp").write_bytes(b"of a run that was killed")
    assert made(Snapshots(chain.storage, CHAIN, 1)) == app.height == 0
    assert [path.name for path in folder.iterdir()] == [f"{0:020d}.car"]
    chain.close()
