"""What is sent at the same time goes to the ledger in one request, and each sender has its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import LedgerProtocolError, LedgerRefused, LedgerUnreachable
from ledger.engine.outbox import MAX_TOGETHER, MAX_TOGETHER_BYTES, Outbox, _parts
from ledger.engine.sender import MAX_IN_FLIGHT, Sender
from ledger.engine.transport import Transport
from ledger.genesis import HOLD
from ledger.limits import MAX_TX_BYTES
from ledger.result import Code
from ledger.transactions import Transfer
from merkledag import dag_cbor
from tests.ledger.engine.conftest import Chain, signer, until
from tests.ledger.engine.test_rpc import served


@pytest.fixture
async def client(engine: EmbeddedEngine) -> AsyncIterator[LedgerClient]:
    async with served(engine) as url, LedgerClient(url) as client:
        yield client


@pytest.fixture
def posts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of every request that brings transactions."""
    asked: list[str] = []
    real = Transport.post

    async def post(self: Transport, path: str, body: bytes) -> Any:
        asked.append(path)
        return await real(self, path, body)

    monkeypatch.setattr(Transport, "post", post)
    return asked


async def test_sends_at_the_same_time_share_a_request(
    client: LedgerClient, chain: Chain, posts: list[str]
) -> None:
    sender = Sender(client, chain.operator)
    bob = signer("bob").public_key
    await asyncio.gather(*(sender.send(Transfer(bob, n * HOLD)) for n in range(1, MAX_IN_FLIGHT + 1)))
    assert posts == ["/v1/txs"]
    await sender.send(Transfer(bob, HOLD))
    assert posts == ["/v1/txs", "/v1/tx"]
    assert (await client.account(bob)).balance == (MAX_IN_FLIGHT * (MAX_IN_FLIGHT + 1) // 2 + 1) * HOLD


async def test_each_has_its_own_answer(client: LedgerClient, chain: Chain, posts: list[str]) -> None:
    raws = [
        chain.transfer(0),
        chain.transfer(1, amount=2_000_000 * HOLD),
        chain.transfer(7),
        chain.transfer(0),
    ]
    first, second, third, again = await asyncio.gather(
        *(client.submit(raw) for raw in raws), return_exceptions=True
    )
    assert posts == ["/v1/txs"]
    assert not isinstance(first, BaseException)
    assert (first.height, first.code) == (1, 0)
    assert again == first
    for refused, code in ((second, Code.INSUFFICIENT_FUNDS), (third, Code.NONCE_GAP)):
        assert isinstance(refused, LedgerRefused)
        assert refused.code == code
        assert str(refused)


async def test_who_waits_no_more_is_left_out(client: LedgerClient, chain: Chain) -> None:
    sending = [asyncio.create_task(client.submit(chain.transfer(n))) for n in (0, 1, 0)]
    await asyncio.sleep(0)
    sending[1].cancel()
    assert (await sending[0]).height == (await sending[2]).height == 1
    with pytest.raises(asyncio.CancelledError):
        await sending[1]
    assert (await client.account(chain.operator.public_key)).nonce == 1
    assert (await client.submit(chain.transfer(1))).code == 0


async def test_what_is_under_way_when_the_client_closes_is_left_open(chain: Chain) -> None:
    engine = chain.engine()  # not started: it answers nothing
    async with served(engine) as url:
        client = LedgerClient(url)
        sending = [asyncio.create_task(client.submit(chain.transfer(n))) for n in range(3)]
        await until(lambda: engine.status.waiting == 3)
        sending.append(asyncio.create_task(client.submit(chain.transfer(3))))
        await asyncio.sleep(0)
        await client.close()
        for each in sending:
            with pytest.raises(LedgerUnreachable, match="closed"):
                await each
        await client.close()
        await engine.stop()
    chain.close()


async def test_a_server_that_answers_for_fewer_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def post(self: Transport, path: str, body: bytes) -> Any:
        return {"receipts": []}

    monkeypatch.setattr(Transport, "post", post)
    outbox = Outbox(Transport("http://127.0.0.1:1"))
    for found in await asyncio.gather(outbox.send(b"a"), outbox.send(b"b"), return_exceptions=True):
        assert isinstance(found, LedgerProtocolError)


async def test_a_request_has_what_the_server_takes() -> None:
    loop = asyncio.get_running_loop()
    sizes = [1, MAX_TX_BYTES, 1, MAX_TOGETHER_BYTES, 1, 1, *[1_000] * (2 * MAX_TOGETHER), *[100_000] * 4]
    together = [(bytes(size), loop.create_future()) for size in sizes]
    parts = list(_parts(together))
    assert [each for part in parts for each in part] == together
    for part in parts:
        raws = [raw for raw, _ in part]
        assert len(raws) == 1 or (len(raws) <= MAX_TOGETHER and len(dag_cbor.encode(raws)) <= MAX_TX_BYTES)
    assert len(parts) < 12
