"""Proof rows kept on disk, so that no block is hashed twice for its deals: multihash → BlockCommitment."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from proofs.commitment import HASH_BYTES, BlockCommitment
from storage_node.blockstore.interface import Blockstore
from storage_node.meta import Meta, Table

ROWS_PER_TRANSACTION = 1024

_HEAD = struct.Struct(f">II{HASH_BYTES}s")  # length in bytes, leaves, proof root


class Commitments:
    """The cache of block commitments in a meta store; a lost row is computed again from its block."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta

    def get(self, multihash: bytes) -> BlockCommitment | None:
        """The row of a block, None if it is not known (or unreadable, which amounts to the same)."""
        value = self._meta.get(Table.COMMITMENTS, multihash)
        if value is None or len(value) < _HEAD.size or (len(value) - _HEAD.size) % HASH_BYTES:
            return None
        length, leaves, root = _HEAD.unpack_from(value)
        return BlockCommitment(root=root, length=length, leaves=leaves, subtrees=value[_HEAD.size :])

    def put_many(self, rows: Mapping[bytes, BlockCommitment]) -> None:
        """Keep rows, durably. Raises StoreFull."""
        for group in _groups(list(rows)):
            with self._meta.write() as write:
                for multihash in group:
                    row = rows[multihash]
                    value = _HEAD.pack(row.length, row.leaves, row.root) + row.subtrees
                    write.put(Table.COMMITMENTS, multihash, value)

    def drop_many(self, multihashes: Iterable[bytes]) -> None:
        """Forget rows; what a collection reports as freed goes here."""
        for group in _groups(list(multihashes)):
            with self._meta.write() as write:
                for multihash in group:
                    write.delete(Table.COMMITMENTS, multihash)

    def prune(self, store: Blockstore) -> int:
        """Forget rows whose block is gone; returns how many. For after a crash in a collection."""
        gone = [key for key, _ in self._meta.items(Table.COMMITMENTS) if not store.has(key)]
        self.drop_many(gone)
        return len(gone)


def _groups(multihashes: list[bytes]) -> Iterable[list[bytes]]:
    for start in range(0, len(multihashes), ROWS_PER_TRANSACTION):
        yield multihashes[start : start + ROWS_PER_TRANSACTION]
