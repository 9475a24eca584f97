"""The ABCI server: CometBFT's requests over a unix or TCP socket, answered by handlers in their order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from ledger.engine.cometbft.abci import listening, messages
from ledger.engine.cometbft.abci.believed import Believed, Peer
from ledger.engine.cometbft.abci.framing import MAX_FRAME_BYTES, FrameReader, frame
from ledger.engine.cometbft.errors import AbciProtocolError, Disagreement
from ledger.engine.errors import EngineError

MAX_CONNECTIONS = 16  # CometBFT opens four
READ_BYTES = 256 << 10  # taken from a connection at once, and so what bounds the requests in work
LAST_WORD_S = 5.0  # for the other side to take an exception

_log = logging.getLogger(__name__)

# A message class is made at run time (`messages`): there is nothing narrower to call it.
Message = Any
_Requests = Sequence[tuple[str, Message]]
_Answer = Callable[[_Requests, "_Peer"], Awaitable[None]]
_Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Handlers(Protocol):
    """One coroutine for each request of ABCI 2.0; takes its message and gives the response's.

    An exception ends the server, and with it both processes: nobody can go on without an answer. Several
    `check_tx` of one connection may be in work at once, begun in the order in which they came.
    """

    async def info(self, request: Message) -> Message: ...
    async def init_chain(self, request: Message) -> Message: ...
    async def query(self, request: Message) -> Message: ...
    async def check_tx(self, request: Message) -> Message: ...
    async def prepare_proposal(self, request: Message) -> Message: ...
    async def process_proposal(self, request: Message) -> Message: ...
    async def finalize_block(self, request: Message) -> Message: ...
    async def extend_vote(self, request: Message) -> Message: ...
    async def verify_vote_extension(self, request: Message) -> Message: ...
    async def commit(self, request: Message) -> Message: ...
    async def list_snapshots(self, request: Message) -> Message: ...
    async def offer_snapshot(self, request: Message) -> Message: ...
    async def load_snapshot_chunk(self, request: Message) -> Message: ...
    async def apply_snapshot_chunk(self, request: Message) -> Message: ...


@dataclass(slots=True, eq=False)
class _Peer(Peer):
    """One connection of the server's."""

    writer: asyncio.StreamWriter


class _Protocol(asyncio.StreamReaderProtocol):
    """Notices the end of a connection while its last request is still in work."""

    def __init__(self, accept: _Accept) -> None:
        reader = asyncio.StreamReader(READ_BYTES)
        super().__init__(reader, accept)
        self.on_end: Callable[[], object] = lambda: None

    def eof_received(self) -> bool | None:
        self.on_end()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_end()
        super().connection_lost(exc)


