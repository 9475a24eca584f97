"""Killed from FinalizeBlock to the end of Commit, the application comes back beside the real `cometbft`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.cometbft.rpc.errors import CometRpcError
from ledger.engine.history import History
from tests.ledger.cometbft.application import EXIT_CRASH, rerun, transfer
from tests.ledger.cometbft.one import Validator
from tests.ledger.cometbft.processes import last_lines, offer, until_answers, until_block

pytestmark = pytest.mark.peers

POINTS = ("finalize.run", "db.begin", "db.state", "db.commit", "db.committed")
LIMIT_S = 150  # of a busy machine
RETRY_S = 0.02
IN_FLIGHT = 3


async def keep_sending(rpc: CometRpc, nonce: int) -> None:
    """Sends one transfer after the other from `nonce` on, for as long as there is somebody who takes them."""
    while True:
        try:
            codes = await offer(rpc, [transfer(nonce + number) for number in range(IN_FLIGHT)])
        except CometRpcError:
            await asyncio.sleep(RETRY_S)  # it starts or ends
            continue
        nonce += codes.count(0)


def next_nonce(validator: Validator) -> int:
    """How many transfers are in blocks."""
    storage = validator.storage()
    try:
        return sum(len(storage.txs(height)) - 1 for height in range(1, storage.height() + 1))
    finally:
        storage.close()


async def test_killed_at_each_step_of_a_block_it_comes_back_with_the_same_app_hash(tmp_path: Path) -> None:
    validator = Validator.create(tmp_path / "one")
    async with asyncio.timeout(LIMIT_S), CometRpc(validator.url) as rpc:
        # Given a chain whose application dies at another step of a block after each start
        for number, point in enumerate(POINTS):
            nonce = next_nonce(validator)
            async with validator.application(point, 5 + number) as application, validator.cometbft():
                sending = asyncio.create_task(keep_sending(rpc, nonce))
                assert await application.wait() == EXIT_CRASH, point
                sending.cancel()
                await asyncio.wait({sending})
        # when it is started once more
        nonce = next_nonce(validator)
        async with validator.application() as application, validator.cometbft() as cometbft:
            await until_answers(rpc, cometbft, validator.log)
            await offer(rpc, [transfer(nonce)])
            # then the chain goes on
            goal = (await rpc.status()).height + 3
            await until_block(rpc, goal + 1)
            headers = [(await rpc.commit(height + 1))["signed_header"]["header"] for height in range(1, goal)]
            application.terminate()
            assert await application.wait() == 0, last_lines(validator.log)
    storage = validator.storage()
    try:
        # and every block has the app hash that a run without a crash gives, which the next header states
        again = rerun(storage, validator.genesis)
        assert (again.height, again.app_hash) == (storage.height(), storage.app_hash())
        storage.check_state()
        blocks_kept = [History(storage).block(height) for height in range(1, goal)]
        told = [bytes.fromhex(header["app_hash"]) for header in headers]
        assert [block and block.app_hash for block in blocks_kept] == told
        # and each transfer is in one block, in its order
        sent = [tx for height in range(1, again.height + 1) for tx in storage.txs(height)[1:]]
        assert sent == [transfer(number) for number in range(len(sent))]
        assert len(sent) > nonce
    finally:
        storage.close()


async def test_cometbft_killed_again_and_again_is_served_by_the_same_application(tmp_path: Path) -> None:
    validator = Validator.create(tmp_path / "one")
    async with (
        asyncio.timeout(LIMIT_S),
        CometRpc(validator.url) as rpc,
        validator.application() as application,
    ):
        sending = asyncio.create_task(keep_sending(rpc, 0))
        for _ in range(4):
            async with validator.cometbft() as cometbft:
                await until_answers(rpc, cometbft, validator.log)
                await until_block(rpc, 1)
                cometbft.kill()
                await cometbft.wait()
        sending.cancel()
        await asyncio.wait({sending})
        application.terminate()
        assert await application.wait() == 0
    storage = validator.storage()
    again = rerun(storage, validator.genesis)
    assert (again.height, again.app_hash) == (storage.height(), storage.app_hash())
    assert again.height >= 4
    storage.close()
