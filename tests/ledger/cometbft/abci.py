"""CometBFT's end of an ABCI connection, and handlers that answer anything, for tests of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.abci.framing import FrameReader, frame
from ledger.engine.cometbft.abci.server import AbciServer, Handlers


class AnswersAnything:
    """Every request's empty response; `seen` is the order in which requests came."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __getattr__(self, kind: str) -> Any:
        response = getattr(messages, "Response" + "".join(map(str.capitalize, kind.split("_"))))

        async def answer(_request: Any) -> Any:
            self.seen.append(kind)
            return response()

        return answer


class Connection:
    """Sends requests, reads responses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._frames = FrameReader()
        self._arrived: list[bytes] = []

    def send(self, *requests: tuple[str, Any]) -> None:
        """Without waiting for what is answered."""
        for kind, request in requests:
            self.writer.write(frame(messages.Request(**{kind: request}).SerializeToString()))

    async def receive(self) -> tuple[str, Any] | None:
        """The next response's kind and message; None if the server has closed the connection."""
        while not self._arrived:
            data = await self._reader.read(1 << 16)
            if not data:
                return None
            self._arrived += self._frames.feed(data)
        response = messages.Response.FromString(self._arrived.pop(0))
        kind = response.WhichOneof("value")
        return kind, getattr(response, kind)

    async def ask(self, kind: str, request: Any) -> Any:
        """The response to one request."""
        self.send((kind, request))
        received = await self.receive()
        assert received is not None, "the server has closed the connection"
        assert received[0] == kind, received
        return received[1]


@asynccontextmanager
async def connection(server: AbciServer) -> AsyncIterator[Connection]:
    """A connection to a server that listens."""
    scheme, _, place = server.address.partition("://")
    if scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(place)
    else:
        host, _, port = place.rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def serving(
    handlers: Handlers, address: str = "tcp://127.0.0.1:0", **options: Any
) -> AsyncIterator[AbciServer]:
    """A server that is stopped at the end."""
    server = AbciServer(handlers, address, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
