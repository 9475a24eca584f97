"""Every way in which a transaction ends on CometBFT: whoever waits for it is told, and nobody for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ledger.engine.blocks import Receipt
from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.rpc.answers import Verdict
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.cometbft.rpc.errors import CometCatchingUp
from ledger.engine.errors import EngineStopped, EngineUnavailable
from ledger.genesis import HOLD
from ledger.result import Code
from ledger.transactions import Transaction, Transfer, sign
from tests.ledger.cometbft.application import CHAIN, FAR_S, genesis, make_engine, signer, transfer
from tests.ledger.cometbft.lone import Setting
from tests.ledger.engine.conftest import until
from tests.ports import free_port

START_S = 1_700_000_000


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path, genesis(START_S))
    await made.engine.start()
    yield made
    await made.close()


def payment(sender: str, nonce: int, amount: int, *, expiry: int = FAR_S, fee: int = 2_000) -> bytes:
    """A signed transfer to bob."""
    key = signer(sender)
    body = Transfer(signer("bob").public_key, amount)
    return sign(Transaction(CHAIN, key.public_key, nonce, fee, expiry, body), key).encode()


async def waiting(setting: Setting, raw: bytes) -> asyncio.Task[Receipt]:
    """Somebody who waits for a transaction that CometBFT has."""
    task = asyncio.create_task(setting.engine.submit(raw))
    await until(lambda: raw in setting.node.pool or task.done())
    assert raw in setting.node.pool, task.result()
    return task


def told(receipt: Receipt) -> tuple[int, int]:
    return receipt.height, receipt.code


async def test_in_a_block(setting: Setting) -> None:
    tasks = [await waiting(setting, transfer(number)) for number in range(3)]
    await setting.node.block()
    assert [told(await task) for task in tasks] == [(1, 0)] * 3
    # Sent again, it is told what became of it
    assert told(await setting.engine.submit(transfer(1))) == (1, 0)
    assert setting.engine.status.waiting == 0


async def test_refused_before_it_is_sent(setting: Setting) -> None:
    assert told(await setting.engine.submit(b"nothing")) == (0, Code.MALFORMED)
    assert told(await setting.engine.submit(transfer(5))) == (0, Code.NONCE_GAP)
    forged = bytearray(transfer(0))
    at = forged.index(b"csig") + 10
    forged[at] ^= 1
    assert told(await setting.engine.submit(bytes(forged))) == (0, Code.BAD_SIGNATURE)
    assert setting.node.pool == []


async def test_refused_by_a_full_mempool_and_taken_later(setting: Setting) -> None:
    setting.node.verdict = Verdict(Code.POOL_FULL, "mempool is full")
    assert told(await setting.engine.submit(transfer(0))) == (0, Code.POOL_FULL)
    setting.node.verdict = Verdict(0, "")
    task = await waiting(setting, transfer(0))
    await setting.node.block()
    assert told(await task) == (1, 0)


async def test_a_node_that_catches_up_takes_nothing(setting: Setting) -> None:
    setting.node.failure = CometCatchingUp("the node is catching up")
    with pytest.raises(EngineUnavailable, match="catching up"):
        await setting.engine.submit(transfer(0))
    with pytest.raises(EngineUnavailable, match="catching up"):
        await setting.engine.submit_all([transfer(0), transfer(1)])
    setting.node.failure = None
    task = await waiting(setting, transfer(0))
    await setting.node.block()
    assert told(await task) == (1, 0)


async def test_a_cometbft_that_is_gone_takes_nothing(setting: Setting, tmp_path: Path) -> None:
    await setting.engine.stop()
    async with CometRpc(f"http://127.0.0.1:{free_port()}") as rpc:
        engine = make_engine(setting.folder, setting.storage, setting.genesis, rpc)
        await engine.start()
        with pytest.raises(EngineUnavailable, match="is it running"):
            await engine.submit(transfer(0))
        await engine.stop()


async def test_in_a_block_that_another_node_proposed_it_fails(setting: Setting) -> None:
    """A validator that breaks the rules may have a block decided; the transaction was in it, and failed."""
    task = await waiting(setting, transfer(0, 2_000_000 * HOLD))
    setting.node.time_s += 1
    (head, *_) = await setting.node.propose()
    txs = [head, transfer(0, 2_000_000 * HOLD)]
    result = await setting.node.finalize(txs)
    await setting.node.commit(txs)
    assert result.tx_results[1].code == Code.INSUFFICIENT_FUNDS
    assert told(await task) == (1, Code.INSUFFICIENT_FUNDS)


async def test_another_one_used_its_nonce(setting: Setting) -> None:
    task = await waiting(setting, transfer(0, 70_000))
    setting.node.time_s += 1
    (head, *_) = await setting.node.propose()
    txs = [head, transfer(0, 80_000)]
    await setting.node.finalize(txs)
    await setting.node.commit(txs)
    assert told(await task) == (0, Code.NONCE_USED)


async def test_expired_while_it_waited(setting: Setting) -> None:
    task = await waiting(setting, payment("operator", 0, 5, expiry=START_S + 2))
    setting.node.pool, left = [], setting.node.pool  # the mempools of those who propose have lost it
    await setting.node.block(seconds=5)
    assert told(await task) == (0, Code.EXPIRED)
    assert left


async def test_checked_again_after_a_block_it_does_not_pass_any_more(setting: Setting) -> None:
    # Given an account with enough for two fees and one payment
    setting.node.pool = [sign_to("carol", 2 * 2_000 + 10_000)]
    await setting.node.block()
    first, second = [await waiting(setting, payment("carol", number, 11_000)) for number in range(2)]
    # when the first is in a block, then the sender of the second is told that its fee is not covered any more
    await setting.node.block()
    assert [told(await first), told(await second)] == [(2, 0), (0, Code.FEE_NOT_COVERED)]


def sign_to(account: str, amount: int) -> bytes:
    """The operator's first transfer, to an account."""
    key = signer("operator")
    body = Transfer(signer(account).public_key, amount)
    return sign(Transaction(CHAIN, key.public_key, 0, 2_000, FAR_S, body), key).encode()


