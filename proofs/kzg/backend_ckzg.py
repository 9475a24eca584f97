"""KZG by ckzg (c-kzg-4844), Ethereum's own: the fastest to commit and to open, with an extra dependency.

It reads its setup from a file's path alone and keeps what it makes of it, so that this backend is an object:
whoever may touch files writes `setup.ceremony_text` to one and passes its path. Loading takes 3.8 s of CPU
time and spares 0.03 s a blob (`bench/kzg.py`), so it pays after some 130. Its binding adds no points: sums
over several commitments are arkworks'.
"""

from __future__ import annotations

from collections.abc import Sequence

import ckzg

from merkledag.multihash import Buffer
from proofs.kzg.backend import Opening, well_formed
from proofs.kzg.backend_arkworks import combine
from proofs.kzg.blobs import eip4844_blob
from proofs.kzg.field import SCALAR_BYTES
from proofs.kzg.polynomial import check_opened
from proofs.kzg.setup import Setup


class CkzgBackend:
    """ckzg with its setup loaded; not to be passed to another process."""

    NAME = "ckzg"

    def __init__(self, ceremony_path: str) -> None:
        """`ceremony_path` is of a file with `setup.ceremony_text`; raises RuntimeError if ckzg refuses it."""
        self._settings = ckzg.load_trusted_setup(ceremony_path, 0)

    def commit(self, setup: Setup, blob: Buffer, /) -> bytes:
        """The commitment, 48 bytes, to a blob of up to 126,976 bytes; ValueError for a longer one."""
        return bytes(ckzg.blob_to_kzg_commitment(eip4844_blob(blob), self._settings))

    def open(self, setup: Setup, values: Sequence[int], z: int, /) -> tuple[int, bytes]:
        """y = p(z) and the proof of it, 48 bytes."""
        check_opened(values, z)
        blob = b"".join(map(_scalar, values))
        proof, y = ckzg.compute_kzg_proof(blob, _scalar(z), self._settings)
        return int.from_bytes(y, "big"), bytes(proof)

    def verify(
        self, commitments: Sequence[bytes], scalars: Sequence[int], z: int, y: int, proof: bytes, /
    ) -> bool:
        """Whether e(Σ sᵢ·Cᵢ − y·G1 + z·π, G2) = e(π, τ·G2)."""
        if not well_formed(Opening(commitments, scalars, z, y, proof)):
            return False
        try:
            total = combine(commitments, scalars)
            return bool(ckzg.verify_kzg_proof(total, _scalar(z), _scalar(y), proof, self._settings))
        except (ValueError, RuntimeError):  # arkworks, ckzg: off the curve, or off the subgroup
            return False

    def verify_many(self, openings: Sequence[Opening], /) -> bool:
        """Whether every opening holds, one after the other."""
        return all(self.verify(*opening) for opening in openings)


def _scalar(value: int) -> bytes:
    return value.to_bytes(SCALAR_BYTES, "big")
