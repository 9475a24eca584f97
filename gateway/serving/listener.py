"""A listening socket that slow, silent and numerous clients cannot exhaust."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from aiohttp import HttpVersion11, http_exceptions, web

from gateway.serving.connections import Guard, Watched
from gateway.serving.unreadable import field_limit, line_limit, refusal, telling
from gateway.settings import GatewaySettings

# Whether a handler ends when its client leaves: right for reading, wrong where a request changes something.
CANCEL_WITH_CLIENT: Final = web.AppKey("CANCEL_WITH_CLIENT", bool)
LAST_REQUEST_S: Final = 0.5  # for a request that is on its way over a connection that is to be closed


@dataclass(frozen=True, slots=True)
class SoleHandler:
    """The one handler of an application that routes by itself: aiohttp's routing would take 20 µs more."""

    handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


SOLE_HANDLER: Final = web.AppKey("SOLE_HANDLER", SoleHandler)

_BACKLOG = 1024
_CUT_S = 0.1  # for handlers to end whose connections were cut
_LOOK_S = 0.1


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
        if not guard.begin(transport):
            await guard.together.turn()  # it came with the one before: others are answered between the two
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
