"""The real `cometbft` and an application that is behind it, ahead of it, new, or of another chain."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from ledger.engine.cometbft.home.genesis_file import install_genesis
from ledger.engine.cometbft.rpc.client import CometRpc
from tests.ledger.cometbft.application import genesis, rerun, transfer
from tests.ledger.cometbft.one import Validator
from tests.ledger.cometbft.processes import last_lines, offer, until_answers, until_block

pytestmark = pytest.mark.peers

LIMIT_S = 150  # of a busy machine
BLOCKS = 4


async def run_for(validator: Validator, rpc: CometRpc, nonce: int) -> None:
    """Both processes, until one more transfer and some blocks are made; both end well."""
    async with validator.application() as application, validator.cometbft() as cometbft:
        await until_answers(rpc, cometbft, validator.log)
        assert await offer(rpc, [transfer(nonce)]) == [0]
        goal = (await rpc.status()).height + BLOCKS
        await until_block(rpc, goal + 1)
        cometbft.terminate()
        await cometbft.wait()
        application.terminate()
        assert await application.wait() == 0, last_lines(validator.log)


def check(validator: Validator, transfers: int) -> tuple[int, bytes]:
    """Height and app hash, which a run of all blocks from genesis gives too; all transfers are there."""
    storage = validator.storage()
    try:
        storage.check_state()
        again = rerun(storage, validator.genesis)
        assert (again.height, again.app_hash) == (storage.height(), storage.app_hash())
        sent = [tx for height in range(1, again.height + 1) for tx in storage.txs(height)[1:]]
        assert sent == [transfer(number) for number in range(transfers)]
        return again.height, again.app_hash
    finally:
        storage.close()


async def test_an_application_behind_is_given_the_blocks_again_and_one_ahead_is_not(tmp_path: Path) -> None:
    validator = Validator.create(tmp_path / "one")
    ledger, data = validator.folder / "ledger", validator.comet.data
    old_ledger, old_data = tmp_path / "ledger", tmp_path / "data"
    async with asyncio.timeout(LIMIT_S), CometRpc(validator.url) as rpc:
        # Given a chain of which both halves were backed up on the way
        await run_for(validator, rpc, 0)
        height, _ = check(validator, 1)
        shutil.copytree(ledger, old_ledger)
        shutil.copytree(data, old_data)
        await run_for(validator, rpc, 1)
        later, _ = check(validator, 2)
        assert later > height
        # when the application's half alone is restored, then CometBFT gives it what it lacks
        shutil.rmtree(ledger)
        shutil.copytree(old_ledger, ledger)
        await run_for(validator, rpc, 2)
        assert check(validator, 3)[0] > later
        # and when all of it is gone, then everything from genesis on
        shutil.rmtree(ledger)
        await run_for(validator, rpc, 3)
        before = check(validator, 4)
        # But when CometBFT's half alone is restored, then it ends and says that the application is ahead
        shutil.rmtree(data)
        shutil.copytree(old_data, data)
        async with validator.application(), validator.cometbft() as cometbft:
            assert await cometbft.wait() != 0
        assert f"app block height ({before[0]}) is higher than core" in last_lines(validator.log)
        # and nothing is lost
        assert check(validator, 4) == before


async def test_a_genesis_of_another_chain_ends_both_processes_and_ours_says_why(tmp_path: Path) -> None:
    validator = Validator.create(tmp_path / "one")
    validator.comet.genesis_file.unlink()
    install_genesis(validator.comet, genesis(validator.genesis.time_s, validators=2))
    async with asyncio.timeout(LIMIT_S), validator.application() as application:
        async with validator.cometbft() as cometbft:
            assert await cometbft.wait() != 0
        assert await application.wait() == 1
    assert "app_state in CometBFT's genesis is another genesis" in last_lines(validator.said)
    storage = validator.storage()
    assert storage.height() == 0
    storage.close()
