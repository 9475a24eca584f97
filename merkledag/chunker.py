"""Cutting a stream of bytes into chunks of fixed size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from merkledag.steps import Buffer


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
