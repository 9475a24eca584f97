"""Pin jobs: fetched from real servers that behave and that do not, paused, taken over, not collected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, RAW
from storage_node import gc, pin_fetch, pin_jobs
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.memory import MemoryStore
from storage_node.endpoints import open_session
from storage_node.errors import (
    BlockNotFound,
    BlockRefused,
    EndpointRefused,
    JobNotFound,
    PeerUnreachable,
    QuotaExceeded,
    StorageNodeError,
)
from storage_node.meta import Meta, Table
from storage_node.pin_fetch import DagFetch, FetchTimeout
from storage_node.pin_jobs import JobState, PinJob, PinJobs
from storage_node.pin_peers import GatewayPeer, Peers, open_gateway
from storage_node.pin_runner import JobStopped, JobWork, PinRunner
from storage_node.pins import PinMode, Pins
from storage_node.provider_routing import ProviderRouter, gateways_of, multiaddr_url
from tests.storage_node.dags import leaf, node, pairs, tree
from tests.storage_node.pin_servers import Gateway, gateway
from tests.storage_node.processes import start_python


class Clock:
    """Seconds as they pass, and those that a test lets pass at once."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


class Home:
    """A store, its pins and jobs, and ways to work on them."""

    def __init__(self, folder: Path) -> None:
        self.meta = Meta(folder / "meta")
        self.pins = Pins(self.meta, lambda: 1000)
        self.jobs = PinJobs(self.meta, lambda: 1000)
        self.store = MemoryStore()
        self.clock = Clock()

    def job(self, root: CID, **fields: Any) -> PinJob:
        """A job that is claimed by this process."""
        claimed = self.jobs.claim(self.jobs.create(PinJob(0, root, **fields)).number)
        assert claimed is not None
        return claimed

    def work(self, job: PinJob, peers: Peers, **more: Any) -> JobWork:
        return JobWork(self.jobs, self.store, job, peers, clock=self.clock, now=lambda: 1000, **more)

    async def pin(self, root: CID, *sources: Gateway, tries: int = 3, **fields: Any) -> Peers:
        """Run a job on these servers to its end."""
        async with asking(*sources) as peers:
            await self.work(self.job(root, **fields), peers, tries=tries).run()
        return peers

    async def pin_for_an_hour(self, root: CID, *sources: Gateway) -> None:
        """Run a job until something went wrong, and then until its hour is over."""
        async with asking(*sources) as peers:
            job = self.job(root, timeout_s=3600)
            working = asyncio.create_task(self.work(job, peers).run())
            await until(peers.trouble)
            self.clock.ahead_s += 3600
            await working

    def has(self, blocks: list[Block]) -> list[bool]:
        return [self.store.has(each.cid.multihash) for each in blocks]

    def collect(self) -> None:
        gc.collect(self.store, self.pins, partial_roots=pin_jobs.roots(self.meta))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(pin_fetch, "FIRST_RETRY_S", 0.02)
    return Home(tmp_path)


@asynccontextmanager
async def asking(*sources: Gateway, **more: Any) -> AsyncIterator[Peers]:
    clock = Clock()
    async with open_session(allow_private=True) as session:
        peers = [GatewayPeer(session, source.url) for source in sources]
        yield Peers(peers, **{"clock": clock, "hedge_s": 0.05, **more})


async def until(said: Callable[[], Any]) -> None:
    """Lets others run until `said()`."""
    async with asyncio.timeout(60):
        while not said():  # noqa: ASYNC110 (it is told by records and counters)
            await asyncio.sleep(0.001)


# --- fetching ---


async def test_what_is_missing_is_fetched_verified_and_pinned(home: Home) -> None:
    dag = tree("dag", 12)
    home.store.put_many(pairs(dag[:20]))
    async with gateway(dag) as source:
        await home.pin(dag[-1].cid, source, name="n", metadata={"k": "v"})
    assert all(home.has(dag))
    pin = home.pins.get(dag[-1].cid)
    assert pin is not None
    assert (pin.mode, pin.name, pin.metadata) == (PinMode.RECURSIVE, "n", {"k": "v"})
    assert source.asked == {str(each.cid): 1 for each in dag[20:]}
    assert list(home.jobs.ls()) == []
    assert {home.store.row(each.cid.multihash).block_class for each in dag} == {BlockClass.OWN}  # type: ignore[union-attr]


