"""Multihashes: naming, making and checking digests (multihash spec, multicodec table)."""

from __future__ import annotations

import hashlib

from merkledag import varint
from merkledag.errors import DecodeError, LimitExceeded, UnsupportedHash

IDENTITY = 0x00
SHA1 = 0x11
SHA2_256 = 0x12
SHA2_512 = 0x13
SHA3_512 = 0x14
SHA3_384 = 0x15
SHA3_256 = 0x16
SHA3_224 = 0x17
BLAKE3 = 0x1E
SHA2_384 = 0x20
DBL_SHA2_256 = 0x56
BLAKE2B_8 = 0xB201  # blake2b-N is BLAKE2B_8 + N/8 − 1, up to blake2b-512
BLAKE2B_256 = 0xB220
BLAKE2B_512 = 0xB240
BLAKE2S_8 = 0xB241  # likewise, up to blake2s-256
BLAKE2S_256 = 0xB260

NAMES = {
    IDENTITY: "identity", SHA1: "sha1", SHA2_256: "sha2-256", SHA2_512: "sha2-512", SHA3_512: "sha3-512",
    SHA3_384: "sha3-384", SHA3_256: "sha3-256", SHA3_224: "sha3-224", BLAKE3: "blake3", SHA2_384: "sha2-384",
    DBL_SHA2_256: "dbl-sha2-256", BLAKE2B_256: "blake2b-256", BLAKE2B_512: "blake2b-512",
    BLAKE2S_256: "blake2s-256",
}  # fmt: skip
MAX_IDENTITY_BYTES = 128
MAX_DIGEST_BYTES = 128
MIN_DIGEST_BYTES = 20  # shorter (truncated) digests prove too little

TYPE_CHECKING = False  # spares the start-up cost of `typing`; type checkers treat the name specially
if TYPE_CHECKING:
    from collections.abc import Callable

    Hasher = Callable[["Buffer", int], bytes]  # (data, digest length in bytes) -> digest

Buffer = bytes | bytearray | memoryview

_SHA2_256_PREFIX = b"\x12\x20"
_sha256 = hashlib.sha256


def name(code: int) -> str:
    """What the multicodec table calls a hash function, else its number."""
    return NAMES.get(code, f"0x{code:x}")


def _fixed(name: str) -> Hasher:
    def run(data: Buffer, length: int) -> bytes:
        return hashlib.new(name, data, usedforsecurity=False).digest()[:length]

    return run


def _double_sha256(data: Buffer, length: int) -> bytes:
    return _sha256(_sha256(data).digest()).digest()[:length]


def _blake3(data: Buffer, length: int) -> bytes:
    from blake3 import blake3  # 10 ms to import, seldom needed

    return blake3(data).digest(length=length)


def _blake2b(size: int) -> Hasher:
    return lambda data, length: hashlib.blake2b(data, digest_size=size).digest()[:length]


def _blake2s(size: int) -> Hasher:
    return lambda data, length: hashlib.blake2s(data, digest_size=size).digest()[:length]


# code -> (default digest length, longest digest length, function)
_TABLE: dict[int, tuple[int, int, Hasher]] = {
    SHA1: (20, 20, _fixed("sha1")),
    SHA2_256: (32, 32, _fixed("sha256")),
    SHA2_384: (48, 48, _fixed("sha384")),
    SHA2_512: (64, 64, _fixed("sha512")),
    SHA3_224: (28, 28, _fixed("sha3_224")),
    SHA3_256: (32, 32, _fixed("sha3_256")),
    SHA3_384: (48, 48, _fixed("sha3_384")),
    SHA3_512: (64, 64, _fixed("sha3_512")),
    DBL_SHA2_256: (32, 32, _double_sha256),
    BLAKE3: (32, MAX_DIGEST_BYTES, _blake3),
}


def _function(code: int) -> tuple[int, int, Hasher]:
    found = _TABLE.get(code)
    if found is not None:
        return found
    if BLAKE2B_8 + MIN_DIGEST_BYTES - 1 <= code <= BLAKE2B_512:
        size = code - BLAKE2B_8 + 1
        return size, size, _blake2b(size)
    if BLAKE2S_8 + MIN_DIGEST_BYTES - 1 <= code <= BLAKE2S_256:
        size = code - BLAKE2S_8 + 1
        return size, size, _blake2s(size)
    raise UnsupportedHash(f"hash function 0x{code:x} is not supported")


def is_supported(code: int) -> bool:
    """Whether blocks under this hash function can be verified here."""
    if code == IDENTITY:
        return True
    try:
        _function(code)
    except UnsupportedHash:
        return False
    return True


def wrap(code: int, digest_bytes: bytes) -> bytes:
    """The multihash of a digest already computed."""
    return varint.encode(code) + varint.encode(len(digest_bytes)) + digest_bytes


def digest(data: Buffer, code: int = SHA2_256) -> bytes:
    """The whole multihash of `data`.

    Raises UnsupportedHash, or LimitExceeded for more than `MAX_IDENTITY_BYTES` under identity.
    """
    if code == SHA2_256:
        return _SHA2_256_PREFIX + _sha256(data).digest()
    if code == IDENTITY:
        if len(data) > MAX_IDENTITY_BYTES:
            raise LimitExceeded(f"identity multihash of {len(data)} bytes; at most {MAX_IDENTITY_BYTES}")
        return wrap(IDENTITY, bytes(data))
    length, _, function = _function(code)
    return wrap(code, function(data, length))


def read(buf: bytes | memoryview, offset: int = 0) -> tuple[int, int, int]:
    """Reads the multihash at `offset`; returns (code, start of the digest, end of the multihash).

    Raises DecodeError if it is cut off, LimitExceeded if the digest is longer than `MAX_DIGEST_BYTES`.
    """
    code, position = varint.decode(buf, offset)
    length, position = varint.decode(buf, position)
    if length > MAX_DIGEST_BYTES:
        raise LimitExceeded(f"multihash digest of {length} bytes; at most {MAX_DIGEST_BYTES}")
    end = position + length
    if end > len(buf):
        raise DecodeError(f"multihash cut off: {length} digest bytes announced, {len(buf) - position} there")
    return code, position, end


def split(multihash: bytes) -> tuple[int, bytes]:
    """(hash function code, digest) of a whole multihash; raises DecodeError or LimitExceeded."""
    if multihash[:2] == _SHA2_256_PREFIX and len(multihash) == 34:
        return SHA2_256, multihash[2:]  # nearly all there are
    code, start, end = read(multihash)
    if end != len(multihash):
        raise DecodeError(f"{len(multihash) - end} bytes after the multihash")
    return code, multihash[start:end]


def verify(multihash: bytes, data: Buffer) -> bool:
    """Whether `data` hashes to `multihash`.

    Truncated digests count down to `MIN_DIGEST_BYTES`; shorter or overlong ones never match. Raises
    UnsupportedHash for unknown functions and DecodeError or LimitExceeded for a malformed multihash.
    """
    if multihash[:2] == _SHA2_256_PREFIX and len(multihash) == 34:
        return _sha256(data).digest() == multihash[2:]
    code, expected = split(multihash)
    if code == IDENTITY:
        return expected == data
    _, longest, function = _function(code)
    if not MIN_DIGEST_BYTES <= len(expected) <= longest:
        return False
    return function(data, len(expected)) == expected
