"""What a wallet does with a server that lies: one between it and the chain that it has pinned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import ChainMismatch, LedgerProtocolError, LedgerRefused
from ledger.engine.render import CBOR_TYPE
from ledger.engine.rpc import build_rpc
from ledger.engine.sender import RETRY, Sender
from ledger.genesis import HOLD
from ledger.result import Code
from ledger.transactions import Transfer, decode
from merkledag import dag_cbor
from merkledag.cid import CID
from tests.ledger.engine.conftest import CHAIN, Chain, signer

BOB = signer("bob").public_key
Lie = Callable[[str, Any], Any]


@dataclass
class Liar:
    """Passes requests on to a real server, and alters what it answers. `sent` is what was signed."""

    upstream: str
    lie: Lie = lambda path, answer: answer
    swallows: bool = False
    denies: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self.sent: list[bytes] = []
        self.code = Code.NONCE_USED

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.method == "POST":
            self.sent.append(body)
            if self.swallows:
                receipt = {"tx_id": decode(body).id, "height": 1, "code": 0, "log": "", "name": "OK"}
                return web.Response(body=dag_cbor.encode(self.lie(request.path, receipt)))
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, self.upstream + request.path_qs, data=body, headers={"Accept": CBOR_TYPE}
            ) as response,
        ):
            if request.method == "POST" and self.denies:  # it is done, and said not to be
                self.denies -= 1
                return web.json_response({"error": "used", "code": int(self.code)}, status=400)
            if response.status != 200:
                return web.Response(status=response.status, body=await response.read())
            answer = dag_cbor.decode(await response.read())
        return web.Response(body=dag_cbor.encode(self.lie(request.path, answer)))


@pytest.fixture
async def liar(engine: EmbeddedEngine) -> AsyncIterator[Liar]:
    real = web.AppRunner(build_rpc(engine), access_log=None, shutdown_timeout=1)
    await real.setup()
    await web.TCPSite(real, "127.0.0.1", 0).start()
    liar = Liar(f"http://127.0.0.1:{real.addresses[0][1]}")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", liar.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    liar.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield liar
    await runner.cleanup()
    await real.cleanup()


@pytest.fixture
async def client(liar: Liar, chain: Chain) -> AsyncIterator[LedgerClient]:
    """One that has pinned the chain and its operator."""
    operator = chain.operator.public_key
    async with LedgerClient(liar.url, expect_chain=CHAIN, expect_operator=operator) as client:
        yield client


async def test_no_status_makes_a_wallet_sign_for_another_chain(
    liar: Liar, client: LedgerClient, chain: Chain
) -> None:
    liar.lie = lambda path, answer: {**answer, "chain_id": "another"} if path == "/v1/status" else answer
    await Sender(client, chain.operator).send(Transfer(BOB, HOLD))
    assert [decode(raw).chain for raw in liar.sent] == [CHAIN]


async def test_a_receipt_for_what_is_in_no_block_is_not_believed(
    liar: Liar, client: LedgerClient, chain: Chain
) -> None:
    await client.submit(chain.transfer(0))
    liar.swallows = True
    with pytest.raises(LedgerProtocolError, match="do not take it as done"):
        await Sender(client, chain.operator, check_blocks=True).send(Transfer(BOB, HOLD))
    assert (await client.account(BOB)).balance == 0


async def test_a_block_that_the_operator_did_not_sign_is_no_evidence(
    liar: Liar, client: LedgerClient, chain: Chain
) -> None:
    await client.submit(chain.transfer(0))
    liar.swallows = True

    def lie(path: str, answer: Any) -> Any:
        if path != "/v1/block/1":
            return answer
        sent = CID.of(liar.sent[-1], codec=0x71)
        return {**answer, "block": {**answer["block"], "txs": [*answer["block"]["txs"], sent]}}

    liar.lie = lie
    with pytest.raises(ChainMismatch, match="not signed"):
        await Sender(client, chain.operator, check_blocks=True).send(Transfer(BOB, HOLD))


async def test_the_receipt_of_another_transaction_is_refused(
    liar: Liar, client: LedgerClient, chain: Chain
) -> None:
    liar.lie = lambda path, answer: (
        {**answer, "tx_id": CID.of(b"other", codec=0x71)} if path == "/v1/tx" else answer
    )
    with pytest.raises(LedgerProtocolError, match="another transaction"):
        await client.submit(chain.transfer(0))


async def test_an_honest_receipt_is_borne_out_by_its_block(
    liar: Liar, client: LedgerClient, chain: Chain
) -> None:
    receipt = await Sender(client, chain.operator, check_blocks=True).send(Transfer(BOB, HOLD))
    assert receipt.height == 1
    assert (await client.account(BOB)).balance == HOLD


@pytest.mark.parametrize("code", sorted(RETRY))
async def test_nobody_pays_twice_for_what_a_server_denies(
    liar: Liar, client: LedgerClient, chain: Chain, code: Code
) -> None:
    """It says that the nonce was used, or so, and that another one is next."""
    await client.submit(chain.transfer(0, "bob"))
    liar.code, liar.denies = code, 2
    receipt = await Sender(client, chain.operator, check_blocks=True).send(Transfer(BOB, HOLD))
    assert receipt.tx_id == decode(liar.sent[-1]).id
    assert (await client.account(BOB)).balance == 2 * HOLD


async def test_another_nonce_is_taken_where_somebody_else_used_it(
    liar: Liar, client: LedgerClient, chain: Chain
) -> None:
    sender = Sender(client, chain.operator, check_blocks=True)
    await sender.send(Transfer(BOB, HOLD))
    async with LedgerClient(liar.url) as other:
        await Sender(other, chain.operator).send(Transfer(BOB, 2 * HOLD))
    await sender.send(Transfer(BOB, HOLD))
    assert [decode(raw).nonce for raw in liar.sent] == [0, 1, 1, 2]
    assert (await client.account(BOB)).balance == 4 * HOLD


async def test_what_could_still_be_done_later_is_not_sent_again(
    liar: Liar, client: LedgerClient, chain: Chain
) -> None:
    """A nonce that is too high: it would be kept until its turn comes."""

    def lie(path: str, answer: Any) -> Any:
        if not path.startswith("/v1/account/"):
            return answer
        return {**answer, "record": {**answer["record"], "nonce": answer["record"]["nonce"] + 1}}

    await client.submit(chain.transfer(0, "bob"))
    liar.lie = lie
    with pytest.raises(LedgerRefused, match="can still be done"):
        await Sender(client, chain.operator, check_blocks=True).send(Transfer(BOB, HOLD))


async def test_an_error_code_that_is_no_number_is_a_lie_like_others(liar: Liar) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=400, text=json.dumps({"error": "x", "code": float("inf")}))

    app = web.Application()
    app.router.add_get("/v1/status", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with LedgerClient(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        with pytest.raises(LedgerProtocolError):
            await client.status()
    await runner.cleanup()


@pytest.mark.parametrize(
    "page",
    [
        {"items": [], "next": "00"},  # the same cursor for ever
        {"items": [], "next": ""},
        {"items": [], "next": []},
        {"items": [], "next": True},
        {"items": None, "next": None},
        {"items": {"a": 1}, "next": None},
        {"items": 5, "next": None},
        {"items": []},
        [],
    ],
)
async def test_lists_without_end_or_form_are_refused(liar: Liar, client: LedgerClient, page: Any) -> None:
    liar.lie = lambda path, answer: page if path == "/v1/providers" else answer
    async with asyncio.timeout(60):
        with pytest.raises(LedgerProtocolError):
            await client.providers()


@pytest.mark.parametrize("name", ["chain_id", "height", "time", "app_hash", "operator", "issued"])
@pytest.mark.parametrize("wrong", [None, True, "\x1b[2J", b"", [], -1.5])
async def test_a_status_of_another_form_is_refused(
    liar: Liar, client: LedgerClient, name: str, wrong: Any
) -> None:
    right = await client.status()
    if type(right[name]) is type(wrong):
        wrong = {}
    liar.lie = lambda path, answer: {**answer, name: wrong} if path == "/v1/status" else answer
    with pytest.raises(LedgerProtocolError):
        await client.status()
