"""Clients that are slow, silent, many or malformed: bounded, and others are served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.app import build_app
from gateway.serving.listener import listen
from gateway.settings import GatewaySettings
from merkledag.cid import CID
from tests.gateway.support import Client, MemorySource, add_file, add_tree, serving

MIB = 1024 * 1024
BLOCK_BYTES = MIB
FILE_BYTES = 24 * MIB


def large_source() -> tuple[MemorySource, CID]:
    source = MemorySource()
    cid, _ = add_file(source, b"".join(bytes([n]) * BLOCK_BYTES for n in range(24)), BLOCK_BYTES)
    return source, cid


def connect(client: Client, receive_bytes: int = 4096) -> socket.socket:
    """A connection whose kernel takes little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.connect((client.listener.host, client.listener.port))
    sock.setblocking(False)
    return sock


async def receive_all(sock: socket.socket) -> bytes:
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        await read_to_end(sock, data)
    return bytes(data)


async def read_to_end(sock: socket.socket, data: bytearray) -> None:
    """Raises ConnectionError where the other side does not end in order."""
    loop = asyncio.get_running_loop()
    while part := await loop.sock_recv(sock, 256 * 1024):
        data += part


async def until(condition: Callable[[], bool]) -> None:
    """Waits until a condition that other tasks bring about holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (the condition is about sockets, not about a task)
            await asyncio.sleep(0)


async def test_a_client_that_does_not_read_holds_little_and_is_cut() -> None:
    source, cid = large_source()
    settings = GatewaySettings(write_timeout_s=0.05, view_hold_s=0.02)
    async with serving(source, settings=settings) as client:
        sock = connect(client)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, f"GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: source.open_views == 1)
        # It never reads: the view is given up first, then the connection.
        await until(lambda: source.open_views == 0)
        await until(lambda: client.listener.connections == 0)
        data = await receive_all(sock)
        sock.close()
        assert len(data) < FILE_BYTES
        assert source.open_views == 0
        assert (await client.ask("/healthz")).status == 200


async def test_a_slow_client_gets_every_byte_in_order() -> None:
    source, cid = large_source()
    settings = GatewaySettings(write_chunk_bytes=8192, view_hold_s=0.02)
    async with serving(source, settings=settings) as client:
        for path in (f"/ipfs/{cid}", f"/ipfs/{cid}?format=car"):
            expected = (await client.ask(path)).body
            sock = connect(client)
            loop = asyncio.get_running_loop()
            request = f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode()
            await loop.sock_sendall(sock, request)
            await until(lambda: source.open_views == 1)
            await until(lambda: source.open_views == 0)  # given up; the gateway has to come back to it
            data = await asyncio.wait_for(receive_all(sock), 60)
            sock.close()
            assert data.partition(b"\r\n\r\n")[2] == expected


@pytest.mark.parametrize("format_", ["car", "tar"])
async def test_a_stream_that_fails_is_cut_also_where_its_end_is_the_connection_s(format_: str) -> None:
    """In HTTP/1.0, as nginx asks by default: an orderly close would pass a part for the whole."""
    source = MemorySource()
    root, _ = add_tree(source, {"a": b"a" * MIB, "b": b"b" * MIB})
    request = f"GET /ipfs/{root}?format={format_} HTTP/1.0\r\nHost: x\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    async with serving(source) as client:
        whole = connect(client)
        await loop.sock_sendall(whole, request)
        await read_to_end(whole, bytearray())
        whole.close()
        del source.here[CID.of(b"b" * MIB).multihash]
        cut = connect(client)
        await loop.sock_sendall(cut, request)
        with pytest.raises(ConnectionResetError):
            await read_to_end(cut, bytearray())
        cut.close()


async def test_connections_without_a_request_are_cut_and_others_served() -> None:
    source = MemorySource()
    cid, _ = add_file(source, b"hello")
    settings = GatewaySettings(max_connections=20, header_timeout_s=15)
    async with serving(source, settings=settings) as client:
        idle = [connect(client) for _ in range(50)]
        loop = asyncio.get_running_loop()
        for sock in idle[:10]:
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nX-Slow: ")
        assert (await client.ask(f"/ipfs/{cid}")).body == b"hello"
        assert client.listener.connections <= 20
        client.listener.guard.sweep(loop.time() + 10)
        assert client.listener.connections > 1
        client.listener.guard.sweep(loop.time() + 16)
        await until(lambda: client.listener.connections == 1)  # the one that was served may ask again
        client.listener.guard.sweep(loop.time() + 76)
        await until(lambda: client.listener.connections == 0)
        assert (await client.ask(f"/ipfs/{cid}")).body == b"hello"
        for sock in idle:
            sock.close()


async def test_one_address_cannot_take_all_connections() -> None:
    source = MemorySource()
    cid, _ = add_file(source, b"hello")
    far, _ = add_file(source, b"far")
    source.remote[far.multihash] = source.here.pop(far.multihash)
    source.arrive.clear()
    settings = GatewaySettings(max_client_connections=3, trusted_proxies=())
    async with serving(source, settings=settings) as client:
        loop = asyncio.get_running_loop()
        idle = connect(client)
        await until(lambda: client.listener.connections == 1)
        busy = [connect(client) for _ in range(2)]
        for sock in busy:
            await loop.sock_sendall(sock, f"GET /ipfs/{far} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: source.waiting == 2)
        assert (await client.ask(f"/ipfs/{cid}")).body == b"hello"  # the idle one made room
        assert await asyncio.wait_for(receive_all(idle), 5) == b""
        third = connect(client)
        await loop.sock_sendall(third, f"GET /ipfs/{far} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: source.waiting == 3)
        fourth = connect(client)
        assert await asyncio.wait_for(receive_all(fourth), 5) == b""
        source.arrive.set()
        for sock in (idle, *busy, third, fourth):
            sock.close()
        await until(lambda: client.listener.connections == 0)
        assert (await client.ask(f"/ipfs/{cid}")).body == b"hello"
    async with serving(source, settings=replace(settings, trusted_proxies=("127.0.0.0/8",))) as client:
        proxied = [connect(client) for _ in range(5)]
        await until(lambda: client.listener.connections == 5)
        for sock in proxied:
            sock.close()


async def test_huge_headers_and_nonsense_are_refused() -> None:
    source = MemorySource()
    cid, _ = add_file(source, b"hello")
    async with serving(source) as client:
        loop = asyncio.get_running_loop()
        for request in (
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01 this is not HTTP\r\n\r\n",
        ):
            sock = connect(client, 65536)
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(sock, request)
            assert b" 200 " not in (await asyncio.wait_for(receive_all(sock), 5))[:20]
            sock.close()
        assert (await client.ask(f"/ipfs/{cid}")).body == b"hello"


async def test_requests_that_are_odd_as_http_are_answered_in_http_1(caplog: pytest.LogCaptureFixture) -> None:
    """Each is followed by another request, which is answered, or told that its connection ends."""
    after = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    async with serving(MemorySource()) as client:
        loop = asyncio.get_running_loop()

        async def ask(line: bytes, headers: bytes = b"", body: bytes = b"") -> bytes:
            sock = connect(client, 65536)
            await loop.sock_sendall(sock, line + b"\r\nHost: x\r\n" + headers + b"\r\n" + body + after)
            answer = await asyncio.wait_for(receive_all(sock), 5)
            sock.close()
            return answer

        for line in (b"GET /healthz HTTP/2.0", b"GET /healthz", b"GET /healthz HTTP/0.9"):
            assert (await ask(line)).startswith((b"HTTP/1.1 505 ", b"HTTP/1.1 400 "))
        upgraded = await ask(b"GET /healthz HTTP/1.1", upgrade)
        assert upgraded.count(b"HTTP/1.1 200 ") == 2 or b"Connection: close" in upgraded
        assert (await ask(b"GET /healthz HTTP/1.1", b"Expect: 100-\xdcontinue\r\n")).startswith(
            b"HTTP/1.1 417 "
        )
        packed = b"Content-Encoding: gzip\r\nContent-Length: 4\r\n"
        answer = await ask(b"GET /healthz HTTP/1.1", packed, b"abcd")
        assert answer.count(b"HTTP/1.1 200 ") == 2
        told = await ask(b"GET <script> HTTP/1.1", b"<script>: x\r\n")
        assert told.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert b"script" not in told
        assert b"aiohttp" not in told
    assert not caplog.records


async def test_a_body_that_nobody_wants_is_no_head_that_is_too_large() -> None:
    async with serving(MemorySource()) as client:
        loop = asyncio.get_running_loop()
        sock = connect(client, 65536)
        body = b"b" * 600_000
        head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
        await loop.sock_sendall(sock, head + b"Content-Length: %d\r\n\r\n" % len(body))
        answer = await loop.sock_recv(sock, 4096)
        await loop.sock_sendall(sock, body + head + b"Connection: close\r\n\r\n")
        answer += await asyncio.wait_for(receive_all(sock), 10)
        sock.close()
    assert answer.count(b"HTTP/1.1 200 ") == 2


async def test_a_client_that_leaves_takes_its_fetch_with_it() -> None:
    source, cid = large_source()
    source.move_to_remote()
    source.arrive.clear()
    async with serving(source) as client:
        sock = connect(client)
        await asyncio.get_running_loop().sock_sendall(
            sock, f"GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        await until(lambda: source.waiting == 1)
        sock.close()
        await until(lambda: source.waiting == 0)


async def test_requests_sent_at_once_leave_turns_to_others() -> None:
    """Python 3.12 and later begin tasks at once, and so would answer one connection's requests in a row."""
    source = MemorySource()
    cid, _ = add_file(source, b"hello")
    answered: list[str] = []
    app = build_app(source, None, access_log=lambda record: answered.append(record.target))
    listener = await listen(app, "127.0.0.1", 0, GatewaySettings())
    sockets = [socket.create_connection((listener.host, listener.port)) for _ in range(2)]
    await until(lambda: listener.connections == 2)
    greedy, modest = sockets
    # Both are sent before the server has a turn: it reads them in one.
    greedy.sendall(f"GET /ipfs/{cid}?greedy HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 40)
    modest.sendall(f"GET /ipfs/{cid}?modest HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await until(lambda: len(answered) == 41)
    assert answered.index(f"/ipfs/{cid}?modest") < 5
    for sock in sockets:
        sock.close()
    await listener.close()


@pytest.mark.parametrize("ranged", [False, True])
async def test_slow_readers_hold_little_memory_and_others_are_served(ranged: bool) -> None:
    source, cid = large_source()
    small, _ = add_file(source, b"hello")
    readers = 60
    settings = GatewaySettings(view_hold_s=0.02)
    async with serving(source, settings=settings) as client:
        assert (await client.ask(f"/ipfs/{small}")).body == b"hello"
        loop = asyncio.get_running_loop()
        sockets = [connect(client) for _ in range(readers)]
        tracemalloc.start()
        try:
            for number, sock in enumerate(sockets):
                fields = f"Range: bytes={number}-{FILE_BYTES - 9}\r\n" if ranged else ""
                await loop.sock_sendall(sock, f"GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode())
            await until(lambda: source.viewed > 2 * readers)
            await until(lambda: source.open_views == 0)  # nobody takes any more: all wait for their clients
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held_bytes / readers < 48 * 1024
        assert (await client.ask(f"/ipfs/{small}")).body == b"hello"
        assert client.listener.connections == readers + 1
        for sock in sockets:
            sock.close()
