"""Private keys in the file formats of other programs: libp2p protobuf, PEM (PKCS #8) and hex."""

from __future__ import annotations

from typing import Final

from cli.output import CommandError, ExitCode, invalid, usage

LIBP2P: Final = "libp2p-protobuf-cleartext"
PEM: Final = "pem-pkcs8-cleartext"
HEX: Final = "hex"
FORMATS: Final = (LIBP2P, PEM, HEX)
MAX_FILE_BYTES: Final = 1 << 14
SEED_BYTES: Final = 32
_ED25519_HEAD = b"\x08\x01\x12\x40"  # protobuf PrivateKey{Type: Ed25519, Data: 64 bytes}
_ED25519_OLD_HEAD = b"\x08\x01\x12\x60"  # the same with the public key repeated behind it


def encode(seed: bytes, form: str, *, ed25519: bool) -> bytes:
    """A 32-byte seed in one of `FORMATS`.

    The first two exist for Ed25519 alone. CommandError (exit 2) otherwise.
    """
    if form == HEX:
        return seed.hex().encode() + b"\n"
    if form not in FORMATS:
        raise usage(f"{form!r} is no key format: choose one of {', '.join(FORMATS)}")
    if not ed25519:
        raise usage(f"a BLS key can only be exported with --format {HEX}")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(seed)
    if form == LIBP2P:
        return _ED25519_HEAD + seed + key.public_key().public_bytes_raw()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def decode(data: bytes) -> bytes:
    """The 32-byte seed in a file of any of the formats; CommandError (exit 4) for everything else."""
    if data.startswith(b"-----BEGIN"):
        return _from_pem(data)
    for head, tail_bytes in ((_ED25519_HEAD, 32), (_ED25519_OLD_HEAD, 64)):
        if data.startswith(head) and len(data) == len(head) + SEED_BYTES + tail_bytes:
            return _checked(data[len(head) : len(head) + SEED_BYTES], data[len(head) + SEED_BYTES :])
    try:
        seed = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise invalid("this is no Ed25519 private key in libp2p, PEM (PKCS #8) or hex form")
    return seed


def _checked(seed: bytes, public: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    expected = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    if any(public[i : i + 32] != expected for i in range(0, len(public), 32)):
        raise invalid("the file's public key does not belong to its private key")
    return seed


def _from_pem(data: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise CommandError("the PEM file is encrypted: decrypt it first", ExitCode.INVALID) from None
    except (ValueError, ArithmeticError):
        raise invalid("this is no PEM private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise invalid("the PEM file holds a key of another kind than Ed25519")
    return key.private_bytes_raw()
