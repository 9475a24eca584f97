"""Content-defined chunking, apart from the hash: scanning a stream for the ends of chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from merkledag.steps import Buffer

SCAN_BYTES = 16 * 1024  # positions hashed at once; larger numbers leave the processor's cache
PIECE_BYTES = 1024 * 1024  # taken from a larger piece at once

# A window and the `count - 1` bytes after it -> `count` bytes: 0 at n if a chunk may end n bytes behind the
# window.
Marker = Callable[[bytes, int], bytes | bytearray]


def cut_chunks(
    pieces: Iterable[Buffer], min_bytes: int, max_bytes: int, window_bytes: int, marker: Marker
) -> Iterator[bytes]:
    """Chunks that end at the first place marked from `min_bytes` on, and at `max_bytes` at the latest.

    The last chunk ends with the stream; no input is one empty chunk. `min_bytes` is at least `window_bytes`,
    so that where a chunk ends does not depend on the chunk before.
    """
    scanner = _Scanner(min_bytes, max_bytes, window_bytes, marker)
    empty = True
    for piece in _slices(pieces):
        scanner.buffer += piece
        empty = False
        yield from scanner.chunks()
    yield from scanner.chunks(last=True)
    if empty:
        yield b""


class _Scanner:
    """The bytes from the start of the chunk that is open, and the marks behind some of them."""

    def __init__(self, min_bytes: int, max_bytes: int, window_bytes: int, marker: Marker) -> None:
        self.buffer = bytearray()
        self._min = min_bytes
        self._max = max_bytes
        self._window = window_bytes
        self._marker = marker
        self._marks: bytes | bytearray = b""
        self._marked = 0  # the chunk length that the first mark stands for
        self._next = min_bytes  # the next chunk length to look at

    def chunks(self, *, last: bool = False) -> Iterator[bytes]:
        """The chunks that are complete; with `last`, the buffer is all there is."""
        while (length := self._length(last=last)) is not None:
            yield bytes(self.buffer[:length])
            del self.buffer[:length]
            self._marked -= length
            self._next = self._min

    def _length(self, *, last: bool) -> int | None:
        """How long the open chunk is; None if more must come before that can be said."""
        have = len(self.buffer)
        limit = min(self._max, have)
        while self._next < limit:
            stop = self._marked + len(self._marks)
            if not self._marked <= self._next < stop:
                if not last and have < min(self._next + SCAN_BYTES, self._max):
                    return None  # a block is not worth hashing before it is full
                self._hash(min(self._next + SCAN_BYTES, have))
                stop = self._marked + len(self._marks)
            at = self._marks.find(0, self._next - self._marked, limit - self._marked)
            if at >= 0:
                return self._marked + at
            self._next = min(stop, limit)
        if have >= self._max:
            return self._max
        return have if last and have else None

    def _hash(self, stop: int) -> None:
        """Marks the chunk lengths from `_next` to `stop`."""
        block = bytes(self.buffer[self._next - self._window : stop - 1])
        self._marks = self._marker(block, stop - self._next)
        self._marked = self._next


def _slices(pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    for piece in pieces:
        if len(piece) <= PIECE_BYTES:
            if piece:
                yield piece
        else:
            view = memoryview(piece)
            for start in range(0, len(view), PIECE_BYTES):
                yield view[start : start + PIECE_BYTES]
