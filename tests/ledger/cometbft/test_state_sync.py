"""State sync without CometBFT: what one node serves another restores, and nothing that is forged."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import keys, snapshot
from ledger.application import Application, BlockInput, BlockResult
from ledger.engine.assemble import load_application
from ledger.engine.blocks import BlockEvents
from ledger.engine.client import LedgerClient
from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.abci.messages import ApplySnapshotChunkResult as Applied
from ledger.engine.cometbft.abci.messages import OfferSnapshotResult as Offered
from ledger.engine.cometbft.engine import CometEngine
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.cometbft.sync import restore
from ledger.engine.cometbft.sync.restore import FOLDER
from ledger.engine.cometbft.sync.snapshots import FORMAT, SHOWN_AFTER_BLOCKS
from ledger.engine.cometbft.sync.state_sync import StateSync
from ledger.engine.errors import EngineStopped, LedgerPruned, PrunedHistory
from ledger.engine.history import History
from ledger.engine.snapshots import Snapshots
from ledger.engine.storage import LedgerStorage
from ledger.engine.wal import Fault, no_fault
from ledger.errors import InvalidSnapshot
from ledger.genesis import HOLD
from ledger.snapshot import SnapshotManifest
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from tests.ledger.cometbft.abci import connection
from tests.ledger.cometbft.lone import NoMempool
from tests.ledger.engine.test_rpc import Http, served
from tests.ledger.engine.test_state_store import stored
from tests.ledger.world import CHAIN, World, genesis, key

CHUNK_BYTES = 1_500


@pytest.fixture(scope="module")
def world() -> World:
    made = World()
    made.fund("client")
    made.provider("node", "other", stake=50 * HOLD)
    for _ in range(4):
        made.deal("client", shards=2)
    return made


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", CHUNK_BYTES)


@dataclass
class Node:
    """A ledger's store and what speaks of its snapshots to CometBFT."""

    storage: LedgerStorage
    app: Application
    snapshots: Snapshots
    sync: StateSync

    @classmethod
    def opened(cls, folder: Path, fault: Fault = no_fault) -> Node:
        storage = LedgerStorage(folder, fault=fault)
        storage.open()
        app = load_application(storage, genesis())
        node = cls.__new__(cls)
        snapshots = Snapshots(storage, CHAIN, 1)
        sync = StateSync(storage, genesis(), snapshots, lambda: node.app.height, lambda: node.begin_anew())
        node.__init__(storage, app, snapshots, sync)  # type: ignore[misc]
        return node

    def begin_anew(self) -> None:
        self.app = load_application(self.storage, genesis())

    async def offers(self) -> list[Any]:
        return list((await self.sync.list_snapshots(messages.RequestListSnapshots())).snapshots)

    async def chunk(self, height: int, index: int, form: int = FORMAT) -> bytes:
        asked = messages.RequestLoadSnapshotChunk(height=height, format=form, chunk=index)
        return bytes((await self.sync.load_snapshot_chunk(asked)).chunk)

    async def offer(self, offered: Any, app_hash: bytes) -> int:
        asked = messages.RequestOfferSnapshot(snapshot=offered, app_hash=app_hash)
        return int((await self.sync.offer_snapshot(asked)).result)

    async def apply(self, index: int, raw: bytes, sender: str = "peer") -> Any:
        asked = messages.RequestApplySnapshotChunk(index=index, chunk=raw, sender=sender)
        return await self.sync.apply_snapshot_chunk(asked)

    def close(self) -> None:
        self.sync.close()
        self.storage.close()


@contextmanager
def running(folder: Path, fault: Fault = no_fault) -> Iterator[Node]:
    node = Node.opened(folder, fault)
    try:
        yield node
    finally:
        node.close()


def filled(folder: Path, world: World) -> None:
    """A store at the world's height, with a snapshot of it; `tip` is said to be some blocks on."""
    with running_store(folder) as storage:
        app = world.app
        storage.restore(genesis().encode(), app.items(), app.height, b"block", b"name", app.app_hash)
        write = Snapshots(storage, CHAIN, 1).begin()
        assert write is not None
        assert write() == app.height


