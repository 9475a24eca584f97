"""What a wallet does with a server that lies: one between it and the chain that it has pinned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from ledger.engine import state_reads
from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import ChainMismatch, LedgerProtocolError, LedgerRefused
from ledger.engine.outbox import RETRY
from ledger.engine.sender import Sender
from ledger.genesis import HOLD
from ledger.result import Code
from ledger.transactions import Transfer, decode
from merkledag.cid import CID
from tests.ledger.engine.conftest import CHAIN, Chain, signer
from tests.ledger.engine.liar import Liar, lying

BOB = signer("bob").public_key


@pytest.fixture
async def liar(engine: EmbeddedEngine) -> AsyncIterator[Liar]:
    async with lying(engine) as liar:
        yield liar


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


async def test_what_could_still_be_done_later_is_not_sent_again(liar: Liar, chain: Chain) -> None:
    """Two are sent together and both are refused: the second would be kept until its turn comes."""
    liar.code, liar.denies, liar.swallows = Code.NONCE_GAP, 1_000, True
    operator = chain.operator.public_key
    async with LedgerClient(
        liar.url, expect_chain=CHAIN, expect_operator=operator, sleep=lambda _: asyncio.sleep(0)
    ) as client:
        await client.genesis()
        sender = Sender(client, chain.operator, check_blocks=True)
        both = [sender.send(Transfer(BOB, HOLD)) for _ in range(2)]
        outcomes = await asyncio.gather(*both, return_exceptions=True)
    assert all(isinstance(each, LedgerRefused) for each in outcomes)
    assert "can still be done" in str(outcomes[1])


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


async def test_a_list_with_ever_new_cursors_has_an_end(
    liar: Liar, client: LedgerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_reads, "MAX_PAGES", 20)
    cursors = (f"{number:08x}" for number in range(1_000))
    lists = ("/v1/providers", "/v1/deals")
    liar.lie = lambda path, answer: {"items": [], "next": next(cursors)} if path in lists else answer
    with pytest.raises(LedgerProtocolError, match="a list without end: 20 pages, 0 items"):
        await client.providers()
    with pytest.raises(LedgerProtocolError, match="without end"):
        await client.deals()
    assert next(cursors) == f"{40:08x}"


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
