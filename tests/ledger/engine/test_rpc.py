"""The HTTP interface over a real socket: forms, errors, limits, streams."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ledger import keys, state_proof
from ledger.engine.blocks import Block
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.engine import Engine
from ledger.engine.render import CBOR_TYPE
from ledger.engine.rpc import build_rpc
from ledger.engine.rpc_common import Settings
from ledger.genesis import HOLD, Genesis
from ledger.limits import MAX_TX_BYTES
from ledger.result import Code
from ledger.state_tree import LeafProof, StateProof, verify
from ledger.transactions import Register, decode
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.peer import peer_text
from tests.ledger.engine.conftest import CHAIN, START_S, Chain, signer, until

ABSENT = str(CID.of(b"absent", codec=0x71))


@asynccontextmanager
async def served(engine: Engine, settings: Settings | None = None) -> AsyncIterator[str]:
    """The interface on a free loopback port."""
    runner = web.AppRunner(build_rpc(engine, settings), access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Http:
    """A plain HTTP client of one server."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def get(self, path: str, status: int = 200) -> Any:
        async with self.session.get(self.url + path) as response:
            assert response.status == status, await response.text()
            assert response.content_type == "application/json"
            return await response.json()

    async def get_cbor(self, path: str) -> Any:
        async with self.session.get(self.url + path, headers={"Accept": CBOR_TYPE}) as response:
            assert (response.status, response.content_type) == (200, CBOR_TYPE)
            return dag_cbor.decode(await response.read())

    async def post(self, body: bytes, status: int = 200, path: str = "/v1/tx") -> Any:
        async with self.session.post(self.url + path, data=body) as response:
            assert response.status == status, await response.text()
            return await response.json()


@pytest.fixture
async def http(engine: EmbeddedEngine) -> AsyncIterator[Http]:
    async with served(engine) as url, aiohttp.ClientSession() as session:
        yield Http(url, session)


async def test_a_transaction_goes_in_and_comes_out_again(http: Http, chain: Chain) -> None:
    raw = chain.transfer(0, to="alice", amount=5 * HOLD)
    tx = decode(raw)
    assert await http.post(raw) == {
        "tx_id": str(tx.id),
        "height": 1,
        "code": 0,
        "log": "",
        "name": "OK",
    }
    found = await http.get(f"/v1/tx/{tx.id}")
    assert (found["height"], found["index"], found["receipt"]["code"]) == (1, 1, 0)
    assert found["tx"] == tx.to_json()
    as_node = await http.get_cbor(f"/v1/tx/{tx.id}")
    assert dag_cbor.encode(as_node["tx"]) == raw
    alice = peer_text(signer("alice").public_key)
    assert (await http.get(f"/v1/account/{alice}"))["record"] == {"balance": 5 * HOLD, "nonce": 0}
    block = await http.get("/v1/block/latest")
    assert block == await http.get("/v1/block/1")
    assert Block.from_json(block["block"]).cid == CID.parse(block["cid"])
    async with http.session.get(f"{http.url}/v1/node/{block['cid']}") as response:
        assert CID.of(await response.read(), codec=0x71) == CID.parse(block["cid"])
        assert "immutable" in response.headers["Cache-Control"]
    head = await http.get(f"/v1/tx/{block['block']['txs'][0]}")
    assert (head["index"], head["tx"]["height"]) == (0, 1)


async def test_status_sums_to_what_was_issued(http: Http, chain: Chain) -> None:
    await http.post(chain.transfer(0))
    status = await http.get("/v1/status")
    assert {"chain_id": CHAIN, "engine": "embedded", "height": 1, "trouble": ""}.items() <= status.items()
    assert status["operator"] == peer_text(chain.operator.public_key)
    assert (status["time"], status["block_time_s"]) == (START_S, START_S)
    parts = [status[name] for name in ("balances", "escrow", "collateral", "burned")]
    assert sum(parts) == status["issued"] == chain.genesis.issued
    assert len(bytes.fromhex(status["app_hash"])) == 32
    assert (await http.get_cbor("/v1/status"))["app_hash"] == bytes.fromhex(status["app_hash"])


async def test_genesis_and_parameters(http: Http, chain: Chain) -> None:
    assert Genesis.from_json(await http.get("/v1/genesis")) == chain.genesis
    assert Genesis.from_map(await http.get_cbor("/v1/genesis")) == chain.genesis
    assert await http.get("/v1/params") == chain.genesis.params.to_json()
    assert await http.get("/v1/params?version=1") == chain.genesis.params.to_json()
    await http.get("/v1/params?version=2", status=404)
    await http.get("/v1/params?version=x", status=400)
    assert await http.get("/v1/proposals") == {"items": [], "next": None}
    await http.get(f"/v1/proposal/{ABSENT}", status=404)
    await http.get(f"/v1/proposal/{ABSENT}/vote/{peer_text(chain.operator.public_key)}", status=404)


