"""BLS signatures by arkworks (py_arkworks_bls12381); import it through `bls.backend`.

Its holes are closed by the callers: `bls` refuses malformed points (0.5.0 takes any bytes under the infinity
flag), and the pairing product here is never empty (0.5.0 calls an empty one true).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

NAME = "arkworks"


@cache
def _minus_generator() -> Any:
    return -G1Point()


def _scalar(secret: int) -> Any:
    return Scalar.from_be_bytes(secret.to_bytes(32, "big"))


def public_key(secret: int) -> bytes:
    """The compressed G1 point of a secret scalar, 48 bytes."""
    return bytes((G1Point() * _scalar(secret)).to_compressed_bytes())


def sign(secret: int, message: bytes, dst: bytes) -> bytes:
    """The compressed G2 point secret · H(message), 96 bytes."""
    return bytes((G2Point.hash_to_curve(message, dst) * _scalar(secret)).to_compressed_bytes())


def verify(public_key: bytes, message: bytes, signature: bytes, dst: bytes) -> bool:
    """e(key, H(message)) = e(generator, signature), both points checked to be in their subgroups."""
    try:
        key = G1Point.from_compressed_bytes(public_key)
        point = G2Point.from_compressed_bytes(signature)
    except ValueError:
        return False
    return bool(GT.pairing_check([key, _minus_generator()], [G2Point.hash_to_curve(message, dst), point]))
