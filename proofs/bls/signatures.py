"""BLS12-381 signatures for the beacon: minimal-pubkey-size, proof of possession.

Ciphersuite BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_ of draft-irtf-cfrg-bls-signature-05: public keys of
48 bytes in G1, signatures of 96 bytes in G2. Two backends give the same bytes and the same verdict on every
input: arkworks (3 ms, used where it can be imported) and py_ecc (the reference, about 1.5 s). What either
would take too lightly is refused here, before any backend sees it: lengths, flags, points at infinity,
coordinates ≥ p. Many signatures are verified together by one random linear combination (docs/proofs.md,
"Beacon").
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

from proofs import tags
from proofs.bls.points import G1_BYTES, G1_INFINITY, G2_BYTES, R, is_canonical

SEED_BYTES = 32
PUBLIC_KEY_BYTES = G1_BYTES
SIGNATURE_BYTES = G2_BYTES
WEIGHT_BYTES = 16
SIGN_DST = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
POSSESSION_DST = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"


class Backend(Protocol):
    """The curve arithmetic. `statement` may assume that `_well_formed` said yes to both points.

    It gives what `holds` takes: the key, H(message) and the signature as points of their subgroups; None if
    the bytes are no such points. `holds` takes at least one, each with a weight in 1 … r−1 of its own.
    """

    NAME: str

    def public_key(self, secret: int, /) -> bytes: ...

    def sign(self, secret: int, message: bytes, dst: bytes, /) -> bytes: ...

    def statement(self, public_key: bytes, message: bytes, signature: bytes, dst: bytes, /) -> Any | None: ...

    def holds(self, statements: Sequence[Any], weights: Sequence[int], /) -> bool: ...


@cache
def backend(name: str | None = None) -> Backend:
    """arkworks where it can be imported, else py_ecc; or the one named (ImportError if missing)."""
    if name not in (None, "arkworks", "py_ecc"):
        raise ValueError(f"no BLS backend {name!r}; there are arkworks and py_ecc")
    if name != "py_ecc":
        try:
            from proofs.bls import backend_arkworks
        except ImportError:
            if name is not None:
                raise
        else:
            return backend_arkworks
    from proofs.bls import backend_py_ecc

    return backend_py_ecc


class BlsSigner:
    """A secret key with its public key; `repr` shows the public key alone."""

    __slots__ = ("_backend", "_secret", "public_key")

    public_key: bytes

    def __init__(self, secret: int, using: Backend | None = None) -> None:
        """`secret` is a scalar in 1 … r−1; raises ValueError otherwise."""
        if not 0 < secret < R:
            raise ValueError("a BLS secret key is a number from 1 to r - 1")
        self._secret = secret
        self._backend = using or backend()
        self.public_key = self._backend.public_key(secret)

    @staticmethod
    def from_seed(seed: bytes, using: Backend | None = None) -> BlsSigner:
        """The signer of a 32-byte seed (KeyGen of the draft, §2.3, with an empty key_info)."""
        return BlsSigner(secret_from_seed(seed), using)

    def sign(self, message: bytes) -> bytes:
        """The one signature of this key over `message`, 96 bytes."""
        return self._backend.sign(self._secret, message, SIGN_DST)

    def prove_possession(self) -> bytes:
        """The proof, 96 bytes, that this public key has a known secret (PopProve)."""
        return self._backend.sign(self._secret, self.public_key, POSSESSION_DST)

    def __repr__(self) -> str:
        return f"BlsSigner({self.public_key.hex()})"


def secret_from_seed(seed: bytes) -> int:
    """KeyGen (draft §2.3): HKDF-SHA-256 with a salt hashed anew each round, until the scalar is not 0."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a BLS seed of {len(seed)} bytes; {SEED_BYTES} are needed")
    salt = b"BLS-SIG-KEYGEN-SALT-"
    length = 48
    secret = 0
    while secret == 0:
        salt = hashlib.sha256(salt).digest()
        key = hmac.digest(salt, seed + b"\0", "sha256")
        first = hmac.digest(key, length.to_bytes(2, "big") + b"\1", "sha256")
        second = hmac.digest(key, first + length.to_bytes(2, "big") + b"\2", "sha256")
        secret = int.from_bytes((first + second)[:length], "big") % R
    return secret


def verify(public_key: bytes, message: bytes, signature: bytes, *, using: Backend | None = None) -> bool:
    """Whether `signature` is the key's over `message`; False for any other bytes, never an exception.

    A public key counts only after `verify_possession` said yes once.
    """
    return _verify(public_key, message, signature, SIGN_DST, using)


def verify_possession(public_key: bytes, proof: bytes, *, using: Backend | None = None) -> bool:
    """Whether `proof` shows that someone knows the key's secret (PopVerify)."""
    return _verify(public_key, public_key, proof, POSSESSION_DST, using)


class Signed(NamedTuple):
    """A signature, whose it is said to be, and over what."""

    public_key: bytes
    message: bytes
    signature: bytes


def count_valid(signed: Sequence[Signed], *, using: Backend | None = None) -> int:
    """How many come before the first one that `verify` says no to; all of them if there is none.

    One pairing a key and one more, and two fifths of the time of `verify` each; where one is bad, some
    pairings more. A bad one passes with a probability of 2^−128 for each SHA-256 that its maker can afford,
    the weights being hashes of all that is given. Holds the points of all at once: give a few hundred.
    """
    using = using or backend()
    statements = []
    for each in signed:
        found = _statement(*each, SIGN_DST, using)
        if found is None:
            break
        statements.append(found)
    weights = _weights(signed[: len(statements)])

    def hold(first: int, end: int) -> bool:
        return first == end or using.holds(statements[first:end], weights[first:end])

    sound, end = 0, len(statements)
    if hold(sound, end):
        return end
    while end - sound > 1:  # the first bad one is among sound … end − 1
        middle = (sound + end) // 2
        if hold(sound, middle):
            sound = middle
        else:
            end = middle
    return sound


def _weights(signed: Sequence[Signed]) -> list[int]:
    """One number from 1 to 2^128 each, which nobody knows before all that it is derived from is fixed."""
    everything = hashlib.sha256(tags.BLS_BATCH + len(signed).to_bytes(8, "big"))
    for public_key, message, signature in signed:
        everything.update(public_key + signature + len(message).to_bytes(8, "big") + message)
    seed = everything.digest()
    hashes = (
        hashlib.sha256(tags.BLS_WEIGHT + seed + index.to_bytes(8, "big")).digest()
        for index in range(len(signed))
    )
    return [1 + int.from_bytes(each[:WEIGHT_BYTES], "big") for each in hashes]


def _verify(public_key: bytes, message: bytes, signature: bytes, dst: bytes, using: Backend | None) -> bool:
    using = using or backend()
    found = _statement(public_key, message, signature, dst, using)
    return found is not None and using.holds([found], [1])


def _statement(public_key: bytes, message: bytes, signature: bytes, dst: bytes, using: Backend) -> Any | None:
    if not _well_formed(public_key, PUBLIC_KEY_BYTES) or not _well_formed(signature, SIGNATURE_BYTES):
        return None
    return using.statement(public_key, message, signature, dst)


def _well_formed(point: bytes, length: int) -> bool:
    """Whether the bytes may be a point that is not infinity, before any curve arithmetic.

    Infinity is refused as a key by the draft, and as a signature it verifies under no other key.
    """
    return is_canonical(point, length) and point[0] != G1_INFINITY[0]
