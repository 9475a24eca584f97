"""Reed–Solomon by zfec, in C. Import this module only where zfec may be missing: it raises ImportError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import zfec

from proofs.commitment import Buffer

NAME = "zfec"


@lru_cache(maxsize=16)
def _encoder(k: int, m: int) -> Any:
    return zfec.Encoder(k, m)


@lru_cache(maxsize=16)
def _decoder(k: int, m: int) -> Any:
    return zfec.Decoder(k, m)


def _pad(blocks: Sequence[Buffer], length_bytes: int) -> tuple[Buffer, ...]:
    """zfec wants equal lengths: only shorter blocks are copied, and all absent ones share one of zeros."""
    zeros = b"" if all(map(len, blocks)) else bytes(length_bytes)
    return tuple(
        (block if len(block) == length_bytes else bytes(block).ljust(length_bytes, b"\0")) if block else zeros
        for block in blocks
    )


def encode(k: int, m: int, blocks: Sequence[Buffer], wanted: Sequence[int], length_bytes: int) -> list[bytes]:
    """As `rs_tables.encode`."""
    shares: list[bytes] = _encoder(k, m).encode(_pad(blocks, length_bytes), tuple(wanted))
    return shares


def decode(
    k: int, m: int, shares: Mapping[int, Buffer], wanted: Sequence[int], length_bytes: int
) -> list[bytes]:
    """As `rs_tables.decode`."""
    # zfec wants each data share at its own place and parity in the gaps; then a gap's place gets its block.
    parity = iter(sorted(index for index in shares if index >= k))
    order = [index if index in shares else next(parity) for index in range(k)]
    whole = _decoder(k, m).decode(_pad([shares[index] for index in order], length_bytes), tuple(order))
    return [whole[index] for index in wanted]
