"""Fetching from real servers on loopback: verified, hedged, restored from parity, never from elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.app import add_trustless_routes
from ledger.engine.errors import LedgerUnreachable
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.steps import adrive_walk
from merkledag.traverse import walk_dag
from storage_node.blockstore.memory import MemoryStore
from storage_node.endpoints import open_session
from storage_node.errors import BlockNotFound
from storage_node.fetch import NetworkFetcher
from storage_node.pool import NodePool
from storage_node.providers import Holding
from storage_node.source import LocalSource
from tests.storage_node.content import Encoded, add_files, encode, some_bytes

DEAL = CID.of(b"deal")
FILES = {"a": some_bytes(120_000), "b": some_bytes(30_000, 2), "c": b"tiny"}


class Holdings:
    """A directory that tests fill. Like the ledger's, it knows of the deal once its content was asked for."""

    def __init__(self, source: Encoded) -> None:
        self.source = source
        self.at: dict[int, str] = {}
        self.asked: list[CID] = []
        self.refreshed = 0

    def holdings(self) -> tuple[Holding, ...]:
        if self.source.content not in self.asked:
            return ()
        return tuple(
            Holding(DEAL, self.source.content, self.source.root, shard, bytes([shard]) * 32, endpoint)
            for shard, endpoint in self.at.items()
        )

    async def refresh(self, manifests: Collection[CID], *, max_age_s: float = 60.0) -> bool:
        self.refreshed += max_age_s == 0.0
        return False

    async def learn_content(self, content: CID) -> bool:
        self.asked.append(content)
        return content == self.source.content

    async def learn_deal(self, deal: CID) -> CID:
        await self.learn_content(self.source.content)
        return self.source.content

    async def learn_node(self, endpoint: str) -> bool:
        return await self.learn_content(self.source.content)

    async def learn_some(self) -> None:
        """Its one deal is learnt by name alone."""

    async def endpoints(self) -> tuple[str, ...]:
        return tuple(self.at.values())


class Network:
    """Nodes on loopback, each with a real store that holds one piece."""

    def __init__(self, source: Encoded, session: aiohttp.ClientSession) -> None:
        self.source = source
        self.directory = Holdings(source)
        self.session = session
        self.now_s = 0.0
        self.requests: list[tuple[int, str, int]] = []
        self._runners: dict[int, web.AppRunner] = {}

    def fetcher(self, *, allow_private: bool = True, hedge_s: float = 20.0) -> NetworkFetcher:
        pool = NodePool(
            self.session,
            wall_clock=lambda: self.now_s,
            clock=lambda: self.now_s,
            allow_private=allow_private,
        )
        return NetworkFetcher(self.directory, pool, hedge_s=hedge_s)

    async def add_node(self, shard: int) -> None:
        store = MemoryStore()
        layout = self.source.layout(shard)
        store.put_many((mh, self.source.store.get(mh)) for mh in [*layout.meta, *layout.data])
        app = web.Application(middlewares=[self._counting(shard)])
        add_trustless_routes(app, LocalSource(store))
        await self.serve(shard, app)

    async def add_handler(self, shard: int, handler: Handler) -> None:
        app = web.Application()
        app.router.add_get("/ipfs/{cid}", handler)
        await self.serve(shard, app)

    def _counting(self, shard: int) -> Middleware:
        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            response = await handler(request)
            self.requests.append((shard, request.match_info["path"], response.status))
            return response

        return count

    async def serve(self, shard: int, app: web.Application) -> None:
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._runners[shard] = runner
        host, port = runner.addresses[0][:2]
        self.directory.at[shard] = f"http://{host}:{port}"

    async def kill(self, shard: int) -> None:
        await self._runners.pop(shard).cleanup()

    async def close(self) -> None:
        for shard in list(self._runners):
            await self.kill(shard)


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    store = MemoryStore()
    source = encode(store, add_files(store, FILES), 2, 3)
    async with open_session(allow_private=True) as session:
        made = Network(source, session)
        yield made
        await made.close()


async def read_all(fetcher: NetworkFetcher, source: Encoded) -> int:
    """Walk the content through the fetcher and compare every block with the original."""
    count = 0
    async for block in adrive_walk(walk_dag(source.content), lambda want: fetcher.fetch(want.cid)):
        assert block.data == source.store.get(block.cid.multihash)
        count += 1
    return count


