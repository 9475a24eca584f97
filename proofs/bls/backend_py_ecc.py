"""BLS signatures by py_ecc, the reference; import it through `bls.backend` (it takes about a second)."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

# Importing py_ecc raises the interpreter's recursion limit to 100,000, with which a deeply nested JSON
# document ends the process instead of raising RecursionError. Its arithmetic nests 400 calls at most.
_limit = sys.getrecursionlimit()
from py_ecc.bls import G2ProofOfPossession  # noqa: E402
from py_ecc.bls.g2_primitives import (  # noqa: E402
    G2_to_signature,
    pubkey_to_G1,
    signature_to_G2,
    subgroup_check,
)
from py_ecc.bls.hash_to_curve import hash_to_G2  # noqa: E402
from py_ecc.optimized_bls12_381 import (  # noqa: E402
    FQ12,
    G1,
    add,
    final_exponentiate,
    multiply,
    neg,
    pairing,
)

sys.setrecursionlimit(_limit)

NAME = "py_ecc"


class Statement(NamedTuple):
    """That e(key, hashed) = e(generator, signature): one signature's points, all of their subgroups."""

    public_key: bytes
    key: Any
    hashed: Any
    signature: Any


def public_key(secret: int) -> bytes:
    """The compressed G1 point of a secret scalar, 48 bytes."""
    return bytes(G2ProofOfPossession.SkToPk(secret))


def sign(secret: int, message: bytes, dst: bytes) -> bytes:
    """The compressed G2 point secret · H(message), 96 bytes."""
    return bytes(G2_to_signature(multiply(hash_to_G2(message, dst, hashlib.sha256), secret)))


def statement(public_key: bytes, message: bytes, signature: bytes, dst: bytes) -> Statement | None:
    """The points of a signature, for `holds`; None unless both given ones are of their subgroups."""
    try:
        key, point = pubkey_to_G1(public_key), signature_to_G2(signature)
    except ValueError:
        return None
    if not subgroup_check(key) or not subgroup_check(point):
        return None
    return Statement(public_key, key, hash_to_G2(message, dst, hashlib.sha256), point)


def holds(statements: Sequence[Statement], weights: Sequence[int]) -> bool:
    """Π e(key, Σ weight · H(message)) over the keys = e(generator, Σ weight · signature)."""
    by_key: dict[bytes, tuple[Any, list[Any]]] = {}
    for each, weight in zip(statements, weights, strict=True):
        _, points = by_key.setdefault(each.public_key, (each.key, []))
        points.append(multiply(each.hashed, weight))
    signed = [multiply(each.signature, weight) for each, weight in zip(statements, weights, strict=True)]
    product = _pair(signed, neg(G1))
    for key, points in by_key.values():
        product *= _pair(points, key)
    return bool(final_exponentiate(product) == FQ12.one())


def _pair(points: list[Any], key: Any) -> Any:
    return pairing(reduce(add, points), key, final_exponentiate=False)
