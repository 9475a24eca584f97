"""The mempool: proofs have their lane, what cannot come any more is refused, nothing strange stops it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ledger.application import Application
from ledger.engine import embedded
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import EngineStopped, MempoolFull
from ledger.engine.intake import PROOF_MARKS
from ledger.engine.mempool import Mempool
from ledger.genesis import HOLD
from ledger.result import Code, TxResult
from ledger.transactions import (
    Accept,
    Answer,
    Ask,
    Body,
    CreateDeal,
    PieceCommitment,
    Prove,
    Register,
    Spot,
    Transfer,
    decode,
)
from merkledag.cid import CID
from tests.ledger.engine.conftest import Chain, signer, until


def proof(chain: Chain, sender: str, nonce: int, size_bytes: int = 100) -> bytes:
    return chain.tx(sender, nonce, Prove(bytes(32), 1, bytes(size_bytes)), fee=5_000)


async def fund(engine: EmbeddedEngine, chain: Chain, *names: str) -> None:
    for nonce, name in enumerate(names):
        assert (await engine.submit(chain.transfer(nonce, to=name, amount=10 * HOLD))).code == 0


PIECE = PieceCommitment(bytes(32), 1, 500, bytes(32), 0, 0)


async def send(engine: EmbeddedEngine, chain: Chain, sender: str, *bodies: Body) -> list[CID]:
    """Transactions that pass, with the account's next nonces; returns their IDs."""
    nonce = engine.app.account(signer(sender).public_key).nonce
    raws = [chain.tx(sender, nonce + number, body, fee=2_500) for number, body in enumerate(bodies)]
    receipts = await asyncio.gather(*(engine.submit(raw) for raw in raws))
    assert [Code(receipt.code) for receipt in receipts] == [Code.OK] * len(raws)
    return [decode(raw).id for raw in raws]


async def asked(engine: EmbeddedEngine, chain: Chain, count: int) -> list[Answer]:
    """Answers that "node" may give to as many spot challenges: they say nothing that is right."""
    await fund(engine, chain, "a", "b", "node")
    node = signer("node").public_key
    await send(engine, chain, "node", Register("http://n", 1 << 30, node, HOLD), Ask(0, 0, 1 << 30, True))
    cid = CID.of(b"content")
    pieces = ((replace(PIECE, data_root=bytes([number] * 32)),) for number in range(count))
    offers = [CreateDeal(cid, cid, 1, 1, False, 9, 10_000, 30, piece, (node,)) for piece in pieces]
    deals = await send(engine, chain, "operator", *offers)
    await send(engine, chain, "node", *(Accept(deal, 0) for deal in deals))
    while not engine.app.datasets()[0].record.pieces:
        await chain.clock.advance(1)
        await send(engine, chain, "operator", Transfer(node, 1))
    await send(engine, chain, "operator", *(Spot(deal, 0) for deal in deals))
    await send(engine, chain, "operator", Transfer(node, 1))
    return [Answer(deal, 0, b"no proof") for deal in deals]


async def test_a_flood_of_transfers_does_not_crowd_proofs_out(chain: Chain) -> None:
    engine = chain.engine()
    await engine.start()
    answers = await asked(engine, chain, 40)
    nonce = engine.app.account(signer("node").public_key).nonce
    with ThreadPoolExecutor(1) as threads:
        pool = Mempool(engine.app, threads, lambda _: None, lambda: None, 1_000)
        running = asyncio.create_task(pool.run())
        transfers = [
            chain.transfer(n, to="bob", sender=name, amount=100_000) for name in "ab" for n in range(50)
        ]
        proofs = [chain.tx("node", nonce + number, body) for number, body in enumerate(answers)]
        waiting = [asyncio.create_task(pool.submit(raw)) for raw in [*transfers, *proofs]]
        await until(lambda: len(pool.candidates(1_000, 1 << 20)) == 140)
        # half of the places are the proofs', and all keep their order
        assert pool.candidates(40, 1 << 20) == [*transfers[:20], *proofs[:20]]
        # what one lane does not need, the other has
        assert pool.candidates(120, 1 << 20) == [*transfers[:80], *proofs]
        assert pool.candidates(130, 1 << 20) == [*transfers[:90], *proofs]
        # the same goes for bytes
        room = 10 * len(proofs[0])
        assert pool.candidates(1_000, 2 * room)[-10:] == proofs[:10]
        assert sum(map(len, pool.candidates(1_000, 2 * room))) <= 2 * room
        pool.close(EngineStopped("over"))
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(outcome, EngineStopped) for outcome in outcomes)
        assert len(pool) == 0
        running.cancel()
        await asyncio.wait({running})
    await engine.stop()
    chain.close()


