"""A listening socket that slow, silent and numerous clients cannot exhaust."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

from aiohttp import HttpVersion11, http_exceptions, web

from gateway.settings import GatewaySettings
from gateway.unreadable import Telling, field_limit, line_limit, refusal, telling

# Whether a handler ends when its client leaves: right for reading, wrong where a request changes something.
CANCEL_WITH_CLIENT: Final = web.AppKey("CANCEL_WITH_CLIENT", bool)
LAST_REQUEST_S: Final = 0.5  # for a request that is on its way over a connection that is to be closed


@dataclass(frozen=True, slots=True)
class SoleHandler:
    """The one handler of an application that routes by itself: aiohttp's routing would take 20 µs more."""

    handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


SOLE_HANDLER: Final = web.AppKey("SOLE_HANDLER", SoleHandler)

_SWEEP_S = 1.0
_BACKLOG = 1024
_CUT_S = 0.1  # for handlers to end whose connections were cut
_LOOK_S = 0.1
_CONNECT = b"CONNECT "
_END_OF_HEAD = b"\r\n\r\n"
_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_MAX_CONNECT_BYTES = 16 * 1024
_HEAD_LINES = 4  # of the longest size together: what may be held of a request that has not come in whole
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Server: holdfast\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


def _is_ours(record: logging.LogRecord) -> bool:
    """Leaves out what only says that a stranger does not speak HTTP: anybody could fill the log with it."""
    return not (
        record.exc_info
        and isinstance(record.exc_info[1], (http_exceptions.HttpProcessingError, ConnectionError))
    )


_log = logging.getLogger("holdfast.http")
_log.addFilter(_is_ours)


class Listener:
    """A started server; `close` it, which ends what still runs."""

    def __init__(
        self,
        runner: web.AppRunner,
        server: web.Server,
        listening: Sequence[asyncio.Server],
        accepting: Sequence[socket.socket],
        guard: Guard,
    ) -> None:
        self._runner = runner
        self._server = server
        self._listening = listening
        self._accepting = list(accepting)
        self.guard = guard
        self._sweeper = asyncio.get_running_loop().create_task(guard.sweep_forever())
        self._address = accepting[0].getsockname()

    @property
    def host(self) -> str:
        """The address that it listens at first."""
        return str(self._address[0])

    @property
    def port(self) -> int:
        """Its port there."""
        return int(self._address[1])

    @property
    def url(self) -> str:
        """`http://host:port`, without a slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self.guard)

    async def drain(self, within_s: float, idle_s: float) -> None:
        """Accepts nothing more, and returns when all connections have ended, or after `within_s` seconds.

        Every answer says that it is the last of its connection; one that waits for a request is closed after
        `idle_s` seconds. Who had connected before is still answered, also where nobody had accepted it yet.
        """
        loop = asyncio.get_running_loop()
        self.guard.draining_since = began_s = loop.time()
        for listening in self._listening:
            listening.close()
        for accepting in self._accepting:
            await self._accept_the_rest(accepting)
            accepting.close()
        self._accepting.clear()
        self.guard.emptied.clear()
        while len(self.guard) and (left_s := began_s + within_s - loop.time()) > 0:
            self.guard.close_idle(idle_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LOOK_S)):
                    await self.guard.emptied.wait()

    async def close(self, within_s: float = 0.0) -> None:
        """Ends: what had been asked for is answered within `within_s` seconds, the rest is cut."""
        await self.drain(within_s, LAST_REQUEST_S)
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._runner.cleanup()

    async def _accept_the_rest(self, accepting: socket.socket) -> None:
        """Takes over the connections that wait in the kernel's queue: closing the socket would cut them."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = accepting.accept()
            except OSError:
                return
            connection.setblocking(False)
            with suppress(OSError):  # it left
                await loop.connect_accepted_socket(
                    lambda: Watched(telling(self._server()), self.guard), connection
                )


