"""Attacks on the few places for event streams and downloads: one reader that would have them all."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

import aiohttp
import pytest

from ledger.engine import rpc_common
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.rpc_common import Settings
from tests.ledger.engine.conftest import until
from tests.ledger.engine.test_rpc import served


@pytest.mark.skipif(sys.platform != "linux", reason="only there all of 127.0.0.0/8 are one's own addresses")
async def test_one_reader_does_not_keep_all_streams_from_others(engine: EmbeddedEngine) -> None:
    """Nodes learn from their streams when to prove: whoever holds all places has them all faulted."""
    async with served(engine, Settings(max_streams=3)) as url, AsyncExitStack() as stack:

        async def follow(address: str) -> aiohttp.ClientResponse:
            connector = aiohttp.TCPConnector(local_addr=(address, 0))
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            return await session.get(f"{url}/v1/events")

        greedy = [await follow("127.0.0.2") for _ in range(3)]
        assert (await follow("127.0.0.2")).status == 503
        honest = await follow("127.0.0.3")
        assert honest.status == 200
        with pytest.raises(aiohttp.ClientError):
            await greedy[0].content.readline()
        await until(lambda: engine.status.subscribers == 3)
        assert (await follow("127.0.0.3")).status == 503  # that would only turn the tables
        assert (await follow("127.0.0.2")).status == 503
        for response in (*greedy, honest):
            response.close()


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:0db8:0001:0002"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
        ("", ""),
    ],
)
def test_one_host_has_a_whole_network_of_ipv6_addresses(address: str, network: str) -> None:
    assert rpc_common._network(address) == network
