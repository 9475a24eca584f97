"""The curve BLS12-381 in bytes: its two primes, and the one compressed form of each point.

Flags as in draft-irtf-cfrg-pairing-friendly-curves, appendix C: bit 7 compressed, bit 6 infinity, bit 5 the
larger y. Whether x is on the curve and the point in its subgroup is the backends' to say. Backends differ in
what they take beside this form (py_arkworks_bls12381 0.5.0 takes any bytes under the infinity flag), so none
sees bytes that were not looked at here.
"""

from __future__ import annotations

P = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
R = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001  # the order of the groups
G1_BYTES = 48
G2_BYTES = 96
_COMPRESSED, _INFINITY, _LARGER_Y = 0x80, 0x40, 0x20
G1_INFINITY = bytes([_COMPRESSED | _INFINITY]) + bytes(G1_BYTES - 1)


def is_canonical(point: object, size_bytes: int) -> bool:
    """Whether `point` has the compressed form of a point: of G1 if `size_bytes` is 48, of G2 if it is 96.

    That is infinity in its one spelling, or coordinates below p.
    """
    if not isinstance(point, bytes) or len(point) != size_bytes or not point[0] & _COMPRESSED:
        return False
    if point[0] & _INFINITY:
        return point[0] == _COMPRESSED | _INFINITY and not any(point[1:])
    x = bytes([point[0] & ~(_COMPRESSED | _LARGER_Y)]) + point[1:]
    return all(int.from_bytes(x[at : at + G1_BYTES], "big") < P for at in range(0, size_bytes, G1_BYTES))


def compressed(xy: bytes) -> bytes:
    """The compressed form of the point x ‖ y of G1 (48 bytes each, big-endian), which is not infinity."""
    y = int.from_bytes(xy[G1_BYTES:], "big")
    return bytes([xy[0] | _COMPRESSED | (_LARGER_Y if y > P // 2 else 0)]) + xy[1:G1_BYTES]
