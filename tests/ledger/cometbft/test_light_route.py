"""`GET /v1/light/{height}`: a real node's headers, and what is said where there are none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.node_source import MAX_AT_ONCE, NodeSource
from ledger.engine.cometbft.light.verify import verify_alone
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.cometbft.rpc.errors import HeightAhead
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import LedgerNotFound
from ledger.engine.render import CBOR_TYPE
from ledger.engine.rpc import build_rpc
from ledger.engine.schema import document
from merkledag import dag_cbor
from tests.ledger.cometbft.processes import kvstore, quick_home, until_block
from tests.ledger.engine.conftest import Chain, ManualClock
from tests.ledger.engine.json_schema import problems


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EmbeddedEngine]:
    """One that is not started: nothing here asks it."""
    chain = Chain(tmp_path / "ledger", ManualClock())
    yield chain.engine()
    chain.close()


async def test_an_embedded_ledger_says_that_it_has_none(engine: EmbeddedEngine) -> None:
    async with TestClient(TestServer(build_rpc(engine))) as http, http.get("/v1/light/latest") as answer:
        assert answer.status == 404
        assert "signed by its operator" in (await answer.json())["error"]


async def test_few_headers_are_asked_for_at_once() -> None:
    """Transactions go to CometBFT over the same connections."""

    class Slow(CometRpc):
        asked = 0

        async def commit(self, height: int | None = None) -> dict[str, Any]:
            self.asked += 1
            await may_answer.wait()
            raise HeightAhead(f"no header {height}")

    may_answer, rpc = asyncio.Event(), Slow("http://127.0.0.1:1")
    source = NodeSource(rpc)
    strangers = [asyncio.create_task(source.light_block(height)) for height in range(1, 4 * MAX_AT_ONCE)]
    await asyncio.sleep(0)
    assert rpc.asked == MAX_AT_ONCE
    may_answer.set()
    told = await asyncio.gather(*strangers, return_exceptions=True)
    assert {type(each) for each in told} == {LedgerNotFound}


@pytest.mark.peers
async def test_a_nodes_headers_are_served(tmp_path: Path, engine: EmbeddedEngine) -> None:
    async with kvstore(tmp_path, quick_home(tmp_path)) as rpc:
        await until_block(rpc, 2)
        chain = (await rpc.status()).network
        async with TestClient(TestServer(build_rpc(engine, light=NodeSource(rpc)))) as http:
            for path, height in (("1", 1), ("1", 1), ("latest", 2)):
                async with http.get(f"/v1/light/{path}", headers={"Accept": CBOR_TYPE}) as answer:
                    found = dag_cbor.decode(await answer.read())
                block = LightBlock.decode(found["light_block"])
                assert found["height"] == block.height >= height
                verify_alone(block, chain)
            async with http.get("/v1/light/1") as answer:
                schema = document()
                route = schema["routes"]["GET /v1/light/{height}"]
                assert problems(await answer.json(), route, schema["$defs"]) == []
            for path, status in (("999999", 404), ("0", 404), ("-1", 400), ("first", 400)):
                async with http.get(f"/v1/light/{path}") as answer:
                    assert answer.status == status, path
    async with rpc, TestClient(TestServer(build_rpc(engine, light=NodeSource(rpc)))) as http:
        answer = await http.get("/v1/light/latest")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
