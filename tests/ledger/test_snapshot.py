"""Snapshots: bounded chunks, the same for the same state, checked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import snapshot
from ledger.application import Application
from ledger.errors import InvalidSnapshot
from ledger.genesis import HOLD
from ledger.ingest import fill, memory_store
from ledger.snapshot import SnapshotManifest
from ledger.store import MemoryStore
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from tests.ledger.world import CHAIN, World, key


class Shelf:
    """Chunks by name."""

    def __init__(self) -> None:
        self.chunks: dict[CID, bytes] = {}

    def keep(self, raw: bytes) -> CID:
        cid = CID.of(raw, codec=DAG_CBOR)
        self.chunks[cid] = raw
        return cid

    def put(self, raw: bytes) -> None:
        self.keep(raw)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 2_000)
    world = World()
    world.fund("client")
    world.provider("node", "other", stake=50 * HOLD)
    for _ in range(5):
        world.deal("client", shards=2)
    return world


def taken(world: World, shelf: Shelf) -> SnapshotManifest:
    app = world.app
    return snapshot.take(app.items(), CHAIN, app.height, app.app_hash, shelf.put)


def pairs(shelf: Shelf, chunk: CID) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in dag_cbor.decode(shelf.chunks[chunk])]


def test_a_snapshot_leads_to_the_same_application(world: World) -> None:
    shelf = Shelf()
    manifest = SnapshotManifest.decode(taken(world, shelf).encode())
    assert len(manifest.chunks) >= 5
    assert all(len(raw) < 4_000 for raw in shelf.chunks.values())
    store = MemoryStore()
    assert fill(store, snapshot.read(manifest, shelf.chunks.__getitem__), store.commit) == manifest.app_hash
    again = Application(world.app.genesis, store)
    assert (again.height, again.app_hash) == (manifest.height, world.app.app_hash)
    assert again.deals(client=key("client")) == world.app.deals(client=key("client"))
    assert taken(world, Shelf()) == manifest
    # A state that was restored goes on as the one that it was taken of.
    block = world.block()
    assert block.app_hash != manifest.app_hash
    assert memory_store(world.app.items()).state.get(b"chain") != store.state.get(b"chain")


def test_chunks_that_are_not_what_they_should_be_are_refused(world: World) -> None:
    shelf = Shelf()
    manifest = taken(world, shelf)
    first, second = manifest.chunks[:2]

    def refused(manifest: SnapshotManifest, match: str) -> None:
        with pytest.raises(InvalidSnapshot, match=match):
            list(snapshot.read(manifest, shelf.chunks.__getitem__))

    refused(replace(manifest, chunks=(second, first, *manifest.chunks[2:])), "out of order")
    refused(replace(manifest, chunks=(first, *manifest.chunks)), "out of order")
    refused(replace(manifest, chunks=manifest.chunks[:-1]), "the manifest says")
    for wrong in ({"a": 1}, [[b"a"]], [[b"a", "text"]], [b"ab"], [[b"a", b"b", b"c"]]):
        odd = shelf.keep(dag_cbor.encode(wrong))
        refused(replace(manifest, chunks=(odd,)), "chunk")
    refused(replace(manifest, chunks=(shelf.keep(b"\xff"),)), "does not decode")
    refused(replace(manifest, chunks=(shelf.keep(bytes(snapshot.MAX_CHUNK_BYTES + 1)),)), "other bytes")
    together = shelf.keep(
        dag_cbor.encode([*map(list, pairs(shelf, first)), *map(list, pairs(shelf, second))])
    )
    refused(replace(manifest, chunks=(together, *manifest.chunks[2:])), "cut elsewhere")
    half = shelf.keep(dag_cbor.encode([list(pair) for pair in pairs(shelf, first)[:2]]))
    refused(replace(manifest, chunks=(half, *manifest.chunks[1:])), "cut elsewhere")
    refused(replace(manifest, chunks=(*manifest.chunks, shelf.keep(dag_cbor.encode([])))), "cut elsewhere")
    # Whole chunks of another state pass all of this, and end at another app hash.
    other = World()
    forged = replace(taken(other, shelf), app_hash=manifest.app_hash)
    store = MemoryStore()
    assert fill(store, snapshot.read(forged, shelf.chunks.__getitem__), store.commit) != forged.app_hash
    shelf.chunks[first] += b"\x00"
    refused(manifest, "other bytes")


def test_a_reader_waits_for_the_same_chunk_until_it_is_right(world: World) -> None:
    shelf = Shelf()
    manifest = taken(world, shelf)
    reader, items = snapshot.Reader(manifest), list[tuple[bytes, bytes]]()
    for number, chunk in enumerate(manifest.chunks):
        for wrong in (b"", shelf.chunks[chunk] + b"\x00", shelf.chunks[manifest.chunks[number - 1]]):
            with pytest.raises(InvalidSnapshot):
                reader.take(wrong)
            with pytest.raises(InvalidSnapshot):
                reader.finish()
        assert reader.following == number
        items += reader.take(shelf.chunks[chunk])
    reader.finish()
    assert items == list(world.app.items())
    with pytest.raises(InvalidSnapshot):
        reader.take(shelf.chunks[manifest.chunks[-1]])


def test_manifests_are_bounded_and_canonical(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = taken(world, Shelf())
    for raw in (b"", manifest.encode() + b"\x00", replace(manifest, kind="other").encode(), bytes(3 << 20)):
        with pytest.raises(InvalidSnapshot):
            SnapshotManifest.decode(raw)
    monkeypatch.setattr(snapshot, "MAX_CHUNKS", 2)
    with pytest.raises(InvalidSnapshot, match="does not fit"):
        taken(world, Shelf())
