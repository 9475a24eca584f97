"""KZG commitments to blocks, kept on disk as they are made: multihash → the commitments to its blobs.

A row, under the key of `commitments.py`, is u32be CRC-32 of the rest behind the multihash, u32be length of
the block, and 48 bytes a blob. One that is damaged counts as absent, and is made anew from its block.
"""

from __future__ import annotations

import struct
from zlib import crc32

from proofs.bls.points import G1_BYTES
from proofs.kzg.blob_commitments import BlobCommitments
from storage_node.commitments import key_of
from storage_node.meta import Meta, Table

_HEAD = struct.Struct(">II")
_LENGTH = struct.Struct(">I")


class KzgCommitments:
    """The rows in a meta store. They leave with those of `commitments.Commitments`."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta

    def get(self, multihash: bytes) -> BlobCommitments | None:
        """The row of a block, None if it is not known (or damaged, which amounts to the same)."""
        value = self._meta.get(Table.KZG_COMMITMENTS, key_of(multihash))
        if value is None or len(value) < _HEAD.size:
            return None
        checksum, length = _HEAD.unpack_from(value)
        found = BlobCommitments(length, value[_HEAD.size :])
        if checksum != _checksum(multihash, found) or len(found.commitments) != found.leaves * G1_BYTES:
            return None
        return found

    def put(self, multihash: bytes, row: BlobCommitments) -> None:
        """Keep a row, durably. Raises StoreFull."""
        value = _HEAD.pack(_checksum(multihash, row), row.length) + row.commitments
        self._meta.put(Table.KZG_COMMITMENTS, key_of(multihash), value)


def _checksum(multihash: bytes, row: BlobCommitments) -> int:
    return crc32(row.commitments, crc32(_LENGTH.pack(row.length), crc32(multihash)))
