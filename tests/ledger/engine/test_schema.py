"""The schema at /v1/schema: it has every route, and what the server answers is as it says."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ledger import keys
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.rpc import build_rpc
from ledger.engine.rpc_common import Settings
from ledger.engine.schema import OTHER, document
from ledger.transactions import Propose, Spot, Vote
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.peer import peer_text
from tests.ledger.engine.conftest import Chain, ManualClock
from tests.ledger.engine.json_schema import problems
from tests.ledger.engine.test_block_times import open_deal, send
from tests.ledger.engine.test_rpc import Http, served


@pytest.fixture
async def http(engine: EmbeddedEngine) -> AsyncIterator[Http]:
    async with served(engine, Settings(heartbeat_s=0.01)) as url, aiohttp.ClientSession() as session:
        yield Http(url, session)


async def schema_of(http: Http) -> Any:
    async with http.session.get(f"{http.url}/v1/schema") as response:
        assert (response.status, response.content_type) == (200, "application/schema+json")
        return await response.json()


def check(schema: Any, route: str, answer: Any) -> None:
    assert problems(answer, schema["routes"][route], schema["$defs"]) == []


async def test_every_route_and_no_other_has_a_schema(engine: EmbeddedEngine, http: Http) -> None:
    served_here = {
        f"{route.method} {route.resource.canonical}"
        for route in build_rpc(engine).router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    schema = await schema_of(http)
    assert set(schema["routes"]) == served_here
    assert set(OTHER) <= served_here


def test_the_page_names_every_route_and_no_other() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "ledger-rpc.md").read_text()
    named = {re.sub(r"latest|\{\w+\}", "{}", path) for path in re.findall(r"/v1/[\w/{}]*[\w}]", page)}
    routes = {re.sub(r"\{\w+\}", "{}", route.partition(" ")[2]) for route in document()["routes"]}
    assert routes <= named
    assert named <= routes | {route.removesuffix("/{}") for route in routes}


async def test_answers_of_a_ledger_with_a_deal_are_as_the_schema_says(
    engine: EmbeddedEngine, chain: Chain, http: Http, clock: ManualClock
) -> None:
    schema = await schema_of(http)
    await open_deal(engine, chain, periods=3)
    proposal = await send(engine, chain.tx("node", 3, Propose({"base_fee": 1_500}, 0, "dearer")))
    await send(engine, chain.tx("node", 4, Vote(proposal, True)))
    # The piece joins its dataset's tree when the period turns.
    while not (await http.get("/v1/datasets"))["items"][0]["dataset"]["pieces"]:
        await clock.advance(1)
    deal = (await http.get("/v1/deals"))["items"][0]
    await send(engine, chain.tx("node", 5, Spot(CID.parse(deal["id"]), 0)))
    # The block after draws what is to be proven: until then what is read changes under the reader.
    while not (await http.get("/v1/spots"))["items"][0]["spot"]["seed"]:
        await clock.advance(1)
    spots = (await http.get("/v1/spots"))["items"]
    assert [(spot["deal"], spot["shard"]) for spot in spots] == [(deal["id"], 0)]
    assert (await http.get(f"/v1/spots?deal={deal['id']}"))["items"] == spots
    assert (await http.get(f"/v1/spots?deal={proposal}"))["items"] == []
    dataset = (await http.get("/v1/datasets"))["items"][0]
    holder = dataset["dataset"]["provider"]
    txs = [cid for h in range(1, 8) for cid in (await http.get(f"/v1/block/{h}"))["block"]["txs"]]
    state_key = keys.account(chain.operator.public_key).hex()
    seen = {
        "GET /v1/status": ["/v1/status"],
        "GET /v1/genesis": ["/v1/genesis"],
        "GET /v1/params": ["/v1/params"],
        "GET /v1/account/{account}": [f"/v1/account/{holder}"],
        "GET /v1/account/{account}/history": [
            f"/v1/account/{holder}/history",
            f"/v1/account/{holder}/history?limit=1",
        ],
        "GET /v1/providers": ["/v1/providers"],
        "GET /v1/provider/{account}": [f"/v1/provider/{holder}"],
        "GET /v1/validators": ["/v1/validators"],
        "GET /v1/validator/{account}": [f"/v1/validator/{peer_text(chain.operator.public_key)}"],
        "GET /v1/deals": ["/v1/deals"],
        "GET /v1/deal/{cid}": [f"/v1/deal/{deal['id']}"],
        "GET /v1/datasets": ["/v1/datasets"],
        "GET /v1/dataset/{id}": [f"/v1/dataset/{dataset['id']}"],
        "GET /v1/dataset/{id}/slots": [f"/v1/dataset/{dataset['id']}/slots"],
        "GET /v1/spots": ["/v1/spots", f"/v1/spots?provider={holder}&deal={deal['id']}&limit=1"],
        "GET /v1/proposals": ["/v1/proposals"],
        "GET /v1/proposal/{cid}": [f"/v1/proposal/{proposal}"],
        "GET /v1/proposal/{cid}/vote/{account}": [f"/v1/proposal/{proposal}/vote/{holder}"],
        "GET /v1/block/{height}": ["/v1/block/1", "/v1/block/latest"],
        "GET /v1/tx/{cid}": [f"/v1/tx/{cid}" for cid in txs],
        "GET /v1/prove/{key}": [f"/v1/prove/{state_key}", "/v1/prove/ff00ff"],
        "GET /v1/schema": ["/v1/schema"],
    }
    for route, paths in seen.items():
        for path in paths:
            async with http.session.get(http.url + path) as response:
                assert response.status == 200, path
                check(schema, route, await response.json())
    sent = [chain.transfer(engine.app.account(chain.operator.public_key).nonce), b"garbage"]
    wanted = dag_cbor.encode([bytes.fromhex(state_key), b"nothing"])
    check(schema, "POST /v1/prove", await http.post(wanted, path="/v1/prove"))
    check(schema, "POST /v1/txs", await http.post(dag_cbor.encode(sent), path="/v1/txs"))
    check(schema, "POST /v1/tx", await http.post(sent[0]))
    check(schema, "POST /v1/tx", await http.post(sent[1], 400))
    async with http.session.get(f"{http.url}/v1/events?from=1") as response:
        told = 0
        async for line in response.content:
            item = json.loads(line)
            check(schema, "GET /v1/events", item)
            told += 1
            if "heartbeat" in item:
                break
    assert told > engine.app.height - 1
    answered = set(seen) | {"POST /v1/prove", "POST /v1/tx", "POST /v1/txs", "GET /v1/events"} | set(OTHER)
    # Of another engine: tests/ledger/cometbft/test_light_route.py, test_light_ledger.py
    answered |= {"GET /v1/light/{height}", "POST /v1/light"}
    assert answered == set(schema["routes"]), "a new route wants an answer here"


async def test_the_schema_notices_what_is_wrong(http: Http, chain: Chain) -> None:
    schema = await schema_of(http)
    status = await http.get("/v1/status")
    check(schema, "GET /v1/status", status)
    operator = peer_text(chain.operator.public_key)
    account = await http.get(f"/v1/account/{operator}")
    for wrong in (
        {**status, "height": -1},
        {**status, "height": True},
        {**status, "app_hash": "00"},
        {**status, "more": 1},
        {name: value for name, value in status.items() if name != "time"},
        account,
    ):
        assert problems(wrong, schema["routes"]["GET /v1/status"], schema["$defs"])
    wrong_record = {**account, "record": {**account["record"], "nonce": "3"}}
    assert problems(wrong_record, schema["routes"]["GET /v1/account/{account}"], schema["$defs"])