class AbciServer:
    """Serves `handlers` at an address (`unix://PATH`, `tcp://HOST:PORT`) until stopped or at its end.

    Requests of one connection are answered in order; connections do not wait for each other, except that
    handlers share one event loop. What is no ABCI ends its connection only, and so does a second engine
    (`believed`). Over TCP whoever connects from elsewhere than the networks `allowed`, if there are such, is
    turned away.
    """

    def __init__(
        self,
        handlers: Handlers,
        address: str,
        *,
        allowed: Sequence[listening.Network] = (),
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._handlers = handlers
        self.address = address  # with the port that the kernel chose for port 0, once it listens
        self._allowed = allowed
        self._believed = Believed()
        self._max_frame_bytes = max_frame_bytes
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._ended: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Listens. Raises EngineError with the reason if the address cannot be used."""
        try:
            bound = listening.listen(self.address)
        except (OSError, ValueError) as error:
            raise EngineError(f"cannot listen for CometBFT at {self.address}: {error}") from None
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._server = await loop.create_server(lambda: _Protocol(self._accept), sock=bound)
        self.address = listening.address_of(bound, self.address)
        listening.warn_if_open(bound, self._allowed)

    async def wait_ended(self) -> None:
        """Returns when it was stopped; raises what a handler raised: `Disagreement`, or our own mistake."""
        assert self._ended is not None, "start it first"
        await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """Closes all connections once their handlers are through, and the socket."""
        if self._server is None:
            return
        self._close()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._end(None)

    def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        if self.address.startswith("unix://"):
            Path(self.address.removeprefix("unix://")).unlink(missing_ok=True)
        for writer in self._connections.values():
            writer.close()

    def _end(self, error: Exception | None) -> None:
        assert self._ended is not None
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
            return
        self._close()
        self._ended.set_exception(error)
        self._ended.exception()  # whoever waits is told; nobody has to

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not listening.is_allowed(writer, self._allowed):
            _log.warning("an ABCI connection from %s was refused", listening.origin(writer))
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= MAX_CONNECTIONS or (self._ended is not None and self._ended.done()):
            _log.warning("an ABCI connection was closed: %d are open", len(self._connections))
            writer.close()
            return
        self._connections[task] = writer
        peer = _Peer(listening.origin(writer), writer)
        protocol = writer.transport.get_protocol()
        assert isinstance(protocol, _Protocol)
        protocol.on_end = partial(self._believed.forget, peer)
        try:
            await self._serve(reader, peer)
        except ConnectionError:
            _log.info("an ABCI connection broke off")
        finally:
            self._believed.forget(peer)
            del self._connections[task]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, peer: _Peer) -> None:
        """Answers one connection until its end, or until something that cannot be answered."""
        frames = FrameReader(self._max_frame_bytes)
        try:
            while data := await reader.read(READ_BYTES):
                requests = [_request(each) for each in frames.feed(data)]
                for answer, run in groupby(requests, self._way):
                    await answer(list(run), peer)
                    await peer.writer.drain()
        except AbciProtocolError as error:
            _log.warning("an ABCI connection is closed: %s", error)
            await self._last_word(peer.writer, error)
        except ConnectionError:
            raise
        except Exception as error:
            if error is reader.exception():  # TCP's time-out is no ConnectionError
                raise ConnectionError(str(error)) from error
            if not isinstance(error, Disagreement):
                _log.exception("a mistake in the application")
            await self._last_word(peer.writer, error)
            self._end(error)

    def _way(self, request: tuple[str, Message]) -> _Answer:
        """How a request is answered, with those before and after it that are answered in the same way."""
        kind, message = request
        if kind != "check_tx":
            return self._answer
        return self._recheck if message.type == messages.CheckTxType.RECHECK else self._check

    async def _answer(self, requests: _Requests, peer: _Peer) -> None:
        for kind, request in requests:
            self._believed.check(peer, kind, request)
            if kind == "echo":
                response = messages.ResponseEcho(message=request.message)
            elif kind == "flush":
                response = messages.ResponseFlush()
            else:
                response = await getattr(self._handlers, kind)(request)
            peer.writer.write(_framed(kind, response))

    async def _check(self, requests: _Requests, peer: _Peer) -> None:
        """Transactions that came together are checked together: their signatures are verified in threads."""
        if len(requests) == 1:
            await self._answer(requests, peer)
            return
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._handlers.check_tx(request)) for _, request in requests]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        peer.writer.write(b"".join(_framed("check_tx", task.result()) for task in tasks))

    async def _recheck(self, requests: _Requests, peer: _Peer) -> None:
        """After a block, all that is left in the mempool: nothing of it is verified, so nobody waits."""
        answers = [await self._handlers.check_tx(request) for _, request in requests]
        peer.writer.write(b"".join(_framed("check_tx", answer) for answer in answers))

    async def _last_word(self, writer: asyncio.StreamWriter, error: Exception) -> None:
        """Tells the other side why there is no answer, if it still listens."""
        writer.write(_framed("exception", messages.ResponseException(error=str(error) or repr(error))))
        try:
            async with asyncio.timeout(LAST_WORD_S):
                await writer.drain()
        except (TimeoutError, ConnectionError):
            _log.info("nobody took the reason: %s", error)


def _request(data: bytes) -> tuple[str, Message]:
    """A request's kind and message; AbciProtocolError for what is none that the application has."""
    try:
        request = messages.Request.FromString(data)
    except DecodeError as error:
        raise AbciProtocolError(f"{len(data)} bytes that are no request: {error}") from None
    kind = request.WhichOneof("value")
    if kind is None:
        raise AbciProtocolError("a request that ABCI 2.0 as of CometBFT 0.38 does not have")
    return kind, getattr(request, kind)


def _framed(kind: str, response: Message) -> bytes:
    return frame(messages.Response(**{kind: response}).SerializeToString())
