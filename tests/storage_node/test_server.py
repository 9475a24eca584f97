"""A node's HTTP routes.

Who may upload what, and what happens to uploads that break off (red-team 29 and 26).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ledger.engine.errors import LedgerNotFound
from merkledag.cid import CID
from merkledag.ed25519 import Ed25519Signer
from merkledag.peer import peer_text
from storage_node import wire
from storage_node.blockstore.memory import MemoryStore
from storage_node.client import NodeClient
from storage_node.commitments import Commitments
from storage_node.custody import Custody, ShardTerms
from storage_node.duties import ShardKey
from storage_node.endpoints import open_session
from storage_node.errors import PeerUnreachable, QuotaExceeded, UploadRefused
from storage_node.gc import collect
from storage_node.httpsig import Message, sign_request
from storage_node.meta import Meta
from storage_node.pins import Pins
from storage_node.placement import commitment_of
from storage_node.rows import ProofRows
from storage_node.server import NodeServer, ServerSettings
from storage_node.upload import PieceIntake
from storage_node.upload_file import KEEP_S, blocks_of_uploads
from storage_node.wire import ShardPhase
from tests.storage_node.content import Encoded, add_files, encode, some_bytes

CLIENT = Ed25519Signer.from_seed(b"\x01" * 32)
STRANGER = Ed25519Signer.from_seed(b"\x02" * 32)
KEY = ShardKey(CID.of(b"a deal", codec=0x71), 1)
NOW = 1_700_000_000
TOKEN = "the-admin-token"


class House:
    """A node's inside without a ledger: one offered shard, real custody."""

    def __init__(self, source: Encoded, folder: Path) -> None:
        self.store = MemoryStore()
        self.custody = Custody(
            folder / "pieces", self.store, ProofRows(self.store, Commitments(Meta(folder / "meta")))
        )
        self.custody.load()
        meta, data = source.trees(KEY.shard)
        sizes = [sum(source.store.size(row.multihash) or 0 for row in tree.rows) for tree in (data, meta)]
        self.terms = ShardTerms(
            KEY,
            CLIENT.public_key,
            source.content,
            source.root,
            2,
            3,
            False,
            commitment_of(data, sizes[0], meta, sizes[1]),
            price=1,
            periods=1,
        )
        self.room_bytes = 10**9
        self.arrivals = 0
        self.upload_over = asyncio.Event()

    async def offered(self, key: ShardKey) -> ShardTerms | None:
        if key.deal != KEY.deal:
            raise LedgerNotFound("no such deal")
        if key != KEY:
            raise UploadRefused("not assigned to this node")
        return None if self.custody.piece(key) else self.terms

    async def intake(self, terms: ShardTerms) -> PieceIntake:
        return self.custody.intake(terms)

    async def reserve(self, terms: ShardTerms, intake: PieceIntake) -> None:
        if intake.remaining_bytes() > self.room_bytes:
            raise QuotaExceeded("no room")

    @contextmanager
    def uploading(self) -> Iterator[None]:
        try:
            with self.store.lease():
                yield
        finally:
            self.upload_over.set()

    async def arrived(self, terms: ShardTerms, intake: PieceIntake) -> bool:
        self.arrivals += 1
        assert intake.layout is not None
        await asyncio.to_thread(self.custody.keep, terms, intake.layout)
        return True

    def ended(self, terms: ShardTerms, intake: PieceIntake) -> None:
        self.custody.note(terms, intake)

    def failed(self, key: ShardKey) -> None:
        self.custody.reset(key)

    def status(self) -> dict[str, Any]:
        return {"version": 1}

    async def earnings(self) -> dict[str, Any]:
        return {"balance": 5}

    def admin_status(self) -> dict[str, Any]:
        return {"proofs": 1}


