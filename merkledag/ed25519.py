"""Ed25519 signatures with one strict verdict for every verifier (RFC 8032, cofactorless)."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_BYTES = 32
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
MAX_REMEMBERED_KEYS = 16_384

FIELD = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
_Y_MASK = 2**255 - 1
EDWARDS_D = -121665 * pow(121666, -1, FIELD) % FIELD
# The y coordinates of all eight points whose order divides 8; no other point has one of them.
_ORDER_8_Y = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER_Y = frozenset({0, 1, FIELD - 1, _ORDER_8_Y, FIELD - _ORDER_8_Y})


class Signer(Protocol):
    """Whoever can sign for one Ed25519 key."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""


class Ed25519Signer:
    """A signer with its private key in memory."""

    __slots__ = ("_key", "_public_key")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public_key = key.public_key().public_bytes_raw()

    @classmethod
    def from_seed(cls, seed: bytes) -> Ed25519Signer:
        """From the 32-byte private seed; ValueError for another length."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"an Ed25519 seed has {SEED_BYTES} bytes, not {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def public_key(self) -> bytes:
        return self._public_key

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def _is_usable_point(encoded: bytes) -> bool:
    """Canonical (y < p) and not of small order; whether it is on the curve is left to the library."""
    y = int.from_bytes(encoded, "little") & _Y_MASK
    return y < FIELD and y not in _SMALL_ORDER_Y


@lru_cache(MAX_REMEMBERED_KEYS)
def is_usable_key(public_key: bytes) -> bool:
    """Whether `public_key` can ever verify a signature: canonical, on the curve, not of small order."""
    if len(public_key) != PUBLIC_KEY_BYTES or not _is_usable_point(public_key):
        return False
    y2 = pow(int.from_bytes(public_key, "little") & _Y_MASK, 2, FIELD)
    # x² = (y² − 1) / (d·y² + 1), and a quotient is a square where the product is.
    return pow((y2 - 1) * (EDWARDS_D * y2 + 1), (FIELD - 1) // 2, FIELD) == 1


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is the key's over `message`; never raises on bad input.

    Refused first, because common libraries differ on them: a key or R that is not canonical or of small
    order, and S ≥ L (malleable).
    """
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    if not _is_usable_point(public_key) or not _is_usable_point(signature[:32]):
        return False
    if int.from_bytes(signature[32:], "little") >= GROUP_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
