"""Proof rows kept on disk, so that no block is hashed twice for its deals: multihash → BlockCommitment.

A row is u32be CRC-32 of the rest behind the multihash, u32be length, and the roots of the block's 128 KiB
subtrees, from which its proof root follows. One that is damaged counts as absent, and is made anew.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from zlib import crc32

from merkledag.multihash import Buffer
from proofs.commitment import (
    HASH_BYTES,
    SUBTREE_LEAVES,
    BlockCommitment,
    commit_block,
    fold,
    leaf_count,
    proof_root,
)
from storage_node.blockstore.interface import Blockstore
from storage_node.meta import Meta, Table

ROWS_PER_TRANSACTION = 1024
ROWS = (Table.COMMITMENTS, Table.KZG_COMMITMENTS)

_NUMBER = struct.Struct(">I")
_HEAD_BYTES = 2 * _NUMBER.size


def encode(multihash: bytes, row: BlockCommitment) -> bytes:
    """A row as it is kept."""
    rest = _NUMBER.pack(row.length) + row.subtrees
    return _NUMBER.pack(crc32(rest, crc32(multihash))) + rest


def decode(multihash: bytes, value: bytes | None) -> BlockCommitment | None:
    """The row that was kept, None where there is none or it is damaged."""
    if value is None or len(value) < _HEAD_BYTES + HASH_BYTES:
        return None
    rest = memoryview(value)[_NUMBER.size :]
    if _NUMBER.unpack_from(value) != (crc32(rest, crc32(multihash)),):
        return None
    (length,) = _NUMBER.unpack_from(rest)
    subtrees, leaves = value[_HEAD_BYTES:], leaf_count(length)
    if len(subtrees) != -(-leaves // SUBTREE_LEAVES) * HASH_BYTES:
        return None
    top = fold([subtrees[at : at + HASH_BYTES] for at in range(0, len(subtrees), HASH_BYTES)])
    return BlockCommitment(proof_root(length, top), length, leaves, subtrees)


def make(multihash: bytes, data: Buffer) -> bytes:
    """The row of a block's bytes as it is kept."""
    return encode(multihash, commit_block(data))


class Commitments:
    """The cache of block commitments in a meta store; a lost row is computed again from its block."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta

    def get(self, multihash: bytes) -> BlockCommitment | None:
        """The row of a block, None if it is not known (or damaged, which amounts to the same)."""
        return decode(multihash, self._meta.get(Table.COMMITMENTS, multihash))

    def put_many(self, rows: Mapping[bytes, BlockCommitment]) -> None:
        """Keep rows, durably. Raises StoreFull."""
        self.put_made({multihash: encode(multihash, row) for multihash, row in rows.items()})

    def put_made(self, rows: Mapping[bytes, bytes]) -> None:
        """As `put_many`, of rows that are encoded already."""
        for group in _groups(list(rows)):
            with self._meta.write() as write:
                for multihash in group:
                    write.put(Table.COMMITMENTS, multihash, rows[multihash])

    def drop_many(self, multihashes: Iterable[bytes]) -> None:
        """Forget rows, of every kind of proof; what a collection reports as freed goes here."""
        for group in _groups(list(multihashes)):
            with self._meta.write() as write:
                for multihash in group:
                    for table in ROWS:
                        write.delete(table, multihash)

    def drop_hashes(self, multihashes: Iterable[bytes]) -> None:
        """Forget the rows of Merkle proofs alone."""
        for group in _groups(list(multihashes)):
            with self._meta.write() as write:
                for multihash in group:
                    write.delete(Table.COMMITMENTS, multihash)

    def prune(self, store: Blockstore) -> int:
        """Forget rows whose block is gone; returns of how many blocks. For after a crash in a collection."""
        rows = (key for table in ROWS for key, _ in self._meta.items(table))
        gone = list(dict.fromkeys(key for key in rows if not store.has(key)))
        self.drop_many(gone)
        return len(gone)


def _groups(multihashes: list[bytes]) -> Iterable[list[bytes]]:
    for start in range(0, len(multihashes), ROWS_PER_TRANSACTION):
        yield multihashes[start : start + ROWS_PER_TRANSACTION]