async def test_dropped_by_the_proposer_its_sender_learns_why(setting: Setting) -> None:
    # Given a payment that CheckTx lets in, as it looks at fees alone, and that fails in a block
    task = await waiting(setting, transfer(0, 2_000_000 * HOLD))
    # when the proposer leaves it out and the mempool is checked again, then its sender is told
    await setting.node.block()
    assert told(await task) == (0, Code.INSUFFICIENT_FUNDS)
    assert setting.node.pool == []


async def test_not_in_a_block_in_time(tmp_path: Path) -> None:
    setting = Setting(tmp_path, genesis(START_S))
    setting.storage.close()
    setting.patience_s = 0.05
    setting.open()
    await setting.engine.start()
    with pytest.raises(EngineUnavailable, match=r"no block has taken the transaction in 0\.05 s"):
        await setting.engine.submit(transfer(0))
    assert setting.engine.status.waiting == 0
    # nor does it keep its place when its sender has gone
    gone = await waiting(setting, transfer(1))
    gone.cancel()
    await until(lambda: setting.engine.status.waiting == 0)
    # Sent again after a block took it, it is told so
    await setting.node.block()
    assert told(await setting.engine.submit(transfer(0))) == (1, 0)
    await setting.close()


async def test_the_engine_stops(setting: Setting) -> None:
    task = await waiting(setting, transfer(0))
    await setting.engine.stop()
    with pytest.raises(EngineStopped, match="send again"):
        await task
    with pytest.raises(EngineStopped, match="send again"):
        await setting.engine.submit(transfer(1))


async def test_what_cometbft_has_not_asked_about_yet_keeps_its_place(setting: Setting) -> None:
    """Blocks go on while a transaction is being handed over: the ones after it are not refused for a gap."""
    setting.node.verdict = Verdict(Code.POOL_FULL, "")
    handed = asyncio.Event()
    release = asyncio.Event()
    broadcast_tx_async = setting.node.broadcast_tx_async

    async def slow(raws: list[bytes]) -> list[Verdict]:
        handed.set()
        await release.wait()
        setting.node.verdict = Verdict(0, "")
        return await broadcast_tx_async(raws)

    setting.node.broadcast_tx_async = slow  # type: ignore[assignment, method-assign]
    first = asyncio.create_task(setting.engine.submit(transfer(0)))
    await handed.wait()
    for _ in range(4):
        await setting.node.block()
    second = asyncio.create_task(setting.engine.submit(transfer(1)))
    release.set()
    await until(lambda: len(setting.node.pool) == 2)
    await setting.node.block()
    assert [told(await first), told(await second)] == [(5, 0), (5, 0)]


async def test_cometbft_asks_about_many_at_once_and_their_order_holds(setting: Setting) -> None:
    """Signatures are verified in threads; the nonces of an account follow each other all the same."""
    raws = [transfer(number) for number in range(60)]
    asked = (setting.engine.check_tx(messages.RequestCheckTx(tx=raw)) for raw in raws)
    assert [answer.code for answer in await asyncio.gather(*asked)] == [0] * 60
