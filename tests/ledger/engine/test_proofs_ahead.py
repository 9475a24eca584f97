"""KZG proofs on the embedded engine: looked at once, in threads, while everybody else is answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ledger import proof_checker
from ledger.application import BlockInput
from ledger.engine.assemble import assemble, load_application
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.intake import Intake
from ledger.engine.storage import LedgerStorage
from ledger.proof_checker import Claim
from ledger.result import Code
from ledger.transactions import Transfer
from proofs.kzg import proof as kzg_proof
from tests.ledger.engine.conftest import PATIENCE_S, ManualClock, until
from tests.ledger.engine.test_rpc import Http, served
from tests.ledger.test_kinds import Several
from tests.ledger.world import beacon_signer, key, signer


class Looking:
    """Counts proofs that are looked at, never in the event loop's thread; each waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = self.looked = 0
        self.let_go = threading.Event()
        monkeypatch.setattr(proof_checker, "verify_many", self.verify_many)

    def verify_many(self, claims: Sequence[Claim]) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        self.begun += len(claims)
        assert self.let_go.wait(PATIENCE_S)
        self.looked += len(claims)
        return kzg_proof.verify_many(claims)


@pytest.fixture
def several() -> Several:
    """Three windows that wait for proofs by KZG."""
    return Several(3)


@asynccontextmanager
async def engine_of(several: Several, folder: Path) -> AsyncIterator[EmbeddedEngine]:
    """An engine that goes on from that state."""
    app, operator, bls = several.world.app, signer("operator"), beacon_signer()
    told = BlockInput(app.height + 1, several.world.now, key("operator"), (several.world.beacon(),))
    block = assemble(app, told, app.finalize_block(told), None, operator).block
    app.commit()
    storage = LedgerStorage(folder)
    storage.open()
    storage.restore(
        app.genesis.encode(), app.items(), app.height, block.encode(), block.cid.digest, app.app_hash
    )
    clock = ManualClock(several.world.now)
    engine = EmbeddedEngine(
        load_application(storage, app.genesis),
        storage,
        operator,
        {bls.public_key: bls},
        clock,
        monotonic=clock.monotonic,
        sleep=clock.sleep,
    )
    await engine.start()
    yield engine
    await engine.stop()
    storage.close()


async def test_everybody_is_answered_while_a_block_waits_for_its_proofs(
    several: Several, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    txs, looking = several.txs(spoiled=[1]), Looking(monkeypatch)
    async with (
        engine_of(several, tmp_path / "ledger") as engine,
        served(engine) as url,
        aiohttp.ClientSession() as session,
    ):
        height = engine.app.height
        sent = [asyncio.create_task(engine.submit(raw)) for raw in txs]
        await until(lambda: looking.begun > 0)
        for _ in range(3):
            assert (await Http(url, session).get("/v1/status"))["height"] == height
        assert (await engine.submit(b"nothing")).code == Code.MALFORMED
        assert not any(task.done() for task in sent)
        assert looking.looked == 0
        looking.let_go.set()
        receipts = await asyncio.gather(*sent)
    assert looking.looked == looking.begun == 3
    assert [Code(receipt.code) for receipt in receipts] == [Code.OK, Code.INVALID_PROOF, Code.OK]


async def test_a_block_is_what_it_would_be_if_it_looked_itself(
    several: Several, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody has looked at its proofs before it is made."""

    async def nobody(_intake: Intake) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Intake, "_look_ahead", nobody)
    proofs, twin = several.txs(spoiled=[1]), several.world.app
    nonce = twin.account(key("client")).nonce
    transfers = [several.world.tx("client", Transfer(key("operator"), 1), nonce=nonce + n) for n in range(3)]
    raws = [raw for pair in zip(transfers, proofs, strict=True) for raw in pair]
    async with engine_of(several, tmp_path / "ledger") as engine:
        with monkeypatch.context() as patching:
            looking = Looking(patching)
            looking.let_go.set()
            receipts = await engine.submit_all(raws)
        given, app_hash = engine.history.given(engine.app.height), engine.app.app_hash
    assert looking.looked == 3
    assert given.txs[1:] == tuple(raw for raw in raws if raw != proofs[1])
    told = BlockInput(twin.height + 1, several.world.now, key("operator"), (given.txs[0], *raws))
    codes = [each.code for each in twin.finalize_block(told).tx_results[1:]]
    assert [Code(receipt.code) for receipt in receipts] == codes
    told = BlockInput(told.height, given.block.block_time_s, told.proposer, given.txs)
    assert twin.finalize_block(told).app_hash == app_hash