class World:
    def __init__(self, source: Encoded, house: House, session: aiohttp.ClientSession, url: str) -> None:
        self.source = source
        self.house = house
        self.session = session
        self.url = url
        self.client = NodeClient(session, url, clock=lambda: NOW, allow_private=True)

    async def upload(
        self, data: bytes, signer: Ed25519Signer = CLIENT, portion: int = 3_000
    ) -> wire.ShardState:
        async def frames() -> AsyncIterator[bytes]:
            for start in range(0, len(data), portion):
                yield data[start : start + portion]

        return await self.client.put_shard(KEY.deal, KEY.shard, signer, frames())

    def headers(self, signer: Ed25519Signer = CLIENT, **changes: Any) -> dict[str, str]:
        authority = self.url.removeprefix("http://")
        message = Message("PUT", authority, wire.shard_path(KEY.deal, KEY.shard))
        options: dict[str, Any] = {"tag": wire.UPLOAD_TAG, "created": NOW, "nonce": "n", **changes}
        return {**sign_request(signer, message, **options), "Content-Type": wire.CAR_TYPE}

    async def put(self, headers: dict[str, str], data: bytes = b"", path: str = "") -> tuple[int, Any]:
        url = self.url + (path or wire.shard_path(KEY.deal, KEY.shard))
        async with self.session.put(url, data=data, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        async with self.session.get(self.url + path, headers=headers) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = MemoryStore()
    source = encode(store, add_files(store, {"a": some_bytes(200_000), "b": b"small"}), 2, 3)
    house = House(source, tmp_path)
    app = web.Application()
    NodeServer(house, ServerSettings(admin_token=TOKEN), clock=lambda: NOW).add_routes(app)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with open_session(allow_private=True) as session:
        yield World(source, house, session, f"http://{host}:{port}")
    await runner.cleanup()


async def test_a_client_uploads_its_shard_in_one_go(world: World) -> None:
    before = await world.client.shard_state(KEY.deal, KEY.shard)
    assert before.phase is ShardPhase.MANIFEST
    state = await world.upload(world.source.car(KEY.shard))
    assert state.phase is ShardPhase.HELD
    piece = world.house.custody.piece(KEY)
    assert piece is not None
    assert piece.open().data.root == piece.data == world.house.terms.piece.data
    assert (await world.upload(world.source.car(KEY.shard))).phase is ShardPhase.HELD
    assert world.house.arrivals == 1


async def test_an_upload_in_parts_says_what_is_missing(world: World) -> None:
    layout = world.source.layout(KEY.shard)
    late = set(layout.data[3:])
    state = await world.upload(world.source.car(KEY.shard, skip=late))
    assert state.phase is ShardPhase.BLOCKS
    assert await world.client.shard_state(KEY.deal, KEY.shard) == state
    order = [*layout.meta, *layout.data]
    assert {order[position] for position in state.missing} == late
    state = await world.upload(world.source.car(KEY.shard, skip=set(order) - late))
    assert state.phase is ShardPhase.HELD


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("another key", {"signer": STRANGER}),
        ("expired", {"created": NOW - 301}),
        ("future", {"created": NOW + 301}),
        ("tag", {"tag": "something-else"}),
    ],
)
async def test_a_wrong_signature_is_refused(world: World, why: str, changes: dict[str, Any]) -> None:
    status, answer = await world.put(world.headers(**changes), world.source.car(KEY.shard))
    assert status == 401
    assert why in answer["error"]
    assert not list(world.house.store.keys())


async def test_an_unsigned_upload_is_refused(world: World) -> None:
    status, answer = await world.put({"Content-Type": wire.CAR_TYPE}, world.source.car(KEY.shard))
    assert (status, "not signed" in answer["error"]) == (401, True)
    assert not list(world.house.store.keys())


async def test_a_replayed_signature_is_refused(world: World) -> None:
    headers = world.headers()
    part = world.source.car(KEY.shard, skip=set(world.source.layout(KEY.shard).data))
    assert (await world.put(headers, part))[0] == 200
    status, answer = await world.put(headers, world.source.car(KEY.shard))
    assert status == 401
    assert "used before" in answer["error"]
    assert (await world.put(world.headers(nonce="fresh"), world.source.car(KEY.shard)))[0] == 200


async def test_a_signature_for_another_shard_or_deal_is_refused(world: World) -> None:
    for key, expected in ((ShardKey(KEY.deal, 0), 409), (ShardKey(CID.of(b"x", codec=0x71), 1), 404)):
        status, _ = await world.put(world.headers(), b"", wire.shard_path(*key))
        assert status == expected


async def test_wrong_bytes_are_refused_and_the_reason_is_kept(world: World) -> None:
    damaged = bytearray(world.source.car(KEY.shard))
    damaged[-1] ^= 1
    with pytest.raises(UploadRefused, match="not valid"):
        await world.upload(bytes(damaged))
    foreign = world.source.car(0)
    with pytest.raises(UploadRefused, match="no part of shard"):
        await world.upload(foreign)
    state = await world.client.shard_state(KEY.deal, KEY.shard)
    assert "no part of shard" in (state.error or "")
    assert world.house.custody.piece(KEY) is None


async def test_no_byte_is_taken_when_there_is_no_room(world: World) -> None:
    world.house.room_bytes = 10
    with pytest.raises(PeerUnreachable, match="507"):
        await world.upload(world.source.car(KEY.shard))
    assert not list(world.house.store.keys())


