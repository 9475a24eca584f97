"""A chain of one real validator with its HTTP, in the process of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp.test_utils import TestServer

from ledger.engine.chain_check import TrustPin
from ledger.engine.client import LedgerClient
from ledger.engine.cometbft.light.node_source import NodeSource
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.rpc import build_rpc
from tests.ledger.cometbft.application import make_engine, transfer
from tests.ledger.cometbft.one import Validator


@dataclass(frozen=True)
class Running:
    """A chain that makes blocks: its HTTP, CometBFT's RPC, and the first header. Nonce 0 is used."""

    url: str
    rpc: CometRpc
    pin: TrustPin


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Running]:
    """A new chain, in which the operator has sent 1 HOLD to alice."""
    validator = Validator.create(folder)
    storage = validator.storage()
    async with CometRpc(validator.url) as rpc:
        engine = make_engine(validator.folder, storage, validator.genesis, rpc)
        await engine.start()
        try:
            async with validator.cometbft(), TestServer(build_rpc(engine, light=NodeSource(rpc))) as server:
                url = str(server.make_url("")).rstrip("/")
                async with LedgerClient(url) as client:
                    await anext(client.events(1))
                    sent = await client.submit(transfer(0))
                    await anext(client.events(sent.height + 1))  # proofs are of the block before the last
                    first = (await client.light_block(1)).header
                yield Running(url, rpc, TrustPin(1, first.hash()))
        finally:
            await engine.stop()
            storage.close()
