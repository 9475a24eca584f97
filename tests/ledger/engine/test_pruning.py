"""Pruning: proofs go first, then all but the headers, in bounded steps; what stays still answers."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from ledger.application import Application, BlockInput
from ledger.engine import pruning
from ledger.engine.archive import GivenBlock
from ledger.engine.assemble import assemble
from ledger.engine.blocks import node_cid
from ledger.engine.check import find_damage
from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import LedgerNotFound, PrunedHistory
from ledger.engine.history import History
from ledger.engine.pruned_rows import Pruned
from ledger.engine.pruning import Keep, Pruner
from ledger.engine.storage import LedgerStorage
from ledger.genesis import HOLD
from ledger.transactions import Beacon, Prove, decode
from merkledag.peer import peer_text
from tests.ledger.engine.conftest import START_S, Chain, ManualClock, signer
from tests.ledger.engine.test_rpc import Http, served

DAY = pruning.DAY_S


class Maker:
    """Makes blocks as the engine does, a day apart, with what may fail in them too."""

    def __init__(self, chain: Chain, keep: Keep) -> None:
        self.chain = chain
        self.app: Application = chain.load()
        assert chain.storage is not None
        self.storage: LedgerStorage = chain.storage
        self.history = History(self.storage)
        self.pruner = Pruner(self.storage, keep)

    def block(self, *txs: bytes) -> tuple[bytes, ...]:
        app, chain = self.app, self.chain
        height = app.height + 1
        signature = chain.bls.sign(app.beacon_transaction_message(height))
        head = Beacon(chain.genesis.chain_id, height, signature).encode()
        time_s = START_S + height * DAY
        given = BlockInput(height, time_s, chain.operator.public_key, (head, *txs))
        tip = self.history.block(app.height)
        prev = None if tip is None else tip.cid
        made = assemble(app, given, app.finalize_block(given), prev, chain.operator)
        self.storage.log_block(made.stored)
        self.storage.apply(made.stored, self.pruner.step(time_s))
        app.commit()
        return given.txs

    def proof(self, number: int) -> bytes:
        """A proof of nothing, which fails, and takes its place in the block all the same."""
        return self.chain.tx("alice", number, Prove(bytes(32), number, b"proof" * 100))


def test_proofs_leave_first_then_all_but_the_headers(chain: Chain) -> None:
    maker = Maker(chain, Keep.days(proofs=2, blocks=4))
    blocks = {n: maker.block(chain.transfer(n - 1, "bob"), maker.proof(n)) for n in range(1, 9)}
    # Block 8 is of day 8: older than two days are 1 to 5, older than four 1 to 3.
    assert maker.storage.pruned() == Pruned(proofs=5, blocks=3)
    assert not list(find_damage(maker.storage, lambda _height: None))
    for height, (head, transfer, proof) in blocks.items():
        block = maker.history.block(height)
        assert block is not None
        assert block.verify()
        kept = {"head": height > 3, "transfer": height > 3, "proof": height > 5}
        for name, raw in (("head", head), ("transfer", transfer), ("proof", proof)):
            assert maker.history.node(node_cid(raw)) == (raw if kept[name] else None), (height, name)
        for name, raw in (("transfer", transfer), ("proof", proof)):
            tx_id = decode(raw).id
            if kept[name]:
                found = maker.history.tx(tx_id)
                assert found is not None
                assert found.height == height
            elif height > 3:
                with pytest.raises(PrunedHistory, match="up to block 5"):
                    maker.history.tx(tx_id)
            else:
                assert maker.history.tx(tx_id) is None
        if height > 3:
            assert maker.history.events(height) is not None
        else:
            with pytest.raises(PrunedHistory, match="begin at 4"):
                maker.history.events(height)
        if height > 5:
            assert isinstance(maker.history.given(height), GivenBlock)
        else:
            with pytest.raises(PrunedHistory):
                maker.history.given(height)
    # Nothing else is left of the blocks that went, and the journal is whole.
    with maker.storage._begin() as txn:
        rows = {
            name: txn.stat(db=maker.storage._tables[name])["entries"]
            for name in (b"txs", b"receipts", b"index")
        }
    assert rows == {b"txs": 5 * 3, b"receipts": 5 * 3, b"index": 8 + 5 * 5}  # a beacon's two digests are one
    received = maker.history.account(signer("bob").public_key, (9, 0), 100)
    assert sum(change.entry.amount for change in received) == 8 * HOLD
    chain.close()


def test_a_step_is_bounded_and_pruning_still_keeps_up(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "MAX_STEP_TXS", 4)
    maker = Maker(chain, Keep())
    for number in range(10):
        maker.block(chain.transfer(number))
    assert maker.storage.pruned() == Pruned(0, 0)
    maker.pruner = Pruner(maker.storage, Keep(blocks_s=1))
    reached = []
    for number in range(10, 16):
        maker.block(chain.transfer(number))
        reached.append(maker.storage.pruned().blocks)
    assert reached == [2, 4, 6, 8, 10, 12]
    chain.close()


def test_a_ledger_that_was_pruned_opens_again_and_goes_on(chain: Chain) -> None:
    maker = Maker(chain, Keep.days(proofs=0, blocks=1))
    for number in range(5):
        maker.block(chain.transfer(number))
    app_hash = maker.app.app_hash
    chain.close()
    again = Maker(chain, Keep.days(proofs=0, blocks=1))
    assert (again.app.height, again.app.app_hash, again.storage.pruned().blocks) == (5, app_hash, 3)
    again.block(chain.transfer(5))
    assert again.storage.pruned().blocks == 4
    chain.close()


def test_old_damage_does_not_stop_new_blocks(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    maker = Maker(chain, Keep())
    for number in range(3):
        maker.block(chain.transfer(number))
    with maker.storage._begin(write=True) as txn:
        txn.put(b"\0" * 7 + b"\1" + b"\0\0\0\1", b"x" * 99, db=maker.storage._tables[b"txs"])
    maker.pruner = Pruner(maker.storage, Keep(blocks_s=1))
    for number in range(3, 6):
        maker.block(chain.transfer(number))
    assert maker.storage.pruned().blocks == 0
    assert caplog.text.count("nothing is pruned any more") == 1
    chain.close()


async def test_the_interface_says_what_is_gone(chain: Chain, clock: ManualClock) -> None:
    app = chain.load()
    assert chain.storage is not None
    engine = EmbeddedEngine(
        app,
        chain.storage,
        chain.operator,
        chain.beacons,
        clock,
        monotonic=clock.monotonic,
        sleep=clock.sleep,
        keep=Keep.days(proofs=0, blocks=1),
    )
    await engine.start()
    for number in range(4):
        await engine.submit(chain.transfer(number))
        await clock.advance(DAY)
    async with served(engine) as url, aiohttp.ClientSession() as session, LedgerClient(url) as client:
        http = Http(url, session)
        status = await http.get("/v1/status")
        assert (status["pruned_height"], status["pruned_proofs_height"]) == (2, 2)
        assert "begin at 3" in (await http.get("/v1/events?from=1", 410))["error"]
        assert (await http.get(f"/v1/tx/{decode(chain.transfer(0)).id}", 404))["code"] == 404
        with pytest.raises(LedgerNotFound):
            await asyncio.wait_for(anext(client.events(2)), 5)
        assert (await anext(client.events(3))).height == 3
        assert (await client.block(1)).height == 1
        # What is sent again after it was pruned is refused, not taken twice.
        again = await http.post(chain.transfer(0), 400)
        assert again["name"] == "NONCE_USED"
        operator = peer_text(chain.operator.public_key)
        changes = (await http.get(f"/v1/account/{operator}/history"))["items"]
        assert changes[-1]["why"] == "genesis"
    await engine.stop()
    chain.close()
