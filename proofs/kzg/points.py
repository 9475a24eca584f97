"""Which 48 bytes may be a point of G1: the one compressed form of each, before any curve arithmetic.

Flags as in draft-irtf-cfrg-pairing-friendly-curves, appendix C: bit 7 compressed, bit 6 infinity, bit 5 the
larger y. Whether x is on the curve and the point in its subgroup is the backends' to say. Backends differ in
what they take beside this form (py_arkworks_bls12381 0.5.0 takes any bytes under the infinity flag), so none
sees bytes that were not looked at here.
"""

from __future__ import annotations

POINT_BYTES = 48
INFINITY = b"\xc0" + bytes(POINT_BYTES - 1)
P = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab", 16
)
_COMPRESSED, _INFINITY, _SIGN = 0x80, 0x40, 0x20


def is_canonical(point: object) -> bool:
    """Whether `point` is 48 bytes of the compressed form: infinity in its one spelling, or x < p."""
    if not isinstance(point, bytes) or len(point) != POINT_BYTES or not point[0] & _COMPRESSED:
        return False
    if point[0] & _INFINITY:
        return point == INFINITY
    return int.from_bytes(bytes([point[0] & ~(_COMPRESSED | _SIGN)]) + point[1:], "big") < P


def compressed(xy: bytes) -> bytes:
    """The compressed form of the point x ‖ y (48 bytes each, big-endian), which is not infinity."""
    y = int.from_bytes(xy[POINT_BYTES:], "big")
    return bytes([xy[0] | _COMPRESSED | (_SIGN if y > P // 2 else 0)]) + xy[1:POINT_BYTES]
