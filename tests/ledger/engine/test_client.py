"""The client and the sender against a real server: typed answers, pins, errors, streams taken up again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from ledger.engine import transport
from ledger.engine.blocks import BlockEvents, Receipt, node_cid
from ledger.engine.chain_check import Tip
from ledger.engine.client import LedgerClient
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import (
    ChainMismatch,
    LedgerNotFound,
    LedgerProtocolError,
    LedgerRefused,
    LedgerUnreachable,
)
from ledger.engine.rpc import build_rpc
from ledger.engine.sender import Sender
from ledger.errors import LedgerError
from ledger.genesis import HOLD
from ledger.records import AccountRecord, ShardStatus
from ledger.result import Code
from ledger.transactions import Accept, Ask, Beacon, CreateDeal, PieceCommitment, Register, Transfer, decode
from merkledag import varint
from merkledag.cid import CID
from tests.conftest import ROOT
from tests.ledger.engine.conftest import CHAIN, Chain, ManualClock, signer, until
from tests.ports import free_port


@dataclass
class Server:
    """A server that can be stopped and started again on the same port."""

    engine: EmbeddedEngine
    port: int = field(default_factory=free_port)
    runner: web.AppRunner | None = None

    async def start(self) -> None:
        self.runner = web.AppRunner(build_rpc(self.engine), access_log=None, shutdown_timeout=1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Naps:
    """A `sleep` that takes no time and remembers what it was asked for."""

    asked: list[float] = field(default_factory=list)
    before: Callable[[], object] = lambda: None

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.before()
        await asyncio.sleep(0.001)


@pytest.fixture
async def server(engine: EmbeddedEngine) -> AsyncIterator[Server]:
    server = Server(engine)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[LedgerClient]:
    async with LedgerClient(server.url, sleep=Naps()) as client:
        yield client


async def test_answers_are_typed(client: LedgerClient, chain: Chain) -> None:
    raw = chain.transfer(0, amount=3 * HOLD)
    receipt = await client.submit(raw)
    assert (receipt.height, receipt.code, receipt.tx_id) == (1, 0, decode(raw).id)
    assert await client.submit(raw) == receipt
    status = await client.status()
    assert (status["chain_id"], status["height"], status["engine"]) == (CHAIN, 1, "embedded")
    assert status["operator"] == chain.operator.public_key
    assert await client.genesis() == chain.genesis
    assert await client.chain_id() == CHAIN
    assert await client.params() == chain.genesis.params
    assert await client.account(signer("alice").public_key) == AccountRecord(3 * HOLD, 0)
    assert await client.account(signer("nobody").public_key) == AccountRecord(0, 0)
    block = await client.block()
    assert block == await client.block(1)
    found = await client.tx(receipt.tx_id)
    assert (found.height, found.index, found.tx, found.receipt) == (1, 1, decode(raw), receipt)
    head = await client.tx(block.txs[0])
    assert isinstance(head.tx, Beacon)
    assert await client.node(block.cid) == block.encode()
    assert await client.node(block.txs[1]) == raw
    assert (await client.providers(), await client.deals(), await client.datasets()) == ([], [], [])


async def test_deals_and_datasets(client: LedgerClient, chain: Chain) -> None:
    node, other = Sender(client, signer("node")), Sender(client, signer("other node"))
    bank = Sender(client, chain.operator)
    for provider in (node, other):
        await bank.send(Transfer(provider.account, 100 * HOLD))
        await provider.send(Register("http://n.example", 1 << 40, provider.account, 50 * HOLD))
        await provider.send(Ask(0, 0, 1 << 40, True))
    assert {record.account for record in await client.providers()} == {node.account, other.account}
    assert (await client.provider(node.account)).endpoint == "http://n.example"
    params = await client.params()
    piece = PieceCommitment(b"\x07" * 32, 10, 10_000, bytes(32), 0, 0)
    deals = []
    for number in range(3):
        content = CID.of(b"content %d" % (number % 2))
        body = CreateDeal(
            content,
            content,
            1,
            1,
            False,
            5,
            10 * params.proof_fee,
            params.challenges,
            (piece,),
            (node.account,),
        )
        deals.append((await bank.send(body)).tx_id)
    for deal in deals[:2]:
        await node.send(Accept(deal, 0))
    view = await client.deal(deals[0])
    assert (view.id, view.deal.client, view.deal.holders) == (deals[0], bank.account, (node.account,))
    assert [shard.status for shard in view.shards] == [ShardStatus.ACCEPTED]
    assert view.shards[0].piece == piece

    async def ids(**wanted: object) -> set[CID]:
        return {view.id for view in await client.deals(**wanted)}  # type: ignore[arg-type]

    assert await ids() == set(deals)
    assert await ids(client=bank.account, active=True) == set(deals)
    assert await ids(provider=node.account) == set(deals)
    assert await ids(provider=other.account) == set()
    assert await ids(content=CID.of(b"content 0")) == {deals[0], deals[2]}
    assert await ids(active=False) == set()
    assert [view.id for view in await client.deals(limit=2)] == [view.id for view in await client.deals()][:2]
    first, *others = [view.id for view in await client.deals()]
    assert [view.id async for view in client.each_deal(after=first)] == others
    assert await ids(limit=0) == set()
    ((dataset, record),) = await client.datasets(provider=node.account)
    assert (record.client, record.provider) == (bank.account, node.account)
    assert await client.dataset(dataset) == record
    assert await client.datasets(provider=other.account) == []
    assert isinstance(await client.dataset_slots(dataset), dict)


async def test_lists_of_many_pages_are_put_together(
    client: LedgerClient, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.engine.state_reads.PAGE", 2)
    bank = Sender(client, chain.operator)
    names = [f"node {number}" for number in range(5)]
    for name in names:
        sender = Sender(client, signer(name))
        await bank.send(Transfer(sender.account, 10 * HOLD))
        await sender.send(Register("http://n.example", 1 << 30, sender.account, HOLD))
    accounts = sorted(signer(name).public_key for name in names)
    assert [record.account for record in await client.providers()] == accounts


async def test_errors_say_whose_they_are(client: LedgerClient, server: Server, chain: Chain) -> None:
    absent = CID.of(b"absent", codec=0x71)
    for asked in (
        client.tx(absent),
        client.deal(absent),
        client.node(absent),
        client.block(9),
        client.provider(bytes(32)),
        client.dataset(bytes(32)),
        client.dataset_slots(bytes(32)),
    ):
        with pytest.raises(LedgerNotFound):
            await asked
    with pytest.raises(LedgerRefused) as refused:
        await client.submit(chain.transfer(4))
    assert refused.value.code == Code.NONCE_GAP
    assert refused.value.log
    with pytest.raises(LedgerRefused, match="larger than"):
        await client.submit(bytes(300_000))
    await server.stop()
    with pytest.raises(LedgerUnreachable, match="is it running"):
        await client.status()


@pytest.mark.parametrize("url", ["", "127.0.0.1:4181", "ftp://x", "http://"])
def test_what_is_not_a_url_is_told(url: str) -> None:
    with pytest.raises(ValueError, match="not a ledger's URL"):
        LedgerClient(url)


async def test_a_full_server_is_told_apart_from_an_absent_one(chain: Chain) -> None:
    engine = chain.engine(max_waiting=1)
    server = Server(engine)
    await server.start()
    async with LedgerClient(server.url) as client:
        waiting = asyncio.create_task(client.submit(chain.transfer(0)))
        await until(lambda: engine.status.waiting == 1)
        with pytest.raises(LedgerRefused) as refused:
            await client.submit(chain.transfer(1))
        assert refused.value.code == Code.POOL_FULL
        await engine.stop()
        with pytest.raises(LedgerUnreachable, match="cannot answer now"):
            await waiting
    await server.stop()
    chain.close()


async def test_the_chain_and_its_operator_are_pinned(server: Server, chain: Chain) -> None:
    async with LedgerClient(
        server.url, expect_chain=CHAIN, expect_operator=chain.operator.public_key
    ) as client:
        await client.submit(chain.transfer(0))
        assert (await client.status())["height"] == 1
        assert client.tip is None  # nothing was there when the client looked
    async with LedgerClient(server.url, expect_operator=chain.operator.public_key) as client:
        seen = await client.block()
        assert client.tip == Tip(1, seen.cid)
    for tip, says in ((Tip(2, seen.cid), "ends at block 1"), (Tip(1, node_cid(b"")), "another block 1 than")):
        async with LedgerClient(
            server.url, expect_operator=chain.operator.public_key, expect_tip=tip
        ) as client:
            with pytest.raises(ChainMismatch, match=says):
                await client.status()
    async with LedgerClient(server.url, expect_chain="another") as client:
        for asked in (client.status(), client.submit(chain.transfer(1)), client.genesis()):
            with pytest.raises(ChainMismatch, match="runs chain engine-test, not another"):
                await asked
        with pytest.raises(ChainMismatch):
            await anext(client.events(1))
    async with LedgerClient(server.url, expect_operator=signer("mallory").public_key) as client:
        with pytest.raises(ChainMismatch, match="not to the operator"):
            await client.status()


@asynccontextmanager
async def impostor(routes: dict[str, bytes], content_type: str = "text/html") -> AsyncIterator[str]:
    """A server that answers what it was told to."""

    async def answer(request: web.Request) -> web.Response:
        body = routes.get(request.path)
        return web.Response(body=body or b"", status=404 if body is None else 200, content_type=content_type)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_another_kind_of_server_is_told(chain: Chain) -> None:
    page = b"<html>hello</html>"
    routes = {"/v1/status": page, "/v1/params": b"\xa0", "/v1/providers": b"\xa0", "/v1/events": b"\xff" * 20}
    async with impostor(routes) as url, LedgerClient(url) as client:
        for asked in (client.status(), client.params(), client.providers(), client.genesis()):
            with pytest.raises(LedgerProtocolError):
                await asked
        with pytest.raises(LedgerProtocolError):
            await anext(client.events(1))


async def test_a_forged_block_is_told(server: Server, chain: Chain, engine: EmbeddedEngine) -> None:
    from dataclasses import replace

    from merkledag import dag_cbor

    await engine.submit(chain.transfer(0))
    block = engine.history.block(1)
    assert block is not None
    forged = replace(block, app_hash=bytes(32))
    routes = {
        "/v1/genesis": chain.genesis.encode(),
        "/v1/status": dag_cbor.encode({"height": 1, "time": 1}),
        "/v1/block/latest": dag_cbor.encode({"cid": forged.cid, "block": forged.to_map()}),
        f"/v1/node/{block.cid}": forged.encode(),
    }
    async with impostor(routes) as url:
        async with LedgerClient(url) as client:
            with pytest.raises(ChainMismatch, match="not signed by the chain's operator"):
                await client.block()
            with pytest.raises(LedgerProtocolError, match="other bytes"):
                await client.node(block.cid)
        async with LedgerClient(url, expect_operator=chain.operator.public_key) as client:
            with pytest.raises(ChainMismatch, match="not signed"):
                await client.status()


async def collect(client: LedgerClient, start: int, count: int, into: list[BlockEvents]) -> None:
    async with aclosing(client.events(start)) as events:
        async for block in events:
            into.append(block)
            if len(into) >= count:
                return


async def test_events_go_on_over_a_restart_of_the_server(
    server: Server, chain: Chain, engine: EmbeddedEngine
) -> None:
    naps = Naps()
    got: list[BlockEvents] = []
    async with LedgerClient(server.url, sleep=naps) as client:
        follower = asyncio.create_task(collect(client, 1, 6, got))
        for nonce in range(2):
            await engine.submit(chain.transfer(nonce))
        await until(lambda: len(got) == 2)
        await server.stop()
        for nonce in range(2, 4):
            await engine.submit(chain.transfer(nonce))
        await until(lambda: len(naps.asked) >= 9)
        await server.start()
        for nonce in range(4, 6):
            await engine.submit(chain.transfer(nonce))
        await follower
    assert [block.height for block in got] == [1, 2, 3, 4, 5, 6]
    assert [event.kind for event in got[3].events] == ["transfer"]
    assert got[3].events[0].attributes["from"] == chain.operator.public_key
    assert naps.asked[:4] == [0.25, 0.5, 1.0, 2.0]
    assert max(naps.asked) == 15.0


async def test_a_follower_notices_a_chain_that_went_back(
    server: Server, chain: Chain, engine: EmbeddedEngine, clock: ManualClock, tmp_path: Path
) -> None:
    anew = Chain(tmp_path / "anew", clock)
    shorter = anew.engine()
    await shorter.start()
    await shorter.submit(anew.transfer(0))
    async with LedgerClient(server.url, sleep=Naps(), expect_operator=chain.operator.public_key) as client:
        follower = client.events(1)
        for nonce in range(2):
            await engine.submit(chain.transfer(nonce))
            await anext(follower)
        await server.stop()
        server.engine = shorter
        await server.start()
        with pytest.raises(ChainMismatch, match="ends at block 1, but had block 2 before"):
            await anext(follower)
    await server.stop()
    await shorter.stop()
    anew.close()


async def test_frames_are_bounded_and_may_come_in_pieces() -> None:
    whole = b"".join(varint.encode(len(body)) + body for body in (b"one", b"x" * 300, b""))
    for step in (1, 2, 7, 1_000):
        buffer, frames = bytearray(), []
        for start in range(0, len(whole), step):
            buffer += whole[start : start + step]
            frames += transport._take_frames(buffer)
        assert frames == [b"one", b"x" * 300, b""]
        assert not buffer
    with pytest.raises(LedgerProtocolError, match="a frame of"):
        transport._take_frames(bytearray(varint.encode(1 << 40)))
    with pytest.raises(LedgerProtocolError, match="malformed"):
        transport._take_frames(bytearray(b"\x80\x00"))


async def test_many_sends_at_once_keep_their_nonces_in_order(client: LedgerClient, chain: Chain) -> None:
    sender = Sender(client, chain.operator)
    receipts = await asyncio.gather(
        *(sender.send(Transfer(signer(f"friend {number}").public_key, HOLD)) for number in range(80))
    )
    assert all(receipt.code == 0 for receipt in receipts)
    assert len({receipt.tx_id for receipt in receipts}) == 80
    assert (await client.account(sender.account)).nonce == 80


async def test_a_refused_send_does_not_hold_up_the_others(client: LedgerClient, chain: Chain) -> None:
    await client.submit(chain.transfer(0, to="alice", amount=10 * HOLD))
    sender = Sender(client, signer("alice"))
    bob = signer("bob").public_key
    amounts = [HOLD, 1_000 * HOLD, HOLD, 2_000 * HOLD, HOLD]
    results = await asyncio.gather(
        *(sender.send(Transfer(bob, each)) for each in amounts), return_exceptions=True
    )
    outcomes = [result.code if isinstance(result, LedgerRefused) else 0 for result in results]
    assert outcomes == [0, Code.INSUFFICIENT_FUNDS, 0, Code.INSUFFICIENT_FUNDS, 0]
    assert (await client.account(bob)).balance == 3 * HOLD


async def test_two_senders_of_one_key_get_along(client: LedgerClient, chain: Chain) -> None:
    senders = [Sender(client, chain.operator) for _ in range(2)]
    bob = signer("bob").public_key
    receipts = await asyncio.gather(*(senders[n % 2].send(Transfer(bob, n * HOLD)) for n in range(1, 7)))
    assert [receipt.code for receipt in receipts] == [0] * 6
    assert (await client.account(bob)).balance == 21 * HOLD


async def test_a_send_survives_a_restart_of_the_server(server: Server, chain: Chain) -> None:
    naps = Naps()
    async with LedgerClient(server.url, sleep=naps) as client:
        sender = Sender(client, chain.operator)
        bob = signer("bob").public_key
        await sender.send(Transfer(bob, HOLD))
        await server.stop()
        sending = asyncio.create_task(sender.send(Transfer(bob, HOLD)))
        await until(lambda: len(naps.asked) >= 2)
        await server.start()
        assert (await sending).code == 0
        assert (await client.account(bob)).balance == 2 * HOLD
        await server.stop()
        with pytest.raises(LedgerUnreachable):
            await sender.send(Transfer(bob, HOLD))


async def test_a_lost_answer_does_not_pay_twice(server: Server, chain: Chain, engine: EmbeddedEngine) -> None:
    """The server takes the transaction and goes away before it answers."""
    naps = Naps()
    async with LedgerClient(server.url, sleep=naps) as client:
        sender = Sender(client, chain.operator)
        bob = signer("bob").public_key
        real = client.submit
        lost: list[Receipt] = []

        async def submit(raw: bytes, *, check_block: bool = False) -> Receipt:
            receipt = await real(raw, check_block=check_block)
            if not lost:
                lost.append(receipt)
                raise LedgerUnreachable("the connection broke")
            return receipt

        client.submit = submit  # type: ignore[method-assign]
        assert await sender.send(Transfer(bob, HOLD)) == lost[0]
        assert (await client.account(bob)).balance == HOLD
        assert engine.app.height == 1


async def test_cancelling_a_send_leaves_the_sender_usable(client: LedgerClient, chain: Chain) -> None:
    sender = Sender(client, chain.operator)
    bob = signer("bob").public_key
    for turns in range(8):
        sending = asyncio.create_task(sender.send(Transfer(bob, HOLD)))
        for _ in range(turns * 3):
            await asyncio.sleep(0)
        sending.cancel()
        with suppress(asyncio.CancelledError, LedgerError):
            await sending
    assert (await sender.send(Transfer(bob, HOLD))).code == 0


def test_the_client_loads_quickly() -> None:
    """aiohttp (0.6 s) is loaded by the first request, not by the import."""
    code = "import sys, ledger.engine.sender; print([name in sys.modules for name in ('aiohttp', 'lmdb')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False]"


def test_the_embedded_ledger_loads_nothing_of_cometbft() -> None:
    """Nor protobuf, which takes a tenth of a second and some MiB."""
    code = (
        "import sys, ledger.engine.embedded, ledger.engine.rpc; "
        "print([name for name in sys.modules if name.startswith(('google.', 'ledger.engine.cometbft'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