@contextmanager
def running_store(folder: Path) -> Iterator[LedgerStorage]:
    storage = LedgerStorage(folder)
    storage.open()
    try:
        yield storage
    finally:
        storage.close()


@pytest.fixture
def server(tmp_path: Path, world: World) -> Iterator[Node]:
    filled(tmp_path / "server", world)
    with running(tmp_path / "server") as node:
        node.sync._tip = lambda: world.app.height + SHOWN_AFTER_BLOCKS
        yield node


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Node]:
    with running(tmp_path / "fresh") as node:
        yield node


async def restored(fresh: Node, server: Node, world: World) -> None:
    """All chunks in their order, as CometBFT brings them."""
    [offered] = await server.offers()
    assert await fresh.offer(offered, world.app.app_hash) == Offered.ACCEPT
    for index in range(offered.chunks):
        assert (await fresh.apply(index, await server.chunk(offered.height, index))).result == Applied.ACCEPT


def blocks_after(world: World, seconds: int) -> list[tuple[BlockInput, BlockResult]]:
    """What follows in the world within some time, in which nobody does anything; the world itself stays."""
    made = World()
    made.app, made.now = world.restored(), world.now
    made.entries, made.held, made.stored = list(world.entries), Counter(world.held), dict(world.stored)
    found: list[tuple[BlockInput, BlockResult]] = []
    finalize = made.app.finalize_block

    def recording(block: BlockInput) -> BlockResult:
        result = finalize(block)
        found.append((block, result))
        return result

    made.app.finalize_block = recording  # type: ignore[method-assign]
    made.pass_time(seconds)
    return found


def is_untouched(node: Node) -> bool:
    """Whether it is the ledger at genesis still."""
    node.storage.check_state()
    return (node.storage.height(), node.app.height) == (0, 0)


async def test_a_fresh_node_has_the_state_that_another_serves(
    fresh: Node, server: Node, world: World
) -> None:
    [offered] = await server.offers()
    assert offered.chunks >= 5
    await restored(fresh, server, world)
    assert (fresh.app.height, fresh.app.app_hash) == (world.app.height, world.app.app_hash)
    assert fresh.app.deals(client=key("client")) == world.app.deals(client=key("client"))
    assert fresh.app.next_due() == world.app.next_due()
    fresh.storage.check_state()
    assert not (fresh.storage.folder / FOLDER).exists()
    # What came before is nowhere here, and asked for it this node says so.
    assert fresh.storage.pruned().blocks == world.app.height
    with pytest.raises(PrunedHistory, match="began"):
        History(fresh.storage).given(world.app.height)
    # Its state goes on as the others', also after a restart.
    folder = fresh.storage.folder
    fresh.storage.close()
    with running(folder) as again:
        assert again.app.app_hash == world.app.app_hash
        for given, expected in blocks_after(world, 3 * world.params.period_s):
            result = again.app.finalize_block(given)
            assert result == expected
            again.storage.apply(stored(given.height, result.writes, result.app_hash))
            again.app.commit()
        again.storage.check_state()
        assert again.app.height > world.app.height + 10


async def test_the_same_block_has_the_same_snapshot_everywhere(
    server: Node, fresh: Node, world: World, tmp_path: Path
) -> None:
    """So chunks may come from one as well as from the other; also from who restored it and went on."""
    filled(tmp_path / "other", world)
    with running(tmp_path / "other") as other:
        other.sync._tip = lambda: world.app.height + SHOWN_AFTER_BLOCKS
        assert await other.offers() == await server.offers()
    await restored(fresh, server, world)
    write = fresh.snapshots.begin()
    assert write is not None
    write()
    assert await fresh.offers() == []  # not yet: light clients need the blocks after it
    fresh.sync._tip = server.sync._tip
    assert await fresh.offers() == await server.offers()


