"""BLS signatures by py_ecc, the reference; import it through `bls.backend` (it takes about a second)."""

from __future__ import annotations

import hashlib
import sys

# Importing py_ecc raises the interpreter's recursion limit to 100,000, with which a deeply nested JSON
# document ends the process instead of raising RecursionError. Its arithmetic nests 400 calls at most.
_limit = sys.getrecursionlimit()
from py_ecc.bls import G2ProofOfPossession  # noqa: E402
from py_ecc.bls.g2_primitives import G2_to_signature  # noqa: E402
from py_ecc.bls.hash_to_curve import hash_to_G2  # noqa: E402
from py_ecc.optimized_bls12_381 import multiply  # noqa: E402

sys.setrecursionlimit(_limit)

NAME = "py_ecc"


def public_key(secret: int) -> bytes:
    """The compressed G1 point of a secret scalar, 48 bytes."""
    return bytes(G2ProofOfPossession.SkToPk(secret))


def sign(secret: int, message: bytes, dst: bytes) -> bytes:
    """The compressed G2 point secret · H(message), 96 bytes."""
    return bytes(G2_to_signature(multiply(hash_to_G2(message, dst, hashlib.sha256), secret)))


def verify(public_key: bytes, message: bytes, signature: bytes, dst: bytes) -> bool:
    """e(key, H(message)) = e(generator, signature), both points checked to be in their subgroups."""
    # Verify and PopVerify are this with a tag each.
    return bool(G2ProofOfPossession._CoreVerify(public_key, message, signature, dst))
