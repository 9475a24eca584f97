"""The ABCI server over real sockets: order, bounds, strangers, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import stat
from pathlib import Path
from typing import Any

import pytest

from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.abci.framing import frame
from ledger.engine.cometbft.abci.server import MAX_CONNECTIONS, AbciServer
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.errors import EngineError
from tests.ledger.cometbft.abci import AnswersAnything, connection, serving

FLUSH = ("flush", messages.RequestFlush())


def check(tx: bytes) -> tuple[str, Any]:
    return "check_tx", messages.RequestCheckTx(tx=tx)


class Checks(AnswersAnything):
    """Answers `check_tx` with the transaction's bytes, each once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[bytes] = []
        self.let_go: dict[bytes, asyncio.Event] = {}
        self.all_begun = asyncio.Event()

    async def check_tx(self, request: Any) -> Any:
        self.begun.append(request.tx)
        if len(self.begun) == len(self.let_go):
            self.all_begun.set()
        await self.let_go[request.tx].wait()
        return messages.ResponseCheckTx(data=request.tx)


@pytest.mark.parametrize("scheme", ["unix", "tcp", "tcp6"])
async def test_requests_of_a_connection_are_answered_in_their_order(scheme: str, tmp_path: Path) -> None:
    address = {"unix": f"unix://{tmp_path}/a.sock", "tcp": "tcp://127.0.0.1:0", "tcp6": "tcp://[::1]:0"}[
        scheme
    ]
    handlers = AnswersAnything()
    async with serving(handlers, address) as server, connection(server) as peer:
        asked = ["info", "check_tx", "query", "check_tx", "check_tx", "commit", "finalize_block", "info"]
        requests = [messages.Request.DESCRIPTOR.fields_by_name[kind].message_type.name for kind in asked]
        peer.send(*((kind, getattr(messages, name)()) for kind, name in zip(asked, requests, strict=True)))
        peer.send(("echo", messages.RequestEcho(message="still there?")), FLUSH)
        found = [await peer.receive() for _ in range(len(asked) + 2)]
    assert [each[0] for each in found if each is not None] == [*asked, "echo", "flush"]
    assert found[-2] is not None
    assert found[-2][1].message == "still there?"
    assert handlers.seen == asked


async def test_transactions_that_came_together_are_checked_together_and_answered_in_order() -> None:
    handlers = Checks()
    txs = [bytes([number]) for number in range(5)]
    handlers.let_go = {tx: asyncio.Event() for tx in txs}
    async with serving(handlers) as server, connection(server) as peer:
        peer.send(*map(check, txs), FLUSH)
        await handlers.all_begun.wait()
        assert handlers.begun == txs
        for tx in reversed(txs):
            handlers.let_go[tx].set()
        found = [await peer.receive() for _ in range(6)]
    assert [each[1].data for each in found[:5] if each is not None] == txs
    assert found[5] == FLUSH_DONE


FLUSH_DONE = ("flush", messages.ResponseFlush())


async def test_rechecks_wait_for_the_checks_before_them_and_are_asked_one_after_the_other() -> None:
    handlers = Checks()
    txs = [bytes([number]) for number in range(5)]
    handlers.let_go = {tx: asyncio.Event() for tx in txs}
    again = messages.CheckTxType.RECHECK
    rechecks = [("check_tx", messages.RequestCheckTx(tx=tx, type=again)) for tx in txs[:2]]
    async with serving(handlers) as server, connection(server) as peer:
        peer.send(*map(check, txs), *rechecks, FLUSH)
        await handlers.all_begun.wait()
        assert handlers.begun == txs  # none of the second kind
        for tx in txs:
            handlers.let_go[tx].set()
        found = [await peer.receive() for _ in range(8)]
    assert handlers.begun == txs + txs[:2]
    assert [each[1].data for each in found[:7] if each is not None] == txs + txs[:2]
    assert found[7] == FLUSH_DONE


async def test_a_connection_that_waits_holds_up_no_other() -> None:
    handlers = Checks()
    handlers.let_go = {b"slow": asyncio.Event()}
    async with serving(handlers) as server, connection(server) as mempool, connection(server) as consensus:
        mempool.send(check(b"slow"), FLUSH)
        await handlers.all_begun.wait()
        await consensus.ask("finalize_block", messages.RequestFinalizeBlock(height=1))
        handlers.let_go[b"slow"].set()
        assert await mempool.receive() == ("check_tx", messages.ResponseCheckTx(data=b"slow"))