async def test_a_direct_pin_fetches_its_block_alone(home: Home) -> None:
    dag = tree("dag")
    async with gateway(dag) as source:
        await home.pin(dag[-1].cid, source, mode=PinMode.DIRECT)
    assert source.asked.total() == 1
    assert home.pins.counts() == (0, 1)


async def test_cached_blocks_become_own_and_are_not_fetched(home: Home) -> None:
    dag = tree("dag")
    home.store.put_many(pairs(dag[:-1]), BlockClass.CACHE)
    async with gateway(dag) as source:
        await home.pin(dag[-1].cid, source)
    assert source.asked.total() == 1
    assert home.store.stat().cache_blocks == 0


async def test_nodes_inside_cids_and_blocks_under_several_codecs_are_followed(home: Home) -> None:
    below, inner = leaf("below"), node(leaf("deep").cid)
    carrying = node(below.cid)
    identity = CID(1, DAG_CBOR, b"\0" + bytes([len(carrying.data)]) + carrying.data)
    top = node(identity, CID(1, RAW, inner.cid.multihash), inner.cid, below.cid)
    async with gateway([below, leaf("deep"), inner, top]) as source:
        source.blocks[str(CID(1, RAW, inner.cid.multihash))] = inner.data
        await home.pin(top.cid, source)
    assert all(home.has([below, leaf("deep"), inner, top]))


async def test_liars_are_found_out_and_left_alone(home: Home) -> None:
    dag = tree("dag", 10)
    async with gateway(dag, lies=True) as liar, gateway(dag) as honest:
        peers = await home.pin(dag[-1].cid, liar, honest)
    assert all(home.has(dag))
    assert all(home.store.get(each.cid.multihash) == each.data for each in dag)
    assert liar.asked.total() < 60
    assert "sent bytes that are not" in peers.trouble()


async def test_a_liar_alone_brings_nothing(home: Home) -> None:
    dag = tree("dag")
    async with gateway(dag, lies=True) as liar:
        with pytest.raises(FetchTimeout, match="sent bytes that are not"):
            await home.pin_for_an_hour(dag[-1].cid, liar)
    assert not any(home.has(dag))
    assert next(home.jobs.ls()).state is JobState.FAILED
    assert next(home.jobs.ls()).error.startswith("nothing came for 3600 s; waiting for")


@pytest.mark.parametrize(
    "behaviour", [{"breaks_off": True}, {"endless": True}, {"status": 500}, {"status": 302}, {"status": 404}]
)
async def test_another_server_makes_up_for_a_bad_one(home: Home, behaviour: dict[str, Any]) -> None:
    dag = tree("dag", 3)
    async with gateway(dag, **behaviour) as bad, gateway(dag) as good:
        await home.pin(dag[-1].cid, bad, good)
    assert all(home.has(dag))


async def test_a_server_that_hangs_holds_up_nothing(home: Home) -> None:
    dag = tree("dag", 3)
    async with gateway(dag, hold=asyncio.Event()) as stuck, gateway(dag) as good:
        await home.pin(dag[-1].cid, stuck, good)
    assert all(home.has(dag))


async def test_a_server_that_dies_in_the_middle_is_replaced_by_another(home: Home) -> None:
    dag = tree("dag", 10)
    async with gateway(dag, dies_after=20) as dying, gateway() as other:
        dying.on_request = lambda number: other.put(dag) if number == 20 else None
        await home.pin(dag[-1].cid, dying, other, tries=0, timeout_s=1000)
    assert all(home.has(dag))
    assert other.asked.total() > 0


async def test_halves_that_two_servers_have_make_a_whole(home: Home) -> None:
    dag = tree("dag", 8)
    async with gateway(dag[::2]) as one, gateway([*dag[1::2], dag[-1]]) as two:
        await home.pin(dag[-1].cid, one, two)
    assert all(home.has(dag))


async def test_what_nobody_has_ends_the_job_and_what_came_stays(home: Home) -> None:
    dag = tree("dag")
    async with gateway([each for each in dag if each is not dag[3]]) as source:
        with pytest.raises(BlockNotFound, match=str(dag[3].cid)):
            await home.pin(dag[-1].cid, source)
        job = next(home.jobs.ls())
        assert (job.state, job.blocks) == (JobState.FAILED, len(dag) - 1)
        assert str(dag[3].cid) in job.error
        home.collect()
        assert home.store.stat().blocks == len(dag) - 1
        source.put(dag)
        source.asked.clear()
        home.jobs.change(job.number, lambda job: replace(job, state=JobState.WAITING))
        claimed = home.jobs.claim(job.number)
        assert claimed is not None
        async with asking(source) as peers:
            await home.work(claimed, peers).run()
    assert source.asked == {str(dag[3].cid): 1}
    assert home.pins.get(dag[-1].cid) is not None


