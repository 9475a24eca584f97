"""KZG commitments to blocks, kept on disk as they are made: multihash → the commitments to its blobs.

A row is u32be CRC-32 of the rest behind the multihash, u32be length of the block, and 48 bytes a blob. One
that is damaged counts as absent, and is made anew from its block.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from zlib import crc32

from proofs.commitment import fold, proof_root, unit_hash
from proofs.kinds import ProofKind
from storage_node.meta import Meta, Table

POINT_BYTES = ProofKind.KZG.rules.commitment_bytes
_HEAD = struct.Struct(">II")
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class BlobCommitments:
    """The commitments to a block's blobs in order, 48 bytes each; `length` is the block's, in bytes."""

    length: int
    commitments: bytes

    @property
    def leaves(self) -> int:
        """How many blobs."""
        return ProofKind.KZG.unit_count(self.length)

    @property
    def root(self) -> bytes:
        """The root of the tree over them, which stands for the block in its piece's tree."""
        return proof_root(
            self.length,
            fold([unit_hash(ProofKind.KZG, index, each) for index, each in enumerate(self.each())]),
            ProofKind.KZG,
        )

    def each(self) -> list[bytes]:
        """One after the other."""
        return [
            self.commitments[at : at + POINT_BYTES] for at in range(0, len(self.commitments), POINT_BYTES)
        ]


class KzgCommitments:
    """The rows in a meta store. They leave with those of `commitments.Commitments`."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta

    def get(self, multihash: bytes) -> BlobCommitments | None:
        """The row of a block, None if it is not known (or damaged, which amounts to the same)."""
        value = self._meta.get(Table.KZG_COMMITMENTS, multihash)
        if value is None or len(value) < _HEAD.size:
            return None
        checksum, length = _HEAD.unpack_from(value)
        found = BlobCommitments(length, value[_HEAD.size :])
        if checksum != _checksum(multihash, found) or len(found.commitments) != found.leaves * POINT_BYTES:
            return None
        return found

    def put(self, multihash: bytes, row: BlobCommitments) -> None:
        """Keep a row, durably. Raises StoreFull."""
        value = _HEAD.pack(_checksum(multihash, row), row.length) + row.commitments
        self._meta.put(Table.KZG_COMMITMENTS, multihash, value)


def _checksum(multihash: bytes, row: BlobCommitments) -> int:
    return crc32(row.commitments, crc32(_LENGTH.pack(row.length), crc32(multihash)))
