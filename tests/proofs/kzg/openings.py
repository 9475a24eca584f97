"""True openings without a blob: of polynomials a + b·X, which take two multiplications to commit to."""

from __future__ import annotations

from collections.abc import Sequence

from py_arkworks_bls12381 import G1Point, Scalar

from proofs.kzg.backend import Opening
from tests.proofs.kzg.polynomials import R, scalar

TAU_G1 = G1Point.from_compressed_bytes(
    bytes.fromhex(
        "ad3eb50121139aa34db1d545093ac9374ab7bca2c0f3bf28e27c8dcd8fc7cb42d25926fc0c97b336e9f0fb35e5a04c81"
    )
)


def times(number: int, point: G1Point | None = None) -> bytes:
    """The multiple of a point (of the generator, if none is given), compressed."""
    return bytes(((point or G1Point()) * Scalar(number % R)).to_compressed_bytes())


def add(*points: bytes) -> bytes:
    """The sum of compressed points."""
    total = G1Point.identity()
    for point in points:
        total = total + G1Point.from_compressed_bytes(point)
    return bytes(total.to_compressed_bytes())


def opening(lines: Sequence[tuple[int, int]], scalars: Sequence[int], z: int) -> Opening:
    """The opening at z of Σ sᵢ·(aᵢ + bᵢ·X), the lines being (a, b)."""
    a = sum(s * line[0] for s, line in zip(scalars, lines, strict=True)) % R
    b = sum(s * line[1] for s, line in zip(scalars, lines, strict=True)) % R
    commitments = [add(times(line[0]), times(line[1], TAU_G1)) for line in lines]
    return Opening(commitments, list(scalars), z, (a + b * z) % R, times(b))


def drawn(name: str, count: int = 3) -> Opening:
    """An opening of `count` commitments that looks random."""
    lines = [(scalar(f"{name} a{i}"), scalar(f"{name} b{i}")) for i in range(count)]
    return opening(lines, [scalar(f"{name} s{i}") >> 127 for i in range(count)], scalar(f"{name} z"))
