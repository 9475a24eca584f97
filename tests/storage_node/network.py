"""A whole network in one process: a real ledger behind its HTTP interface, nodes with LMDB stores.

Time is the tests' own: nothing sleeps, and whoever waits, waits for an event of the ledger.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web, web_app

from gateway.app import add_trustless_routes
from ledger.application import Application
from ledger.engine.assemble import load_application
from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.rpc import build_rpc
from ledger.engine.sender import Sender
from ledger.engine.storage import LedgerStorage
from ledger.events import Event
from ledger.genesis import DEMO_PARAMS, HOLD, Genesis, Params
from ledger.transactions import Transfer
from merkledag.cid import CID
from merkledag.ed25519 import Ed25519Signer
from proofs.bls.signatures import BlsSigner
from storage_node.blockstore.store import Store
from storage_node.commitments import Commitments
from storage_node.endpoints import open_session
from storage_node.fetch import NetworkFetcher
from storage_node.kzg_commitments import KzgCommitments
from storage_node.kzg_rows import KzgRows
from storage_node.meta import Meta
from storage_node.node import NodeSettings, StorageNode
from storage_node.placement import StorePlan, StoreRequest, plan_store
from storage_node.pool import NodePool
from storage_node.providers import ProviderDirectory
from storage_node.rows import ProofRows
from storage_node.source import LocalSource
from storage_node.storing import StoreResult, Trouble, execute_store
from tests.ledger.engine.conftest import START_S, ManualClock, seed, signer
from tests.ports import free_port
from tests.storage_node.content import a_store
from tests.storage_node.kzg_workers import committer

CHAIN = "network-test"
PARAMS = replace(DEMO_PARAMS, period_s=40, window_s=20, accept_timeout_s=30)
PATIENCE_S = 90.0
LOOK_S = 0.01
# The events that begin and end what a node owes, and of what kind that is.
BEGINS = {"window_opened": "proof", "spot_opened": "answer", "shard_assigned": "piece"}
ENDS = {
    **dict.fromkeys(("proof_accepted", "fault", "period_void"), "proof"),
    **dict.fromkeys(("spot_answered", "spot_missed", "spot_void"), "answer"),
    **dict.fromkeys(("shard_accepted", "offer_expired", "handover_failed"), "piece"),
}


def _place(event: Event) -> tuple[object, ...]:
    """The shard that an event is about, or else the dataset."""
    names = ("deal", "shard") if "shard" in event.attributes else ("dataset",)
    return tuple(event.attributes[name] for name in names)


def _is_upload(event: Event) -> bool:
    """Whether a piece is the client's to bring."""
    about = event.attributes
    return event.kind == "shard_assigned" and not (about["repair"] or about["handover"])


class Runner(web.AppRunner):
    """Serves an application on a socket, and lets whoever has just connected in before it ends.

    On Python 3.11 a connection that was accepted in the moment of the end is dropped unclosed.
    """

    def __init__(self, app: web.Application, sock: socket.socket) -> None:
        super().__init__(app, shutdown_timeout=0.1)
        self.sock = sock

    async def cleanup(self) -> None:
        """Accepts nobody more, waits for those who were accepted to be known, and ends."""
        if self.sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self.sock)
            await asyncio.sleep(0)
        await super().cleanup()


async def serve(app: web.Application, port: int = 0) -> tuple[web.AppRunner, str]:
    """The running server and its URL."""
    sock = socket.create_server(("127.0.0.1", port))
    runner = Runner(app, sock)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    host, bound = runner.addresses[0][:2]
    return runner, f"http://{host}:{bound}"


@dataclass(slots=True)
class Home:
    """One participant: its key, store and ledger client."""

    signer: Ed25519Signer
    folder: Path
    store: Store
    rows: ProofRows
    kzg: KzgRows
    ledger: LedgerClient
    sender: Sender

    @property
    def account(self) -> bytes:
        return self.signer.public_key