async def test_a_client_that_vanishes_leaves_what_it_brought(world: World) -> None:
    whole = world.source.car(KEY.shard)

    async def frames() -> AsyncIterator[bytes]:
        yield whole[: len(whole) // 2]
        raise ConnectionResetError("gone")

    with pytest.raises((PeerUnreachable, ConnectionResetError)):
        await world.client.put_shard(KEY.deal, KEY.shard, CLIENT, frames())
    async with asyncio.timeout(60):
        await world.house.upload_over.wait()
    state = await world.client.shard_state(KEY.deal, KEY.shard)
    assert state.phase is ShardPhase.BLOCKS
    assert state.missing


async def test_a_collection_between_two_connections_leaves_what_came(world: World, tmp_path: Path) -> None:
    """Given a client that vanished, when garbage is collected, then it sends only what was missing before."""
    house, pieces = world.house, tmp_path / "pieces"
    layout = world.source.layout(KEY.shard)
    late = set(layout.data[3:])
    await world.upload(world.source.car(KEY.shard, skip=late))
    came = set(house.store)
    (note,) = pieces.glob("*.upload")
    pins = Pins(Meta(tmp_path / "pins"), lambda: 0)
    now_s = note.stat().st_mtime
    assert collect(house.store, pins, deals=blocks_of_uploads(pieces, now_s + KEEP_S - 1)).blocks == 0
    with note.open("r+b") as file:
        file.truncate(note.stat().st_size - 1)  # the last one cannot be read, and is not here yet
    assert collect(house.store, pins, deals=blocks_of_uploads(pieces, now_s)).blocks == 0
    order = {*layout.meta, *layout.data}
    state = await world.upload(world.source.car(KEY.shard, skip=order - late))
    assert state.phase is ShardPhase.HELD
    assert came < set(house.store)
    assert list(pieces.glob("*.upload")) == []


async def test_an_upload_that_nobody_goes_on_with_is_garbage_after_a_day(
    world: World, tmp_path: Path
) -> None:
    layout = world.source.layout(KEY.shard)
    await world.upload(world.source.car(KEY.shard, skip=set(layout.data)))
    (note,) = (tmp_path / "pieces").glob("*.upload")
    late_s = note.stat().st_mtime + KEEP_S
    pins = Pins(Meta(tmp_path / "pins"), lambda: 0)
    collect(world.house.store, pins, deals=blocks_of_uploads(tmp_path / "pieces", late_s))
    assert list(world.house.store) == []
    assert not note.exists()


async def test_another_media_type_or_a_malformed_path_is_refused(world: World) -> None:
    headers = {**world.headers(), "Content-Type": "text/plain"}
    assert (await world.put(headers, b""))[0] == 415
    for path in (
        "/v1/deals/nonsense/shards/0",
        f"/v1/deals/{KEY.deal}/shards/-1",
        f"/v1/deals/{KEY.deal}/shards/99999",
    ):
        assert (await world.get(path))[0] == 400


async def test_the_owners_routes_need_the_token(world: World) -> None:
    assert await world.get(wire.STATUS_ROUTE) == (200, {"version": 1})
    for path in (wire.EARNINGS_ROUTE, wire.ADMIN_STATUS_ROUTE):
        assert (await world.get(path))[0] == 403
        assert (await world.get(path, {"Authorization": "Bearer wrong"}))[0] == 403
        assert (await world.get(path, {"Authorization": f"Bearer {TOKEN}"}))[0] == 200


@pytest.mark.parametrize("token", [b"\xff\xfe", b"the-admin-token\xff", b"\xed\xb3\xbf", "tökén".encode()])
async def test_a_token_that_is_no_utf_8_is_a_wrong_one(world: World, token: bytes) -> None:
    host, _, port = world.url.removeprefix("http://").partition(":")
    for path in (wire.EARNINGS_ROUTE, wire.ADMIN_STATUS_ROUTE):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % (path.encode(), token)
        )
        assert b" 403 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_a_signature_that_is_no_utf_8_is_refused(world: World) -> None:
    host, _, port = world.url.removeprefix("http://").partition(":")
    for name in (b"Signature", b"Signature-Input", b"Content-Type", b"Host"):
        fields = {each.encode(): value.encode() for each, value in world.headers().items()}
        fields = {b"Host": b"x", **fields, b"Content-Length": b"0"}
        fields[name] = fields[name] + b"\xff" if name in fields else b"\xff"
        reader, writer = await asyncio.open_connection(host, int(port))
        head = b"".join(b"%b: %b\r\n" % field for field in fields.items())
        path = wire.shard_path(KEY.deal, KEY.shard).encode()
        writer.write(b"PUT %b HTTP/1.1\r\n%b\r\n" % (path, head))
        status = int((await reader.readline()).split()[1])
        assert status in {400, 401, 415}, name
        writer.close()
        await writer.wait_closed()


async def test_a_node_that_is_gone_is_told_in_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with open_session(allow_private=True) as session:
            client = NodeClient(session, url, clock=lambda: NOW, allow_private=True)
            with pytest.raises(PeerUnreachable, match="does not answer: Connect call failed") as gone:
                await client.shard_state(KEY.deal, KEY.shard)
    assert "ConnectionKey" not in str(gone.value)


def test_the_account_in_a_signature_is_the_peer_name() -> None:
    assert peer_text(CLIENT.public_key).startswith("k51")