async def test_the_whole_dag_comes_from_the_nodes_that_hold_it(network: Network) -> None:
    for shard in range(3):
        await network.add_node(shard)
    count = await read_all(network.fetcher(), network.source)
    assert count > 35
    misses = [request for request in network.requests if request[2] != 200]
    # A few misses teach where everything is; from then on the right node is asked at once.
    assert len(misses) <= 8


@pytest.mark.parametrize("gone", [0, 1, 2])
async def test_with_any_node_gone_parity_restores_the_rest(network: Network, gone: int) -> None:
    for shard in range(3):
        await network.add_node(shard)
    await network.kill(gone)
    assert await read_all(network.fetcher(), network.source) > 35


async def test_with_two_nodes_gone_what_is_lost_is_told(network: Network) -> None:
    for shard in range(3):
        await network.add_node(shard)
    await network.kill(0)
    await network.kill(2)
    with pytest.raises(BlockNotFound):
        await read_all(network.fetcher(), network.source)


async def test_a_liar_is_not_believed(network: Network) -> None:
    async def lie(_request: web.Request) -> web.Response:
        return web.Response(body=b"not what you asked for")

    await network.add_handler(0, lie)
    for shard in (1, 2):
        await network.add_node(shard)
    assert await read_all(network.fetcher(), network.source) > 35


async def test_a_node_that_does_not_answer_is_hedged(network: Network) -> None:
    never = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    await network.add_handler(7, hang)
    network.directory.at = dict(reversed(network.directory.at.items()))
    for shard in range(3):
        await network.add_node(shard)
    cid = network.source.content
    assert await network.fetcher(hedge_s=0.0).fetch(cid) == network.source.store.get(cid.multihash)
    never.set()


async def test_who_was_asked_and_what_came_of_it_is_told(network: Network) -> None:
    async def fail(_request: web.Request) -> web.Response:
        return web.Response(status=500)

    async def lie(_request: web.Request) -> web.Response:
        return web.Response(body=b"not what you asked for")

    await network.add_node(0)
    nowhere, fetcher = CID.of(b"nowhere"), network.fetcher()
    with pytest.raises(BlockNotFound) as sure:
        await fetcher.fetch(nowhere)
    assert not sure.value.unsure
    await network.add_handler(1, fail)
    await network.add_handler(2, lie)
    with pytest.raises(BlockNotFound) as caught:
        await fetcher.fetch(nowhere)
    assert caught.value.unsure
    assert {each.name: each.outcome for each in caught.value.asked} == {
        network.directory.at[0]: "does not have it",
        network.directory.at[1]: "did not answer",
        network.directory.at[2]: "sent something else",
    }
    assert fetcher.asked(nowhere) == caught.value.asked


async def test_a_slow_node_is_soon_asked_last(network: Network) -> None:
    never = asyncio.Event()
    came: list[str] = []

    async def hang(request: web.Request) -> web.Response:
        came.append(request.path)
        await never.wait()
        return web.Response()

    await network.add_handler(7, hang)
    for shard in range(3):
        await network.add_node(shard)
    count = await read_all(network.fetcher(hedge_s=0.0), network.source)
    never.set()
    assert count > 35
    assert len(came) <= 4


async def test_an_endless_body_is_cut_off_and_another_node_asked(network: Network) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(65_536))
        except ConnectionError:
            return response

    await network.add_handler(0, endless)
    await network.add_node(1)
    cid = network.source.content
    assert await network.fetcher().fetch(cid) == network.source.store.get(cid.multihash)


async def test_a_redirect_is_not_followed(network: Network) -> None:
    await network.add_node(1)
    target = network.directory.at.pop(1)

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound(target + request.path_qs)

    await network.add_handler(0, redirect)
    with pytest.raises(BlockNotFound):
        await network.fetcher().fetch(network.source.content)
    assert network.requests == []


async def test_a_private_endpoint_is_not_asked(network: Network) -> None:
    await network.add_node(0)
    with pytest.raises(BlockNotFound):
        await network.fetcher(allow_private=False).fetch(network.source.content)
    assert network.requests == []