class Provider:
    """A storage node that can be stopped and started again on the same disk."""

    def __init__(self, network: Network, home: Home, **settings: Any) -> None:
        self.network = network
        self.home = home
        self.changes = settings
        self.port = free_port()
        self.node: StorageNode
        self.runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Serve first (the endpoint must be known), then register and begin."""
        network, home = self.network, self.home
        settings = NodeSettings(
            **{
                "endpoint": f"http://127.0.0.1:{self.port}",
                "capacity_bytes": 10**9,
                "stake": 10 * HOLD,
                "price_per_gib_period": 1_000_000,
                "allow_private": True,
                "heal": False,
                **self.changes,
            }
        )
        self.node = self._node(settings)
        add_trustless_routes(self.node.app, LocalSource(home.store))
        self.runner, _ = await serve(self.node.app, self.port)
        await self.node.register()
        await self.node.start()
        await self.node.runner.caught_up.wait()
        network.honest.add(home.account)

    def _node(self, settings: NodeSettings) -> StorageNode:
        network, home = self.network, self.home
        return StorageNode(
            settings,
            store=home.store,
            rows=home.rows,
            kzg=home.kzg,
            folder=home.folder / "pieces",
            ledger=home.ledger,
            sender=home.sender,
            signer=home.signer,
            pool=network.pool(),
            clock=network.clock,
            monotonic=network.clock,
            sleep=network.clock.sleep,
        )

    async def stop(self) -> None:
        """Switch the node off; it faults from now on."""
        self.network.honest.discard(self.home.account)
        if self.runner is not None:
            await self.node.stop()
            await self.runner.cleanup()
            self.runner = None

    def lose_blocks(self) -> None:
        """The disk forgets every block, and nobody is told."""
        self.network.honest.discard(self.home.account)
        self.home.store.delete_many(list(self.home.store.keys()))


@dataclass(slots=True)
class Network:
    """The ledger, its clock, and what happened on it so far."""

    folder: Path
    clock: ManualClock
    ledger: Ledger
    session: aiohttp.ClientSession
    stack: AsyncExitStack
    client: LedgerClient
    operator: Sender
    height: int = 0
    events: list[Event] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    honest: set[bytes] = field(default_factory=set)
    excused: set[str] = field(default_factory=set)
    providers: list[Provider] = field(default_factory=list)

    @property
    def app(self) -> Application:
        """The ledger's state as it runs now."""
        return self.ledger.engine.app

    async def status(self) -> dict[str, Any]:
        """The ledger's own account of itself."""
        return await self.client.status()

    def pool(self) -> NodePool:
        """Clients of all nodes."""
        return NodePool(self.session, wall_clock=self.clock, clock=self.clock, allow_private=True)

    def home(self, name: str) -> Home:
        """A participant with a folder of its own."""
        folder = self.folder / name
        folder.mkdir()
        key = signer(name)
        store = a_store(folder / "blocks")
        self.stack.callback(store.close)
        ledger = LedgerClient(self.ledger.url, self.session, sleep=self.clock.sleep)
        meta = Meta(folder / "meta")
        rows, kzg = ProofRows(store, Commitments(meta)), KzgRows(store, KzgCommitments(meta), committer())
        return Home(key, folder, store, rows, kzg, ledger, Sender(ledger, key))

    async def fund(self, *accounts: bytes, amount: int = 1_000 * HOLD) -> None:
        """The operator gives to each."""
        for account in accounts:
            await self.operator.send(Transfer(account, amount))

    async def add_providers(self, count: int, **settings: Any) -> list[Provider]:
        """Funded, registered and running nodes."""
        first = len(self.providers)
        made = [Provider(self, self.home(f"node{first + index}"), **settings) for index in range(count)]
        await self.fund(*(provider.home.account for provider in made))
        for provider in made:
            await provider.start()
            self.stack.push_async_callback(provider.stop)
        self.providers += made
        return made

    def provider(self, account: bytes) -> Provider:
        """The node with this key."""
        return next(each for each in self.providers if each.home.account == account)

    def seen(self, kind: str, **attributes: object) -> list[Event]:
        """Events so far of a kind, with these attributes."""
        return [
            event
            for event in self.events
            if event.kind == kind
            and all(event.attributes.get(name) == value for name, value in attributes.items())
        ]

    async def until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait for something to be true, looking after each block, and often, for what is in no block."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not happened():
                    await self._news()
        except TimeoutError:
            told = [f"{event.kind} {dict(event.attributes)}" for event in self.events[-12:]]
            raise AssertionError(f"did not happen: {what}; last events: {told}") from None

    async def _news(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S), self.changed:
                await self.changed.wait()

    def waiting_for(self) -> set[object]:
        """The nodes that shards are offered to now; everybody before the first draw."""
        offers: dict[object, object] = {}
        for event in self.events:
            place = (event.attributes.get("deal"), event.attributes.get("shard"))
            if event.kind == "shard_assigned":
                offers[place] = event.attributes["provider"]
            elif event.kind in ("shard_accepted", "offer_expired"):
                offers.pop(place, None)
        return set(offers.values()) or {provider.home.account for provider in self.providers}

    def _owed(self) -> bool:
        """Whether an honest node has a window to prove, a spot to answer, a shard to repair or take over."""
        open_by: dict[tuple[object, ...], object] = {}
        for event in self.events:
            if (what := BEGINS.get(event.kind)) and not _is_upload(event):
                open_by[what, *_place(event)] = event.attributes["provider"]
            elif what := ENDS.get(event.kind):
                open_by.pop((what, *_place(event)), None)
        return any(
            provider in self.honest and what not in self.excused for (what, *_), provider in open_by.items()
        )

    async def step(self) -> None:
        """Move time to the next thing that is due, and let every honest node do its duty."""
        app = self.app
        due, height = app.next_due(), app.height
        assert due is not None, "nothing is due any more"
        # From the last block's own time on: the clock may be ahead of it, and a block that is late stalls.
        ahead = app.block_time_s + due - app.time - self.clock()
        await self.clock.advance(max(1, min(ahead, app.params.max_step_s)))
        await self.until(lambda: self.height > height, "a block at the due instant")
        await self.until(lambda: not self._owed(), "proofs of the honest nodes")

    async def steps_until(self, happened: Callable[[], bool], what: str, limit: int = 500) -> None:
        """Step until something is true."""
        for _ in range(limit):
            if happened():
                return
            if self.app.next_due() is None:
                await self._news()
            else:
                await self.step()
        raise AssertionError(f"{limit} steps did not bring: {what}")

    async def pass_time(self, seconds: float) -> None:
        """Let time pass second by second, whatever the ledger, if there is one, has due."""
        for _ in range(int(seconds)):
            await self.clock.advance(1)
            await self._news()

    async def pass_time_until(self, happened: Callable[[], bool], what: str, limit_s: int = 600) -> None:
        """Let time pass, second by second, until something is true."""
        for _ in range(limit_s):
            if happened():
                return
            await self.pass_time(1)
        raise AssertionError(f"{limit_s} seconds did not bring: {what}")

    async def restart_ledger(self) -> None:
        """The ledger goes away and comes back; everybody's connections break."""
        await self.ledger.stop()
        await self.ledger.start()
        await self.clock.advance(1)

    async def _watch(self, ledger: LedgerClient) -> None:
        async for block in ledger.events(1):
            async with self.changed:
                self.height = block.height
                self.events += block.events
                self.changed.notify_all()

    async def plan(self, home: Home, content: CID, periods: int = 3, **request: Any) -> StorePlan:
        """A plan, quietly."""
        return await plan_store(
            home.ledger,
            home.store,
            home.rows,
            StoreRequest(content, periods, **request),
            progress=lambda *_: None,
            kzg=home.kzg,
        )

    async def execute(
        self, home: Home, plan: StorePlan, trouble: Trouble = lambda shard, why: None
    ) -> StoreResult:
        """Carry it out."""
        return await execute_store(
            plan,
            home.ledger,
            home.sender,
            home.signer,
            self.pool(),
            home.store,
            home.rows,
            progress=lambda *_: None,
            trouble=trouble,
            sleep=self.clock.sleep,
            clock=self.clock,
        )

    def fetcher(self, home: Home) -> NetworkFetcher:
        """Reads from the nodes, as a stranger would."""
        return NetworkFetcher(ProviderDirectory(home.ledger, clock=self.clock), self.pool())