async def test_offers_of_anything_else_are_refused_before_anything_is_fetched(
    fresh: Node, server: Node, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    [good] = await server.offers()
    manifest = SnapshotManifest.decode(good.metadata)

    def changed(**fields: Any) -> Any:
        found = messages.Snapshot()
        found.CopyFrom(good)
        for name, value in fields.items():
            setattr(found, name, value)
        return found

    def of(manifest: SnapshotManifest, **fields: Any) -> Any:
        raw = manifest.encode()
        return changed(metadata=raw, hash=hashlib.sha256(raw).digest(), **fields)

    trusted = world.app.app_hash
    assert await fresh.offer(changed(format=FORMAT + 1), trusted) == Offered.REJECT_FORMAT
    for wrong in (
        changed(hash=bytes(32)),
        changed(metadata=good.metadata + b"\x00"),
        changed(metadata=b"", hash=hashlib.sha256(b"").digest()),
        changed(metadata=bytes(3 << 20), hash=hashlib.sha256(bytes(3 << 20)).digest()),
        changed(height=good.height + 1),
        changed(height=1 << 63),
        changed(chunks=good.chunks + 1),
        of(replace(manifest, chain="another")),
        of(replace(manifest, app_hash=bytes(32))),
        of(replace(manifest, height=0), height=0),
        of(replace(manifest, kind="another")),
        messages.Snapshot(format=FORMAT),
    ):
        assert await fresh.offer(wrong, trusted) == Offered.REJECT_SENDER
    assert await fresh.offer(good, bytes(32)) == Offered.REJECT_SENDER
    endless = replace(manifest, chunks=manifest.chunks * (1 << 12))
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "CHUNK_BYTES", 1 << 40)
        assert await fresh.offer(of(endless, chunks=len(endless.chunks)), trusted) == Offered.REJECT
    assert not (fresh.storage.folder / FOLDER).exists()
    assert (await fresh.apply(0, b"")).result == Applied.REJECT_SNAPSHOT
    assert is_untouched(fresh)