async def test_nobody_at_all_is_a_timeout(home: Home) -> None:
    async with gateway() as gone:
        pass
    with pytest.raises(FetchTimeout, match="does not answer"):
        await home.pin_for_an_hour(leaf("x").cid, gone)


async def test_bytes_that_are_not_what_the_codec_says_are_refused(home: Home) -> None:
    data = b"\xff not cbor"
    broken = Block(CID.of(data, DAG_CBOR), data)
    async with gateway([broken, node(broken.cid)]) as source:
        with pytest.raises(BlockRefused, match=str(broken.cid)):
            await home.pin(node(broken.cid).cid, source)
    assert home.pins.count() == 0


async def test_a_damaged_node_is_fetched_and_replaced(home: Home) -> None:
    dag = tree("dag")
    home.store.put_many(pairs(dag[:-1]))
    home.store.put_many([(dag[4].cid.multihash, b"\xff damaged")])
    home.store.replace(dag[4].cid.multihash, b"\xff damaged")
    async with gateway(dag) as source:
        await home.pin(dag[-1].cid, source)
    assert home.store.get(dag[4].cid.multihash) == dag[4].data
    assert source.asked.total() == 2


async def test_a_full_store_is_an_error_and_the_job_goes_on_later(home: Home) -> None:
    dag = tree("dag")
    full = True

    class Full(MemoryStore):
        def put_many(self, *arguments: Any, **more: Any) -> Any:
            if full:
                raise QuotaExceeded("no room")
            return super().put_many(*arguments, **more)

    home.store = Full()
    async with gateway(dag) as source, asking(source) as peers:
        with pytest.raises(QuotaExceeded):
            await home.work(home.job(dag[-1].cid), peers).run()
        full = False
        job = home.jobs.change(1, lambda job: replace(job, state=JobState.WAITING))
        assert job is not None
        assert home.jobs.claim(1) is not None
        await home.work(home.jobs.get(1), peers).run()
    assert all(home.has(dag))


async def test_a_wide_dag_is_fetched_in_bounded_steps(home: Home) -> None:
    leaves = [leaf(str(number)) for number in range(5000)]
    middle = [node(*(each.cid for each in leaves[at : at + 100])) for at in range(0, 5000, 100)]
    top = node(*(each.cid for each in middle))
    blocks = {each.cid: each.data for each in [*leaves, *middle, top]}
    under_way = most = 0

    async def ask(cid: CID) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return blocks[cid]

    fetch = DagFetch(home.store, ask, clock=home.clock)
    await fetch.run([top.cid])
    assert fetch.progress().blocks == home.store.stat().blocks == 5051
    assert fetch.progress().size_bytes == home.store.stat().bytes
    assert 8 < most <= 48


# --- routers ---


async def test_providers_that_a_router_names_are_asked(home: Home) -> None:
    dag = tree("dag")
    async with gateway(dag) as provider, gateway() as router:
        port = provider.url.rpartition(":")[2]
        router.providers = ["/ip4/127.0.0.1/udp/1/quic-v1", f"/ip4/127.0.0.1/tcp/{port}/http"]
        async with open_session(allow_private=True) as session:
            peers = Peers(
                [],
                clock=home.clock,
                routers=[ProviderRouter(session, router.url, home.clock)],
                open_gateway=lambda url: open_gateway(session, url, allow_private=True),
            )
            await home.work(home.job(dag[-1].cid), peers, tries=3).run()
        assert all(home.has(dag))

        async with open_session(allow_private=False) as session:
            strict = Peers(
                [],
                clock=home.clock,
                routers=[ProviderRouter(session, router.url, home.clock)],
                open_gateway=lambda url: open_gateway(session, url, allow_private=False),
            )
            with pytest.raises((BlockNotFound, PeerUnreachable)):
                await strict.get(dag[0].cid)
            with pytest.raises(EndpointRefused):
                open_gateway(session, provider.url, allow_private=False)


