"""A real `cometbft` under what strangers send: it makes blocks all the while, and nothing stays for ever."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest

from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.genesis import HOLD
from tests.ledger.cometbft.application import transfer
from tests.ledger.cometbft.one import Validator
from tests.ledger.cometbft.processes import cometbft as cometbft_process
from tests.ledger.cometbft.processes import last_lines, offer, until_answers, until_block

pytestmark = pytest.mark.peers

LIMIT_S = 150  # of a busy machine
NOISE = (b"", b"\xff", b"\x00" * 500, b"\xa1ckind", transfer(0)[:-1], transfer(0) + b"\x00")


async def mempool_size(validator: Validator) -> int:
    """How many transactions CometBFT holds."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{validator.url}/num_unconfirmed_txs") as response,
    ):
        return int((await response.json())["result"]["n_txs"])


async def test_what_can_only_fail_leaves_the_mempool_and_noise_is_refused(tmp_path: Path) -> None:
    validator = Validator.create(tmp_path / "one")
    async with (
        asyncio.timeout(LIMIT_S),
        CometRpc(validator.url) as rpc,
        validator.application() as application,
        validator.cometbft() as cometbft,
    ):
        await until_answers(rpc, cometbft, validator.log)
        # Given noise, on the ABCI socket too, and payments of more than there is and what follows them
        assert all(await offer(rpc, [raw for raw in NOISE if raw]))
        _, stranger = await asyncio.open_unix_connection(str(validator.folder / "abci.sock"))
        stranger.write(b"GET / HTTP/1.1\r\n\r\n" * 50)
        await offer(rpc, [transfer(0, 10**9 * HOLD), *map(transfer, range(1, 6))])
        # when blocks come, then CometBFT holds none of it any more
        async with aclosing(rpc.subscribe("tm.event='NewBlock'")) as blocks:
            async for _ in blocks:
                if await mempool_size(validator) == 0:
                    break
            # and the account's business goes on where it was
            sent = list(map(transfer, range(4)))
            assert await offer(rpc, sent) == [0] * len(sent)
            async for _ in blocks:  # CometBFT leaves some out for a reader that is slow
                if await mempool_size(validator) == 0:
                    break
        stranger.close()
        # A second engine, of the very same chain, ends with the reason, and the first one goes on
        second = Validator(tmp_path / "two", validator.genesis, 1)
        second.configure(commit_ms=1)
        async with cometbft_process(second.comet.path, validator.address, second.log) as other:
            assert await other.wait()
        assert "one application serves one cometbft; stop the other one first" in last_lines(second.log)
        await until_block(rpc, (await rpc.status()).height + 2)
        application.terminate()
        assert await application.wait() == 0
    storage = validator.storage()
    try:
        assert [tx for height in range(1, storage.height() + 1) for tx in storage.txs(height)[1:]] == sent
    finally:
        storage.close()
