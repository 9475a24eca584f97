"""KZG by arkworks (py_arkworks_bls12381); import it through `backend`.

Holes of 0.5.0, and what closes each: any bytes under the infinity flag are infinity (`points.is_canonical`
comes first); a sum over lists of unequal length drops the tail (`well_formed`; `_sum`); an
empty product of pairings is true (here it always has two); the constructors named unchecked are given the
setup's points alone, whose bytes have a known hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from proofs.bls.points import R
from proofs.kzg.backend import CurveBackend, Opening
from proofs.kzg.field import SCALAR_BYTES, bit_reversed
from proofs.kzg.setup import TAU_G2, Setup


class ArkworksBackend(CurveBackend):
    """By arkworks, the default."""

    NAME = "arkworks"

    def commit_values(self, setup: Setup, values: Sequence[int]) -> bytes:
        pairs = [(point, value) for point, value in zip(_points(setup), values, strict=True) if value]
        return bytes(_sum([point for point, _ in pairs], [value for _, value in pairs]).to_compressed_bytes())

    def hold(self, openings: Sequence[Opening], factors: Sequence[int]) -> bool:
        left: list[Any] = [G1Point()]
        numbers = [0]
        right: list[Any] = []
        try:
            for (commitments, scalars, z, y, proof), factor in zip(openings, factors, strict=True):
                point = G1Point.from_compressed_bytes(proof)
                right.append(point)
                left += [*map(G1Point.from_compressed_bytes, commitments), point]
                numbers += [*(factor * scalar % R for scalar in scalars), factor * z % R]
                numbers[0] -= factor * y
        except ValueError:  # off the curve, or off the subgroup
            return False
        numbers[0] %= R
        return bool(GT.pairing_check([_sum(left, numbers), -_sum(right, factors)], [G2Point(), _tau_g2()]))


def combine(commitments: Sequence[bytes], scalars: Sequence[int]) -> bytes:
    """Σ sᵢ·Cᵢ of well-formed points and scalars; ValueError if one is off the curve or off the subgroup."""
    return bytes(_sum([*map(G1Point.from_compressed_bytes, commitments)], scalars).to_compressed_bytes())


def _sum(points: Sequence[Any], scalars: Sequence[int]) -> Any:
    """Σ sᵢ·Pᵢ over lists of one length, which may be empty."""
    assert len(points) == len(scalars), "a sum over unequal lists would drop the tail"
    return G1Point.multiexp_unchecked(
        list(points), [Scalar.from_be_bytes(scalar.to_bytes(SCALAR_BYTES, "big")) for scalar in scalars]
    )


def _points(setup: Setup) -> list[Any]:
    """The setup's points of G1 in the order of a blob's elements."""
    points = setup.prepared.get(ArkworksBackend.NAME)
    if not isinstance(points, list):
        points = bit_reversed([G1Point.from_xy_bytes_unchecked_be(point) for point in setup.lagrange()])
        setup.prepared[ArkworksBackend.NAME] = points
    return points


@cache
def _tau_g2() -> Any:
    return G2Point.from_compressed_bytes(TAU_G2)


ARKWORKS = ArkworksBackend()
