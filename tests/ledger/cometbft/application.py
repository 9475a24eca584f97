"""The application of a chain for tests, and a process of it that a test can have die at any write.

`python -m tests.ledger.cometbft.application FOLDER URL POINT COUNT` serves the `cometbft` at URL.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from ledger.application import Application, BlockInput
from ledger.engine.assemble import load_application
from ledger.engine.cometbft.engine import CometEngine
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.cometbft.submissions import Broadcaster
from ledger.engine.history import History
from ledger.engine.storage import LedgerStorage
from ledger.engine.wal import Fault, no_fault
from ledger.genesis import DEMO_PARAMS, HOLD, Genesis, GenesisValidator
from ledger.transactions import Transaction, Transfer, sign
from merkledag.ed25519 import Ed25519Signer
from proofs.bls.signatures import BlsSigner

CHAIN = "one-validator"
EXIT_CRASH = 77
FAR_S = 4_000_000_000


def seed(name: str) -> bytes:
    """A test key's seed."""
    return hashlib.sha256(name.encode()).digest()


def signer(name: str) -> Ed25519Signer:
    """A test account's key."""
    return Ed25519Signer.from_seed(seed(name))


def genesis(time_s: int, validators: int = 1) -> Genesis:
    """A chain whose operator has all money; validator 0's account is the operator's."""
    founders = []
    for number in range(validators):
        bls = BlsSigner.from_seed(seed(f"bls-{number}"))
        account = signer("operator" if number == 0 else f"validator-{number}").public_key
        consensus = signer(f"consensus-{number}").public_key
        founders.append(GenesisValidator(account, consensus, bls.public_key, bls.prove_possession(), 10))
    return Genesis.make(
        chain_id=CHAIN,
        time_s=time_s,
        operator=signer("operator").public_key,
        bls_key=founders[0].bls_key,
        bls_possession=founders[0].bls_possession,
        issued=1_000_000 * HOLD,
        params=DEMO_PARAMS,
        validators=tuple(founders),
    )


def transfer(nonce: int, amount: int = HOLD) -> bytes:
    """The operator's signed transfer to somebody."""
    key = signer("operator")
    body = Transfer(signer("alice").public_key, amount)
    return sign(Transaction(CHAIN, key.public_key, nonce, 2_000, FAR_S, body), key).encode()


def open_storage(folder: Path, fault: Fault = no_fault) -> LedgerStorage:
    """The store of the ledger in a folder; to be closed by the caller."""
    storage = LedgerStorage(folder / "ledger", fault=fault)
    storage.open()
    return storage


def make_engine(
    folder: Path, storage: LedgerStorage, genesis: Genesis, broadcaster: Broadcaster, **options: Any
) -> CometEngine:
    """Validator 0's engine over an open store, not started yet; it listens in the folder."""
    bls = BlsSigner.from_seed(seed("bls-0"))
    app = load_application(storage, genesis)
    return CometEngine(app, storage, {bls.public_key: bls}, broadcaster, abci_address(folder), **options)


def abci_address(folder: Path) -> str:
    """Where the application in a folder listens."""
    return f"unix://{folder}/abci.sock"


def rerun(storage: LedgerStorage, genesis: Genesis) -> Application:
    """An application that runs all blocks of a store, in memory; each gives the app hash that was stored."""
    history, app = History(storage), Application(genesis)
    for height in range(1, storage.height() + 1):
        given = history.given(height)
        block = given.block
        result = app.finalize_block(BlockInput(height, block.block_time_s, block.account, given.txs))
        assert result.app_hash == block.app_hash
        app.commit()
    return app


async def main(folder: Path, url: str, point: str, count: int) -> None:
    """An application that serves `cometbft` until it is asked to end, or dies on the way.

    It does not outlive who holds the other end of its stdin; nor does `cometbft` outlive it.
    """
    left = count

    def fault(at: str) -> None:
        nonlocal left
        left -= at == point
        if at == point and left == 0:
            os._exit(EXIT_CRASH)

    chain = Genesis.loads((folder / "genesis.json").read_bytes())
    storage = open_storage(folder, fault)
    async with CometRpc(url) as rpc:
        engine = make_engine(folder, storage, chain, rpc, fault=fault)
        await engine.start()
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), os._exit, EXIT_CRASH)
        loop.add_signal_handler(signal.SIGTERM, lambda: tasks.append(asyncio.ensure_future(engine.stop())))
        tasks: list[asyncio.Future[None]] = []
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        await engine.wait_ended()
        await asyncio.gather(*tasks)
    storage.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