def test_multiaddrs_of_gateways_are_urls() -> None:
    assert multiaddr_url("/dns4/example.net/tcp/443/https") == "https://example.net:443"
    assert multiaddr_url("/dns/example.net/tcp/443/tls/http") == "https://example.net:443"
    assert multiaddr_url("/ip6/2001:db8::1/tcp/80/http") == "http://[2001:db8::1]:80"
    for other in (
        "",
        "/",
        "/ip4/1.2.3.4",
        "/ip4/1.2.3.4/tcp/1",
        "/ip4/1.2.3.4/tcp/x/http",
        "/unix/x/tcp/1/http",
    ):
        assert multiaddr_url(other) is None
    addresses = ["/dns/a.example/http"]
    ours = {"Addrs": addresses, "Protocols": ["transport-bitswap", "Transport-IPFS-gateway-http"]}
    assert gateways_of(ours) == ["http://a.example"]
    odd: list[Any] = [None, [], {}, 1, {"Addrs": 2}, {"Addrs": [3, "x"]}]
    for each in odd + [{"Addrs": addresses, "Protocols": wrong} for wrong in (1, ["transport-bitswap"])]:
        assert gateways_of(each) == []


# --- jobs ---


def test_jobs_are_numbered_changed_and_removed(home: Home) -> None:
    first = home.jobs.create(PinJob(0, leaf("a").cid, name="x", sources=("http://a",), timeout_s=5))
    second = home.jobs.create(PinJob(0, leaf("b").cid, replaces=leaf("a").cid))
    assert (first.number, second.number) == (1, 2)
    assert list(home.jobs.ls()) == [first, second]
    assert home.jobs.change(1, lambda job: replace(job, state=JobState.PAUSED, error="e" * 9999)) is not None
    assert len(home.jobs.get(1).error) == 500
    assert home.jobs.claim(1) is None
    home.jobs.change(1, lambda _: None)
    with pytest.raises(JobNotFound):
        home.jobs.get(1)
    assert home.jobs.claim(1) is None
    for number in (0, -1, 1 << 70):
        with pytest.raises(JobNotFound):
            home.jobs.get(number)
    assert home.jobs.create(PinJob(0, leaf("a").cid)).number == 3
    assert list(pin_jobs.roots(home.meta)) == [leaf("b").cid, leaf("a").cid]


def test_a_job_that_no_pin_could_be_made_of_is_refused(home: Home) -> None:
    bad: Any
    for bad in ({"name": "x" * 300}, {"metadata": {"k": "v" * 5000}}, {"sources": ("u",) * 33}):
        with pytest.raises(StorageNodeError):
            home.jobs.create(PinJob(0, leaf("a").cid, **bad))
    assert list(home.jobs.ls()) == []
    home.meta.put(Table.PIN_JOBS, (1).to_bytes(8), b"\xff")
    with pytest.raises(StorageNodeError, match="damaged"):
        home.jobs.get(1)


async def test_pausing_elsewhere_stops_the_work_and_keeps_what_came(home: Home) -> None:
    dag = tree("dag")
    async with gateway(dag) as source, asking(source) as peers:
        job = home.job(dag[-1].cid)
        stuck = source.blocks.pop(str(dag[0].cid))
        working = asyncio.create_task(home.work(job, peers).run())
        await until(lambda: source.asked[str(dag[0].cid)])

        def reported() -> bool:
            home.clock.ahead_s += 1
            job = home.jobs.get(1)
            return (job.blocks, job.waiting_for) == (len(dag) - 1, str(dag[0].cid))

        await until(reported)
        assert home.jobs.get(1).is_running()
        home.jobs.change(1, lambda job: replace(job, state=JobState.PAUSED))
        home.clock.ahead_s += 10
        with pytest.raises(JobStopped):
            await working
        assert home.jobs.get(1).state is JobState.PAUSED
        assert home.store.stat().blocks == len(dag) - 1
        source.blocks[str(dag[0].cid)] = stuck
        home.jobs.change(1, lambda job: replace(job, state=JobState.WAITING))
        again = home.jobs.claim(1)
        assert again is not None
        await home.work(again, peers).run()
    assert home.pins.get(dag[-1].cid) is not None


async def test_cancelling_elsewhere_stops_the_work(home: Home) -> None:
    async with gateway(hold=asyncio.Event()) as source, asking(source) as peers:
        working = asyncio.create_task(home.work(home.job(leaf("x").cid), peers).run())
        await until(lambda: source.asked.total())
        home.jobs.change(1, lambda _: None)
        home.clock.ahead_s += 10
        with pytest.raises(JobStopped, match="cancelled"):
            await working
    assert list(home.jobs.ls()) == []


