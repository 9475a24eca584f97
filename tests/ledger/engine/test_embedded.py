"""The embedded engine: when it makes blocks, what it answers, and what it leaves behind."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest

from ledger import keys, limits
from ledger.application import Application
from ledger.engine import embedded
from ledger.engine.blocks import Block, node_cid
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import EngineStopped, MempoolFull, StoreError
from ledger.engine.intake import VERIFY_BATCH
from ledger.engine.state_store import STATE
from ledger.genesis import HOLD
from ledger.records import AccountRecord
from ledger.result import Code, TxResult
from ledger.transactions import Transfer, decode
from merkledag import dag_cbor
from merkledag.cid import CID
from tests.ledger.engine.conftest import CHAIN, START_S, Chain, ManualClock, signer, until


async def test_a_transaction_is_committed_in_a_block_of_its_own_time(
    engine: EmbeddedEngine, chain: Chain, clock: ManualClock
) -> None:
    clock.now_s = START_S + 7.9
    raw = chain.transfer(0)
    receipt = await engine.submit(raw)
    assert (receipt.height, receipt.code, receipt.tx_id) == (1, 0, decode(raw).id)
    block = engine.history.block(1)
    assert block is not None
    assert (block.height, block.block_time_s, block.time, block.prev, block.chain) == (
        1,
        START_S + 7,
        START_S + 7,
        None,
        CHAIN,
    )
    assert block.verify()
    assert block.account == chain.operator.public_key
    assert block.app_hash == engine.app.app_hash
    assert block.beacon == engine.app.beacon
    assert block.txs[1:] == (node_cid(raw),)


async def test_what_waits_together_goes_into_one_block_in_order(engine: EmbeddedEngine, chain: Chain) -> None:
    raws = [chain.transfer(nonce, to=f"friend {nonce}") for nonce in range(40)]
    receipts = await asyncio.gather(*(engine.submit(raw) for raw in raws))
    assert [receipt.code for receipt in receipts] == [0] * 40
    heights = [receipt.height for receipt in receipts]
    assert heights == sorted(heights)
    assert heights[-1] <= 4
    in_blocks = [cid for height in range(1, heights[-1] + 1) for cid in _block(engine, height).txs[1:]]
    assert in_blocks == [node_cid(raw) for raw in raws]


async def test_what_is_being_verified_comes_into_the_same_block(
    engine: EmbeddedEngine, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "GATHER_S", 60.0)
    names = ("ann", "bob", "carl")
    funding = [chain.transfer(nonce, to=name) for nonce, name in enumerate(names)]
    await asyncio.gather(*(engine.submit(raw) for raw in funding))
    raws = [
        chain.transfer(nonce, amount=100_000, sender=name)
        for name in names
        for nonce in range(limits.MAX_PENDING_PER_ACCOUNT)
    ]
    assert len(raws) > 2 * VERIFY_BATCH
    receipts = await asyncio.gather(*(engine.submit(raw) for raw in raws))
    assert {(receipt.height, receipt.code) for receipt in receipts} == {(engine.app.height, 0)}


async def test_what_takes_long_to_verify_does_not_hold_up_the_rest(
    engine: EmbeddedEngine, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, slow, committed = Application.verify_signature, chain.transfer(1), threading.Event()

    def verify(self: Application, raw: bytes) -> TxResult:
        if raw == slow:
            assert committed.wait(60)
        return real(self, raw)

    monkeypatch.setattr(Application, "verify_signature", verify)
    waiting = [asyncio.create_task(engine.submit(chain.transfer(0)))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the first is on its way to be verified, and the second not together with it
    waiting.append(asyncio.create_task(engine.submit(slow)))
    assert (await waiting[0]).height == 1
    committed.set()
    assert (await waiting[1]).height == 2


def _block(engine: EmbeddedEngine, height: int) -> Block:
    block = engine.history.block(height)
    assert block is not None
    return block


async def test_no_empty_blocks_while_no_deal_lives(engine: EmbeddedEngine, clock: ManualClock) -> None:
    for _ in range(5):
        await clock.advance(100)
    assert engine.app.height == 0


async def test_time_never_runs_backwards(engine: EmbeddedEngine, chain: Chain, clock: ManualClock) -> None:
    clock.now_s = START_S + 50
    await engine.submit(chain.transfer(0))
    clock.now_s = START_S + 20
    await engine.submit(chain.transfer(1))
    assert [_block(engine, height).block_time_s for height in (1, 2)] == [START_S + 50] * 2


async def test_blocks_and_transactions_are_linked_nodes(engine: EmbeddedEngine, chain: Chain) -> None:
    raws = [chain.transfer(nonce) for nonce in range(2)]
    for raw in raws:
        await engine.submit(raw)
    tip = _block(engine, 2)
    raw_tip = engine.get_node(tip.cid)
    assert raw_tip is not None
    links = dag_cbor.decode(raw_tip)
    assert links["prev"] == _block(engine, 1).cid
    assert engine.get_node(links["txs"][1]) == raws[1]
    assert engine.get_node(decode(raws[1]).id) == decode(raws[1]).unsigned_bytes()
    assert engine.get_node(CID.of(b"nothing", codec=0x71)) is None
    assert engine.get_node(CID.of(b"raw")) is None
    head = engine.get_node(links["txs"][0])
    assert head is not None
    assert dag_cbor.decode(head)["height"] == 2


async def test_refusals_are_answered_at_once_and_make_no_block(engine: EmbeddedEngine, chain: Chain) -> None:
    good = chain.transfer(0)
    bad = good[:-1] + bytes([good[-1] ^ 1])
    cases = [
        (b"\x00garbage", Code.MALFORMED),
        (bad, Code.BAD_SIGNATURE),
        (chain.transfer(3), Code.NONCE_GAP),
        (chain.tx("stranger", 0, Transfer(signer("alice").public_key, 1)), Code.FEE_NOT_COVERED),
        (chain.tx("operator", 0, Transfer(signer("alice").public_key, 1), expiry=1), Code.EXPIRED),
    ]
    for raw, code in cases:
        receipt = await engine.submit(raw)
        assert (receipt.height, Code(receipt.code)) == (0, code), raw
    assert engine.app.height == 0
    assert (await engine.submit(good)).height == 1


async def test_a_transaction_that_fails_its_rule_is_refused(engine: EmbeddedEngine, chain: Chain) -> None:
    await engine.submit(chain.transfer(0, to="alice", amount=HOLD))
    receipt = await engine.submit(chain.transfer(0, to="bob", amount=5 * HOLD, sender="alice"))
    assert (receipt.height, receipt.code) == (0, Code.INSUFFICIENT_FUNDS)
    assert (await engine.submit(chain.transfer(0, to="bob", amount=HOLD // 2, sender="alice"))).code == 0


async def test_the_same_bytes_twice_are_one_transaction(engine: EmbeddedEngine, chain: Chain) -> None:
    raw = chain.transfer(0)
    first, second = await asyncio.gather(engine.submit(raw), engine.submit(raw))
    assert first == second
    assert await engine.submit(raw) == first
    assert engine.app.height == first.height
    other = await engine.submit(chain.transfer(0, to="bob"))
    assert (other.height, other.code) == (0, Code.NONCE_USED)


async def test_who_asks_again_late_is_told_what_became_of_it(
    engine: EmbeddedEngine, chain: Chain, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = chain.tx("operator", 0, Transfer(signer("alice").public_key, HOLD), expiry=START_S + 20)
    first = await engine.submit(raw)
    assert first.height == 1
    clock.now_s += 25
    assert (await engine.submit(chain.transfer(1))).height == 2
    assert engine.app.time > START_S + 20
    assert await engine.submit(raw) == first  # expired by now
    late = chain.tx("operator", 2, Transfer(signer("alice").public_key, HOLD), expiry=START_S + 20)
    assert Code((await engine.submit(late)).code) is Code.EXPIRED
    monkeypatch.setattr("ledger.mempool.least_fee", lambda *_: HOLD)  # a vote has made everything dearer
    known = chain.tx("operator", 1, Transfer(signer("alice").public_key, HOLD))
    assert (await engine.submit(known)).height == 2
    assert Code((await engine.submit(chain.transfer(2))).code) is Code.FEE_TOO_LOW


async def test_a_cancelled_wait_does_not_take_the_transaction_back(
    engine: EmbeddedEngine, chain: Chain
) -> None:
    raw = chain.transfer(0)
    task = asyncio.create_task(engine.submit(raw))
    await asyncio.sleep(0)
    task.cancel()
    await until(lambda: engine.app.height == 1)
    assert (await engine.submit(raw)).height == 1


async def test_the_mempool_is_bounded(chain: Chain) -> None:
    engine = chain.engine(max_waiting=8)
    waiting = [asyncio.create_task(engine.submit(chain.transfer(nonce))) for nonce in range(6)]
    await asyncio.sleep(0)
    with pytest.raises(MempoolFull, match="send again later"):
        await engine.submit(chain.transfer(6))
    await engine.start()
    assert [receipt.code for receipt in await asyncio.gather(*waiting)] == [0] * 6
    assert (await engine.submit(chain.transfer(6))).code == 0
    await engine.stop()
    chain.close()


async def test_stopping_refuses_what_waits_and_what_comes(chain: Chain) -> None:
    engine = chain.engine()
    waiting = asyncio.create_task(engine.submit(chain.transfer(0)))
    await asyncio.sleep(0)
    await engine.stop()
    await engine.stop()
    with pytest.raises(EngineStopped, match="send again"):
        await waiting
    with pytest.raises(EngineStopped):
        await engine.submit(chain.transfer(0))
    chain.close()


async def test_subscribers_get_each_block_once(engine: EmbeddedEngine, chain: Chain) -> None:
    subscription = engine.subscribe()
    for nonce in range(3):
        await engine.submit(chain.transfer(nonce))
    got = [await subscription.next() for _ in range(3)]
    assert [item.height for item in got if item is not None] == [1, 2, 3]
    first = got[0]
    assert first is not None
    assert engine.history.events(1) == first
    assert "transfer" in [event.kind for event in first.events]


async def test_a_full_disk_is_told_and_clears_by_itself(chain: Chain) -> None:
    full = True

    def fault(point: str) -> None:
        if full and point == "wal.half":
            raise OSError(errno.ENOSPC, "No space left on device")

    engine = chain.engine(fault=fault)
    await engine.start()
    with pytest.raises(StoreError, match="No space left"):
        await engine.submit(chain.transfer(0))
    assert "No space left" in engine.status.trouble
    full = False
    receipt = await engine.submit(chain.transfer(0))
    assert (receipt.height, receipt.code, engine.status.trouble) == (1, 0, "")
    await engine.stop()
    chain.close()


async def test_a_logged_block_is_written_however_often_the_database_refuses(
    chain: Chain, clock: ManualClock
) -> None:
    refusals = 3

    def fault(point: str) -> None:
        nonlocal refusals
        if point == "db.state" and refusals:
            refusals -= 1
            raise OSError(errno.EIO, "Input/output error")

    engine = chain.engine(fault=fault)
    await engine.start()
    task = asyncio.create_task(engine.submit(chain.transfer(0)))
    while not task.done():
        await until(lambda: task.done() or clock.next_wake_s is not None)
        await clock.advance(1)
    assert (task.result().height, refusals) == (1, 0)
    await engine.stop()
    chain.close()


async def test_the_engine_reopens_where_it_was(chain: Chain) -> None:
    engine = chain.engine()
    await engine.start()
    for nonce in range(3):
        await engine.submit(chain.transfer(nonce))
    app_hash, tip = engine.app.app_hash, _block(engine, 3).cid
    await engine.stop()
    chain.close()

    engine = chain.engine()
    assert (engine.app.height, engine.app.app_hash) == (3, app_hash)
    await engine.start()
    await engine.submit(chain.transfer(3))
    assert _block(engine, 4).prev == tip
    await engine.stop()
    chain.close()


async def test_a_coin_that_the_disk_made_is_not_built_upon(chain: Chain) -> None:
    """Alice's record is not hers: whoever pays her is told, and the engine ends with what to do."""
    first = chain.engine()
    await first.start()
    assert (await first.submit(chain.transfer(0))).height == 1
    await first.stop()
    assert chain.storage is not None
    account = keys.account(signer("alice").public_key)
    with chain.storage._begin(write=True) as txn:
        record = AccountRecord.decode(bytes(txn.get(account, db=chain.storage._tables[STATE])))
        more = AccountRecord(record.balance + 1, record.nonce).encode()
        txn.put(account, more, db=chain.storage._tables[STATE])
    chain.close()
    engine = chain.engine()
    await engine.start()
    for ended in (engine.submit(chain.transfer(1)), engine.wait_ended()):
        with pytest.raises(EngineStopped, match=r"state is damaged .*restore it from a backup"):
            await ended
    assert engine.app.height == 1
    await engine.stop()
    chain.close()