def damages(raw: bytes) -> st.SearchStrategy[bytes]:
    """What a peer may send in the place of some bytes."""
    places = st.integers(0, len(raw) - 1)
    return st.one_of(
        st.binary(max_size=50),
        st.builds(
            lambda at, by: raw[:at] + bytes([raw[at] ^ by]) + raw[at + 1 :], places, st.integers(1, 255)
        ),
        st.builds(lambda at: raw[:at], places),
        st.builds(lambda more: raw + more, st.binary(min_size=1, max_size=9)),
        st.just(bytes(snapshot.MAX_CHUNK_BYTES + 1)),
    ).filter(lambda made: made != raw)


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_bad_chunk_is_fetched_again_from_somebody_else(
    data: st.DataObject, server: Node, world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running(tmp_path_factory.mktemp("fresh")) as fresh:
        [offered] = await server.offers()
        assert await fresh.offer(offered, world.app.app_hash) == Offered.ACCEPT
        bad_at = data.draw(st.sets(st.integers(0, offered.chunks - 1), max_size=3))
        for index in range(offered.chunks):
            raw = await server.chunk(offered.height, index)
            if index in bad_at:
                answer = await fresh.apply(index, data.draw(damages(raw)), "liar")
                assert answer.result == Applied.RETRY
                assert list(answer.refetch_chunks) == [index]
                assert list(answer.reject_senders) == ["liar"]
                assert is_untouched(fresh)
            answer = await fresh.apply(index, raw, "peer")
            assert (answer.result, list(answer.reject_senders)) == (Applied.ACCEPT, [])
        assert fresh.app.app_hash == world.app.app_hash
        fresh.storage.check_state()


def forged(chunks: list[bytes], manifest: SnapshotManifest, at: int, change: Any) -> tuple[list[bytes], Any]:
    """A snapshot that is whole in itself, of another state, with the app hash that is trusted."""
    pairs = dag_cbor.decode(chunks[at])
    change(pairs)
    made = [*chunks[:at], dag_cbor.encode(pairs), *chunks[at + 1 :]]
    names = tuple(CID.of(raw, codec=DAG_CBOR) for raw in made)
    raw = replace(manifest, chunks=names, items=sum(len(dag_cbor.decode(each)) for each in made)).encode()
    offered = messages.Snapshot(
        height=manifest.height,
        format=FORMAT,
        chunks=len(made),
        hash=hashlib.sha256(raw).digest(),
        metadata=raw,
    )
    return made, offered


def _another_value(pairs: list[list[bytes]]) -> None:
    pairs[-1][1] += b"\x00"


def _another_key(pairs: list[list[bytes]]) -> None:
    pairs[-1][0] += b"\x00"


def _a_long_key(pairs: list[list[bytes]]) -> None:
    pairs[-1][0] += bytes(600)


def _a_long_name(pairs: list[list[bytes]]) -> None:
    """A deal whose ID is so long that no list of deals can have it."""
    named = [pair for pair in pairs if pair[0].startswith(keys.DEAL)] or pairs
    named[-1][0] += bytes(511 - len(named[-1][0]))


def _without(pairs: list[list[bytes]]) -> None:
    del pairs[0]


def _twice(pairs: list[list[bytes]]) -> None:
    pairs.insert(0, pairs[0])


@pytest.mark.parametrize(
    "change", [_another_value, _another_key, _a_long_key, _a_long_name, _without, _twice]
)
@pytest.mark.parametrize("at", [0, 2, -2])
async def test_a_forged_state_is_never_put_in_place(
    fresh: Node, server: Node, world: World, change: Any, at: int
) -> None:
    [good] = await server.offers()
    chunks = [await server.chunk(good.height, index) for index in range(good.chunks)]
    made, offered = forged(chunks, SnapshotManifest.decode(good.metadata), at % len(chunks), change)
    assert await fresh.offer(offered, world.app.app_hash) == Offered.ACCEPT
    result, liars = Applied.ACCEPT, []
    for index, raw in enumerate(made):
        answer = await fresh.apply(index, raw, f"liar {index % 2}")
        result, liars = answer.result, list(answer.reject_senders)
        if result != Applied.ACCEPT:
            break
    assert result == Applied.REJECT_SNAPSHOT
    assert liars == [f"liar {number}" for number in range(min(2, index + 1))]
    assert is_untouched(fresh)
    assert not (fresh.storage.folder / FOLDER).exists()
    # Another snapshot, from others, may follow at once.
    await restored(fresh, server, world)
    assert fresh.app.app_hash == world.app.app_hash


async def test_a_state_of_another_height_or_genesis_is_no_state_of_this_chain(
    server: Node, world: World, tmp_path: Path
) -> None:
    [good] = await server.offers()
    manifest = SnapshotManifest.decode(good.metadata)
    chunks = [await server.chunk(good.height, index) for index in range(good.chunks)]
    raw = replace(manifest, height=good.height + 1).encode()
    later = messages.Snapshot(
        height=good.height + 1,
        format=FORMAT,
        chunks=good.chunks,
        hash=hashlib.sha256(raw).digest(),
        metadata=raw,
    )
    with running(tmp_path / "fresh") as fresh:
        assert await fresh.offer(later, world.app.app_hash) == Offered.ACCEPT
        answers = [await fresh.apply(index, each) for index, each in enumerate(chunks)]
        assert answers[-1].result == Applied.REJECT_SNAPSHOT
        assert is_untouched(fresh)
        fresh.sync._genesis = replace(genesis(), issued=7)
        assert await fresh.offer(good, world.app.app_hash) == Offered.ACCEPT
        for index, each in enumerate(chunks[:-1]):
            await fresh.apply(index, each)
        with pytest.raises(Disagreement, match="genesis"):
            await fresh.apply(good.chunks - 1, chunks[-1])
        assert is_untouched(fresh)


async def test_whoever_reads_the_state_that_is_replaced_is_waited_for(
    server: Node, world: World, tmp_path: Path
) -> None:
    reads, may_end = threading.Event(), threading.Event()

    def read(storage: LedgerStorage) -> dict[bytes, bytes]:
        with storage.moment() as now:
            reads.set()
            assert may_end.wait(30)
            return dict(now.items)

    def until_refused(storage: LedgerStorage) -> None:
        with suppress(EngineStopped):
            while storage.height() == 0:
                pass

    with running(tmp_path / "fresh") as fresh:
        before = dict(fresh.app.items())
        [offered] = await server.offers()
        assert await fresh.offer(offered, world.app.app_hash) == Offered.ACCEPT
        chunks = [await server.chunk(offered.height, index) for index in range(offered.chunks)]
        for index, raw in enumerate(chunks[:-1]):
            await fresh.apply(index, raw)
        reader = asyncio.create_task(asyncio.to_thread(read, fresh.storage))
        await asyncio.to_thread(reads.wait)
        applied = asyncio.create_task(fresh.apply(offered.chunks - 1, chunks[-1]))
        await asyncio.to_thread(until_refused, fresh.storage)
        assert not applied.done()
        assert dict(fresh.app.items()) == before
        may_end.set()
        assert await reader == before
        assert (await applied).result == Applied.ACCEPT
        assert fresh.storage.app_hash() == fresh.app.app_hash == world.app.app_hash


class KilledError(Exception):
    """The process ended here."""


@pytest.mark.parametrize("point", ["chunk", "replace.closed", "replace.done"])
async def test_killed_in_the_middle_it_starts_again_cleanly(
    server: Node, world: World, tmp_path: Path, point: str
) -> None:
    def fault(at: str) -> None:
        if at == point:
            raise KilledError

    [offered] = await server.offers()
    node = Node.opened(tmp_path / "fresh", fault)
    assert await node.offer(offered, world.app.app_hash) == Offered.ACCEPT
    last = offered.chunks - 1
    for index in range(last):
        await node.apply(index, await server.chunk(offered.height, index))
    if point != "chunk":
        with pytest.raises(KilledError):
            await node.apply(last, await server.chunk(offered.height, last))
    node.storage.abandon()
    with running(tmp_path / "fresh") as again:
        assert not (again.storage.folder / FOLDER).exists()
        again.storage.check_state()
        done = point == "replace.done"
        assert again.app.height == again.storage.height() == (world.app.height if done else 0)
        # CometBFT, which was not told of the end, begins anew in either case.
        await restored(again, server, world)
        assert again.app.app_hash == world.app.app_hash


async def test_a_full_disk_ends_the_process_with_the_reason_and_leaves_the_ledger(
    server: Node, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path / "fresh") as node:
        with monkeypatch.context() as patch:
            patch.setattr(restore, "MAP_SIZE_BYTES", 128 << 10)
            with pytest.raises(Disagreement, match="full"):
                await restored(node, server, world)
        assert is_untouched(node)
    with running(tmp_path / "fresh") as again:
        await restored(again, server, world)
        assert again.app.app_hash == world.app.app_hash


async def test_chunks_out_of_turn_change_nothing(fresh: Node, server: Node, world: World) -> None:
    [offered] = await server.offers()
    chunks = [await server.chunk(offered.height, index) for index in range(offered.chunks)]
    await fresh.offer(offered, world.app.app_hash)
    await fresh.apply(0, chunks[0])
    assert (await fresh.apply(0, b"once more")).result == Applied.ACCEPT
    assert (await fresh.apply(2, chunks[2])).result == Applied.RETRY_SNAPSHOT
    assert is_untouched(fresh)
    for index in range(1, offered.chunks):
        await fresh.apply(index, chunks[index])
    assert fresh.app.app_hash == world.app.app_hash
    assert (await fresh.apply(0, chunks[0])).result == Applied.REJECT_SNAPSHOT
    assert fresh.app.app_hash == world.app.app_hash


async def test_nothing_is_served_that_is_not_there_or_not_whole(
    server: Node, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    [offered] = await server.offers()
    height, last = offered.height, offered.chunks - 1
    manifest = SnapshotManifest.decode(offered.metadata)
    assert await server.chunk(height, offered.chunks) == b""
    assert await server.chunk(height + 1, 0) == b""
    assert await server.chunk(height, 0, FORMAT + 1) == b""
    assert await server.chunk((1 << 64) - 1, (1 << 32) - 1) == b""
    path = server.snapshots.path(height)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert snapshot.names(manifest.chunks[0], await server.chunk(height, 0))
    assert await server.chunk(height, last) == b""
    assert "damaged and dropped" in caplog.text
    assert await server.offers() == []
    assert not path.exists()
    for wrong in (b"", b"no snapshot", bytes(raw[:-40]), bytes(raw[: len(raw) // 2])):
        path.write_bytes(wrong)
        server.sync._server._opened.clear()
        assert await server.offers() == []
        assert not path.exists()


async def test_over_the_socket_one_engine_begins_with_what_another_serves(
    world: World, tmp_path: Path
) -> None:
    """As CometBFT drives it; and over HTTP the node says what it has, and where the rest is."""
    filled(tmp_path / "server", world)
    with running_store(tmp_path / "server") as one, running_store(tmp_path / "fresh") as other:
        server, fresh = (
            CometEngine(
                load_application(storage, genesis()),
                storage,
                {},
                NoMempool(),
                f"unix://{tmp_path}/{name}.sock",
                snapshot_blocks=1,
            )
            for name, storage in (("one", one), ("other", other))
        )
        await server.start()
        await fresh.start()
        async with (
            connection(server.server) as asked,
            connection(fresh.server) as told,
            served(fresh) as url,
            LedgerClient(url) as client,
            aclosing(client.events(1)) as blocks,
        ):
            height = world.app.height
            following = asyncio.create_task(anext(blocks))
            async with asyncio.timeout(30):
                while not len(fresh._fanout):  # noqa: ASYNC110 (turns of the event loop, not time)
                    await asyncio.sleep(0)
            assert not (await asked.ask("list_snapshots", messages.RequestListSnapshots())).snapshots
            server._sync._tip = lambda: height + SHOWN_AFTER_BLOCKS
            [offered] = (await asked.ask("list_snapshots", messages.RequestListSnapshots())).snapshots
            offer = messages.RequestOfferSnapshot(snapshot=offered, app_hash=world.app.app_hash)
            assert (await told.ask("offer_snapshot", offer)).result == Offered.ACCEPT
            for index in range(offered.chunks):
                load = messages.RequestLoadSnapshotChunk(height=height, format=FORMAT, chunk=index)
                chunk = (await asked.ask("load_snapshot_chunk", load)).chunk
                applied = messages.RequestApplySnapshotChunk(index=index, chunk=chunk, sender="one")
                assert (await told.ask("apply_snapshot_chunk", applied)).result == Applied.ACCEPT
            info = await told.ask("info", messages.RequestInfo())
            assert (info.last_block_height, info.last_block_app_hash) == (height, world.app.app_hash)
            assert fresh.app.deals(client=key("client")) == world.app.deals(client=key("client"))
            async with aiohttp.ClientSession() as session:
                http = Http(url, session)
                status = await http.get("/v1/status")
                assert (status["height"], status["pruned_height"]) == (height, height)
                assert (status["first_height"], status["retain_height"]) == (height + 1, 0)
                for gone in (f"/v1/block/{height}", "/v1/block/latest", "/v1/block/1"):
                    assert "archive" in (await http.get(gone, 410))["error"]
                assert "archive" in (await http.get(f"/v1/blocks?from={height}&to={height}", 404))["error"]
                await http.get(f"/v1/block/{height + 1}", 404)
            fresh._fanout.publish(BlockEvents(height + 1, world.now + 1, ()))  # the next one was committed
            with pytest.raises(LedgerPruned, match=f"up to block {height} are not kept"):
                await following
        for engine in (server, fresh):
            await engine.stop()


def test_a_reader_of_chunks_says_what_is_wrong() -> None:
    with pytest.raises(InvalidSnapshot, match="has 0 chunks"):
        snapshot.Reader(SnapshotManifest(snapshot.KIND, CHAIN, 1, bytes(32), 0, ())).take(b"")
