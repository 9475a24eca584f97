"""Reed–Solomon by zfec, in C. Import this module only where zfec may be missing: it raises ImportError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import zfec

from merkledag.multihash import Buffer
from proofs.erasure.room import Room

NAME = "zfec"


@lru_cache(maxsize=16)
def _encoder(k: int, m: int) -> Any:
    return zfec.Encoder(k, m)


@lru_cache(maxsize=16)
def _decoder(k: int, m: int) -> Any:
    return zfec.Decoder(k, m)


def _pad(blocks: Sequence[Buffer], length_bytes: int, room: Room) -> tuple[Buffer, ...]:
    """zfec wants equal lengths: only shorter blocks are copied, and all absent ones share one of zeros."""
    zeros = b"" if all(map(len, blocks)) else bytes(length_bytes)
    padded: list[Buffer] = []
    used = 0
    for block in blocks:
        if not len(block):
            padded.append(zeros)
        elif len(block) == length_bytes:
            padded.append(block)
        else:
            view = room.take(used, length_bytes)
            view[: len(block)] = block
            view[len(block) :] = bytes(length_bytes - len(block))
            padded.append(view)
            used += 1
    return tuple(padded)


def encode(k: int, m: int, blocks: Sequence[Buffer], length_bytes: int, room: Room) -> list[bytes]:
    """As `backend_tables.encode`; `room` is kept by the caller for the next call."""
    shares: list[bytes] = _encoder(k, m).encode(_pad(blocks, length_bytes, room), tuple(range(k, m)))
    return shares


def restore(
    k: int,
    m: int,
    shares: Mapping[int, Buffer],
    wanted: Sequence[int],
    length_bytes: int,
    room: Room,
) -> list[bytes]:
    """As that of `backend_tables`. zfec makes all lost data shares where there are any; parity of those."""
    # zfec wants each data share at its own place and parity in the gaps; then a gap's place gets its block.
    parity = iter(sorted(index for index in shares if index >= k))
    order = [index if index in shares else next(parity) for index in range(k)]
    data: Sequence[Buffer] = _pad([shares[index] for index in order], length_bytes, room)
    if order != list(range(k)):
        data = _decoder(k, m).decode(data, tuple(order))
    beyond = tuple(index for index in wanted if index >= k)
    made = dict(zip(beyond, _encoder(k, m).encode(data, beyond), strict=True)) if beyond else {}
    return [made[index] if index in made else bytes(data[index]) for index in wanted]