async def test_callers_for_the_same_block_share_one_fetch(network: Network) -> None:
    await network.add_node(0)
    fetcher = network.fetcher()
    cid = network.source.content
    assert len(set(await asyncio.gather(*(fetcher.fetch(cid) for _ in range(20))))) == 1
    assert len(network.requests) == 1


async def test_a_cancelled_caller_does_not_take_the_others_with_it(network: Network) -> None:
    release = asyncio.Event()
    reached = asyncio.Event()
    data = network.source.store.get(network.source.content.multihash)

    async def slow(_request: web.Request) -> web.Response:
        reached.set()
        await release.wait()
        return web.Response(body=data)

    await network.add_handler(0, slow)
    fetcher = network.fetcher()
    first = asyncio.create_task(fetcher.fetch(network.source.content))
    await reached.wait()

    async def cancelled_before() -> bytes:
        """As whoever ends a task and waits for it, and is cancelled meanwhile."""
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await fetcher.fetch(network.source.content)

    second = asyncio.create_task(fetcher.fetch(network.source.content))
    third = asyncio.create_task(cancelled_before())
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.sleep(0)
    first.cancel()
    release.set()
    assert [await second, await third] == [data, data]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_nobody_has_is_not_found_after_the_ledger_and_everybody_were_asked(
    network: Network,
) -> None:
    for shard in range(3):
        await network.add_node(shard)
    nowhere = CID.of(b"nowhere", RAW)
    with pytest.raises(BlockNotFound):
        await network.fetcher().fetch(nowhere)
    assert network.directory.asked == [nowhere]
    assert sorted(shard for shard, _, _ in network.requests) == [0, 1, 2]


async def test_a_part_of_content_is_found_without_its_root_and_restored_too(network: Network) -> None:
    for shard in range(3):
        await network.add_node(shard)
    fetcher = network.fetcher()
    interior = CID(1, DAG_PB, network.source.manifest.interior[1])
    assert await fetcher.fetch(interior) == network.source.store.get(interior.multihash)
    await network.kill(0)
    leaf = next(multihash for multihash, _ in network.source.manifest.piece(0))
    assert await fetcher.fetch(CID(1, RAW, leaf)) == network.source.store.get(leaf)


async def test_once_the_manifest_is_known_the_ledger_is_asked_no_more(network: Network) -> None:
    for shard in range(3):
        await network.add_node(shard)
    fetcher = network.fetcher()
    await read_all(fetcher, network.source)
    asked = len(network.directory.asked)
    assert asked <= 8
    await network.kill(1)
    await read_all(fetcher, network.source)
    assert len(network.directory.asked) == asked


async def test_an_identity_cid_needs_nobody(network: Network) -> None:
    assert await network.fetcher().fetch(CID.of(b"inline", RAW, hash_code=0)) == b"inline"


async def test_what_an_answer_teaches_is_learnt_behind_it(network: Network) -> None:
    await network.add_node(0)
    never, asked = asyncio.Event(), asyncio.Event()

    async def hang(endpoint: str) -> bool:
        asked.set()
        await never.wait()
        return False

    network.directory.learn_node = hang  # type: ignore[method-assign]
    fetcher = network.fetcher()
    before = asyncio.all_tasks()
    leaf = next(multihash for multihash, _ in network.source.manifest.piece(0))
    async with asyncio.timeout(2.0):
        assert await fetcher.fetch(CID(1, RAW, leaf)) == network.source.store.get(leaf)
        await asked.wait()
    await fetcher.aclose()
    assert not [task for task in asyncio.all_tasks() - before if "storage_node/" in repr(task)]


async def test_a_ledger_that_fails_does_not_take_a_slow_node_with_it(network: Network) -> None:
    failed = asyncio.Event()
    cid = network.source.content
    data = network.source.store.get(cid.multihash)

    async def slow(_request: web.Request) -> web.Response:
        await failed.wait()
        return web.Response(body=data)

    async def fail(content: CID) -> bool:
        failed.set()
        raise LedgerUnreachable("no ledger answers")

    await network.add_handler(0, slow)
    await network.directory.learn_content(cid)
    network.directory.learn_content = fail  # type: ignore[method-assign]
    assert await network.fetcher(hedge_s=0.0).fetch(cid) == data
