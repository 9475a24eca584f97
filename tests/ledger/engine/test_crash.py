"""Killed anywhere, the ledger comes back: same app hash, every confirmed transaction, nothing half-done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.application import Application, BlockInput
from ledger.engine.assemble import load_application
from ledger.engine.blocks import encode_log_payload, node_cid
from ledger.engine.errors import CorruptStore, EngineStopped, ReplayMismatch
from ledger.engine.history import History
from ledger.engine.storage import LedgerStorage
from ledger.errors import InvalidGenesis
from merkledag.cid import CID
from merkledag.ed25519 import Ed25519Signer
from tests.conftest import ROOT
from tests.faults.shim import Faults, compiler
from tests.ledger.engine.conftest import Chain, ManualClock, signer

WRITES = [
    "wal.append",
    "wal.half",
    "wal.written",
    "wal.synced",
    "db.begin",
    "db.state",
    "db.commit",
    "db.committed",
    "wal.rotate",
    "wal.rotated",
]


class CrashError(Exception):
    """The process would have died here."""


def reopen_and_check(chain: Chain, confirmed: dict[CID, int]) -> Application:
    """Opens the ledger after a crash, and runs its whole history again on an application of its own."""
    app = chain.load()
    assert chain.storage is not None
    history = History(chain.storage)
    for tx_id, height in confirmed.items():
        found = history.tx(tx_id)
        assert found is not None, f"confirmed transaction {tx_id} of block {height} is lost"
        assert (found.height, found.receipt.code, found.receipt.tx_id) == (height, 0, tx_id)
    again = Application(chain.genesis)
    prev = None
    for height in range(1, app.height + 1):
        block = history.block(height)
        assert block is not None
        txs = tuple(chain.storage.txs(height))
        assert (block.prev, block.txs) == (prev, tuple(node_cid(raw) for raw in txs))
        assert block.verify()
        result = again.finalize_block(BlockInput(height, block.block_time_s, block.account, txs))
        assert result.app_hash == block.app_hash
        kept = [history.tx(cid) for cid in block.txs]
        assert [one and one.receipt.code for one in kept] == [int(one.code) for one in result.tx_results]
        again.commit()
        prev = block.cid
    assert (again.height, again.app_hash) == (app.height, app.app_hash)
    assert dict(chain.storage.state_items()) == {} or app.height
    return app


def next_nonce(app: Application, chain: Chain) -> int:
    """The operator's next nonce, counted in the blocks."""
    assert chain.storage is not None
    return sum(len(chain.storage.txs(height)) - 1 for height in range(1, app.height + 1))


def read_confirmed(output: str) -> dict[CID, int]:
    """The whole lines that a killed worker printed."""
    lines = output[: output.rfind("\n") + 1].splitlines()
    return {CID.parse(tx_id): int(height) for tx_id, height in (line.split() for line in lines)}


