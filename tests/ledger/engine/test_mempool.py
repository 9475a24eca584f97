"""The mempool: proofs have their lane, what cannot come any more is refused, nothing strange stops it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger.application import Application
from ledger.engine import embedded
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import EngineStopped, MempoolFull
from ledger.engine.mempool import PROOF_MARKS, Mempool
from ledger.genesis import HOLD
from ledger.result import Code, TxResult
from ledger.transactions import Prove, Transfer
from tests.ledger.engine.conftest import Chain, signer, until


def proof(chain: Chain, sender: str, nonce: int, size_bytes: int = 100) -> bytes:
    return chain.tx(sender, nonce, Prove(bytes(32), 1, bytes(size_bytes)), fee=5_000)


async def fund(engine: EmbeddedEngine, chain: Chain, *names: str) -> None:
    for nonce, name in enumerate(names):
        assert (await engine.submit(chain.transfer(nonce, to=name, amount=10 * HOLD))).code == 0


async def test_a_flood_of_transfers_does_not_crowd_proofs_out(chain: Chain) -> None:
    engine = chain.engine()
    await engine.start()
    await fund(engine, chain, "a", "b", "node")
    with ThreadPoolExecutor(1) as threads:
        pool = Mempool(engine.app, threads, lambda _: None, lambda: None, 1_000)
        running = asyncio.create_task(pool.run())
        transfers = [
            chain.transfer(n, to="bob", sender=name, amount=100_000) for name in "ab" for n in range(50)
        ]
        proofs = [proof(chain, "node", nonce) for nonce in range(40)]
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
