"""Writing a response body in bounded memory: straight from a view while the client keeps up."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time

from aiohttp import HttpVersion11, web

from gateway.passage import note_body
from gateway.settings import GatewaySettings

_SMALL_BYTES = 16 * 1024  # pieces up to this size are collected
_COLLECT_BYTES = 64 * 1024
_YIELD_BYTES = 1024 * 1024  # after so many bytes without waiting, others get a turn
_LINGER = struct.Struct("ii")  # whether closing waits, and for how long: 0 s is a reset


class ClientTooSlowError(ConnectionError):
    """The client did not take its bytes in time; the connection is cut."""


class ResponseTooLargeError(ConnectionError):
    """The response exceeds `max_response_bytes`, which could not be known before; the connection is cut."""


class Body:
    """The body of one response, in Content-Length or chunked framing.

    Bytes go from the caller's buffer to the kernel without a copy in between, as far as the kernel takes
    them. Of the rest at most `write_chunk_bytes` are copied and handed to the transport, and the next are
    not looked at before the client took those. So a client that does not read holds one such copy.
    Every method raises ConnectionError once the client is gone or too slow.
    """

    def __init__(
        self, request: web.BaseRequest, response: web.StreamResponse, settings: GatewaySettings
    ) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._request = request
        self._response = response
        self._transport: asyncio.WriteTransport = transport
        self._chunk_bytes = settings.write_chunk_bytes
        self._timeout_s = settings.write_timeout_s
        self._collected = bytearray()  # payload not yet framed
        self._wire = bytearray()  # framed, to be sent before anything else
        self._chunked = False
        self._framed = False  # the piece under way has a chunk of its own
        self._fd = -1
        self._unyielded_bytes = 0
        self._draining: asyncio.Task[None] | None = None
        self._max_bytes = settings.max_response_bytes
        self.sent_bytes = 0
        self.began_s = 0.0  # when the headers went out, of time.monotonic

    async def begin(self) -> None:
        """Sends the headers. Without a Content-Length the body is chunked, or ends with the connection."""
        if self._response.content_length is None:
            if self._request.version >= HttpVersion11:
                self._response.enable_chunked_encoding()
                self._chunked = True
            else:
                self._response.force_close()
                self._reset_on_close(True)
        writer = await self._response.prepare(self._request)
        if writer is None:
            raise ConnectionResetError("the client is gone")
        self._writer = writer
        self.began_s = time.monotonic()
        note_body(self)
        transport = self._transport
        # Pause at the first byte that the kernel does not take, go on when it has taken them all.
        transport.set_write_buffer_limits(high=0)
        writer.send_headers()
        sock = transport.get_extra_info("socket")
        if sock is not None and transport.get_extra_info("sslcontext") is None:
            self._fd = sock.fileno()
        await self._flush()

    async def write(self, data: bytes | memoryview) -> None:
        """Sends all of `data`; the caller holds it until then."""
        size = len(data)
        if size <= _SMALL_BYTES:
            self._collected += data
            if len(self._collected) >= _COLLECT_BYTES:
                self._frame_collected()
                await self._send_wire()
            return
        await self.open_piece(size)
        await self.push(data, None)
        self.close_piece()

    async def open_piece(self, size_bytes: int) -> None:
        """Announces a piece that `push` then sends, all `size_bytes` of it, before `close_piece`."""
        self._frame_collected()
        if self.sent_bytes + size_bytes > self._max_bytes:
            self._too_large()
        self._framed = self._chunked and size_bytes > 0  # an empty chunk would be the end of the body
        if self._framed:
            self._wire += b"%x\r\n" % size_bytes
        await self._send_wire()

    def close_piece(self) -> None:
        """Ends the piece."""
        if self._framed:
            self._wire += b"\r\n"

    async def push(self, data: bytes | memoryview, hold_s: float | None) -> int:
        """Sends `data` for about `hold_s` seconds (None = to its end); returns how much is on its way.

        Where that is less than all, the client is slow: the caller closes its view and comes back with the
        rest in a new one.
        """
        view = memoryview(data)
        size, offset = len(view), 0
        deadline = None if hold_s is None else asyncio.get_running_loop().time() + hold_s
        while True:
            offset += self._offer(view[offset:])
            if offset < size:
                chunk = bytes(view[offset : offset + self._chunk_bytes])
                self._transport.write(chunk)
                offset += len(chunk)
                if not await self._flush(deadline):
                    break
            if offset >= size:
                break
        self.sent_bytes += offset
        self._unyielded_bytes += offset
        if self._unyielded_bytes >= _YIELD_BYTES:
            self._unyielded_bytes = 0
            await asyncio.sleep(0)
        return offset

    async def end(self) -> None:
        """Sends what is left and completes the response."""
        self._frame_collected()
        await self._send_wire()
        self._reset_on_close(False)
        await self._response.write_eof()

    def abort(self) -> None:
        """Cuts the connection, so that the client sees that the body is not complete."""
        if self._draining is not None:
            self._draining.cancel()
        self._transport.abort()

    def _reset_on_close(self, reset: bool) -> None:
        """Whether closing the connection, by whomever, resets it: where its end is that of the body, as it is
        for clients and proxies of HTTP/1.0, nothing else tells them that the body is not complete.
        """
        sock = self._transport.get_extra_info("socket")
        if sock is not None and self._response.content_length is None and not self._chunked:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(int(reset), 0))

    def _frame_collected(self) -> None:
        size = len(self._collected)
        if size == 0:
            return
        if self._chunked:
            self._wire += b"%x\r\n" % size
            self._wire += self._collected
            self._wire += b"\r\n"
        else:
            self._wire += self._collected
        self._collected = bytearray()
        self.sent_bytes += size
        if self.sent_bytes > self._max_bytes:
            self._too_large()

    async def _send_wire(self) -> None:
        if self._wire:
            self._check()
            wire, self._wire = self._wire, bytearray()
            self._transport.write(wire)
        await self._flush()

    def _too_large(self) -> None:
        self.abort()
        raise ResponseTooLargeError(f"the response is larger than {self._max_bytes} bytes")

    def _offer(self, view: memoryview) -> int:
        """How many bytes of `view` the kernel takes now; 0 while the transport itself holds any."""
        self._check()
        if self._fd < 0 or self._transport.get_write_buffer_size():
            return 0
        try:
            # The transport is open (checked above, on its own thread), so the descriptor is this client's.
            return os.write(self._fd, view)
        except (BlockingIOError, InterruptedError):
            return 0

    def _check(self) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the client is gone")

    async def ready(self) -> None:
        """Waits until the client has taken what it was sent, before a slow one is sent more."""
        await self._flush()

    async def _flush(self, deadline: float | None = None) -> bool:
        """Waits until the kernel has all that the transport holds.

        Returns False if that takes longer than to `deadline`; without one, raises ClientTooSlowError.
        """
        if not self._transport.get_write_buffer_size():
            return True
        self._unyielded_bytes = 0
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s if deadline is None else deadline
        while self._transport.get_write_buffer_size():
            if self._draining is None:
                self._draining = loop.create_task(self._writer.drain())
            # The wait for aiohttp's signal must not be cancelled when time is up: all later ones share it.
            await asyncio.wait((self._draining,), timeout=max(until - loop.time(), 0))
            if self._draining.done():
                drained, self._draining = self._draining, None
                drained.result()
                self._check()
                # An event loop that writes at the end of its turn needs that turn.
                await asyncio.sleep(0)
            elif deadline is not None:
                return False
            else:
                self.abort()
                raise ClientTooSlowError(f"the client took no bytes for {self._timeout_s:g} s")
        return True
