"""Public keys as libp2p writes them, for verifying: Ed25519, RSA, ECDSA, secp256k1 (libp2p peer-ids spec)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from merkledag import ed25519, multihash, protobuf
from merkledag.errors import DecodeError, UnsupportedKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MAX_KEY_BYTES = 1_200  # RSA of 8,192 bits takes 1,062
MAX_INLINE_BYTES = 42  # longer keys are named by their SHA-256
MIN_RSA_BITS, MAX_RSA_BITS = 2_048, 8_192
_COMPRESSED_POINT_BYTES = 33
_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})


class KeyKind(IntEnum):
    """The numbers of the protobuf enumeration KeyType."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: 32 bytes for Ed25519, a compressed point for secp256k1, PKIX (DER) for the others."""

    kind: KeyKind
    data: bytes

    def encode(self) -> bytes:
        """The protobuf message PublicKey, which names hash."""
        return protobuf.field(1, self.kind) + protobuf.field(2, self.data)

    def multihash(self) -> bytes:
        """The peer ID: the encoded key itself where it is short, else its SHA-256."""
        encoded = self.encode()
        code = multihash.IDENTITY if len(encoded) <= MAX_INLINE_BYTES else multihash.SHA2_256
        return multihash.digest(encoded, code)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is the key's over `message`.

        Raises UnsupportedKey for a key that cannot verify anything.
        """
        if self.kind is KeyKind.ED25519:
            return ed25519.verify(self.data, signature, message)
        if self.kind is KeyKind.RSA:
            return _verify_rsa(self.data, signature, message)
        return _verify_ecdsa(self, signature, message)


def decode_public_key(encoded: bytes) -> PublicKey:
    """The key in a protobuf message PublicKey.

    Raises UnsupportedKey unless it is of a known kind and encodes again to the same bytes: a name is the
    hash of these bytes, so there is only one form.
    """
    if len(encoded) > MAX_KEY_BYTES:
        raise UnsupportedKey(f"public key of {len(encoded)} bytes; at most {MAX_KEY_BYTES}")
    try:
        number, position = protobuf.read_varint(encoded, 1)
        start, end = protobuf.read_length(encoded, position + 1)
    except DecodeError as error:
        raise UnsupportedKey(f"not a public key: {error}") from error
    if number not in KeyKind.__members__.values():
        raise UnsupportedKey(f"public key of the unknown kind {number}")
    key = PublicKey(KeyKind(number), encoded[start:end])
    if key.encode() != encoded:
        raise UnsupportedKey("not a public key in its one encoding")
    if key.kind is KeyKind.ED25519 and len(key.data) != ed25519.PUBLIC_KEY_BYTES:
        raise UnsupportedKey(f"an Ed25519 public key has 32 bytes, not {len(key.data)}")
    if key.kind is KeyKind.SECP256K1 and len(key.data) != _COMPRESSED_POINT_BYTES:
        raise UnsupportedKey(f"a secp256k1 public key has 33 bytes, not {len(key.data)}")
    return key


def _verify_rsa(data: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        _load_rsa(data).verify(signature, message, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _load_rsa(data: bytes) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    key = _load_pkix(data)
    if not isinstance(key, RSAPublicKey):
        raise UnsupportedKey("a key that is called RSA is of another kind")
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise UnsupportedKey(f"RSA key of {key.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are used")
    return key


def _verify_ecdsa(key: PublicKey, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        _load_curve(key).verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _load_curve(key: PublicKey) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    if key.kind is KeyKind.SECP256K1:
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key.data)
        except ValueError as error:
            raise UnsupportedKey("the secp256k1 key is no point of the curve") from error
    loaded = _load_pkix(key.data)
    if not isinstance(loaded, ec.EllipticCurvePublicKey) or loaded.curve.name not in _CURVES:
        raise UnsupportedKey("a key that is called ECDSA is of another kind or curve")
    return loaded


def _load_pkix(data: bytes) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        return load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnsupportedKey("the key is not in PKIX form") from error