async def test_whoever_is_interrupted_leaves_a_paused_job(home: Home) -> None:
    dag = tree("dag")
    async with gateway(dag[4:]) as source, asking(source) as peers:
        work = home.work(home.job(dag[-1].cid), peers)
        working = asyncio.create_task(work.run())
        await until(lambda: work.progress().blocks == len(dag) - 4)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert home.jobs.get(1).state is JobState.PAUSED
    assert home.jobs.get(1).blocks == len(dag) - 4 == home.store.stat().blocks


def test_a_paused_or_cancelled_job_is_not_finished(home: Home) -> None:
    job = home.job(leaf("a").cid)
    home.jobs.change(1, lambda job: replace(job, state=JobState.PAUSED))
    with pytest.raises(JobNotFound):
        home.jobs.finish(job)
    home.jobs.change(1, lambda _: None)
    with pytest.raises(JobNotFound):
        home.jobs.finish(job)
    assert home.pins.count() == 0


CLAIM = """
import sys
from pathlib import Path
from storage_node.meta import Meta
from storage_node.pin_jobs import PinJobs
print(PinJobs(Meta(Path(sys.argv[1])), lambda: 0).claim(1) is not None, flush=True)
sys.stdin.read()
"""


async def test_a_daemon_takes_over_from_a_process_that_was_killed(home: Home, tmp_path: Path) -> None:
    dag = tree("dag")
    home.jobs.create(PinJob(0, dag[-1].cid, background=True))
    home.jobs.create(PinJob(0, leaf("not for a daemon").cid))
    other = start_python(CLAIM, str(tmp_path / "meta"))
    assert other.stdout is not None
    assert "True" in str(other.stdout.readline())
    async with gateway(dag) as source:
        runner = PinRunner(
            home.jobs,
            home.store,
            lambda _: asking(source),
            clock=home.clock,
            now=lambda: 0,
            sleep=asyncio.sleep,
        )
        await runner.check()
        assert home.jobs.get(1).label == "running"
        assert source.asked.total() == 0
        other.kill()
        other.communicate()
        assert home.jobs.get(1).label == "waiting"
        running = asyncio.create_task(runner.run())
        await until(lambda: home.pins.count())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [job.number for job in home.jobs.ls()] == [2]


async def test_a_daemon_that_stops_leaves_its_jobs_to_the_next_one(home: Home) -> None:
    home.jobs.create(PinJob(0, leaf("x").cid, background=True))
    async with gateway(hold=asyncio.Event()) as source:
        runner = PinRunner(
            home.jobs,
            home.store,
            lambda _: asking(source),
            clock=home.clock,
            now=lambda: 0,
            sleep=asyncio.sleep,
        )
        running = asyncio.create_task(runner.run())
        await until(lambda: source.asked.total())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert home.jobs.get(1).state is JobState.WAITING


# --- beside collections ---


async def test_a_collection_in_the_middle_keeps_what_came(home: Home) -> None:
    dag = tree("dag")
    garbage = tree("garbage")
    home.store.put_many(pairs(garbage))
    async with gateway(dag[4:]) as source:
        with pytest.raises(BlockNotFound):
            await home.pin(dag[-1].cid, source)
    home.collect()
    assert home.store.stat().blocks == len(dag) - 4
    home.jobs.change(1, lambda _: None)
    home.collect()
    assert home.store.stat().blocks == 0


async def test_updating_fetches_only_what_differs(home: Home) -> None:
    shared, old, new = tree("shared"), tree("old"), tree("new")
    before, after = node(shared[-1].cid, old[-1].cid), node(shared[-1].cid, new[-1].cid)
    home.store.put_many(pairs([*shared, *old, before]))
    home.pins.add(before.cid, name="site", metadata={"k": "v"})
    async with gateway([*new, after]) as source:
        await home.pin(after.cid, source, replaces=before.cid)
    assert source.asked == {str(each.cid): 1 for each in [*new, after]}
    (pin,) = home.pins.ls()
    assert (pin.cid, pin.name, pin.metadata) == (after.cid, "site", {"k": "v"})
    home.collect()
    assert home.store.stat().blocks == len(shared) + len(new) + 1
