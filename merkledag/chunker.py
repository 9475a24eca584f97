"""Chunkers: how a stream of bytes is cut into the leaves of a file, by size or by content.

All of them cut as boxo's `chunker` package does, and `parse_chunker` reads the names it reads:

- `size-N`: N bytes each, the last one shorter; `default` and the empty name are `size-262144`
- `rabin`, `rabin-AVG`, `rabin-MIN-AVG-MAX`: where the last 16 bytes have a certain Rabin fingerprint
- `buzhash`: where the last 32 bytes have a certain rolling hash

No input at all is one empty chunk. Content-defined chunks hold at most one chunk and one piece in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from merkledag.block import MAX_BLOCK_BYTES
from merkledag.chunker_scan import cut_chunks
from merkledag.errors import LimitExceeded
from merkledag.steps import Buffer

MAX_CHUNK_BYTES = MAX_BLOCK_BYTES - 256  # room for what a dag-pb leaf puts around its chunk
DEFAULT_CHUNK_BYTES = 256 * 1024
RABIN_WINDOW_BYTES = 16  # a chunk cannot be shorter: its end depends on so many bytes
_GO_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")


@dataclass(frozen=True, slots=True)
class FixedSize:
    """Chunks of `max_bytes`; ValueError for sizes that no block can hold."""

    max_bytes: int

    def __post_init__(self) -> None:
        if not 1 <= self.max_bytes <= MAX_CHUNK_BYTES:
            raise ValueError(f"chunks of {self.max_bytes} bytes; 1 to {MAX_CHUNK_BYTES} are possible")

    def __str__(self) -> str:
        return f"size-{self.max_bytes}"

    def split(self, pieces: Iterable[Buffer]) -> Iterator[bytes]:
        """The chunks of a stream that comes in pieces of any length."""
        return fixed_chunks(pieces, self.max_bytes)


@dataclass(frozen=True, slots=True)
class Rabin:
    """Chunks that end where the low bits of a Rabin fingerprint are 0; ValueError for bad bounds.

    About one position in `avg_bytes`, rounded down to a power of two, is such an end.
    """

    min_bytes: int
    avg_bytes: int
    max_bytes: int

    def __post_init__(self) -> None:
        if self.min_bytes < RABIN_WINDOW_BYTES:
            raise ValueError(f"rabin: at least {RABIN_WINDOW_BYTES} bytes a chunk, not {self.min_bytes}")
        if not self.min_bytes < self.avg_bytes < self.max_bytes:
            raise ValueError(f"{self}: the minimum must be below the average, and that below the maximum")
        if self.max_bytes > MAX_CHUNK_BYTES:
            raise ValueError(f"{self}: at most {MAX_CHUNK_BYTES} bytes a chunk are possible")

    def __str__(self) -> str:
        return f"rabin-{self.min_bytes}-{self.avg_bytes}-{self.max_bytes}"

    def split(self, pieces: Iterable[Buffer]) -> Iterator[bytes]:
        """The chunks of a stream that comes in pieces of any length."""
        from merkledag.chunker_rabin import WINDOW, marker

        return cut_chunks(pieces, self.min_bytes, self.max_bytes, WINDOW, marker(self.avg_bytes))


@dataclass(frozen=True, slots=True)
class Buzhash:
    """Chunks that end where a rolling hash of 32 bytes is 0 in its low 17 bits; its bounds are fixed."""

    @property
    def max_bytes(self) -> int:
        """The largest chunk."""
        return 512 * 1024

    def __str__(self) -> str:
        return "buzhash"

    def split(self, pieces: Iterable[Buffer]) -> Iterator[bytes]:
        """The chunks of a stream that comes in pieces of any length."""
        from merkledag.chunker_buzhash import MIN_BYTES, WINDOW, mark

        return cut_chunks(pieces, MIN_BYTES, self.max_bytes, WINDOW, mark)


@dataclass(frozen=True, slots=True)
class Uncut:
    """One chunk, whatever comes: what `rabin-AVG` means elsewhere when a third of AVG is below its window."""

    @property
    def max_bytes(self) -> int:
        """The largest file that can be one block."""
        return MAX_CHUNK_BYTES

    def __str__(self) -> str:
        return "rabin-0"

    def split(self, pieces: Iterable[Buffer]) -> Iterator[bytes]:
        """The whole stream; raises LimitExceeded if no block can hold it."""
        whole = bytearray()
        for piece in pieces:
            if len(whole) + len(piece) > MAX_CHUNK_BYTES:
                raise LimitExceeded(f"rabin with an average this small never cuts, and {MAX_CHUNK_BYTES}"
                                    " bytes are the most that fit into a block")  # fmt: skip
            whole += piece
        yield bytes(whole)


Chunker = FixedSize | Rabin | Buzhash | Uncut


def parse_chunker(text: str) -> Chunker:
    """The chunker that boxo calls `text`; ValueError, with a line that says why, for what boxo refuses."""
    if text in ("", "default"):
        return FixedSize(DEFAULT_CHUNK_BYTES)
    kind, *arguments = text.split("-")
    if kind == "buzhash":
        return Buzhash()
    if kind == "size" and len(arguments) == 1:
        return FixedSize(_integer(arguments[0]))
    if kind == "rabin" and len(arguments) in (0, 1, 3):
        if len(arguments) == 3:
            return Rabin(*map(_labelled, ("min", "avg", "max"), arguments))
        average = _integer(arguments[0]) if arguments else DEFAULT_CHUNK_BYTES
        low, high = average // 3, average + average // 2
        return Rabin(low, average, high) if low >= RABIN_WINDOW_BYTES else Uncut()
    raise ValueError(
        f"{text[:80]!r} is no chunker: write size-N, rabin, rabin-AVG, rabin-MIN-AVG-MAX (N, MIN, AVG, MAX in"
        " bytes) or buzhash"
    )


def _labelled(label: str, text: str) -> int:
    """N of `N` or `LABEL:N`."""
    first, *rest = text.split(":")
    if rest and first != label:
        raise ValueError(f"rabin: {text[:80]!r} where {label} was expected")
    return _integer(rest[-1] if rest else first)


def _integer(text: str) -> int:
    if _GO_INTEGER.fullmatch(text) is None:
        raise ValueError(f"{text[:80]!r} is no number of bytes")
    return int(text)


def fixed_chunks(pieces: Iterable[Buffer], chunk_bytes: int) -> Iterator[bytes]:
    """Chunks of `chunk_bytes` from pieces of any length, the last one shorter; one empty chunk for nothing.

    A `bytes` piece that is exactly one chunk passes through without a copy.
    """
    if chunk_bytes < 1:
        raise ValueError(f"chunks of {chunk_bytes} bytes")
    parts: list[Buffer] = []
    have = 0
    empty = True
    for piece in pieces:
        position, size = 0, len(piece)
        while position < size:
            take = min(chunk_bytes - have, size - position)
            parts.append(piece if take == size else memoryview(piece)[position : position + take])
            position += take
            have += take
            if have == chunk_bytes:
                yield _joined(parts)
                parts, have, empty = [], 0, False
    if have or empty:
        yield _joined(parts)


def _joined(parts: list[Buffer]) -> bytes:
    if len(parts) == 1:
        return bytes(parts[0])  # the same object if it is `bytes` already
    return b"".join(parts)
