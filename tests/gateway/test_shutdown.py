"""How a listener ends: nobody who had asked is cut, nobody is kept for ever."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from gateway.serving.listener import SOLE_HANDLER, Listener, SoleHandler, listen, listen_on
from gateway.settings import GatewaySettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ASK = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ENOUGH_S = 20.0


@asynccontextmanager
async def serving(handler: Handler, sole: SoleHandler | None = None) -> AsyncIterator[Listener]:
    app = web.Application()
    if sole is not None:
        app[SOLE_HANDLER] = sole
    app.router.add_get("/", handler)
    listener = await listen(app, "127.0.0.1", 0, GatewaySettings())
    try:
        yield listener
    finally:
        await listener.close()


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def test_a_running_answer_ends_whole_and_nobody_new_comes_in() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 8
        await response.prepare(request)
        await response.write(b"half")
        begun.set()
        await go_on.wait()
        await response.write(b"half")
        return response

    async with serving(slow) as listener, connected(listener.port) as (reader, writer):
        writer.write(ASK)
        await begun.wait()
        closing = asyncio.create_task(listener.close(ENOUGH_S))
        await asyncio.sleep(0)  # it begins

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", listener.port)
        go_on.set()

        assert (await reader.read()).endswith(b"\r\n\r\nhalfhalf")
        await closing


async def test_a_kept_connection_is_told_that_this_answer_is_its_last() -> None:
    async with serving(hello) as listener, connected(listener.port) as (reader, writer):
        writer.write(ASK)
        assert b"Connection: close" not in await head(reader)
        assert await reader.readexactly(5) == b"hello"
        draining = asyncio.create_task(listener.drain(ENOUGH_S, ENOUGH_S))
        await asyncio.sleep(0)  # it begins

        writer.write(ASK)

        assert b"Connection: close" in await head(reader)
        assert await reader.read() == b"hello"
        await draining


@pytest.mark.parametrize("alone", [False, True])
async def test_a_connection_that_was_promised_to_be_kept_is_kept_for_one_more_answer(alone: bool) -> None:
    class Slow:
        def __init__(self) -> None:
            self.begun, self.go_on = asyncio.Event(), asyncio.Event()

        async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse()
            response.content_length = 8
            await response.prepare(request)
            await response.write(b"half")
            self.begun.set()
            await self.go_on.wait()
            await response.write(b"half")
            await response.write_eof()
            return response

    slow = Slow()
    async with (
        serving(slow.handle, SoleHandler(slow.handle) if alone else None) as listener,
        connected(listener.port) as (reader, writer),
    ):
        writer.write(ASK)
        await slow.begun.wait()
        draining = asyncio.create_task(listener.drain(ENOUGH_S, ENOUGH_S))
        await asyncio.sleep(0)  # it begins
        slow.go_on.set()
        assert b"Connection: close" not in await head(reader)
        assert await reader.readexactly(8) == b"halfhalf"

        writer.write(ASK)

        assert b"Connection: close" in await head(reader)
        assert await reader.read() == b"halfhalf"
        await draining


async def test_who_waits_in_the_kernels_queue_is_answered() -> None:
    async with serving(hello) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as client:  # the event loop knows nothing
            client.sendall(ASK)
            client.setblocking(False)
            await listener.close(ENOUGH_S)
            answer = await asyncio.get_running_loop().sock_recv(client, 4096)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_answer_without_end_is_cut_in_time() -> None:
    begun = asyncio.Event()

    async def endless(_: web.Request) -> web.Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(endless) as listener, connected(listener.port) as (reader, writer):
        writer.write(ASK)
        await begun.wait()
        await asyncio.wait_for(listener.close(0.05), 5)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_a_socket_goes_from_one_listener_to_the_next_without_a_gap() -> None:
    def app() -> web.Application:
        made = web.Application()
        made.router.add_get("/", hello)
        return made

    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        first = await listen_on(app(), [held.dup()], GatewaySettings())
        second = await listen_on(app(), [held.dup()], GatewaySettings())
        await first.close()
        async with connected(port) as (reader, writer):
            writer.write(ASK)
            assert (await head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
        await second.close()