async def test_a_quarter_of_the_places_is_for_proofs(chain: Chain) -> None:
    engine = chain.engine(max_waiting=8)
    waiting = [asyncio.create_task(engine.submit(chain.transfer(nonce))) for nonce in range(6)]
    await asyncio.sleep(0)
    with pytest.raises(MempoolFull):
        await engine.submit(chain.transfer(6))
    waiting += [asyncio.create_task(engine.submit(proof(chain, "node", nonce))) for nonce in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(MempoolFull):
        await engine.submit(proof(chain, "node", 2))
    await engine.stop()
    await asyncio.gather(*waiting, return_exceptions=True)
    chain.close()


async def test_a_proof_takes_what_its_account_sent_before_it_along(chain: Chain) -> None:
    engine = chain.engine()
    await engine.start()
    (body,) = await asked(engine, chain, 1)
    nonce = engine.app.account(signer("node").public_key).nonce
    transfers = [chain.transfer(n, to="bob", sender="a", amount=100_000) for n in range(50)]
    before = chain.transfer(nonce, to="bob", sender="node", amount=100_000)
    answer = chain.tx("node", nonce + 1, body)
    after = chain.transfer(nonce + 2, to="bob", sender="node", amount=100_000)
    with ThreadPoolExecutor(1) as threads:
        pool = Mempool(engine.app, threads, lambda _: None, lambda: None, 1_000)
        running = asyncio.create_task(pool.run())
        every = [*transfers, before, answer, after]
        waiting = [asyncio.create_task(pool.submit(raw)) for raw in every]
        await until(lambda: len(pool.candidates(1_000, 1 << 20)) == 53)
        assert pool.candidates(10, 1 << 20) == [*transfers[:8], before, answer]
        pool.close(EngineStopped("over"))
        await asyncio.gather(*waiting, return_exceptions=True)
        running.cancel()
        await asyncio.wait({running})
    await engine.stop()
    chain.close()


async def test_proofs_that_nothing_waits_for_take_no_places(chain: Chain) -> None:
    """They cost their senders nothing: whoever verified them, or kept places for them, could be kept busy."""
    engine = chain.engine()
    await engine.start()
    (body,) = await asked(engine, chain, 1)
    app, node = engine.app, signer("node").public_key
    (known,) = app.datasets()
    nonces = {name: app.account(signer(name).public_key).nonce for name in ("a", "node")}

    def code(sender: str, body: Body) -> Code:
        return app.check_tx(chain.tx(sender, nonces[sender], body)).code

    assert code("a", Prove(known.id, known.record.period, b"garbage")) is Code.NOT_YOURS
    assert code("a", Answer(body.deal, 0, b"garbage")) is Code.NOT_YOURS
    assert code("a", Prove(bytes(32), 1, b"garbage")) is Code.UNKNOWN_DATASET
    assert code("a", Answer(CID.of(b"none"), 0, b"garbage")) is Code.UNKNOWN_DEAL
    assert code("node", Answer(body.deal, 1, b"garbage")) is Code.UNKNOWN_SHARD
    assert code("node", Prove(known.id, known.record.period + 1, b"garbage")) is Code.TOO_EARLY
    assert code("node", Prove(known.id, known.record.period - 1, b"garbage")) is Code.TOO_LATE
    # a second proof for the same may be sent when the first was judged
    first = chain.tx("node", nonces["node"], body)
    assert app.check_tx(first).code is Code.OK
    nonces["node"] += 1
    assert code("node", replace(body, proof=b"other garbage")) is Code.POOL_FULL
    assert code("node", Transfer(node, 1)) is Code.OK
    app.forget(chain.tx("node", nonces["node"], Transfer(node, 1)))
    app.forget(first)
    nonces["node"] -= 1
    assert code("node", replace(body, proof=b"other garbage")) is Code.OK
    await engine.stop()
    chain.close()


def test_the_mark_is_in_every_proof_and_in_nothing_else(chain: Chain) -> None:
    assert any(mark in proof(chain, "node", 0) for mark in PROOF_MARKS)
    assert not any(mark in chain.transfer(0) for mark in PROOF_MARKS)


async def test_what_follows_a_refused_one_is_refused_too(engine: EmbeddedEngine, chain: Chain) -> None:
    await fund(engine, chain, "alice")
    bob = signer("bob").public_key
    raws = [
        chain.tx("alice", nonce, Transfer(bob, amount))
        for nonce, amount in enumerate((HOLD, 1_000 * HOLD, HOLD, HOLD))
    ]
    receipts = await asyncio.gather(*(engine.submit(raw) for raw in raws))
    assert [Code(receipt.code) for receipt in receipts] == [
        Code.OK,
        Code.INSUFFICIENT_FUNDS,
        Code.NONCE_GAP,
        Code.NONCE_GAP,
    ]
    again = await engine.submit(chain.tx("alice", 1, Transfer(bob, HOLD)))
    assert (again.height > 0, again.code) == (True, 0)


async def test_many_that_fail_do_not_hold_up_what_waits_behind_them(
    engine: EmbeddedEngine, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "MAX_TXS_PER_BLOCK", 4)
    names = [f"poor {number}" for number in range(10)]
    await fund(engine, chain, *names)
    bob = signer("bob").public_key
    bad = [chain.tx(name, 0, Transfer(bob, 1_000 * HOLD)) for name in names]
    good = chain.transfer(len(names), to="bob")
    receipts = await asyncio.gather(*(engine.submit(raw) for raw in [*bad, good]))
    assert [Code(receipt.code) for receipt in receipts] == [Code.INSUFFICIENT_FUNDS] * 10 + [Code.OK]


async def test_an_error_in_a_check_refuses_that_transaction_alone(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, poison = Application.verify_signature, chain.transfer(0, to="poison")

    def verify(self: Application, raw: bytes) -> TxResult:
        if raw == poison:
            raise RecursionError("too deep")
        return real(self, raw)

    monkeypatch.setattr(Application, "verify_signature", verify)
    engine = chain.engine()
    await engine.start()
    refused, passed = await asyncio.gather(engine.submit(poison), engine.submit(chain.transfer(0)))
    assert (refused.height, Code(refused.code)) == (0, Code.MALFORMED)
    assert passed.code == 0
    assert "could not be checked" in caplog.text
    await engine.stop()
    chain.close()