async def test_a_disagreement_is_answered_and_ends_the_server_with_its_reason() -> None:
    class Disagrees(AnswersAnything):
        async def finalize_block(self, _request: Any) -> Any:
            raise Disagreement("block 7 has another app hash here")

    async with serving(Disagrees()) as server, connection(server) as peer, connection(server) as other:
        await other.ask("info", messages.RequestInfo())
        peer.send(("finalize_block", messages.RequestFinalizeBlock(height=7)))
        assert await peer.receive() == (
            "exception",
            messages.ResponseException(error="block 7 has another app hash here"),
        )
        with pytest.raises(Disagreement, match="another app hash"):
            await server.wait_ended()
        assert await peer.receive() is None
        assert await other.receive() is None
        with pytest.raises(ConnectionError):
            async with connection(server):
                pass


async def test_a_mistake_of_a_handler_ends_the_server_too(caplog: pytest.LogCaptureFixture) -> None:
    class Mistaken(AnswersAnything):
        async def check_tx(self, request: Any) -> Any:
            if request.tx == b"b":
                raise KeyError("b")
            return messages.ResponseCheckTx()

    with caplog.at_level(logging.CRITICAL + 1):
        async with serving(Mistaken()) as server, connection(server) as peer:
            peer.send(*map(check, [b"a", b"b", b"c"]))
            assert await peer.receive() == ("exception", messages.ResponseException(error="'b'"))
            with pytest.raises(KeyError):
                await server.wait_ended()


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(frame(b"\xff\xff\xff"), id="no protobuf"),
        pytest.param(frame(b""), id="no request"),
        pytest.param(frame(bytes.fromhex("aa0100")), id="a request of CometBFT 0.39 only"),
        pytest.param(bytes.fromhex("ffffffff0f"), id="4 GiB are announced"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 9, id="HTTP"),
    ],
)
async def test_what_is_no_abci_ends_its_own_connection_alone(
    noise: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL + 1):
        async with serving(AnswersAnything()) as server, connection(server) as good:
            async with connection(server) as bad:
                bad.writer.write(noise)
                said = await bad.receive()
                assert said is not None
                assert said[0] == "exception"
                assert said[1].error
                assert await bad.receive() is None
            await good.ask("info", messages.RequestInfo())


async def test_a_frame_larger_than_the_bound_is_refused() -> None:
    async with serving(AnswersAnything(), max_frame_bytes=1_000) as server, connection(server) as peer:
        await peer.ask("check_tx", messages.RequestCheckTx(tx=bytes(900)))
        peer.send(check(bytes(1_100)))
        assert (await peer.receive() or ("",))[0] == "exception"


async def test_no_more_connections_are_taken_than_the_bound() -> None:
    async with serving(AnswersAnything()) as server:
        peers = [await asyncio.open_connection(*place(server)) for _ in range(MAX_CONNECTIONS)]
        for _, writer in peers:
            writer.write(frame(messages.Request(flush=messages.RequestFlush()).SerializeToString()))
        for reader, _ in peers:
            assert await reader.read(100)
        async with connection(server) as late:
            assert await late.receive() is None
        for _, writer in peers:
            writer.close()


def place(server: AbciServer) -> tuple[str, int]:
    host, _, port = server.address.removeprefix("tcp://").rpartition(":")
    return host, int(port)


async def test_stopping_lets_what_is_in_work_finish() -> None:
    handlers = Checks()
    handlers.let_go = {b"last": asyncio.Event()}
    server = AbciServer(handlers, "tcp://127.0.0.1:0")
    await server.start()
    async with connection(server) as peer:
        peer.send(check(b"last"))
        await handlers.all_begun.wait()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        handlers.let_go[b"last"].set()
        await stopping
    await server.wait_ended()
    await server.stop()  # harmless twice


async def test_a_unix_socket_is_its_owners_alone_and_one_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "abci.sock"
    for _ in range(2):
        server = AbciServer(AnswersAnything(), f"unix://{path}")
        await server.start()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        left = path.with_suffix(".left")
        path.rename(left)  # as if the process had been killed
        await server.stop()
        left.rename(path)
    async with serving(AnswersAnything(), f"unix://{path}") as server, connection(server) as peer:
        await peer.ask("info", messages.RequestInfo())
    assert not path.exists()


@pytest.mark.parametrize(
    "address",
    [
        "unix:///nowhere/abci.sock",
        "tcp://127.0.0.1",
        "http://127.0.0.1:1",
        "tcp://127.0.0.1:70000",
        "tcp://:26658",
        "tcp://127.0.0.1:1/",
        "tcp://me@127.0.0.1:1",
        "tcp://[::1:1",
        "tcp://::1:1",
        "127.0.0.1:1",
        "",
    ],
)
async def test_an_address_that_cannot_be_used_is_told(address: str) -> None:
    with pytest.raises(EngineError, match="cannot listen for CometBFT at"):
        await AbciServer(AnswersAnything(), address).start()


async def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "abci.sock"
    path.write_text("mine")
    with pytest.raises(EngineError):
        await AbciServer(AnswersAnything(), f"unix://{path}").start()
    assert path.read_text() == "mine"
