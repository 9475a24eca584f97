"""The setup of the Ethereum ceremony: the points with which one commits and opens; verifying needs none.

Its file, `setup.bin`, has 596,064 bytes: 4,096 points of G1 for the domain's Lagrange polynomials in their
natural order, each x ‖ y of 48 bytes big-endian (read without a square root); 65 powers of τ in G2 and 4,096
in G1, compressed. All are the ceremony's own, checked by tests against its published file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from proofs.bls.points import G1_BYTES, G2_BYTES, compressed
from proofs.errors import DamagedSetup
from proofs.kzg.field import ELEMENTS

G2_POINTS = 65
_XY_BYTES = 2 * G1_BYTES
SETUP_SHA256 = bytes.fromhex("a18a9b6ee84b7897333bb58a7cb17a312abc76a4f5ae73f051ede98e1ba69797")

# τ·G2, compressed: all that a verifier needs of the ceremony.
TAU_G2 = bytes.fromhex(
    "b5bfd7dd8cdeb128843bc287230af38926187075cbfbefa81009a2ce615ac53d2914e5870cb452d2afaaab24f3499f72"
    "185cbfee53492714734429b7b38608e23926c911cceceac9a36851477ba4c60b087041de621000edc98edada20c1def2"
)


class Setup:
    """The points of the ceremony as bytes; a backend keeps its own form of them in `prepared`."""

    __slots__ = ("_data", "prepared")

    def __init__(self, data: bytes) -> None:
        """`data` is the whole of setup.bin; raises DamagedSetup if it is any other bytes."""
        if hashlib.sha256(data).digest() != SETUP_SHA256:
            raise DamagedSetup
        self._data = data
        self.prepared: dict[str, object] = {}  # by a backend's name

    def lagrange(self) -> Iterator[bytes]:
        """The 4,096 points of G1 for the Lagrange polynomials, x ‖ y, in the domain's natural order."""
        return self._points(0, ELEMENTS, _XY_BYTES)

    def powers_g2(self) -> Iterator[bytes]:
        """τ⁰·G2 to τ⁶⁴·G2, compressed, 96 bytes each."""
        return self._points(ELEMENTS * _XY_BYTES, G2_POINTS, G2_BYTES)

    def powers_g1(self) -> Iterator[bytes]:
        """τ⁰·G1 to τ⁴⁰⁹⁵·G1, compressed, 48 bytes each."""
        return self._points(ELEMENTS * _XY_BYTES + G2_POINTS * G2_BYTES, ELEMENTS, G1_BYTES)

    def _points(self, start: int, count: int, size: int) -> Iterator[bytes]:
        for offset in range(start, start + count * size, size):
            yield self._data[offset : offset + size]


def ceremony_text(setup: Setup) -> str:
    """The setup as `trusted_setup.txt` of c-kzg-4844 has it: two counts, then each point in hex on a line."""
    lagrange = (compressed(xy) for xy in setup.lagrange())
    points = (point.hex() for points in (lagrange, setup.powers_g2(), setup.powers_g1()) for point in points)
    return "\n".join([str(ELEMENTS), str(G2_POINTS), *points, ""])
