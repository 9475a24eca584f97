"""KZG by py_ecc, the reference in plain Python; import it through `backend` (it takes about a second).

A multiplication takes 15 ms, a pairing half a second, so committing to a whole blob takes a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from proofs.bls import backend_py_ecc  # noqa: F401  first, for it puts back the recursion limit that py_ecc raises

# isort: split
from py_ecc.bls.g2_primitives import G1_to_pubkey, pubkey_to_G1, signature_to_G2, subgroup_check
from py_ecc.fields import optimized_bls12_381_FQ as FQ
from py_ecc.fields import optimized_bls12_381_FQ12 as FQ12
from py_ecc.optimized_bls12_381 import G1, G2, Z1, add, final_exponentiate, multiply, neg, pairing

from proofs.bls.points import G1_BYTES, R
from proofs.kzg.backend import CurveBackend, Opening
from proofs.kzg.field import bit_reversed
from proofs.kzg.setup import TAU_G2, Setup


class PyEccBackend(CurveBackend):
    """By py_ecc, the reference."""

    NAME = "py_ecc"

    def commit_values(self, setup: Setup, values: Sequence[int]) -> bytes:
        pairs = zip(bit_reversed(list(setup.lagrange())), values, strict=True)
        return bytes(
            G1_to_pubkey(_add_all(multiply(_uncompressed(xy), value) for xy, value in pairs if value))
        )

    def hold(self, openings: Sequence[Opening], factors: Sequence[int]) -> bool:
        left = right = Z1
        try:
            for (commitments, scalars, z, y, proof), factor in zip(openings, factors, strict=True):
                point = _point(proof)
                terms = [multiply(_point(c), s) for c, s in zip(commitments, scalars, strict=True)]
                opened = _add_all([*terms, multiply(G1, (R - y) % R), multiply(point, z)])
                left = add(left, multiply(opened, factor))
                right = add(right, multiply(point, factor))
        except ValueError:  # off the curve, or off the subgroup
            return False
        product = pairing(G2, left, final_exponentiate=False) * pairing(
            signature_to_G2(TAU_G2), neg(right), final_exponentiate=False
        )
        return bool(final_exponentiate(product) == FQ12.one())


def _point(data: bytes) -> Any:
    point = pubkey_to_G1(data)
    if not subgroup_check(point):
        raise ValueError("the point is not in the subgroup")
    return point


def _uncompressed(xy: bytes) -> Any:
    x, y = xy[:G1_BYTES], xy[G1_BYTES:]
    return FQ(int.from_bytes(x, "big")), FQ(int.from_bytes(y, "big")), FQ(1)


def _add_all(points: Iterable[Any]) -> Any:
    total = Z1
    for point in points:
        total = add(total, point)
    return total


PY_ECC = PyEccBackend()
