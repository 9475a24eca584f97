"""Where the Rabin chunker of boxo (github.com/whyrusleeping/chunker) may end a chunk.

The fingerprint of a window is its bytes, as a polynomial over GF(2), modulo an irreducible one of degree
53. It is linear: the fingerprint of a window is the XOR of what each of its 16 bytes gives at its place. So
the low byte of the fingerprint at every position of a block is the XOR of shifted copies of the block, each
translated by a table of 256 bytes, and XOR of large integers does all positions at once. Where that byte is
0, one position in 256, the whole fingerprint is looked at.
"""

from __future__ import annotations

from functools import cache, reduce
from operator import or_, xor

from merkledag.chunker_scan import Marker

WINDOW = 16  # bytes
POLYNOMIAL = 0x3DF305DFB2A805
DEGREE = 53
_DENSE = 64  # with more than one candidate in so many bytes, the other low bytes are computed everywhere too


# One byte of the fingerprint: places in the window and their tables; tables of zeros are left out.
_Plane = tuple[tuple[int, bytes], ...]


@cache
def _shares() -> tuple[tuple[int, ...], ...]:
    """What each byte value adds to the fingerprint, oldest byte of the window first."""
    rows = []
    basis = [1 << bit for bit in range(8)]
    for _ in range(WINDOW):
        rows.append(tuple(reduce(xor, (basis[bit] for bit in range(8) if value >> bit & 1), 0)
                          for value in range(256)))  # fmt: skip
        basis = [_times_x8(term) for term in basis]
    return tuple(reversed(rows))


def _times_x8(term: int) -> int:
    for _ in range(8):
        term <<= 1
        if term >> DEGREE:
            term ^= POLYNOMIAL
    return term


@cache
def _planes(mask: int) -> tuple[_Plane, ...]:
    """The bytes of the fingerprint that `mask` touches, lowest first."""
    planes: list[_Plane] = []
    for shift in range(0, mask.bit_length(), 8):
        rows = (bytes((share & mask) >> shift & 0xFF for share in row) for row in _shares())
        planes.append(tuple((place, table) for place, table in enumerate(rows) if any(table)))
    return tuple(planes)


def marker(avg_bytes: int) -> Marker:
    """Marks where a chunk may end: the lowest log2(avg_bytes) bits of the fingerprint are 0."""
    mask = (1 << avg_bytes.bit_length() - 1) - 1
    first, *others = _planes(mask)
    shares = _shares()

    def mark(block: bytes, count: int) -> bytes | bytearray:
        low = _hashed(block, count, first)
        marks = bytearray(low.to_bytes(count, "little"))
        if not others:
            return marks
        if marks.count(0) > count // _DENSE:  # periodic input: looking at single positions would take long
            return reduce(or_, (_hashed(block, count, plane) for plane in others), low).to_bytes(
                count, "little"
            )
        at = marks.find(0)
        while at >= 0:
            digest = 0
            for row, byte in zip(shares, block[at : at + WINDOW], strict=True):
                digest ^= row[byte]
            marks[at] = digest & mask != 0
            at = marks.find(0, at + 1)
        return marks

    return mark


def _hashed(block: bytes, count: int, plane: _Plane) -> int:
    """One byte of the fingerprint at `count` positions, as the bytes of an integer, first position lowest."""
    total = 0
    for place, table in plane:
        total ^= int.from_bytes(block[place : place + count].translate(table), "little")
    return total