async def listen(app: web.Application, host: str, port: int, settings: GatewaySettings) -> Listener:
    """Serves `app` at an address; port 0 is any free one. Raises OSError if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return await listen_on(app, [socket.create_server((host, port), family=family)], settings)


async def listen_on(
    app: web.Application, sockets: Sequence[socket.socket], settings: GatewaySettings
) -> Listener:
    """Serves `app` on bound sockets, with the limits on connections, headers and idle time.

    The sockets are the listener's from then on. Works for any application, not only the gateway's, and once
    for each.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_log,
        handler_cancellation=app.get(CANCEL_WITH_CLIENT, False),
        auto_decompress=False,  # nobody here reads a request's body compressed, and it may be a bomb
        keepalive_timeout=settings.idle_timeout_s,
        max_line_size=line_limit(settings.max_url_bytes),
        max_field_size=field_limit(settings.max_header_bytes),
        shutdown_timeout=_CUT_S,
    )
    guard = Guard(settings)
    app.on_response_prepare.append(guard.last_answer)
    await runner.setup()
    server = runner.server
    if server is None:
        raise RuntimeError("aiohttp has set up no server")
    routed = server.request_handler
    sole = app.get(SOLE_HANDLER)

    async def answered(request: web.BaseRequest) -> web.StreamResponse:
        expects = "Expect" in request.headers
        if (expects or request.version != HttpVersion11) and (refused := refusal(request)) is not None:
            return refused
        # aiohttp's own way answers `Expect`, and tells before the first byte that a connection will end.
        if sole is None or guard.draining_since is not None or expects:
            return await routed(request)
        response = await sole.handle(request)
        if not response.prepared:  # else its head is sent, and promised to keep the connection
            guard.while_draining(response)
            if request.headers.get("Upgrade", "websocket").lower() != "websocket":
                response.force_close()  # the parser has dropped what came with such a request, behind it
        return response

    async def tracked(request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        guard.begin(transport)
        try:
            return await answered(request)
        finally:
            guard.end(transport)

    server.request_handler = tracked
    loop = asyncio.get_running_loop()
    listening: list[asyncio.Server] = []
    accepting = [sock.dup() for sock in sockets]  # the event loop closes its own before all are accepted
    try:
        for sock in sockets:
            made = await loop.create_server(
                lambda: Watched(telling(server()), guard), sock=sock, backlog=_BACKLOG
            )
            listening.append(made)
    except OSError:
        for sock in accepting:
            sock.close()
        await runner.cleanup()
        raise
    for sock in accepting:
        sock.setblocking(False)
    return Listener(runner, server, listening, accepting, guard)


class Guard:
    """Knows all connections, and which of them only wait for a request."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self.max_head_bytes = settings.max_url_bytes + _HEAD_LINES * settings.max_header_bytes
        self._loop = asyncio.get_running_loop()
        self._all: dict[asyncio.BaseTransport, Watched] = {}
        self._idle: OrderedDict[asyncio.BaseTransport, Watched] = OrderedDict()  # longest idle first
        self.draining_since: float | None = None  # when the server began to end
        self.emptied = asyncio.Event()  # there was no connection any more

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: Watched) -> bool:
        """Takes up a new connection; where there are too many, the longest idle one goes, else this one."""
        transport = connection.transport
        if len(self._all) >= self._settings.max_connections:
            if not self._idle:
                return False
            oldest, _ = self._idle.popitem(last=False)
            self._all.pop(oldest, None)
            cast("asyncio.Transport", oldest).abort()
        self._all[transport] = connection
        self._wait(connection)
        return True

    def forget(self, connection: Watched) -> None:
        """A connection is gone."""
        self._all.pop(connection.transport, None)
        self._idle.pop(connection.transport, None)
        if not self._all:
            self.emptied.set()

    def begin(self, transport: asyncio.BaseTransport | None) -> None:
        """A request came in whole."""
        if transport is not None:
            self._idle.pop(transport, None)

    def end(self, transport: asyncio.BaseTransport | None) -> None:
        """Its handler is done."""
        connection = self._all.get(transport) if transport is not None else None
        if connection is not None:
            connection.served = True
            self._wait(connection)

    async def last_answer(self, _: web.Request, response: web.StreamResponse) -> None:
        """As `while_draining`, called by aiohttp before it sends the head."""
        self.while_draining(response)

    def while_draining(self, response: web.StreamResponse) -> None:
        """Has the connection closed after this answer, as long as the server ends; its head says so."""
        if self.draining_since is not None:
            response.force_close()
            response.headers["Connection"] = "close"

    def close_idle(self, idle_s: float) -> None:
        """While draining: closes the connections that have waited so long for a request, since it began."""
        since_s = self.draining_since or 0.0
        now = self._loop.time()
        for transport, connection in list(self._idle.items()):
            if now - max(connection.waiting_since, since_s) >= idle_s:
                transport.close()

    def _wait(self, connection: Watched) -> None:
        connection.waiting_since = self._loop.time()
        self._idle[connection.transport] = connection
        self._idle.move_to_end(connection.transport)

    async def sweep_forever(self) -> None:
        """Once a second, cuts who keeps us waiting."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep(self._loop.time())

    def sweep(self, now: float) -> None:
        """Cuts connections that sent no whole request, or took no bytes, for too long."""
        settings = self._settings
        for transport, connection in list(self._all.items()):
            unsent = connection.transport.get_write_buffer_size()
            if unsent != connection.unsent_bytes:
                connection.unsent_bytes, connection.unsent_since = unsent, now
            if unsent:
                if now - connection.unsent_since > settings.write_timeout_s:
                    connection.transport.abort()
            elif transport in self._idle:
                limit_s = settings.idle_timeout_s if connection.served else settings.header_timeout_s
                if now - connection.waiting_since > limit_s:
                    connection.transport.close()


class Watched(asyncio.Protocol):
    """One connection: hands everything on to aiohttp's protocol, and its coming and going to the guard."""

    def __init__(self, inner: Telling, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard
        self._admitted = False
        self._first = True
        self._begun = bytearray()
        self.transport: asyncio.Transport
        self.served = False
        self._head_bytes = 0  # of a request that has not come in whole
        self.waiting_since = 0.0
        self.unsent_bytes = 0
        self.unsent_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._admitted = self._guard.admit(self)
        if self._admitted:
            self._inner.connection_made(transport)
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._admitted:
            return
        if self._first:
            first = self._connect(data)
            if first is None:
                return
            data = first
        if not data:
            return
        self._inner.data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._inner.waits() else 0
        if self._head_bytes > self._guard.max_head_bytes:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _connect(self, data: bytes) -> bytes | None:
        """The first bytes of the first request proper; None as long as they are not here.

        A proxy client may begin with CONNECT. Whatever host it names, the tunnel ends at this server.
        """
        self._begun += data
        begun = bytes(self._begun)
        if begun.startswith(_CONNECT):
            end = begun.find(_END_OF_HEAD)
            if end < 0:
                if len(begun) > _MAX_CONNECT_BYTES:
                    self.transport.abort()
                return None
            self.transport.write(_CONNECTED)
            begun = begun[end + len(_END_OF_HEAD) :]
        elif _CONNECT.startswith(begun):
            return None
        self._first = False
        self._begun.clear()
        return begun

    def eof_received(self) -> None:
        if self._admitted:
            self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._admitted:
            self._guard.forget(self)
            self._inner.connection_lost(exc)