def worker(chain: Chain, nonce: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.engine.crash_worker", str(chain.folder), str(nonce)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(
    compiler() is None, reason="needs Linux and a C compiler, for the library that ends the process"
)
def test_killed_before_every_system_call_and_in_every_write(tmp_path: Path) -> None:
    """Each time it comes back with the app hash of its height, and goes on to the same end (`kill_sweep`)."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.ledger.engine.kill_sweep", str(tmp_path), "3"],
        cwd=ROOT,
        env={**os.environ, **Faults(tmp_path).environment()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout)
    assert told["calls"] > told["writes"] > 20
    assert told["replayed"] > 10


def test_killed_again_and_again_under_load(chain: Chain) -> None:
    confirmed: dict[CID, int] = {}
    nonce = 0
    for lines in (1, 9, 40, 90):
        process = worker(chain, nonce)
        assert process.stdout is not None
        assert process.stderr is not None
        seen = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        rest, errors = process.communicate(timeout=60)
        assert process.returncode == -9, errors
        confirmed |= read_confirmed("".join(seen) + rest)
        app = reopen_and_check(chain, confirmed)
        nonce = next_nonce(app, chain)
        chain.close()
    assert len(confirmed) >= 140


@pytest.mark.parametrize("point", WRITES)
async def test_a_crash_injected_at_each_write(chain: Chain, point: str) -> None:
    """The same inside one process, where what the engine says to those who wait is seen too."""
    left = 2

    def fault(at: str) -> None:
        nonlocal left
        if at == point:
            left -= 1
            if left == 0:
                raise CrashError(point)

    engine = chain.engine(fault=fault, segment_bytes=1_000)
    await engine.start()
    confirmed: dict[CID, int] = {}
    with pytest.raises(EngineStopped, match="failed"):  # noqa: PT012
        for nonce in range(50):
            receipt = await engine.submit(chain.transfer(nonce))
            confirmed[receipt.tx_id] = receipt.height
    with pytest.raises(EngineStopped) as ended:
        await engine.wait_ended()
    assert isinstance(ended.value.__cause__, CrashError)
    with pytest.raises(EngineStopped):
        await engine.submit(chain.transfer(99))
    await engine.stop()
    assert chain.storage is not None
    chain.storage.abandon()
    app = reopen_and_check(chain, confirmed)
    # what was in the log was decided, although nobody was told; nothing else was
    assert app.height - len(confirmed) in (0, 1)
    chain.close()


async def filled(chain: Chain, blocks: int = 3) -> None:
    engine = chain.engine()
    await engine.start()
    for nonce in range(blocks):
        await engine.submit(chain.transfer(nonce))
    await engine.stop()


def log_block_four(chain: Chain, key: Ed25519Signer, **changes: Any) -> None:
    """Logs the last block once more as a fourth one, changed and signed by `key`, and closes the ledger."""
    assert chain.storage is not None
    tip = History(chain.storage).block(3)
    assert tip is not None
    forged = replace(tip, height=4, prev=tip.cid, **changes).signed(key)
    txs = tuple(chain.storage.txs(3))
    chain.storage._log.append(4, encode_log_payload(forged.encode(), txs))
    chain.close()


async def test_another_app_hash_on_replay_stops_with_a_clear_error(
    tmp_path: Path, clock: ManualClock
) -> None:
    # Given a ledger of four blocks, and one whose log has the same fourth block with another app hash
    chain = Chain(tmp_path / "one", clock)
    await filled(chain, 4)
    assert chain.storage is not None
    block = History(chain.storage).block(4)
    assert block is not None
    txs = tuple(chain.storage.txs(4))
    chain.close()
    other = Chain(tmp_path / "other", clock)
    await filled(other)
    assert other.storage is not None
    forged = replace(block, app_hash=bytes(32)).signed(chain.operator)
    other.storage._log.append(4, encode_log_payload(forged.encode(), txs))
    other.close()
    # when it is opened, then it stops
    with pytest.raises(ReplayMismatch, match="replaying block 4 gave app hash"):
        other.load()


async def test_a_logged_block_that_cannot_follow_is_refused(chain: Chain) -> None:
    await filled(chain)
    log_block_four(chain, chain.operator)
    with pytest.raises(ReplayMismatch, match="block 4 of the write-ahead log does not run again"):
        chain.load()


async def test_a_block_of_another_signer_in_the_log_is_refused(chain: Chain) -> None:
    await filled(chain)
    log_block_four(chain, signer("mallory"))
    with pytest.raises(CorruptStore, match="not what its operator signed"):
        chain.load()


async def test_a_changed_state_item_is_found_by_a_check_of_all(chain: Chain) -> None:
    await filled(chain)
    storage = chain.storage
    assert storage is not None
    key, value = next(storage.state_items(b"account/"))
    with storage._begin(write=True) as txn:
        txn.put(key, value[:-1] + bytes([value[-1] ^ 1]), db=storage._tables[b"state"])
    with pytest.raises(CorruptStore, match="state is damaged"):
        storage.check_state()


@pytest.mark.parametrize("table", [b"state", b"tree"])
async def test_a_lost_row_is_found_by_a_check_of_all(chain: Chain, table: bytes) -> None:
    await filled(chain)
    storage = chain.storage
    assert storage is not None
    storage.check_state()
    with storage._begin() as txn, txn.cursor(storage._tables[table]) as cursor:
        rows = list(cursor.iternext(values=False))
    for row in (rows[0], rows[-1], rows[len(rows) // 2]):
        with storage._begin(write=True) as txn:
            value = txn.pop(row, db=storage._tables[table])
        with pytest.raises(CorruptStore, match="state is damaged"):
            storage.check_state()
        with storage._begin(write=True) as txn:
            txn.put(row, value, db=storage._tables[table])
    storage.check_state()


def test_a_new_folder_needs_a_genesis_and_keeps_to_it(tmp_path: Path, clock: ManualClock) -> None:
    storage = LedgerStorage(tmp_path)
    storage.open()
    with pytest.raises(InvalidGenesis, match="needs a genesis"):
        load_application(storage)
    chain = Chain(tmp_path / "unused", clock)
    load_application(storage, chain.genesis)
    other = replace(chain.genesis, issued=7)
    with pytest.raises(InvalidGenesis, match="another genesis"):
        load_application(storage, other)
    storage.close()