class Ledger:
    """The operator's side: the engine and its HTTP interface, which can be stopped and started again."""

    def __init__(
        self,
        folder: Path,
        clock: ManualClock,
        params: Params,
        *,
        chain: str = CHAIN,
        port: int | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._operator, self._bls = signer("operator"), BlsSigner.from_seed(seed("beacon"))
        self._genesis = Genesis.make(
            chain_id=chain,
            time_s=START_S,
            operator=self._operator.public_key,
            bls_key=self._bls.public_key,
            bls_possession=self._bls.prove_possession(),
            issued=1_000_000 * HOLD,
            params=params,
        )
        self.port = port or free_port()
        self.engine: EmbeddedEngine
        self.url = ""

    async def start(self) -> None:
        """Load, replay and serve."""
        self._storage = LedgerStorage(self._folder)
        self._storage.open()
        self.engine = EmbeddedEngine(
            load_application(self._storage, self._genesis),
            self._storage,
            self._operator,
            {self._bls.public_key: self._bls},
            self._clock,
            sleep=self._clock.sleep,
        )
        await self.engine.start()
        self._runner, self.url = await serve(build_rpc(self.engine), self.port)

    async def stop(self) -> None:
        """End the server, the engine, and close the store."""
        await self._runner.cleanup()
        await self.engine.stop()
        self._storage.close()


@asynccontextmanager
async def a_network(folder: Path, params: Params = PARAMS) -> AsyncIterator[Network]:
    """A running ledger without nodes."""
    clock = ManualClock()
    let_go()
    async with AsyncExitStack() as stack:
        ledger = Ledger(folder / "ledger", clock, params)
        await ledger.start()
        stack.push_async_callback(ledger.stop)
        session = await stack.enter_async_context(open_session(allow_private=True))
        client = LedgerClient(ledger.url, session, sleep=clock.sleep)
        network = Network(folder, clock, ledger, session, stack, client, Sender(client, signer("operator")))
        watcher = asyncio.create_task(network._watch(client))
        stack.push_async_callback(_end, watcher)
        yield network


def let_go() -> None:
    """Close the files of networks that ended: LMDB does with the last reference to each.

    aiohttp, which remembers 1,024 handlers between middlewares, would keep their nodes and stores.
    """
    web_app._cached_build_middleware.cache_clear()
    gc.collect()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
