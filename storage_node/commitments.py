"""Proof rows kept on disk, so that no block is hashed twice for its deals: multihash → BlockCommitment.

A row is u32be CRC-32 of the rest behind the multihash, u32be length, and the roots of the block's 128 KiB
subtrees, from which its proof root follows. One that is damaged counts as absent, and is made anew. So does
that of another block with the same key, which is the end of a multihash: whole ones would be a fifth more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
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

KEY_BYTES = 16
ROWS_PER_TRANSACTION = 1024
# 32 MiB. Keys are hashes: of the rows that `prune` should forget it leaves one in 2²⁸ for each block.
SIEVE_BITS = 1 << 28
ROWS = (Table.COMMITMENTS, Table.KZG_COMMITMENTS)

_NUMBER = struct.Struct(">I")
_HEAD_BYTES = 2 * _NUMBER.size


def key_of(multihash: bytes) -> bytes:
    """What a block's rows, of every kind of proof, are kept under."""
    return multihash[-KEY_BYTES:]


def seal(multihash: bytes, length_bytes: int, rest: bytes) -> bytes:
    """A row of any kind as it is kept: checksum, length of the block, and what its kind of proof needs."""
    rest = _NUMBER.pack(length_bytes) + rest
    return _NUMBER.pack(crc32(rest, crc32(multihash))) + rest


def unseal(multihash: bytes, value: bytes | None) -> tuple[int, bytes] | None:
    """What `seal` was given for this block, None where there is none or it is damaged."""
    if value is None or len(value) < _HEAD_BYTES:
        return None
    rest = memoryview(value)[_NUMBER.size :]
    if _NUMBER.unpack_from(value) != (crc32(rest, crc32(multihash)),):
        return None
    (length,) = _NUMBER.unpack_from(rest)
    return length, value[_HEAD_BYTES:]


def encode(multihash: bytes, row: BlockCommitment) -> bytes:
    """A row as it is kept."""
    return seal(multihash, row.length, row.subtrees)


def decode(multihash: bytes, value: bytes | None) -> BlockCommitment | None:
    """The row that was kept, None where there is none or it is damaged."""
    found = unseal(multihash, value)
    if found is None:
        return None
    length, subtrees = found
    leaves = leaf_count(length)
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
        return decode(multihash, self._meta.get(Table.COMMITMENTS, key_of(multihash)))

    def put_many(self, rows: Mapping[bytes, BlockCommitment]) -> None:
        """Keep rows, durably. Raises StoreFull."""
        self.put_made({multihash: encode(multihash, row) for multihash, row in rows.items()})

    def put_made(self, rows: Mapping[bytes, bytes]) -> None:
        """As `put_many`, of rows that are encoded already."""
        for group in _groups(list(rows)):
            with self._meta.write() as write:
                for multihash in group:
                    write.put(Table.COMMITMENTS, key_of(multihash), rows[multihash])

    def drop_many(self, multihashes: Iterable[bytes]) -> None:
        """Forget rows, of every kind of proof; what a collection reports as freed goes here."""
        self._drop(map(key_of, multihashes), ROWS)

    def drop_hashes(self, multihashes: Iterable[bytes]) -> None:
        """Forget the rows of Merkle proofs alone."""
        self._drop(map(key_of, multihashes), [Table.COMMITMENTS])

    def prune(self, store: Blockstore) -> int:
        """Forget rows whose block is gone, all but very few; returns how many.

        For after a crash in a collection. Keys of another length are an earlier release's.
        """
        present = bytearray(SIEVE_BITS // 8)
        for multihash in store:
            byte, bit = _place(multihash)
            present[byte] |= bit

        def is_gone(key: bytes) -> bool:
            byte, bit = _place(key)
            return len(key) != KEY_BYTES or not present[byte] & bit

        keys = (key for table in ROWS for key, _ in self._meta.items(table))
        gone = dict.fromkeys(filter(is_gone, keys))
        self._drop(gone, ROWS)
        return len(gone)

    def _drop(self, keys: Iterable[bytes], tables: Sequence[Table]) -> None:
        for group in _groups(list(keys)):
            with self._meta.write() as write:
                for key in group:
                    for table in tables:
                        write.delete(table, key)


def _place(key: bytes) -> tuple[int, int]:
    """The byte, and the bit in it, of the sieve that stands for all keys with this end."""
    byte, bit = divmod(int.from_bytes(key[-4:], "big") % SIEVE_BITS, 8)
    return byte, 1 << bit


def _groups(keys: list[bytes]) -> Iterable[list[bytes]]:
    for start in range(0, len(keys), ROWS_PER_TRANSACTION):
        yield keys[start : start + ROWS_PER_TRANSACTION]