async def test_providers_are_listed_in_pages(http: Http, chain: Chain) -> None:
    names = [f"provider {number}" for number in range(5)]
    for nonce, name in enumerate(names):
        await http.post(chain.transfer(nonce, to=name, amount=10 * HOLD))
        me = signer(name).public_key
        body = Register(f"http://{nonce}.example", 1 << 30, me, 2 * HOLD)
        assert (await http.post(chain.tx(name, 0, body)))["code"] == 0
    everyone = (await http.get("/v1/providers"))["items"]
    accounts = sorted(signer(name).public_key for name in names)
    assert [item["account"] for item in everyone] == [peer_text(account) for account in accounts]
    pages: list[Any] = []
    following: str | None = ""
    while following is not None:
        page = await http.get(f"/v1/providers?limit=2{following and '&cursor=' + following}")
        pages.append(page["items"])
        following = page["next"]
    assert [len(items) for items in pages] == [2, 2, 1]
    assert [item for items in pages for item in items] == everyone
    one = await http.get(f"/v1/provider/{everyone[0]['account']}")
    assert one == everyone[0]
    assert (await http.get("/v1/deals"))["items"] == (await http.get("/v1/datasets"))["items"] == []


async def test_a_refused_transaction_says_why(http: Http, chain: Chain) -> None:
    refused = await http.post(chain.transfer(7), 400)
    assert (refused["code"], refused["name"], refused["height"]) == (Code.NONCE_GAP, "NONCE_GAP", 0)
    assert refused["error"]
    garbage = await http.post(b"\xff" * 100, 400)
    assert garbage["code"] == Code.MALFORMED
    assert (await http.post(b"", 400))["code"] == Code.MALFORMED


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/nothing", 404),
        ("/v1/block/1", 404),
        ("/v1/block/latest", 404),
        ("/v1/block/-1", 400),
        ("/v1/block/9999999999999999999", 400),
        ("/v1/block/١", 400),
        (f"/v1/tx/{ABSENT}", 404),
        ("/v1/tx/nonsense", 400),
        (f"/v1/node/{ABSENT}", 404),
        (f"/v1/deal/{ABSENT}", 404),
        ("/v1/account/nobody", 400),
        (f"/v1/provider/{peer_text(bytes(32))}", 404),
        ("/v1/provider/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", 400),
        ("/v1/dataset/00", 400),
        (f"/v1/dataset/{'zz' * 32}", 400),
        (f"/v1/dataset/{'00' * 32}", 404),
        (f"/v1/dataset/{'00' * 32}/slots", 404),
        ("/v1/providers?limit=0", 400),
        ("/v1/providers?limit=1001", 400),
        ("/v1/providers?cursor=xyz", 400),
        ("/v1/deals?active=maybe", 400),
        ("/v1/deals?client=nobody", 400),
        ("/v1/deals?content=nothing", 400),
        ("/v1/events?from=yesterday", 400),
        ("/v1/prove/", 404),
        ("/v1/prove/" + "00" * 600, 400),
    ],
)
async def test_what_is_wrong_or_absent_is_told_in_json(http: Http, path: str, status: int) -> None:
    answer = await http.get(path, status)
    assert answer["code"] == status
    assert answer["error"]
    assert "\n" not in answer["error"]


async def test_bodies_and_methods_are_bounded(http: Http) -> None:
    assert (await http.post(bytes(MAX_TX_BYTES + 1), 413))["code"] == 413
    assert (await http.post(b"x", 405, "/v1/status"))["code"] == 405
    assert (await http.post(b"x", 400, "/v1/tx?wait=never"))["code"] == 400

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield bytes(64 << 10)

    try:
        async with http.session.post(f"{http.url}/v1/tx", data=endless()) as response:
            assert response.status == 413
    except aiohttp.ClientError:
        pass  # the server may hang up before the body is sent


async def test_a_body_that_does_not_arrive_is_given_up(engine: EmbeddedEngine) -> None:
    async with served(engine, Settings(body_timeout_s=0.05)) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/tx HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408")
        writer.close()
        await writer.wait_closed()


async def test_requests_at_once_are_bounded(chain: Chain) -> None:
    engine = chain.engine()  # not started: submitted transactions wait
    async with served(engine, Settings(max_requests=2)) as url, aiohttp.ClientSession() as session:
        http = Http(url, session)
        waiting = [asyncio.create_task(http.post(chain.transfer(nonce))) for nonce in range(2)]
        await until(lambda: engine.status.waiting == 2)
        assert (await http.get("/v1/status", 503))["code"] == 503
        await engine.start()
        assert [answer["code"] for answer in await asyncio.gather(*waiting)] == [0, 0]
        await http.get("/v1/status")
        await engine.stop()
    chain.close()


async def test_a_full_mempool_is_429_and_a_stopped_engine_503(chain: Chain) -> None:
    engine = chain.engine(max_waiting=1)
    async with served(engine) as url, aiohttp.ClientSession() as session:
        http = Http(url, session)
        waiting = asyncio.create_task(http.post(chain.transfer(0), 503))
        await until(lambda: engine.status.waiting == 1)
        async with session.post(f"{url}/v1/tx", data=chain.transfer(1)) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "1")
            assert (await response.json())["code"] == Code.POOL_FULL
        await engine.stop()
        assert "stopping" in (await waiting)["error"]
        assert (await http.post(chain.transfer(1), 503))["code"] == 503
    chain.close()


