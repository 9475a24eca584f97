"""Polynomials of degree below 4,096 in evaluation form: their values on `field.domain()`, in its order.

Formulas: consensus-specs, Deneb, polynomial-commitments: evaluate_polynomial_in_evaluation_form and
compute_kzg_proof_impl with compute_quotient_eval_within_domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import mul

from merkledag.multihash import Buffer
from proofs.bls.points import R
from proofs.kzg.blobs import spread
from proofs.kzg.field import ELEMENTS, domain, domain_index, inverses, is_scalar

# A slot of 512 bits takes 500 products of an element of 248 bits and a scalar of 255, and a carried element.
_SLOT_BYTES = 64
_PRODUCTS_A_SLOT = 500


def divide(values: Sequence[int], z: int) -> tuple[int, list[int]]:
    """y = p(z), and the values of the quotient (p − y)/(X − z), whose commitment is the opening's proof.

    Raises ValueError for what `check_opened` refuses.
    """
    check_opened(values, z)
    place = domain_index().get(z)
    if place is not None:
        return values[place], _quotient_on_domain(values, place)
    inverse = _inverse_differences(z)
    y = _evaluate(values, z, inverse)
    return y, [(y - value) * factor % R for value, factor in zip(values, inverse, strict=True)]


def check_opened(values: Sequence[int], z: int) -> None:
    """Raise ValueError unless these are 4,096 values and a point, all from 0 to r − 1."""
    if len(values) != ELEMENTS or not is_scalar(z) or not all(map(is_scalar, values)):
        raise ValueError("a polynomial is opened at a number below r, and has 4,096 values below r")


def combine(blobs: Iterable[Buffer], scalars: Sequence[int]) -> list[int]:
    """The values of Σ sᵢ·pᵢ over blobs of up to 126,976 bytes; ValueError if the numbers of both differ.

    Takes one blob at a time. Each is one long number with a slot of 64 bytes for each element, so that one
    multiplication serves all 4,096 and no loop of Python runs per blob: 1.4 ms a blob.
    """
    total = pending = 0
    for blob, scalar in zip(blobs, scalars, strict=True):
        if pending == _PRODUCTS_A_SLOT:
            carried = b"".join(value.to_bytes(_SLOT_BYTES, "big") for value in _slots(total))
            total, pending = int.from_bytes(carried, "big"), 0
        total += int.from_bytes(spread(blob, _SLOT_BYTES), "big") * (scalar % R)
        pending += 1
    return _slots(total)


def _slots(total: int) -> list[int]:
    data = total.to_bytes(ELEMENTS * _SLOT_BYTES, "big")
    return [
        int.from_bytes(data[start : start + _SLOT_BYTES], "big") % R
        for start in range(0, len(data), _SLOT_BYTES)
    ]


def _inverse_differences(z: int) -> list[int]:
    """1/(z − w) for each w of the domain, on which z does not lie."""
    return inverses([(z - root) % R for root in domain()])


def _evaluate(values: Sequence[int], z: int, inverse: Sequence[int]) -> int:
    """The barycentric formula: (zⁿ − 1)/n · Σ pᵢ·wᵢ/(z − wᵢ)."""
    total: int = sum(map(mul, values, map(mul, domain(), inverse)))
    return total * (pow(z, ELEMENTS, R) - 1) * pow(ELEMENTS, -1, R) % R


def _quotient_on_domain(values: Sequence[int], place: int) -> list[int]:
    """The quotient's values where z is the domain's w at `place`.

    Elsewhere it is (pᵢ − y)/(wᵢ − z); at z itself, by l'Hôpital's rule, −Σ qᵢ·wᵢ/z over the others.
    """
    z, y = domain()[place], values[place]
    inverse = inverses([(root - z) % R or 1 for root in domain()])
    quotient = [(value - y) * factor % R for value, factor in zip(values, inverse, strict=True)]
    quotient[place] = -sum(map(mul, quotient, domain())) * pow(z, -1, R) % R
    return quotient
