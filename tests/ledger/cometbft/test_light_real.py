"""The light client's rules on what the real `cometbft` signs, while its validators change."""

from __future__ import annotations

import base64
import hashlib
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from ledger.engine.cometbft.light.block import LightBlock, from_rpc
from ledger.engine.cometbft.light.header import data_hash
from ledger.engine.cometbft.light.verify import Rules, verify, verify_alone, verify_backwards
from ledger.engine.cometbft.light.votes import Flag
from ledger.engine.cometbft.rpc.client import CometRpc
from tests.ledger.cometbft.processes import kvstore, offer, quick_home

pytestmark = pytest.mark.peers

JOINED = 3  # who are nowhere, and so absent; the node has power 10, each of them 1
BLOCKS = 6


async def light_block(rpc: CometRpc, height: int) -> LightBlock:
    commit = await rpc.commit(height)
    _, validators = await rpc.validators(height)
    return from_rpc(commit["signed_header"], validators)


async def test_headers_commits_and_validators_of_a_real_chain(tmp_path: Path) -> None:
    keys = [base64.b64encode(hashlib.sha256(bytes([number])).digest()) for number in range(JOINED)]
    port = quick_home(tmp_path)
    async with kvstore(tmp_path, port) as rpc, aclosing(rpc.subscribe("tm.event='NewBlock'")) as events:
        sent = [b"val=ed25519!" + key + b"!1" for key in keys]
        await offer(rpc, sent)
        last = 0
        async for _ in events:
            last += 1
            if last == BLOCKS:
                break
        last = int((await rpc.commit())["signed_header"]["header"]["height"]) - 1
        blocks = {height: await light_block(rpc, height) for height in range(1, last + 1)}
        chain = (await rpc.status()).network
        txs = {
            height: [
                base64.b64decode(tx)
                for tx in (await rpc.call("block", {"height": str(height)}))["block"]["data"]["txs"]
            ]
            for height in blocks
        }
    now_ns = time.time_ns()
    sizes = [len(block.validators.validators) for block in blocks.values()]
    assert (sizes[0], sizes[-1]) == (1, 1 + JOINED), "the validators changed on the way"
    assert any(vote.flag is Flag.ABSENT for vote in blocks[last].commit.signatures)
    for height, block in blocks.items():
        verify_alone(block, chain)
        assert LightBlock.decode(block.encode()) == block
        assert data_hash([hashlib.sha256(tx).digest() for tx in txs[height]]) == block.header.data_hash
        if height > 1:
            before = blocks[height - 1]
            verify(before, block, now_ns, Rules())
            verify_backwards(before.header, block.header)
            assert before.commit.hash() == block.header.last_commit_hash
    verify(blocks[1], blocks[last], now_ns, Rules())
    assert set(sent) <= {tx for each in txs.values() for tx in each}
