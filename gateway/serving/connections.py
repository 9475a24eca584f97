"""The connections of a listener: how many there may be, and how long each may keep us waiting."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from http import HTTPStatus
from typing import cast

from aiohttp import web

from gateway.operating.limits import Clients, fairness_key
from gateway.serving.turns import Turns
from gateway.serving.unreadable import PLAIN, Telling, bare_refusal
from gateway.settings import GatewaySettings

_SWEEP_S = 1.0
_TOGETHER_A_ROUND = 8  # requests that came behind others on their connections, before all others get a turn
_CONNECT = b"CONNECT "
_END_OF_HEAD = b"\r\n\r\n"
_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_MAX_CONNECT_BYTES = 16 * 1024
_HEAD_LINES = 4  # of the longest size together: what may be held of a request that has not come in whole


class Guard:
    """Knows all connections, and which of them only wait for a request."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._clients = Clients(settings, settings.max_client_connections)
        self.max_head_bytes = settings.max_url_bytes + _HEAD_LINES * settings.max_header_bytes
        self._loop = asyncio.get_running_loop()
        self._all: dict[asyncio.BaseTransport, Watched] = {}
        self._idle: OrderedDict[asyncio.BaseTransport, Watched] = OrderedDict()  # longest idle first
        self.together = Turns(_TOGETHER_A_ROUND)  # where requests wait that came together with others
        self.draining_since: float | None = None  # when the server began to end
        self.emptied = asyncio.Event()  # there was no connection any more

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: Watched) -> bool:
        """Takes up a new connection; where there are too many, the longest idle one goes, else this one."""
        peer = connection.transport.get_extra_info("peername")
        client = self._clients.of_peer(str(peer[0]) if isinstance(peer, tuple) else "")
        connection.client = None if client is None else fairness_key(client)
        if len(self._all) >= self._settings.max_connections and not self._make_room(self._idle.values()):
            return False
        if not self._clients.enter(connection.client):
            its_own = (idle for idle in self._idle.values() if idle.client == connection.client)
            if not self._make_room(its_own) or not self._clients.enter(connection.client):
                return False
        self._all[connection.transport] = connection
        self._wait(connection)
        return True

    def _make_room(self, idle: Iterable[Watched]) -> bool:
        """Cuts the first of these, if there is one."""
        oldest = next(iter(idle), None)
        if oldest is None:
            return False
        self.forget(oldest)
        oldest.transport.abort()
        return True

    def forget(self, connection: Watched) -> None:
        """A connection is gone."""
        if self._all.pop(connection.transport, None) is not None:
            self._clients.leave(connection.client)
        self._idle.pop(connection.transport, None)
        if not self._all:
            self.emptied.set()

    def begin(self, transport: asyncio.BaseTransport | None) -> bool:
        """A request came in whole; whether anything came since the one before it on this connection."""
        connection = self._idle.pop(transport, None) if transport is not None else None
        if connection is None:
            return True
        fresh, connection.fresh = connection.fresh, False
        return fresh

    def end(self, transport: asyncio.BaseTransport | None) -> None:
        """Its handler is done."""
        connection = self._all.get(transport) if transport is not None else None
        if connection is not None:
            connection.served = True
            self._wait(connection)

    async def last_answer(self, _: web.Request, response: web.StreamResponse) -> None:
        """As `while_draining`, called by aiohttp before it sends the head, which names no versions."""
        self.while_draining(response)
        response.headers["Server"] = PLAIN["Server"]

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
        self.client: str | None = None  # None: a trusted proxy
        self.served = False
        self.fresh = False  # something came since the last request began to be answered
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
        self.fresh = True
        self._inner.data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._inner.waits() else 0
        if self._head_bytes > self._guard.max_head_bytes:
            self.transport.write(bare_refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
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
