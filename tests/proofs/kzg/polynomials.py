"""Polynomials by their coefficients, for the tests alone: what the product does on values, done again."""

from __future__ import annotations

import hashlib
from pathlib import Path

from proofs.kzg import setup as setup_module

SETUP_FILE = Path(setup_module.__file__).with_name("setup.bin")
R = 52435875175126190479447740508185965837690552500527637822603658699938581184513
N = 4096
OMEGA = pow(7, (R - 1) // N, R)


def stream(length: int) -> bytes:
    """Bytes that look random: SHA-256 of 0, 1, 2 … in four bytes, big-endian, cut to `length`."""
    count = -(-length // 32)
    return b"".join(hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(count))[:length]


def scalar(name: str) -> int:
    """A number below r that looks random."""
    return int.from_bytes(hashlib.sha512(name.encode()).digest(), "big") % R


def elements(blob: bytes) -> list[int]:
    """The field elements of a blob: 31 bytes each."""
    padded = blob + bytes(N * 31 - len(blob))
    return [int.from_bytes(padded[31 * i : 31 * i + 31], "big") for i in range(N)]


def root(index: int) -> int:
    """The point of the domain at which a blob's `index`-th element stands."""
    reversed_index = 0
    for bit in range(12):
        reversed_index |= (index >> bit & 1) << (11 - bit)
    return pow(OMEGA, reversed_index, R)


def values_of(coefficients: list[int]) -> list[int]:
    """The values on the domain of the polynomial with these coefficients, lowest first."""
    natural = _transform(coefficients + [0] * (N - len(coefficients)), OMEGA)
    return [natural[int(f"{i:012b}"[::-1], 2)] for i in range(N)]


def coefficients_of(values: list[int]) -> list[int]:
    """The coefficients, lowest first, of the polynomial with these values on the domain."""
    natural = [values[int(f"{i:012b}"[::-1], 2)] for i in range(N)]
    inverse = pow(N, -1, R)
    return [value * inverse % R for value in _transform(natural, pow(OMEGA, -1, R))]


def horner(coefficients: list[int], x: int) -> int:
    """The polynomial's value at x."""
    total = 0
    for coefficient in reversed(coefficients):
        total = (total * x + coefficient) % R
    return total


def _transform(values: list[int], omega: int) -> list[int]:
    """Σ vᵢ·ωⁱᵏ for every k: the number-theoretic transform, by halves."""
    if len(values) == 1:
        return values
    even = _transform(values[::2], omega * omega % R)
    odd = _transform(values[1::2], omega * omega % R)
    left, right = [], []
    power = 1
    for a, b in zip(even, odd, strict=True):
        left.append((a + power * b) % R)
        right.append((a - power * b) % R)
        power = power * omega % R
    return left + right
