"""Secrets under a passphrase: scrypt and ChaCha20-Poly1305, as one JSON object with its parameters.

{"kdf": "scrypt", "n", "r", "p", "salt": HEX, "cipher": "chacha20-poly1305", "nonce": HEX, "text": HEX}
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Final

from cli.output import invalid

# 32 MiB and about 0.1 s; the bounds keep a hostile file from asking for more than 1 GiB.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 15, 8, 1
MAX_SCRYPT_N, MAX_SCRYPT_R, MAX_SCRYPT_P = 1 << 20, 16, 16
KEY_BYTES: Final = 32


def seal(secret: bytes, passphrase: bytes, associated: bytes) -> dict[str, Any]:
    """What to keep of a secret; `associated` is what must be the same when it is opened."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    key = _derive(passphrase, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    return {
        "kdf": "scrypt", "n": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P, "salt": salt.hex(),
        "cipher": "chacha20-poly1305", "nonce": nonce.hex(),
        "text": ChaCha20Poly1305(key).encrypt(nonce, secret, associated).hex(),
    }  # fmt: skip


def unseal(sealed: Any, passphrase: bytes, associated: bytes) -> bytes:
    """The secret.

    Raises KeyError, TypeError or ValueError for a damaged object, CommandError (exit 4) for a wrong phrase.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    if sealed["kdf"] != "scrypt" or sealed["cipher"] != "chacha20-poly1305":
        raise ValueError("unknown way of sealing")
    n, r, p = (sealed[name] for name in "nrp")
    if not all(type(x) is int and x > 0 for x in (n, r, p)):
        raise ValueError("scrypt parameters are no numbers")
    if n > MAX_SCRYPT_N or r > MAX_SCRYPT_R or p > MAX_SCRYPT_P or n * r * p > MAX_SCRYPT_N * 8:
        raise ValueError("scrypt parameters are too large")
    key = _derive(passphrase, bytes.fromhex(sealed["salt"]), n, r, p)
    try:
        return ChaCha20Poly1305(key).decrypt(
            bytes.fromhex(sealed["nonce"]), bytes.fromhex(sealed["text"]), associated
        )
    except InvalidTag:
        raise invalid("the passphrase is wrong, or the file is damaged") from None


def _derive(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        passphrase, salt=salt, n=n, r=r, p=p, maxmem=132 * n * r * p + (1 << 20), dklen=KEY_BYTES
    )
