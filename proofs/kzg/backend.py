"""Committing, opening and verifying: what a backend of curve arithmetic offers, and which there are.

Three agree on every byte and every verdict: arkworks (the default), ckzg (commits faster where it can be
imported) and py_ecc (the reference, a minute for a blob). What any of them would take too lightly is refused
here or in `points` before it is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Protocol

from merkledag.multihash import Buffer
from proofs.bls.points import G1_BYTES, is_canonical
from proofs.kzg.blobs import field_elements
from proofs.kzg.field import SCALAR_BYTES, is_scalar
from proofs.kzg.polynomial import divide
from proofs.kzg.setup import Setup
from proofs.tags import BATCH_WEIGHTS


class Opening(NamedTuple):
    """The claim that Σ sᵢ·pᵢ(z) = y for the polynomials behind the commitments, and its proof.

    `commitments` and `proof` are compressed points of G1 (48 bytes), the rest numbers from 0 to r − 1.
    Scalars of 128 bits are summed about twice as fast as those of 255.
    """

    commitments: Sequence[bytes]
    scalars: Sequence[int]
    z: int
    y: int
    proof: bytes


class Backend(Protocol):
    """Commitments on EIP-4844's setup. No input makes verifying raise: what is malformed is just not true."""

    NAME: str

    def commit(self, setup: Setup, blob: Buffer, /) -> bytes:
        """The commitment, 48 bytes, to a blob of up to 126,976 bytes; ValueError for a longer one."""

    def open(self, setup: Setup, values: Sequence[int], z: int, /) -> tuple[int, bytes]:
        """y = p(z) and the proof of it, 48 bytes; ValueError unless 4,096 values and z are below r."""

    def verify(
        self, commitments: Sequence[bytes], scalars: Sequence[int], z: int, y: int, proof: bytes, /
    ) -> bool:
        """Whether e(Σ sᵢ·Cᵢ − y·G1 + z·π, G2) = e(π, τ·G2).

        False where a point is not in its one compressed form, not on the curve or not in the subgroup, a
        number not below r, the lists of unequal length or empty. Infinity is a point as every other.
        """

    def verify_many(self, openings: Sequence[Opening], /) -> bool:
        """Whether every opening holds, which `verify` says of each; True for none at all.

        arkworks and py_ecc: by two pairings over one linear combination, whose weights hash everything, so
        that openings of which one is wrong pass with a probability of 2⁻¹²⁸.
        """


class CurveBackend:
    """What backends share that add points up: they differ in `commit_values` and `hold`."""

    NAME: str

    def commit_values(self, setup: Setup, values: Sequence[int]) -> bytes:
        """Σ vᵢ·Lᵢ, 48 bytes, for the 4,096 values of a polynomial, all below r; 0 costs nothing."""
        raise NotImplementedError

    def hold(self, openings: Sequence[Opening], factors: Sequence[int]) -> bool:
        """Whether e(Σ fₖ·(Σ sᵢ·Cᵢ − y·G1 + z·π)ₖ, G2) = e(Σ fₖ·πₖ, τ·G2), for well-formed openings.

        False where a point is off the curve or off the subgroup.
        """
        raise NotImplementedError

    def commit(self, setup: Setup, blob: Buffer, /) -> bytes:
        return self.commit_values(setup, field_elements(blob))

    def open(self, setup: Setup, values: Sequence[int], z: int, /) -> tuple[int, bytes]:
        y, quotient = divide(values, z)
        return y, self.commit_values(setup, quotient)

    def verify(
        self, commitments: Sequence[bytes], scalars: Sequence[int], z: int, y: int, proof: bytes, /
    ) -> bool:
        opening = Opening(commitments, scalars, z, y, proof)
        return well_formed(opening) and self.hold([opening], [1])

    def verify_many(self, openings: Sequence[Opening], /) -> bool:
        return all(map(well_formed, openings)) and self.hold(openings, weights(openings))


@cache
def backend(name: str | None = None) -> Backend:
    """arkworks where it can be imported, else py_ecc; or the one named (ImportError if missing).

    The third, which needs a file, is `backend_ckzg.CkzgBackend`.
    """
    if name not in (None, "arkworks", "py_ecc"):
        raise ValueError(f"no KZG backend {name!r}; there are arkworks and py_ecc")
    if name != "py_ecc":
        try:
            from proofs.kzg.backend_arkworks import ARKWORKS
        except ImportError:
            if name is not None:
                raise
        else:
            return ARKWORKS
    from proofs.kzg.backend_py_ecc import PY_ECC

    return PY_ECC


def well_formed(opening: Opening) -> bool:
    """Whether an opening may go to curve arithmetic: forms, ranges, lists of one length and not empty."""
    commitments, scalars, z, y, proof = opening
    return (
        0 < len(commitments) == len(scalars)
        and is_scalar(z)
        and is_scalar(y)
        and is_canonical(proof, G1_BYTES)
        and all(map(is_scalar, scalars))
        and all(is_canonical(commitment, G1_BYTES) for commitment in commitments)
    )


def weights(openings: Sequence[Opening]) -> list[int]:
    """One number of 128 bits, not 0, for each well-formed opening, from a hash of all of them.

    Whoever chooses any byte of any opening learns all weights only afterwards.
    """
    hasher = hashlib.sha256(BATCH_WEIGHTS + len(openings).to_bytes(8, "big"))
    for commitments, scalars, z, y, proof in openings:
        hasher.update(len(commitments).to_bytes(8, "big"))
        hasher.update(b"".join(commitments))
        hasher.update(b"".join(number.to_bytes(SCALAR_BYTES, "big") for number in (*scalars, z, y)))
        hasher.update(proof)
    seed = hasher.digest()
    return [
        int.from_bytes(hashlib.sha256(seed + index.to_bytes(8, "big")).digest()[:16], "big") or 1
        for index in range(len(openings))
    ]
