"""Several servers behind one client: who takes over when, what is sent again, what counts as an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from ledger.engine import servers as several
from ledger.engine.chain_check import ChainCheck
from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import (
    ChainMismatch,
    LedgerNotFound,
    LedgerPruned,
    LedgerRefused,
    LedgerUnreachable,
)
from ledger.engine.rpc import build_rpc
from ledger.engine.rpc_common import Settings
from ledger.engine.sender import Sender
from ledger.engine.servers import BACK_S, MAX_BEHIND_BLOCKS, SURVEY_S, Servers
from ledger.engine.transport import Transport
from ledger.engine.urls import urls_of
from ledger.genesis import HOLD
from ledger.result import Code
from ledger.transactions import Transfer
from merkledag import dag_cbor
from tests.ledger.engine.conftest import Chain, ManualClock, signer, until
from tests.ports import free_port

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _changed(response: web.StreamResponse, changes: dict[str, Any]) -> web.Response:
    """The same answer with other values; a map changes those below it."""
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    value = dag_cbor.decode(response.body)
    for name, change in changes.items():
        value[name] = {**value[name], **change} if isinstance(change, dict) else change
    return web.Response(body=dag_cbor.encode(value), content_type=response.content_type)


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


@dataclass
class Door:
    """One more server of an engine, which fails in the ways a test asks for."""

    engine: EmbeddedEngine
    heartbeat_s: float = 15.0
    port: int = field(default_factory=free_port)
    asked: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)  # what it says of itself instead
    refuses: int = 0  # the status that it answers all with
    loses_answers: bool = False
    hangs: bool = False
    waits: asyncio.Event | None = None  # before it takes what is sent
    forges: bool = False
    runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sent(self) -> int:
        """How many requests with transactions came."""
        return sum(path.startswith("/v1/tx") for path in self.asked)

    async def open(self) -> None:
        app = build_rpc(self.engine, Settings(heartbeat_s=self.heartbeat_s))
        app.middlewares.insert(0, self._middleware())
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()

    async def close(self) -> None:
        if self.runner is not None:
            runner, self.runner = self.runner, None
            await runner.cleanup()

    def _middleware(self) -> Any:
        @web.middleware
        async def fails(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.asked.append(request.path)
            if self.hangs:
                await asyncio.sleep(3_600)
            if self.waits is not None and request.method == "POST":
                await self.waits.wait()
            if self.refuses and request.path != "/v1/status":
                told = {"error": "as the test wants it", "code": self.refuses}
                return web.json_response(told, status=self.refuses)
            response = await handler(request)
            if self.status and request.path == "/v1/status":
                return _changed(response, self.status)
            if self.forges and request.path.startswith("/v1/block/"):
                return _changed(response, {"block": {"sig": bytes(64)}})
            if self.loses_answers and request.method == "POST":
                assert request.transport is not None
                request.transport.close()
            return response

        return fails


@pytest.fixture
async def doors(engine: EmbeddedEngine) -> AsyncIterator[list[Door]]:
    """Three servers of one ledger."""
    doors = [Door(engine, heartbeat_s=0.02) for _ in range(3)]
    async with AsyncExitStack() as open_doors:
        for door in doors:
            await door.open()
            open_doors.push_async_callback(door.close)
        yield doors


def all_of(doors: list[Door]) -> str:
    return ",".join(door.url for door in doors)


async def test_one_server_that_is_down_is_no_matter_and_the_next_is_kept(
    doors: list[Door], chain: Chain
) -> None:
    await doors[0].close()
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        receipt = await client.submit(chain.transfer(0))
        assert receipt.code == Code.OK
        assert client.url == doors[1].url
        before = len(doors[2].asked)
        for _ in range(5):
            assert (await client.account(signer("alice").public_key)).balance == HOLD
        assert client.url == doors[1].url
        assert len(doors[2].asked) == before


async def test_a_server_that_dies_amid_many_sends_loses_and_doubles_none(
    doors: list[Door], chain: Chain, engine: EmbeddedEngine
) -> None:
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        sender = Sender(client, chain.operator)
        sends = [
            asyncio.create_task(sender.send(Transfer(signer("alice").public_key, HOLD))) for _ in range(40)
        ]
        await until(lambda: engine.app.height > 0)
        await doors[0].close()
        await asyncio.wait_for(doors[1].close(), 5)
        receipts = await asyncio.gather(*sends)
        assert all(receipt.code == Code.OK for receipt in receipts)
        assert len({receipt.tx_id for receipt in receipts}) == 40
        assert (await client.account(signer("alice").public_key)).balance == 40 * HOLD
        assert client.url == doors[2].url


async def test_a_lost_answer_is_asked_of_another_by_the_same_bytes(doors: list[Door], chain: Chain) -> None:
    doors[0].loses_answers = True
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        receipt = await client.submit(chain.transfer(0))
        assert (receipt.code, receipt.height) == (Code.OK, 1)
        assert (doors[0].sent(), doors[1].sent()) == (1, 1)
        assert (await client.status())["height"] == 1


async def test_what_the_ledger_says_is_asked_of_nobody_else(doors: list[Door], chain: Chain) -> None:
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        with pytest.raises(LedgerRefused) as refused:
            await client.submit(chain.transfer(7))
        assert refused.value.code == Code.NONCE_GAP
        with pytest.raises(LedgerNotFound):
            await client.provider(signer("alice").public_key)
        assert doors[1].sent() == doors[2].sent() == 0
        assert "/v1/provider" not in "".join(doors[1].asked + doors[2].asked)


@pytest.mark.parametrize("status", [500, 503, 408])
async def test_a_server_that_cannot_answer_now_is_left(doors: list[Door], chain: Chain, status: int) -> None:
    doors[0].refuses = status
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        assert (await client.submit(chain.transfer(0))).code == Code.OK
        assert client.url == doors[1].url


async def test_a_server_that_hangs_is_left_in_bounded_time(
    doors: list[Door], chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.engine.client.LEAST_TIMEOUT_S", 1.0)  # the others answer sooner
    monkeypatch.setattr(several, "GRACE_S", 0.05)
    async with LedgerClient(all_of(doors), timeout_s=1.0, sleep=no_sleep) as client:
        await client.status()
        doors[0].hangs = True
        assert (await client.submit(chain.transfer(0))).code == Code.OK
        assert client.url != doors[0].url


async def test_a_server_that_stops_in_the_middle_is_left_long_before_an_answers_time_is_up(
    doors: list[Door], chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "DOUBT_S", 0.01)
    monkeypatch.setattr(several, "PROBE_S", 0.2)
    async with LedgerClient(all_of(doors), sleep=no_sleep, timeout_s=3_600) as client:
        await client.submit(chain.transfer(0))
        doors[0].hangs = True
        assert (await client.submit(chain.transfer(1))).code == Code.OK
        assert client.url == doors[1].url


async def test_an_answer_that_takes_long_is_waited_for_while_its_server_tells_how_it_is(
    doors: list[Door], chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "DOUBT_S", 0.001)
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        await client.submit(chain.transfer(0))
        doors[0].waits = asyncio.Event()
        sent = asyncio.create_task(client.submit(chain.transfer(1)))
        before = doors[0].asked.count("/v1/status")
        await until(lambda: doors[0].asked.count("/v1/status") > before + 3)
        doors[0].waits.set()
        assert (await sent).code == Code.OK
        assert client.url == doors[0].url
        assert [door.sent() for door in doors] == [2, 0, 0]


async def test_what_one_server_no_longer_keeps_another_is_asked_for(doors: list[Door], chain: Chain) -> None:
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        receipt = await client.submit(chain.transfer(0))
        doors[0].refuses = 410
        assert receipt.tx_id is not None
        assert (await client.tx(receipt.tx_id)).height == 1
        assert client.url == doors[0].url  # it is well
        doors[1].refuses = doors[2].refuses = 410
        with pytest.raises(LedgerPruned):
            await client.tx(receipt.tx_id)
        doors[2].refuses = 0
        async with aclosing(client.events(1)) as events:
            assert (await anext(events)).height == 1


async def test_all_down_is_one_error_that_names_each_and_why(doors: list[Door]) -> None:
    await doors[0].close()
    doors[1].refuses = 503
    doors[2].hangs = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(several, "GRACE_S", 0.05)
        async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
            with pytest.raises(LedgerUnreachable, match="none of the ledger's 3 servers") as failed:
                await client.params()
    told = str(failed.value)
    assert f"no ledger answers at {doors[0].url}" in told
    assert f"{doors[1].url} cannot answer now: as the test wants it" in told
    assert f"{doors[2].url} did not answer in time" in told


async def test_a_server_of_another_chain_is_dropped_and_named(
    doors: list[Door], chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    doors[1].status = {"chain_id": "other"}
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        await client.submit(chain.transfer(0))
        assert f"{doors[1].url} runs chain other, not {chain.genesis.chain_id}" in caplog.text
        doors[0].refuses = 503
        await client.params()
        assert client.url == doors[2].url
        doors[2].refuses = 503
        with pytest.raises(LedgerUnreachable, match="runs chain other"):
            await client.params()
    assert caplog.text.count("runs chain other") == 1


@pytest.mark.parametrize("pinned", [{"expect_chain": "third"}, {"expect_operator": bytes(32)}])
async def test_where_no_server_is_right_one_error_names_each_once(
    doors: list[Door], pinned: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with LedgerClient(all_of(doors), **pinned, sleep=no_sleep) as client:
        with pytest.raises(ChainMismatch, match="no server runs the chain that is wanted") as failed:
            await client.params()
    for door in doors:
        assert f"{failed.value!s}; {caplog.text}".count(door.url) == 1


async def test_a_server_that_forges_blocks_is_dropped_as_well(
    doors: list[Door], chain: Chain, engine: EmbeddedEngine
) -> None:
    """Anybody can copy a genesis and a status: the operator did not sign its last block."""
    await engine.submit(chain.transfer(0))
    doors[0].forges = True
    honest = chain.operator.public_key
    async with LedgerClient(all_of(doors), expect_operator=honest, sleep=no_sleep) as client:
        assert (await client.submit(chain.transfer(1))).height == 2
        assert client.url == doors[1].url
        assert doors[0].sent() == 0
        assert client.tip is not None
        assert client.tip.height == 1
    for door in doors:
        door.forges = True
    async with LedgerClient(all_of(doors), expect_operator=honest, sleep=no_sleep) as client:
        with pytest.raises(ChainMismatch, match="is not signed by the chain's operator"):
            await client.account(honest)


async def test_events_are_taken_up_at_another_server_without_gap_or_double(
    doors: list[Door], chain: Chain, engine: EmbeddedEngine
) -> None:
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client, aclosing(client.events(1)) as events:
        heights = []
        for nonce in range(9):
            await engine.submit(chain.transfer(nonce))
            if nonce in (2, 5):
                await doors[nonce // 3].close()
            elif nonce != 1:  # the next begins two behind
                heights.append((await anext(events)).height)
        heights += [(await anext(events)).height for _ in range(3)]
        assert heights == list(range(1, 10))
        assert client.url == doors[2].url


async def test_a_server_that_is_behind_what_was_seen_does_not_take_over(
    doors: list[Door], chain: Chain
) -> None:
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        for nonce in range(3):
            await client.submit(chain.transfer(nonce))
        doors[1].status = {"height": 2}
        doors[0].refuses = 503
        await client.params()
        assert client.url == doors[2].url
        doors[2].refuses = 503
        with pytest.raises(LedgerUnreachable, match="is at block 2, behind block 3"):
            await client.params()
        doors[1].status = {}
        await client.params()
        assert client.url == doors[1].url


async def test_one_receipt_of_a_far_block_does_not_rule_out_the_honest(
    doors: list[Door], chain: Chain
) -> None:
    servers = servers_of(doors, ManualClock())
    servers.saw(1 << 60)
    with pytest.raises(LedgerUnreachable, match=f"behind block {1 << 60}"):
        await servers.get("/v1/params")
    await servers.get("/v1/params")
    await servers.close()


def _more_than(asked: list[str], count: int) -> bool:
    return len(asked) > count


def servers_of(doors: list[Door], clock: ManualClock) -> Servers:
    return Servers(
        [Transport(door.url) for door in doors],
        lambda http: ChainCheck(http, None, None, None),
        no_sleep,
        clock.monotonic,
    )


async def test_the_first_is_taken_again_when_it_was_well_for_a_while(
    doors: list[Door], clock: ManualClock
) -> None:
    servers = servers_of(doors, clock)
    try:
        doors[0].refuses = 503
        await servers.get("/v1/params")
        assert servers.url == doors[1].url
        doors[0].refuses = 0
        moved_after_s = 0.0
        while servers.url == doors[1].url:
            await clock.advance(SURVEY_S + 1)
            moved_after_s += SURVEY_S + 1
            before = len(doors[0].asked)
            await servers.get("/v1/params")
            await until(partial(_more_than, doors[0].asked, before))
            await servers.get("/v1/params")
            await until(lambda: servers._survey is None or servers._survey.done())
        assert BACK_S <= moved_after_s <= BACK_S + 3 * SURVEY_S
        assert servers.url == doors[0].url
    finally:
        await servers.close()


async def test_a_chain_that_stands_still_is_left_for_one_that_goes_on(
    doors: list[Door], chain: Chain
) -> None:
    """The server's heartbeats tell of no new block while others have many."""
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        await client.submit(chain.transfer(0))
        for door in doors[1:]:
            door.status = {"height": 1 + MAX_BEHIND_BLOCKS}
        async with aclosing(client.events(2)) as events:
            waiting = asyncio.create_task(anext(events))
            await until(lambda: any(door.asked.count("/v1/status") > 4 for door in doors))
            assert client.url == doors[0].url  # near enough
            for door in doors[1:]:
                door.status = {"height": 2 + MAX_BEHIND_BLOCKS}
            await until(lambda: client.url == doors[1].url)
            await client.submit(chain.transfer(1))
            assert (await waiting).height == 2


async def test_where_all_are_in_trouble_the_first_is_read(doors: list[Door]) -> None:
    doors[0].status = {"trouble": "no block for a minute"}
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        await client.status()
        assert client.url == doors[1].url
    for door in doors:
        door.status = {"trouble": "no block for a minute"}
    async with LedgerClient(all_of(doors), sleep=no_sleep) as client:
        assert (await client.status())["trouble"] == "no block for a minute"
        assert client.url == doors[0].url


def test_urls_are_parted_by_commas_each_once() -> None:
    assert urls_of("http://a:1") == ("http://a:1",)
    assert urls_of(" http://a:1/, http://b:2 ,http://a:1") == ("http://a:1", "http://b:2")
    with pytest.raises(ValueError, match="17 URLs of ledger servers"):
        urls_of(",".join(f"http://a:{port}" for port in range(17)))
    with pytest.raises(ValueError, match="not a ledger's URL"):
        LedgerClient("http://a:1,b:2")
    with pytest.raises(ValueError, match="not a ledger's URL"):
        LedgerClient(" , ")
