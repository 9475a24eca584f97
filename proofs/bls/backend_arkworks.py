"""BLS signatures by arkworks (py_arkworks_bls12381); import it through `bls.backend`.

Its holes are closed here and by the callers: `bls` refuses malformed points (0.5.0 takes any bytes under the
infinity flag), no pairing product here is empty (0.5.0 calls an empty one true), and the two lists of a sum
are always of one length (0.5.0 cuts the longer one off).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

NAME = "arkworks"
MAX_KNOWN_KEYS = 64  # a chain has few proposers; each key is worth 0.1 ms
MAX_KNOWN_HASHES = 4  # whoever signs verifies that next; each is worth 0.8 ms


class Statement(NamedTuple):
    """That e(key, hashed) = e(generator, signature): one signature's points, all of their subgroups."""

    key: Any
    hashed: Any
    signature: Any


@cache
def _minus_generator() -> Any:
    return -G1Point()


@lru_cache(MAX_KNOWN_KEYS)
def _key_point(public_key: bytes) -> Any:
    """Raises ValueError for bytes that are no point of the subgroup, which is then not remembered."""
    return G1Point.from_compressed_bytes(public_key)


@lru_cache(MAX_KNOWN_HASHES)
def _hashed(message: bytes, dst: bytes) -> Any:
    return G2Point.hash_to_curve(message, dst)


def _scalar(number: int) -> Any:
    return Scalar.from_be_bytes(number.to_bytes(32, "big"))


def public_key(secret: int) -> bytes:
    """The compressed G1 point of a secret scalar, 48 bytes."""
    return bytes((G1Point() * _scalar(secret)).to_compressed_bytes())


def sign(secret: int, message: bytes, dst: bytes) -> bytes:
    """The compressed G2 point secret · H(message), 96 bytes."""
    return bytes((_hashed(message, dst) * _scalar(secret)).to_compressed_bytes())


def statement(public_key: bytes, message: bytes, signature: bytes, dst: bytes) -> Statement | None:
    """The points of a signature, for `holds`; None unless both given ones are of their subgroups."""
    try:
        return Statement(
            _key_point(public_key), _hashed(message, dst), G2Point.from_compressed_bytes(signature)
        )
    except ValueError:
        return None


def holds(statements: Sequence[Statement], weights: Sequence[int]) -> bool:
    """Π e(key, Σ weight · H(message)) over the keys = e(generator, Σ weight · signature)."""
    scalars = [_scalar(weight) for weight in weights]
    by_key: dict[Any, list[int]] = {}
    for index, each in enumerate(statements):
        by_key.setdefault(each.key, []).append(index)
    sums = [
        _sum([statements[index].hashed for index in indices], [scalars[index] for index in indices])
        for indices in by_key.values()
    ]
    signed = _sum([each.signature for each in statements], scalars)
    return bool(GT.pairing_check([*by_key, _minus_generator()], [*sums, signed]))


def _sum(points: list[Any], scalars: list[Any]) -> Any:
    assert len(points) == len(scalars) > 0, "one weight a point"
    return points[0] * scalars[0] if len(points) == 1 else G2Point.multiexp_unchecked(points, scalars)
