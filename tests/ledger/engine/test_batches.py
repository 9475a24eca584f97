"""Many transactions in one request: in order, each with its own receipt, bounded as single ones are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ledger.engine import rpc
from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import EngineStopped, LedgerRefused, LedgerUnreachable, MempoolFull
from ledger.genesis import HOLD
from ledger.limits import MAX_TX_BYTES
from ledger.result import Code
from merkledag import dag_cbor
from tests.ledger.engine.conftest import Chain, signer
from tests.ledger.engine.test_rpc import Http, served


@pytest.fixture
async def http(engine: EmbeddedEngine) -> AsyncIterator[Http]:
    async with served(engine) as url, aiohttp.ClientSession() as session:
        yield Http(url, session)


async def test_a_batch_keeps_its_order_and_tells_of_each(http: Http, chain: Chain) -> None:
    raws = [chain.transfer(n) for n in range(5)]
    too_much = chain.transfer(5, amount=2_000_000 * HOLD)
    body = [*raws[:3], b"garbage", *raws[3:], raws[0], too_much, chain.transfer(9)]
    answer: Any = await http.post(dag_cbor.encode(body), path="/v1/txs")
    receipts = answer["receipts"]
    assert [Code(receipt["code"]).name for receipt in receipts] == [
        *["OK"] * 3,
        "MALFORMED",
        *["OK"] * 3,
        "INSUFFICIENT_FUNDS",
        "NONCE_GAP",
    ]
    assert receipts[0] == receipts[6]
    assert all(("error" in receipt) == (receipt["height"] == 0) for receipt in receipts)
    one: Any = await http.post(raws[0])
    assert one == receipts[0]  # sent alone, afterwards
    async with LedgerClient(http.url) as client:
        assert [receipt.to_json() for receipt in await client.submit_all(raws)] == [
            {name: receipt[name] for name in ("tx_id", "height", "code", "log")}
            for receipt in [*receipts[:3], *receipts[4:6]]
        ]
        assert (await client.account(signer("alice").public_key)).balance == 5 * HOLD


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x80",
        b"\xa0",
        dag_cbor.encode(["text"]),
        dag_cbor.encode([[b"x"]]),
        dag_cbor.encode([b"x"] * (rpc.MAX_BATCH_TXS + 1)),
        b"\x9f\x41x\xff",
    ],
)
async def test_what_is_no_batch_is_refused(http: Http, body: bytes) -> None:
    assert "transactions" in (await http.post(body, 400, path="/v1/txs"))["error"]


async def test_a_batch_has_the_bounds_of_a_body(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    await http.post(b"x" * (MAX_TX_BYTES + 1), 413, path="/v1/txs")
    monkeypatch.setattr(rpc, "MAX_BODIES_BYTES", 1_000)
    assert "bytes" in (await http.post(b"x" * 1_001, 503, path="/v1/txs"))["error"]
    await http.post(b"x" * 900, 400, path="/v1/txs")
    await http.post(b"x" * 900, 400, path="/v1/txs")  # the first one's are free again


async def test_what_finds_no_room_is_told_and_may_come_again(chain: Chain) -> None:
    engine = chain.engine(max_waiting=4)
    raws = [chain.transfer(n) for n in range(5)]
    await engine.start()
    receipts = await engine.submit_all(raws)  # three quarters of the room are for what is no proof
    assert [Code(receipt.code) for receipt in receipts] == [Code.OK] * 3 + [Code.POOL_FULL] * 2
    assert [receipt.code for receipt in await engine.submit_all(raws)][3:] == [Code.POOL_FULL] * 2
    assert [receipt.code for receipt in await engine.submit_all(raws[3:])] == [Code.OK] * 2
    await engine.stop()
    with pytest.raises(EngineStopped):
        await engine.submit_all([chain.transfer(5)])
    chain.close()


async def test_a_full_ledger_says_when_to_come_again(chain: Chain) -> None:
    engine = chain.engine(max_waiting=0)
    await engine.start()
    body = dag_cbor.encode([chain.transfer(0)])
    async with served(engine) as url, aiohttp.ClientSession() as session, LedgerClient(url) as client:
        async with session.post(f"{url}/v1/txs", data=body) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "1")
            assert (await response.json())["code"] == Code.POOL_FULL
        with pytest.raises(LedgerRefused):
            await client.submit_all([chain.transfer(0)])
    with pytest.raises(MempoolFull):
        await engine.submit_all([chain.transfer(0)])
    await engine.stop()
    chain.close()


async def test_a_ledger_that_stops_leaves_it_open_what_became_of_a_batch(chain: Chain) -> None:
    engine = chain.engine()
    await engine.start()
    async with served(engine) as url, LedgerClient(url) as client:
        await engine.stop()
        with pytest.raises(LedgerUnreachable):
            await client.submit_all([chain.transfer(0)])
    chain.close()
