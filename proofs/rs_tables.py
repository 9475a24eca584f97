"""Reed–Solomon over GF(2⁸) in plain Python: the built-in twin of zfec, byte for byte the same.

The field is GF(2)[x] / (x⁸ + x⁴ + x³ + x² + 1) with generator x. Share i of a group is the value at point p_i
of the polynomial of degree < k that has the data blocks as its values at p_0 … p_{k−1}, where p_0 = 0 and
p_i = x^(i−1). So every share is a fixed linear combination of any k others (Lagrange), which is all that
happens here: one `bytes.translate` a coefficient, and XOR of whole blocks as big integers. (zfec derives the
same from a Vandermonde matrix: L. Rizzo, "Effective erasure codes for reliable computer communication
protocols", 1997.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from proofs.commitment import Buffer

NAME = "tables"
_POLYNOMIAL = 0x11D
_ORDER = 255  # of the multiplicative group


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


def combine(blocks: Sequence[Buffer], factors: Sequence[int], length_bytes: int) -> bytes:
    """Σ factor · block; blocks shorter than `length_bytes` count as padded with zeros at their end."""
    total = 0
    for block, factor in zip(blocks, factors, strict=True):
        if len(block):
            # Little-endian, so that a shorter block is padded at its end by being a smaller number.
            total ^= int.from_bytes(bytes(block).translate(_times(factor)), "little")
    return total.to_bytes(length_bytes, "little")


def encode(k: int, m: int, blocks: Sequence[Buffer], wanted: Sequence[int], length_bytes: int) -> list[bytes]:
    """The parity shares `wanted` (each in k … m−1) of `k` data blocks of at most `length_bytes`."""
    known = tuple(range(k))
    return [combine(blocks, coefficients(known, index), length_bytes) for index in wanted]


def decode(
    k: int, m: int, shares: Mapping[int, Buffer], wanted: Sequence[int], length_bytes: int
) -> list[bytes]:
    """The data blocks `wanted`, padded to `length_bytes`, from exactly `k` other shares."""
    known = tuple(sorted(shares))
    blocks = [shares[index] for index in known]
    return [combine(blocks, coefficients(known, index), length_bytes) for index in wanted]
