"""Who may drive an application over ABCI: one engine at a time, over TCP from the networks that are named."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.abci.believed import Believed, Peer, SecondEngine
from ledger.engine.cometbft.abci.listening import KEEPALIVE, listen, warn_if_open
from tests.ledger.cometbft.abci import AnswersAnything, Connection, connection, serving
from tests.ledger.engine.conftest import until

INFO = "info", messages.RequestInfo(version="0.39.4", abci_version="2.0.0", block_version=11)
TOOLS_INFO = "info", messages.RequestInfo()
FINALIZE = "finalize_block", messages.RequestFinalizeBlock(height=1)
OFFER = "offer_snapshot", messages.RequestOfferSnapshot()
DECIDING = [
    ("init_chain", messages.RequestInitChain()),
    ("prepare_proposal", messages.RequestPrepareProposal()),
    ("process_proposal", messages.RequestProcessProposal()),
    FINALIZE,
    ("commit", messages.RequestCommit()),
    ("extend_vote", messages.RequestExtendVote()),
    ("verify_vote_extension", messages.RequestVerifyVoteExtension()),
]


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"unix://{tmp_path}/abci.sock" if request.param == "unix" else "tcp://127.0.0.1:0"


async def refused(peer: Connection, request: tuple[str, Any]) -> str:
    """The reason why a request ends its connection."""
    peer.send(request)
    received = await peer.receive()
    assert received is not None
    kind, said = received
    assert kind == "exception"
    assert await peer.receive() is None
    return str(said.error)


async def test_the_four_connections_of_one_engine_are_believed(address: str) -> None:
    handlers = AnswersAnything()
    async with serving(handlers, address) as server, AsyncExitStack() as stack:
        query, snapshot, mempool, consensus = [
            await stack.enter_async_context(connection(server)) for _ in range(4)
        ]
        for _ in range(2):  # its RPC's abci_info asks again
            await query.ask(*INFO)
            await snapshot.ask(*OFFER)
            await mempool.ask("check_tx", messages.RequestCheckTx())
            for request in DECIDING:
                await consensus.ask(*request)
        # and so is a tool that says nothing of itself, and whoever asks for what changes nothing
        other = await stack.enter_async_context(connection(server))
        await other.ask(*TOOLS_INFO)
        await other.ask("query", messages.RequestQuery())
        await other.ask("load_snapshot_chunk", messages.RequestLoadSnapshotChunk())


@pytest.mark.parametrize("asked", [INFO, OFFER, *DECIDING], ids=lambda request: request[0])
async def test_a_second_engine_is_refused_until_the_first_one_is_gone(
    asked: tuple[str, Any], address: str
) -> None:
    handlers = AnswersAnything()
    first = FINALIZE if asked in DECIDING else asked
    async with serving(handlers, address) as server:
        async with connection(server) as mine:
            await mine.ask(*first)
            async with connection(server) as theirs:
                why = await refused(theirs, asked)
                assert "one application serves one cometbft" in why
                assert asked[0] in why
            assert handlers.seen == [first[0]]
            await mine.ask(*first)  # it goes on
        async with connection(server) as theirs:
            await theirs.ask(*asked)


async def test_an_engine_that_ended_while_it_was_answered_is_no_longer_there(address: str) -> None:
    """`cometbft` was killed while a full disk holds its Commit up, and is started again."""

    class Full(AnswersAnything):
        def __init__(self) -> None:
            super().__init__()
            self.has_room = asyncio.Event()

        async def commit(self, _request: Any) -> Any:
            self.seen.append("commit")
            await self.has_room.wait()
            return messages.ResponseCommit()

    handlers = Full()
    async with serving(handlers, address) as server:
        async with connection(server) as killed:
            killed.send(("commit", messages.RequestCommit()))
            await until(lambda: handlers.seen == ["commit"])
        async with connection(server) as again:
            # Nothing but the end of the other connection can be seen of it
            await until(lambda: not server._believed._peers)
            await again.ask(*INFO)
            await again.ask(*FINALIZE)
            handlers.has_room.set()


@pytest.mark.parametrize("kind", ["info", "offer_snapshot", "finalize_block"])
def test_no_connection_from_elsewhere_belongs_to_the_engine(kind: str) -> None:
    """Also where the engine has none of this kind yet: it may be about to open it."""
    engine, other = [Peer("host 10.0.0.5") for _ in range(4)], Peer("host 10.0.0.6")
    requests = dict([INFO, OFFER, FINALIZE])
    for begun in requests:
        believed = Believed()
        believed.check(engine[0], begun, requests[begun])
        with pytest.raises(SecondEngine, match=r"10\.0\.0\.6 asks for .*10\.0\.0\.5.* has this application"):
            believed.check(other, kind, requests[kind])
        believed.check(engine[0] if kind == begun else engine[1], kind, requests[kind])
        for each in engine:
            believed.forget(each)
        believed.check(other, kind, requests[kind])


V4, V6 = "tcp://127.0.0.1:0", "tcp://[::1]:0"


@pytest.mark.parametrize(
    ("listens", "allowed", "may"),
    [
        (V4, ["127.0.0.0/8", "10.0.0.0/8"], True),
        (V4, ["10.0.0.0/8", "::1/128"], False),
        (V6, ["10.0.0.0/8", "::1/128"], True),
        (V6, ["0.0.0.0/0"], False),
        ("tcp://localhost:0", ["127.0.0.0/8", "::1/128"], True),
        ("tcp://localhost:0", ["10.0.0.0/8"], False),
    ],
)
async def test_only_who_is_allowed_may_connect(
    listens: str, allowed: list[str], may: bool, caplog: pytest.LogCaptureFixture
) -> None:
    networks = [ipaddress.ip_network(each) for each in allowed]
    async with (
        serving(AnswersAnything(), listens, allowed=networks) as server,
        connection(server) as peer,
    ):
        if may:
            await peer.ask(*INFO)
        else:
            assert await peer.receive() is None
    assert ("an ABCI connection from host" in caplog.text) is not may


async def test_a_host_that_is_gone_without_a_word_is_noticed() -> None:
    async with serving(AnswersAnything()) as server, connection(server) as peer:
        await peer.ask(*INFO)
        (writer,) = server._connections.values()
        connected = writer.get_extra_info("socket")
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                assert connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value


async def test_an_engine_that_timed_out_is_gone_and_no_mistake_of_ours() -> None:
    """The kernel says ETIMEDOUT then, which is no ConnectionError; it ended the application."""
    async with serving(AnswersAnything()) as server:
        async with connection(server) as gone:
            await gone.ask(*FINALIZE)
            (writer,) = server._connections.values()
            protocol = writer.transport.get_protocol()
            assert isinstance(protocol, asyncio.StreamReaderProtocol)
            assert protocol._stream_reader is not None  # type: ignore[attr-defined]
            protocol._stream_reader.set_exception(TimeoutError(110, "timed out"))  # type: ignore[attr-defined]
            await until(lambda: not server._connections)
        async with connection(server) as peer:
            await peer.ask(*FINALIZE)


def test_tcp_is_told_of_and_beyond_this_host_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for address, told in [
        (f"unix://{tmp_path}/abci.sock", ""),
        (V4, "every account of this host"),
        (V6, "::1"),
    ]:
        caplog.clear()
        with listen(address) as bound:
            warn_if_open(bound, [])
        assert told in caplog.text
        assert bool(caplog.text) == bool(told)
    with socket.socket() as bound:
        bound.bind(("0.0.0.0", 0))  # nobody can connect: it does not listen
        warn_if_open(bound, [])
        assert "unencrypted, EVERY HOST THAT REACHES IT" in caplog.text
        caplog.clear()
        warn_if_open(bound, [ipaddress.ip_network("10.1.2.0/24")])
        assert "unencrypted, 10.1.2.0/24 can drive this ledger" in caplog.text
