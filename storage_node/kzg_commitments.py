"""KZG commitments to blocks, kept on disk as they are made: multihash → the commitments to its blobs.

A row is kept as those of `commitments.py` are, under the same key, with 48 bytes a blob. One that is damaged
counts as absent, and is made anew from its block.
"""

from __future__ import annotations

from proofs.bls.points import G1_BYTES
from proofs.kzg.blob_commitments import BlobCommitments
from storage_node.commitments import key_of, seal, unseal
from storage_node.meta import Meta, Table


class KzgCommitments:
    """The rows in a meta store. They leave with those of `commitments.Commitments`."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta

    def get(self, multihash: bytes) -> BlobCommitments | None:
        """The row of a block, None if it is not known (or damaged, which amounts to the same)."""
        kept = unseal(multihash, self._meta.get(Table.KZG_COMMITMENTS, key_of(multihash)))
        if kept is None:
            return None
        found = BlobCommitments(*kept)
        return found if len(found.commitments) == found.leaves * G1_BYTES else None

    def put(self, multihash: bytes, row: BlobCommitments) -> None:
        """Keep a row, durably. Raises StoreFull."""
        value = seal(multihash, row.length, row.commitments)
        self._meta.put(Table.KZG_COMMITMENTS, key_of(multihash), value)
