"""Gzip with all cores: pieces are compressed side by side, and the result does not depend on how many."""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

PIECE_BYTES: Final = 512 * 1024
WINDOW_BYTES: Final = 32 * 1024  # how far back deflate may refer
DEFAULT_LEVEL: Final = 6


class GzipWriter:
    """Writes one gzip member without name and time, so that equal content gives equal bytes (RFC 1952).

    Every piece is deflated by itself, with the end of the one before as its dictionary, and ends on a byte.
    """

    def __init__(self, write: Callable[[bytes], object], level: int = DEFAULT_LEVEL) -> None:
        self._write = write
        self._level = level
        workers = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="gzip")
        self._max_waiting = 2 * workers
        self._waiting: deque[Future[bytes]] = deque()
        self._piece = bytearray()
        self._window = b""
        self._crc = 0
        self._size_bytes = 0
        # No flags, no time; the extra flags say "best" or "fastest", the system is unknown.
        write(b"\x1f\x8b\x08\0\0\0\0\0" + {9: b"\x02", 1: b"\x04"}.get(level, b"\0") + b"\xff")

    def write(self, data: bytes | memoryview) -> None:
        """Takes any number of bytes."""
        view = memoryview(data)
        while view:
            room = PIECE_BYTES - len(self._piece)
            self._piece += view[:room]
            view = view[room:]
            if len(self._piece) == PIECE_BYTES:
                self._submit(last=False)

    def finish(self) -> None:
        """Writes what is left and the trailer."""
        self._submit(last=True)
        while self._waiting:
            self._write(self._waiting.popleft().result())
        self._pool.shutdown()
        self._write(struct.pack("<II", self._crc, self._size_bytes & 0xFFFFFFFF))

    def abandon(self) -> None:
        """Ends without a trailer; harmless after `finish`."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, *, last: bool) -> None:
        piece = bytes(self._piece)
        self._piece.clear()
        self._crc = zlib.crc32(piece, self._crc)
        self._size_bytes += len(piece)
        self._waiting.append(self._pool.submit(_deflate, piece, self._window, self._level, last))
        self._window = piece[-WINDOW_BYTES:]
        while len(self._waiting) > self._max_waiting or (self._waiting and self._waiting[0].done()):
            self._write(self._waiting.popleft().result())


def _deflate(piece: bytes, window: bytes, level: int, last: bool) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=window)
    return packer.compress(piece) + packer.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
