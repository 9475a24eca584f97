"""fr32 padding: two zero bits after every 254, so that each 32 bytes are a number below the field's order.

127 bytes, a *quad*, become four numbers of 32 bytes; bits are counted from the lowest of the first byte.
Source: the fr32 crate of filecoin-project/rust-fil-proofs; FRC-0069 for the 127-byte unit.
"""

from __future__ import annotations

from struct import Struct

from merkledag.steps import Buffer

QUAD_BYTES = 127
PADDED_QUAD_BYTES = 128
BATCH_QUADS = 256  # padded together: as big integers these stay in the processor's cache

_QUAD = Struct(f"{QUAD_BYTES}s")


def _mask(bits: int, quads: int) -> int:
    return int.from_bytes(bits.to_bytes(PADDED_QUAD_BYTES, "little") * quads, "little")


_NUMBER = (1 << 254) - 1
# Of each quad, once it takes 1,024 bits: its upper half, and then the upper number of each half.
_UPPER_HALVES = _mask((_NUMBER | _NUMBER << 254) << 508, BATCH_QUADS)
_UPPER_NUMBERS = _mask(_NUMBER << 254 | _NUMBER << 512 + 254, BATCH_QUADS)


def pad(quads: Buffer) -> bytes:
    """128 bytes for each 127 of `quads`, of which there are at most `BATCH_QUADS`; ValueError otherwise."""
    count, rest = divmod(len(quads), QUAD_BYTES)
    if rest or count > BATCH_QUADS:
        raise ValueError(f"{len(quads)} bytes are not up to {BATCH_QUADS} times {QUAD_BYTES}")
    # One zero byte a quad makes room; then all quads at once are moved up, by halves and by quarters.
    bits = int.from_bytes(b"\0".join([quad for (quad,) in _QUAD.iter_unpack(quads)]), "little")
    moved = bits & _UPPER_HALVES
    bits = bits ^ moved | moved << 4
    moved = bits & _UPPER_NUMBERS
    bits = bits ^ moved | moved << 2
    return bits.to_bytes(PADDED_QUAD_BYTES * count, "little")