async def test_the_event_stream_gives_the_past_and_the_present(http: Http, chain: Chain) -> None:
    for nonce in range(2):
        await http.post(chain.transfer(nonce, amount=7_000_000))
    async with http.session.get(f"{http.url}/v1/events?from=1") as response:
        assert response.content_type == "application/x-ndjson"
        past = [json.loads(await response.content.readline()) for _ in range(2)]
        await http.post(chain.transfer(2))
        present = json.loads(await response.content.readline())
    assert [line["height"] for line in [*past, present]] == [1, 2, 3]
    assert past[0]["time"] == START_S
    transfer = next(event for event in past[0]["events"] if event["kind"] == "transfer")
    assert transfer["attributes"] == {
        "from": peer_text(chain.operator.public_key),
        "to": peer_text(signer("alice").public_key),
        "amount": 7_000_000,
    }


async def test_the_event_stream_beats_while_nothing_happens(engine: EmbeddedEngine) -> None:
    async with (
        served(engine, Settings(heartbeat_s=0.01)) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/v1/events") as response,
    ):
        for _ in range(3):
            beat = json.loads(await response.content.readline())
            assert beat == {"height": 0, "time": START_S, "heartbeat": True}


async def test_streams_are_bounded_and_end_with_the_server(engine: EmbeddedEngine, chain: Chain) -> None:
    await engine.submit(chain.transfer(0))
    async with aiohttp.ClientSession() as session:
        async with served(engine, Settings(max_streams=1)) as url:
            response = await session.get(f"{url}/v1/events?from=1")
            await response.content.readline()
            async with session.get(f"{url}/v1/events") as second:
                assert second.status == 503
        assert await response.content.readline() == b""
        response.close()
    assert engine.status.subscribers == 0


async def test_a_slow_reader_is_dropped_and_told(
    engine: EmbeddedEngine, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = engine.subscribe()
    monkeypatch.setattr(engine, "subscribe", lambda: subscription)
    async with (
        served(engine) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/v1/events") as response,
    ):
        subscription.dropped = True
        subscription.end()
        line = json.loads(await response.content.readline())
        assert line["code"] == 503
        assert "start again" in line["error"]
        assert await response.content.readline() == b""


def leaf_proof(value: dict[str, Any] | None) -> LeafProof | None:
    return None if value is None else LeafProof(**{**value, "aunts": tuple(value["aunts"])})


async def test_a_state_key_is_proven_against_the_block(http: Http, chain: Chain) -> None:
    await http.post(chain.transfer(0))
    for account, present in ((signer("alice").public_key, True), (signer("nobody").public_key, False)):
        key = keys.account(account)
        answer = await http.get_cbor(f"/v1/prove/{key.hex()}")
        given = answer["proof"]
        proof = StateProof(
            given["key"],
            given["value"],
            leaf_proof(given["leaf"]),
            leaf_proof(given["left"]),
            leaf_proof(given["right"]),
            tuple(given["aunts"]),
        )
        block = Block.from_map((await http.get_cbor(f"/v1/block/{answer['height']}"))["block"])
        assert block.verify()
        assert block.app_hash == answer["app_hash"]
        assert (proof.key, proof.value is not None) == (key, present)
        assert verify(proof, block.app_hash)
    absent = await http.get(f"/v1/prove/{key.hex()}")
    assert (absent["proof"]["value"], absent["cometbft"]) == (None, None)
    assert verify(state_proof.decode(bytes.fromhex(absent["compact"])), bytes.fromhex(absent["app_hash"]))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "nonsense"])
@pytest.mark.parametrize("is_split", [False, True])
async def test_encoded_bodies_are_refused_without_a_noise(
    engine: EmbeddedEngine, caplog: pytest.LogCaptureFixture, encoding: str, is_split: bool
) -> None:
    async with served(engine) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        head = f"POST /v1/tx HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: {encoding}\r\n"
        writer.write(head.encode() + b"Content-Length: 6\r\n\r\nno")
        if is_split:
            await writer.drain()
            async with aiohttp.ClientSession() as session:  # by then the server has the first part
                await Http(url, session).get("/v1/status")
        writer.write(b"gzip")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == 415
    assert not caplog.records


async def test_a_well_encoded_body_is_refused_as_well(http: Http, chain: Chain) -> None:
    body = gzip.compress(chain.transfer(0))
    async with http.session.post(
        http.url + "/v1/tx", data=body, headers={"Content-Encoding": "gzip"}
    ) as response:
        assert response.status == 415, await response.text()
    assert (await http.post(chain.transfer(0)))["height"] == 1


async def test_a_sender_that_goes_in_the_middle_of_its_body_makes_no_noise(
    engine: EmbeddedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(engine) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /v1/tx HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\nabc")
        await writer.drain()
        await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        async with aiohttp.ClientSession() as session:
            await Http(url, session).get("/v1/status")
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]
