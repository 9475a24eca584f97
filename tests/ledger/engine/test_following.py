"""Followers that ask for certain events, fall away and come again: what was asked for arrives, once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ledger.engine.blocks import BlockEvents
from ledger.engine.chain_check import TrustPin
from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import ChainMismatch, LedgerProtocolError
from ledger.engine.event_filter import EventFilter
from ledger.engine.rpc_common import Settings
from ledger.events import Event
from ledger.genesis import HOLD
from ledger.transactions import Ask, Register
from merkledag import dag_cbor, varint
from merkledag.cid import CID
from merkledag.peer import peer_text
from tests.ledger.engine.conftest import CHAIN, Chain, signer
from tests.ledger.engine.test_client import Naps, Server
from tests.ledger.engine.test_rpc import served

DEAL, OTHER = CID.of(b"deal", codec=0x71), CID.of(b"other", codec=0x71)
ALICE, BOB = signer("alice").public_key, signer("bob").public_key


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (EventFilter(), [0, 1, 2, 3]),
        (EventFilter(kinds=frozenset({"transfer"})), [0]),
        (EventFilter(accounts=frozenset({BOB})), [0, 2]),
        (EventFilter(accounts=frozenset({ALICE, BOB})), [0, 1, 2]),
        (EventFilter(deals=frozenset({DEAL})), [1, 3]),
        (EventFilter(accounts=frozenset({ALICE}), deals=frozenset({DEAL})), [1]),
        (EventFilter(accounts=frozenset({BOB}), deals=frozenset({DEAL})), []),
        (EventFilter(accounts=frozenset({BOB}), kinds=frozenset({"paid"})), [2]),
    ],
)
def test_a_filter_joins_its_parts_by_and(wanted: EventFilter, expected: list[int]) -> None:
    events = (
        Event("transfer", {"from": ALICE, "to": BOB, "amount": 5}),
        Event("deal_created", {"deal": DEAL, "client": ALICE, "shards": 2}),
        Event("paid", {"deal": OTHER, "shard": 0, "provider": BOB, "amount": 1, "reward": 0}),
        # What has an account's bytes and is none names no account.
        Event("window_opened", {"deal": DEAL, "seed": BOB}),
    )
    found = wanted.of(BlockEvents(7, 1, events))
    assert [events.index(event) for event in found.events] == expected if found else expected == []


@pytest.fixture
async def url(engine: EmbeddedEngine) -> AsyncIterator[str]:
    async with served(engine, Settings(heartbeat_s=0.05)) as served_at:
        yield served_at


async def lines(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    async for line in response.content:
        yield json.loads(line)


async def test_only_what_was_asked_for_comes_and_heartbeats_tell_how_far_it_is(
    engine: EmbeddedEngine, chain: Chain, url: str
) -> None:
    for nonce, name in enumerate(["alice", "bob", "carol", "alice", "dora"]):
        await engine.submit(chain.transfer(nonce, name, 100 * HOLD))
    query = {"from": "1", "account": peer_text(ALICE), "kind": "transfer"}
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/events", params=query) as response:
        stream = lines(response)
        told: list[int] = []
        while not (found := await anext(stream)).get("heartbeat") or found["height"] < 5:
            told += [] if found.get("heartbeat") else [found["height"]]
        assert (told, found["height"]) == ([1, 4], 5)
        await engine.submit(chain.transfer(5, "eve"))
        while (beat := await anext(stream))["height"] == 5:
            assert beat["heartbeat"]
        assert {"height": 6, "heartbeat": True}.items() <= beat.items()
        await engine.submit(chain.transfer(6, "alice"))
        while (found := await anext(stream)).get("heartbeat"):
            pass
        assert [event["attributes"]["to"] for event in found["events"]] == [peer_text(ALICE)]


@pytest.mark.parametrize(
    "query", ["account=nobody", "deal=x", "kind=", "kind=a%20b", "&".join(["kind=paid"] * 65)]
)
async def test_a_filter_that_makes_no_sense_is_refused(url: str, query: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/events?{query}") as response:
        assert response.status == 400
        assert (await response.json())["error"]


async def test_a_client_that_lost_the_stream_goes_on_where_it_was(
    engine: EmbeddedEngine, chain: Chain
) -> None:
    await engine.submit(chain.transfer(0, "alice", 200 * HOLD))
    wanted = EventFilter(accounts=frozenset({ALICE}), kinds=frozenset({"provider_registered", "transfer"}))
    register = Register("http://alice.example", 1 << 30, ALICE, 50 * HOLD)
    server = Server(engine)
    await server.start()
    client = LedgerClient(server.url, sleep=Naps())
    events = client.events(1, wanted)
    assert (await anext(events)).height == 1
    await server.stop()
    # The server is gone; meanwhile blocks are made, some with nothing that is wanted.
    await engine.submit(chain.transfer(1, "bob"))
    await engine.submit(chain.tx("alice", 0, register))
    await engine.submit(chain.tx("alice", 1, Ask(1, 0, 1 << 30, True)))
    await server.start()
    async with client, aclosing(events):
        found = await anext(events)
        assert [(found.height, event.kind) for event in found.events] == [(3, "provider_registered")]
    await server.stop()


async def test_heartbeats_of_blocks_that_never_came_are_none(engine: EmbeddedEngine) -> None:
    async def beats(request: web.Request) -> web.StreamResponse:
        if request.path != "/v1/events":
            return web.Response(body=engine.app.genesis.encode())
        response = web.StreamResponse()
        await response.prepare(request)
        for height in range(10):
            data = dag_cbor.encode({"height": height, "time": 1, "heartbeat": True})
            await response.write(varint.encode(len(data)) + data)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", beats)
    async with TestServer(app) as server, LedgerClient(str(server.make_url("/")), sleep=Naps()) as client:
        with pytest.raises(LedgerProtocolError, match="lacks block 7"):
            await anext(client.events(7))


async def test_followers_end_where_a_chain_of_an_operator_is_in_the_place_of_validators(
    engine: EmbeddedEngine, chain: Chain, url: str
) -> None:
    """Its server has no headers, and never will: nobody is to wait for them."""
    naps = Naps()
    for urls in (url, f"{url},{url}/"):
        async with LedgerClient(
            urls, expect_chain=CHAIN, expect_trust=TrustPin(3, bytes(32)), sleep=naps
        ) as client:
            with pytest.raises(ChainMismatch, match=r"its operator signs.*ledger join URL --replace"):
                await anext(client.events(1))
            with pytest.raises(ChainMismatch, match="its operator signs"):
                await client.status()
    assert not naps.asked
