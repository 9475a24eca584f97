"""Ed25519 as validators count it: ZIP 215, which takes all that our strict rule takes, and some more.

Keys and R need not be canonical and may be of small order, S < L, and the equation is the one with the
cofactor: 8 S B = 8 R + 8 k A. Chains are decided under this rule, so whoever follows one has to count votes
by it: else a validator could sign what decides a block, and what clients do not count. It takes milliseconds,
and is only asked where the strict rule has refused.
Source: https://zips.z.cash/zip-0215; crypto/ed25519 of CometBFT.
"""

from __future__ import annotations

from hashlib import sha512

from merkledag.ed25519 import EDWARDS_D, FIELD, GROUP_ORDER, PUBLIC_KEY_BYTES, SIGNATURE_BYTES

_ROOT_OF_MINUS_1 = pow(2, (FIELD - 1) // 4, FIELD)
_BASE_Y = 4 * pow(5, -1, FIELD) % FIELD
# x, y, z and x·y/z of a point (x/z, y/z) on −x² + y² = 1 + d·x²·y².
_Point = tuple[int, int, int, int]
_NEUTRAL: _Point = (0, 1, 1, 0)


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether CometBFT takes `signature` as the key's over `message`; never raises on bad input."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    s = int.from_bytes(signature[32:], "little")
    key, nonce = _decoded(public_key), _decoded(signature[:32])
    if s >= GROUP_ORDER or key is None or nonce is None:
        return False
    k = int.from_bytes(sha512(signature[:32] + public_key + message).digest(), "little") % GROUP_ORDER
    rest = _add(_sum_of_two(s, _BASE, k, _negative(key)), _negative(nonce))
    for _ in range(3):
        rest = _add(rest, rest)
    return rest[0] % FIELD == 0 and (rest[1] - rest[2]) % FIELD == 0


def _decoded(encoded: bytes) -> _Point | None:
    """The point of 32 bytes, where y may be p or more, and x = 0 have a sign; None if there is none."""
    bits = int.from_bytes(encoded, "little")
    y, sign = (bits & (1 << 255) - 1) % FIELD, bits >> 255
    x2 = (y * y - 1) * pow(EDWARDS_D * y * y + 1, -1, FIELD) % FIELD
    x = pow(x2, (FIELD + 3) // 8, FIELD)
    if (x * x - x2) % FIELD:
        x = x * _ROOT_OF_MINUS_1 % FIELD
    if (x * x - x2) % FIELD:
        return None
    if x & 1 != sign:
        x = -x % FIELD
    return x, y, 1, x * y % FIELD


def _negative(point: _Point) -> _Point:
    x, y, z, t = point
    return -x, y, z, -t


def _add(one: _Point, other: _Point) -> _Point:
    """Of any two points, also the same one: the formulas for a = −1 hold for all."""
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = other
    a, b = (y1 - x1) * (y2 - x2) % FIELD, (y1 + x1) * (y2 + x2) % FIELD
    c, d = 2 * EDWARDS_D * t1 * t2 % FIELD, 2 * z1 * z2 % FIELD
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % FIELD, g * h % FIELD, f * g % FIELD, e * h % FIELD


def _sum_of_two(m: int, one: _Point, n: int, other: _Point) -> _Point:
    """m · one + n · other, both at once from the highest bit on."""
    both = _add(one, other)
    found = _NEUTRAL
    for bit in range(max(m.bit_length(), n.bit_length()) - 1, -1, -1):
        found = _add(found, found)
        match m >> bit & 1, n >> bit & 1:
            case 1, 1:
                found = _add(found, both)
            case 1, 0:
                found = _add(found, one)
            case 0, 1:
                found = _add(found, other)
    return found


def _base() -> _Point:
    found = _decoded(_BASE_Y.to_bytes(32, "little"))
    assert found is not None, "the base point is one"
    return found


_BASE = _base()
