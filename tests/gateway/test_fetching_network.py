"""A gateway that fetches from real nodes over HTTP, of which some are slow, hostile or gone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from aiohttp.typedefs import Handler

from gateway.app import add_trustless_routes, build_app
from gateway.serving.listener import listen
from gateway.settings import GatewaySettings
from ledger.engine.errors import LedgerUnreachable
from merkledag.cid import CID
from storage_node.blockstore.memory import MemoryStore
from storage_node.endpoints import open_session
from storage_node.fetch import NetworkFetcher
from storage_node.pool import NodePool
from storage_node.provider_routing import ProviderRouter
from storage_node.providers import NoDirectory
from storage_node.routed import RoutedProviders
from storage_node.source import LocalSource, NetworkSource
from tests.gateway.support import Client
from tests.gateway.test_fetching_ahead import DATA, far_file
from tests.gateway.test_hostile_clients import connect, until

FEW = 4  # requests that reach a bad node before it is asked last


@dataclass
class Nodes(NoDirectory):
    """A directory of nodes that are asked in their order; nothing more is known of them."""

    urls: list[str] = field(default_factory=list)

    async def endpoints(self) -> tuple[str, ...]:
        return tuple(self.urls)


@dataclass
class World:
    """Nodes on loopback and a gateway with an empty store that knows them."""

    stack: AsyncExitStack
    nodes: Nodes
    cid: CID
    asked: dict[str, list[str]] = field(default_factory=dict)
    left: int = 0  # requests whose asker went away
    slept: list[float] = field(default_factory=list)  # seconds that nodes were left alone for
    ahead_s: float = 0.0  # … and that a test lets pass at once

    async def add(self, name: str, handler: Handler, *, known: bool = True) -> str:
        """A node that answers so."""
        came = self.asked[name] = []

        async def handle(request: web.Request) -> web.StreamResponse:
            came.append(request.path)
            try:
                return await handler(request)
            except asyncio.CancelledError:
                self.left += 1
                raise

        app = web.Application()
        app.router.add_get("/ipfs/{cid}", handle)
        return await self._serve(app, known=known)

    async def add_honest(self, name: str, *, known: bool = True) -> str:
        """A real node that has it all. `known`: the directory names it."""
        came = self.asked[name] = []

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            came.append(request.path)
            return await handler(request)

        store = MemoryStore()
        source, _ = far_file()
        store.put_many(source.remote.items())
        app = web.Application(middlewares=[count])
        add_trustless_routes(app, LocalSource(store))
        return await self._serve(app, known=known)

    async def _serve(self, app: web.Application, *, known: bool = True) -> str:
        runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        if known:
            self.nodes.urls.append(url)
        return url

    async def gateway(
        self,
        settings: GatewaySettings | None = None,
        *,
        hedge_s: float = 0.2,
        ledger_patience_s: float = 3.0,
        routers: Sequence[str] = (),
        strangers_private: bool = True,
    ) -> Client:
        """A gateway and a client of it. `strangers_private`: whom routers name may be on this machine."""
        pool = await self.pool(private=True)
        routed = None
        if routers:
            named = await self.stack.enter_async_context(open_session(allow_private=True))
            asked = [ProviderRouter(named, url, time.time) for url in routers]
            routed = RoutedProviders(asked, await self.pool(private=strangers_private))
        fetcher = NetworkFetcher(
            self.nodes, pool, hedge_s=hedge_s, ledger_patience_s=ledger_patience_s, routed=routed
        )
        self.stack.push_async_callback(fetcher.aclose)
        source = NetworkSource(LocalSource(MemoryStore()), fetcher.fetch, asked=fetcher.asked)
        self.stack.push_async_callback(source.aclose)
        settings = settings or GatewaySettings()
        listener = await listen(build_app(source, None, settings), "127.0.0.1", 0, settings)
        self.stack.push_async_callback(listener.close)
        client = ClientSession(timeout=ClientTimeout(total=15), auto_decompress=False)
        await self.stack.enter_async_context(client)
        return Client(listener, client)

    async def pool(self, *, private: bool) -> NodePool:
        """What connections to nodes are made by; sleeping takes no time, but counts."""
        session = await self.stack.enter_async_context(open_session(allow_private=private))

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            await asyncio.sleep(0)

        def clock() -> float:
            return time.monotonic() + self.ahead_s + sum(self.slept)

        return NodePool(session, wall_clock=time.time, clock=clock, allow_private=private, sleep=sleep)

    @property
    def path(self) -> str:
        return f"/ipfs/{self.cid}?filename=a.bin"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    _, cid = far_file()
    async with AsyncExitStack() as stack:
        yield World(stack, Nodes(), cid)


async def lies(_request: web.Request) -> web.Response:
    return web.Response(body=b"not what was asked for")


async def page(_request: web.Request) -> web.Response:
    return web.Response(text="<h1>Sign in to this network</h1>", content_type="text/html")


async def fails(_request: web.Request) -> web.Response:
    return web.Response(status=500)


async def busy(_request: web.Request) -> web.Response:
    return web.Response(status=429, headers={"Retry-After": "30"})


async def sends_away(request: web.Request) -> web.Response:
    raise web.HTTPFound(f"http://169.254.169.254{request.path_qs}")


async def resets(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hangs(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def trickles(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x")
    await asyncio.Event().wait()
    return response


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(bytes(500))
    assert request.transport is not None
    request.transport.abort()
    return response


async def never_ends(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(bytes(256 * 1024))
    return response


async def promises_much(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(10**12)})
    await response.prepare(request)
    await response.write(bytes(1000))
    return response


async def inflates(_request: web.Request) -> web.Response:
    return web.Response(body=bytes(1000), headers={"Content-Encoding": "gzip"})


BAD = {
    "lies": (lies, "sent something else"),
    "page": (page, "sent something else"),
    "fails": (fails, "did not answer"),
    "busy": (busy, "wants to be asked later"),
    "sends_away": (sends_away, "did not answer"),
    "resets": (resets, "did not answer"),
    "hangs": (hangs, "has not answered yet"),
    "trickles": (trickles, "has not answered yet"),
    "breaks_off": (breaks_off, "did not answer"),
    "never_ends": (never_ends, "sent something else"),
    "promises_much": (promises_much, "sent something else"),
    "inflates": (inflates, "sent something else"),
}


@pytest.mark.parametrize("bad", BAD)
async def test_one_bad_node_makes_no_answer_wrong_and_is_soon_asked_last(world: World, bad: str) -> None:
    await world.add("bad", BAD[bad][0])
    await world.add_honest("good")
    client = await world.gateway()
    assert (await client.ask(world.path)).body == DATA
    assert 1 <= len(world.asked["bad"]) <= FEW
    assert len(world.asked["good"]) >= 96


@pytest.mark.parametrize("bad", BAD)
async def test_where_only_a_bad_node_may_have_it_the_error_says_what_it_did(world: World, bad: str) -> None:
    url = await world.add("bad", BAD[bad][0])
    slow = bad in ("hangs", "trickles")
    client = await world.gateway(GatewaySettings(retrieval_timeout_s=1.0 if slow else 30))
    answer = await client.ask(world.path, {"Accept": "application/json"})
    document = json.loads(answer.body)
    assert answer.status == document["status"] == (504 if slow else 502)
    assert int(answer.headers["retry-after"]) > 0
    assert (document["cid"], document["step"]) == (str(world.cid), "root block")
    assert [(each["provider"], each["outcome"]) for each in document["asked"]] == [(url, BAD[bad][1])]


async def test_a_node_that_vanishes_amid_a_file_is_replaced(world: World) -> None:
    honest, _ = far_file()

    async def vanishes(request: web.Request) -> web.Response:
        if len(world.asked["first"]) > 20:
            return await resets(request)
        return web.Response(body=honest.remote[CID.parse(request.match_info["cid"]).multihash])

    await world.add("first", vanishes)
    await world.add_honest("second")
    client = await world.gateway()
    assert (await client.ask(world.path)).body == DATA


async def test_many_clients_share_each_fetch(world: World) -> None:
    await world.add_honest("good")
    client = await world.gateway(hedge_s=10.0)
    answers = await asyncio.gather(*(client.ask(world.path) for _ in range(8)))
    assert all(answer.body == DATA for answer in answers)
    assert len(world.asked["good"]) == len(set(world.asked["good"]))


async def test_when_the_last_client_leaves_the_nodes_are_no_longer_asked(world: World) -> None:
    await world.add("slow", hangs)
    client = await world.gateway()
    loop = asyncio.get_running_loop()
    socks = [connect(client) for _ in range(2)]
    for sock in socks:
        await loop.sock_sendall(sock, f"GET {world.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await until(lambda: client.listener.connections == 2 and len(world.asked["slow"]) == 1)
    socks[0].close()
    await until(lambda: client.listener.connections == 1)
    assert world.left == 0
    socks[1].close()
    await until(lambda: world.left == 1)


class SilentLedger(Nodes):
    """Names what it once knew, and answers nothing more."""

    async def learn_content(self, content: CID) -> bool:
        await asyncio.Event().wait()
        return False

    async def endpoints(self) -> tuple[str, ...]:
        raise LedgerUnreachable("no ledger answers at http://10.1.2.3:4190")


async def test_a_ledger_that_does_not_answer_holds_nobody_up_and_is_not_described_to_strangers(
    world: World,
) -> None:
    world.nodes = SilentLedger()
    await world.add_honest("good")
    client = await world.gateway(ledger_patience_s=0.05)
    answers = await asyncio.gather(
        *(client.ask(f"/ipfs/{CID.of(bytes([n]))}", {"Accept": "application/json"}) for n in range(10))
    )
    for answer in answers:
        document = json.loads(answer.body)
        assert answer.status == 502
        assert [each["provider"] for each in document["asked"]] == ["the ledger"]
        assert b"10.1.2.3" not in answer.body


async def test_what_every_node_says_it_has_not_got_is_not_found(world: World) -> None:
    await world.add_honest("one")
    await world.add_honest("two")
    client = await world.gateway()
    answer = await client.ask(f"/ipfs/{CID.of(b'nowhere')}", {"Accept": "application/json"})
    outcomes = [each["outcome"] for each in json.loads(answer.body)["asked"]]
    assert (answer.status, outcomes) == (404, ["does not have it"] * 2)
