"""The field of BLS12-381's scalars and the 4,096 points at which a blob's polynomial is given.

Numbers and their order are those of EIP-4844 (consensus-specs, Deneb, polynomial-commitments: BLS_MODULUS,
PRIMITIVE_ROOT_OF_UNITY, compute_roots_of_unity, bit_reversal_permutation).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeVar

from proofs.bls.points import R

_T = TypeVar("_T")

ELEMENTS = 4096  # field elements in a blob, and the degree bound of its polynomial
SCALAR_BYTES = 32
DATA_BYTES = SCALAR_BYTES - 1  # a number of 31 bytes is below r
_GENERATOR = 7  # of the field's multiplicative group


def is_scalar(value: object) -> bool:
    """Whether `value` is a number from 0 to r − 1 (and no bool)."""
    return type(value) is int and 0 <= value < R


@cache
def domain() -> tuple[int, ...]:
    """The 4,096 roots of unity, the i-th element of a blob being the polynomial's value at the i-th.

    Bit-reversed: the i-th is ω to the power of i read backwards in 12 bits.
    """
    omega = pow(_GENERATOR, (R - 1) // ELEMENTS, R)
    powers = [1]
    while len(powers) < ELEMENTS:
        powers.append(powers[-1] * omega % R)
    return tuple(bit_reversed(powers))


@cache
def domain_index() -> dict[int, int]:
    """Where in `domain()` each root of unity stands."""
    return {root: index for index, root in enumerate(domain())}


def bit_reversed(values: Sequence[_T]) -> list[_T]:
    """The values in bit-reversed order; their number is a power of two, and at least two."""
    bits = len(values).bit_length() - 1
    assert len(values) == 1 << bits > 1, "a bit-reversed order needs a power of two"
    return [values[int(f"{index:0{bits}b}"[::-1], 2)] for index in range(len(values))]


def inverses(values: Sequence[int]) -> list[int]:
    """1/v mod r for each v, none of which is 0, at the cost of one inversion (Montgomery's trick)."""
    products = [1]
    for value in values:
        products.append(products[-1] * value % R)
    inverse = pow(products.pop(), -1, R)
    result = [0] * len(values)
    for index in range(len(values) - 1, -1, -1):
        result[index] = inverse * products[index] % R
        inverse = inverse * values[index] % R
    return result
