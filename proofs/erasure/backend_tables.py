"""Reed–Solomon over GF(2⁸) in plain Python: the built-in twin of zfec, byte for byte the same.

The field is GF(2)[x] / (x⁸ + x⁴ + x³ + x² + 1) with generator x. Share i of a group is the value at point p_i
of the polynomial of degree < k that has the data blocks as its values at p_0 … p_{k−1}, where p_0 = 0 and
p_i = x^(i−1). So every share is a fixed linear combination of any k others (Lagrange), which is all that
happens here, on slices of the blocks as big integers, whose XOR is the field's sum. (zfec derives the same
from a Vandermonde matrix: L. Rizzo, "Effective erasure codes for reliable computer communication protocols",
1997.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from merkledag.multihash import Buffer

NAME = "tables"
_POLYNOMIAL = 0x11D
_ORDER = 255  # of the multiplicative group
_SLICE_BYTES = 8192  # worked on at once: numbers of this size stay in the processor's cache
_HIGH_BITS = int.from_bytes(b"\x80" * _SLICE_BYTES, "little")
_MANY = 6  # blocks from which on Horner's rule takes less than a table for each


def _powers() -> tuple[list[int], list[int]]:
    exp, log = [0] * _ORDER, [0] * 256
    value = 1
    for power in range(_ORDER):
        exp[power], log[value] = value, power
        value = value << 1 ^ (_POLYNOMIAL if value & 0x80 else 0)
    return exp, log


_EXP, _LOG = _powers()


def _point(index: int) -> int:
    return _EXP[index - 1] if index else 0


@lru_cache(maxsize=256)
def _times(factor: int) -> bytes:
    """The table that multiplies each byte by `factor` ≠ 0."""
    shift = _LOG[factor]
    return bytes([0] + [_EXP[(_LOG[value] + shift) % _ORDER] for value in range(1, 256)])


@lru_cache(maxsize=1024)
def coefficients(known: tuple[int, ...], wanted: int) -> tuple[int, ...]:
    """The factors, none of them 0, that make share `wanted` out of the shares `known`, which are others."""
    points = [_point(index) for index in known]
    at = _point(wanted)
    whole = sum(_LOG[at ^ point] for point in points)
    factors = []
    for own in points:
        below = sum(_LOG[own ^ point] for point in points if point != own)
        factors.append(_EXP[(whole - _LOG[at ^ own] - below) % _ORDER])
    return tuple(factors)


def combine(blocks: Sequence[Buffer], rows: Sequence[Sequence[int]], length_bytes: int) -> list[bytes]:
    """Σ factor · block for each row of factors; blocks count as padded with zeros to `length_bytes`."""
    work = _by_bits if len(blocks) >= _MANY else _by_tables
    parts: list[list[bytes]] = [[] for _ in rows]
    for start in range(0, length_bytes, _SLICE_BYTES):
        cut = [bytes(block[start : start + _SLICE_BYTES]) for block in blocks]
        size_bytes = min(_SLICE_BYTES, length_bytes - start)
        for part, total in zip(parts, work(cut, rows), strict=True):
            part.append(total.to_bytes(size_bytes, "little"))
    return [b"".join(part) for part in parts]


def _by_tables(blocks: Sequence[bytes], rows: Sequence[Sequence[int]]) -> Iterator[int]:
    """The sums as numbers: little-endian, so that a shorter block is padded by being a smaller number."""
    for factors in rows:
        total = 0
        for block, factor in zip(blocks, factors, strict=True):
            total ^= int.from_bytes(block.translate(_times(factor)), "little")
        yield total


def _by_bits(blocks: Sequence[bytes], rows: Sequence[Sequence[int]]) -> Iterator[int]:
    """The same by Horner's rule over the bits of the factors: few multiplications by x for many blocks."""
    numbers = [int.from_bytes(block, "little") for block in blocks]
    for factors in rows:
        total = 0
        for bit in range(7, -1, -1):
            if total:
                high = total & _HIGH_BITS
                total = (total ^ high) << 1 ^ (high >> 7) * (_POLYNOMIAL & 0xFF)
            for number, factor in zip(numbers, factors, strict=True):
                if factor >> bit & 1:
                    total ^= number
        yield total


def encode(k: int, m: int, blocks: Sequence[Buffer], length_bytes: int, room: object) -> list[bytes]:
    """The parity shares k … m−1 of `k` data blocks of at most `length_bytes`."""
    known = tuple(range(k))
    return combine(blocks, [coefficients(known, index) for index in range(k, m)], length_bytes)


def restore(
    k: int, m: int, shares: Mapping[int, Buffer], wanted: Sequence[int], length_bytes: int, room: object
) -> list[bytes]:
    """The shares `wanted`, padded to `length_bytes`, from exactly `k` others."""
    known = tuple(sorted(shares))
    blocks = [shares[index] for index in known]
    return combine(blocks, [coefficients(known, index) for index in wanted], length_bytes)
