"""Content that no node of a ledger has, from providers that a router names; nodes that are busy or dead."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from merkledag.cid import CID
from tests.gateway.support import Answer
from tests.gateway.test_fetching_ahead import DATA, far_file
from tests.gateway.test_fetching_network import Nodes, World, fails, hangs
from tests.gateway.test_hostile_clients import until
from tests.storage_node.router_server import Routed, router_server

JSON = {"Accept": "application/json"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    _, cid = far_file()
    async with AsyncExitStack() as stack:
        yield World(stack, Nodes(), cid)


async def a_router(world: World, **behaviour: Any) -> Routed:
    return await world.stack.enter_async_context(router_server(Routed(**behaviour)))


def peer(*urls: str, protocols: list[str] | None = None) -> dict[str, object]:
    """A record of Delegated Routing V1."""
    addresses = [f"/ip4/127.0.0.1/tcp/{url.rpartition(':')[2]}/http" for url in urls]
    told = ["transport-ipfs-gateway-http"] if protocols is None else protocols
    return {"Schema": "peer", "ID": "12D3KooW", "Addrs": addresses, "Protocols": told}


def asked(answer: Answer) -> list[tuple[str, str]]:
    return [(each["provider"], each["outcome"]) for each in json.loads(answer.body)["asked"]]


@pytest.mark.parametrize("streams", [True, False])
async def test_a_router_is_asked_once_for_a_file_that_the_ledgers_nodes_have_not_got(
    world: World, streams: bool
) -> None:
    async def has_nothing(_request: web.Request) -> web.Response:
        return web.Response(status=404)

    await world.add("ledger's", has_nothing)
    url = await world.add_honest("far", known=False)
    router = await a_router(world, streams=streams)
    router.providers[str(world.cid)] = [
        {"Schema": "peer", "Addrs": ["/ip4/127.0.0.1/udp/1/quic-v1"]},
        peer(url),
        peer("http://x:1", protocols=["transport-bitswap"]),
    ]
    client = await world.gateway(routers=[router.url])
    assert (await client.ask(world.path)).body == DATA
    assert router.wanted == [str(world.cid)]
    assert world.asked["ledger's"] == [f"/ipfs/{world.cid}"]
    assert len(world.asked["far"]) == len(set(world.asked["far"]))


async def test_what_a_ledgers_node_has_is_asked_of_no_router(world: World) -> None:
    await world.add_honest("ledger's")
    router = await a_router(world)
    client = await world.gateway(routers=[router.url])
    assert (await client.ask(world.path)).body == DATA
    assert router.wanted == []


async def test_a_provider_is_asked_before_the_router_has_named_the_last(world: World) -> None:
    url = await world.add_honest("far", known=False)
    router = await a_router(world, last=asyncio.Event())
    router.providers[str(world.cid)] = [peer(url), peer("http://x:1")]
    client = await world.gateway(routers=[router.url])
    assert (await client.ask(world.path)).body == DATA


async def test_of_several_routers_and_providers_those_that_fail_do_no_harm(world: World) -> None:
    bad = await world.add("bad", fails, known=False)
    good = await world.add_honest("good", known=False)
    broken, router = await a_router(world, provider_status=500), await a_router(world)
    router.providers[str(world.cid)] = [peer(bad), peer(good)]
    client = await world.gateway(routers=["http://127.0.0.1:1", broken.url, router.url])
    assert (await client.ask(world.path)).body == DATA
    assert len(broken.wanted) == len(world.asked["bad"]) == 1


async def test_where_routers_name_nobody_it_is_not_found_and_asked_again_later(world: World) -> None:
    router = await a_router(world)
    client = await world.gateway(routers=[router.url])
    for _ in range(3):
        answer = await client.ask(world.path, JSON)
        assert (answer.status, asked(answer)) == (404, [("the routers", "names nobody who has it")])
    assert len(router.wanted) == 1
    router.providers[str(world.cid)] = [peer(await world.add_honest("far", known=False))]
    world.ahead_s = 31.0
    assert (await client.ask(world.path)).body == DATA


async def test_a_router_that_gives_no_answer_is_left_alone_and_not_named_to_strangers(world: World) -> None:
    router = await a_router(world, provider_status=429)
    client = await world.gateway(routers=[router.url])
    for cid in (world.cid, CID.of(b"another")):
        answer = await client.ask(f"/ipfs/{cid}", JSON)
        assert (answer.status, asked(answer)) == (502, [("the routers", "did not answer")])
        assert router.url.encode() not in answer.body
    assert len(router.wanted) == 1
    world.ahead_s = 8.0  # it said 7
    await client.ask(world.path)
    assert len(router.wanted) == 2


@pytest.mark.parametrize("record", [b"{", b"[" * 100_000, b'{"Addrs":["' + b"x" * (1 << 20), b"\xff\xfe"])
async def test_what_a_router_sends_is_bounded_and_need_not_make_sense(world: World, record: bytes) -> None:
    async def nonsense(_request: web.Request) -> web.Response:
        return web.Response(body=record, content_type="application/x-ndjson")

    app = web.Application()
    app.router.add_get("/routing/v1/providers/{cid}", nonsense)
    client = await world.gateway(routers=[await world._serve(app, known=False)])
    answer = await client.ask(world.path, JSON)
    assert (answer.status, asked(answer)) == (502, [("the routers", "did not answer")])


async def test_a_routers_word_leads_to_no_private_address(world: World) -> None:
    url = await world.add_honest("inside", known=False)
    port = url.rpartition(":")[2]
    router = await a_router(world)
    hosts = ["/dns4/localhost", "/ip4/127.0.0.1", "/ip4/10.0.0.1", "/ip6/::ffff:127.0.0.1", "/dns/2130706433"]
    router.providers[str(world.cid)] = [{"Addrs": [f"{host}/tcp/{port}/http"]} for host in hosts]
    client = await world.gateway(routers=[router.url], strangers_private=False)
    assert (await client.ask(world.path)).status in (404, 502)
    assert world.asked["inside"] == []


async def test_when_the_client_leaves_neither_router_nor_provider_is_asked_on(world: World) -> None:
    slow = await world.add("slow", hangs, known=False)
    router = await a_router(world, last=asyncio.Event())
    router.providers[str(world.cid)] = [peer(slow), peer("http://x:1")]
    client = await world.gateway(routers=[router.url])
    before = asyncio.all_tasks()
    asking = asyncio.create_task(client.ask(world.path))
    await until(lambda: len(world.asked["slow"]) == 1)
    asking.cancel()
    await until(lambda: world.left == 1)
    assert router.last is not None
    router.last.set()
    await until(lambda: not [task for task in asyncio.all_tasks() - before if "storage_node/" in repr(task)])


# --- nodes that are busy, and nodes that are gone ---


async def test_a_busy_node_is_asked_again_when_it_said_and_is_not_counted_as_failed(world: World) -> None:
    honest, _ = far_file()
    busy_until = 30

    async def limits(request: web.Request) -> web.Response:
        if 10 < len(world.asked["only"]) <= busy_until:
            return web.Response(status=429, headers={"Retry-After": "3"})
        return web.Response(body=honest.remote[CID.parse(request.match_info["cid"]).multihash])

    await world.add("only", limits)
    client = await world.gateway(hedge_s=10.0)
    assert (await client.ask(world.path)).body == DATA
    assert 2.9 < max(world.slept) <= 3.0


async def test_while_one_node_is_busy_others_are_asked(world: World) -> None:
    async def later(_request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "900"})

    await world.add("busy", later)
    await world.add_honest("idle")
    client = await world.gateway(hedge_s=10.0)
    assert (await client.ask(world.path)).body == DATA
    assert len(world.asked["busy"]) == 1
    assert world.slept == []  # that would take too long to wait for


async def test_a_dead_node_makes_unknown_content_uncertain_once_and_then_unknown(world: World) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
    world.nodes.urls.append(dead)
    await world.add_honest("good")
    client = await world.gateway()
    statuses = []
    for number in range(3):
        answer = await client.ask(f"/ipfs/{CID.of(bytes([number]))}", JSON)
        statuses.append(answer.status)
        assert (dead, "did not answer") in asked(answer)
        world.ahead_s += 1000.0
    assert statuses == [502, 404, 404]


async def test_a_node_that_is_known_to_hang_holds_up_unknown_content_for_a_moment_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_node.race.LAST_RESORT_S", 0.05)
    url = await world.add("hangs", hangs)
    await world.add_honest("good")
    client = await world.gateway()
    assert (await client.ask(world.path)).body == DATA  # it was outrun
    for number in range(2):
        answer = await client.ask(f"/ipfs/{CID.of(bytes([number]))}", JSON)
        assert answer.status == 404
        assert (url, "did not answer") in asked(answer)
