"""The prover's part inside one block: the drawn leaves and the hashes beside their paths."""

from __future__ import annotations

from collections.abc import Callable

from merkledag.multihash import Buffer
from proofs.commitment import (
    HASH_BYTES,
    LEAF_BYTES,
    SUBTREE_BYTES,
    SUBTREE_LEAVES,
    PieceRow,
    fold,
    leaf_count,
    leaf_hashes,
    proof_root,
)
from proofs.errors import BlockChanged
from proofs.walk import climb


class OpenedBlock:
    """`shown` are the drawn leaves' bytes, `hashes` what the verifier cannot compute (`walk.climb`).

    Where the block's subtree roots are kept, only the drawn subtrees are read and hashed, and its last leaf
    for the length; where they are missing or do not fit, the whole block. Raises BlockChanged if the bytes do
    not hash to the row's proof root.
    """

    __slots__ = ("hashes", "length", "shown")

    hashes: list[bytes]
    shown: list[bytes]
    length: int

    def __init__(
        self,
        row: PieceRow,
        drawn: list[int],
        read: Callable[[bytes, int, int], Buffer],
        subtrees: Callable[[bytes], bytes | None],
    ) -> None:
        kept = subtrees(row.multihash) if row.leaves > SUBTREE_LEAVES else None
        if kept is not None and self._open(_Leaves.some(row, drawn, read, kept), row, drawn):
            return
        if not self._open(_Leaves.all(row, read), row, drawn):
            raise BlockChanged(row.multihash)

    def _open(self, leaves: _Leaves | None, row: PieceRow, drawn: list[int]) -> bool:
        if leaves is None:
            return False
        self.length = leaves.length
        top, self.hashes = climb(row.leaves, drawn, leaves.hash_of)
        self.shown = [leaves.data(leaf) for leaf in drawn]
        return proof_root(self.length, top) == row.root


class _Leaves:
    """A block's subtree roots, and the bytes and leaf hashes of some of its subtrees."""

    __slots__ = ("buffers", "hashes", "length", "roots")

    def __init__(self, length: int, buffers: dict[int, Buffer], roots: list[bytes]) -> None:
        self.length = length
        self.buffers = buffers
        self.roots = roots
        self.hashes = {
            subtree: leaf_hashes(data, subtree * SUBTREE_LEAVES) for subtree, data in buffers.items()
        }

    @classmethod
    def some(
        cls, row: PieceRow, drawn: list[int], read: Callable[[bytes, int, int], Buffer], kept: bytes
    ) -> _Leaves | None:
        """The drawn subtrees; None if `kept` cannot be this block's subtree roots or bytes are missing."""
        last = (row.leaves - 1) // SUBTREE_LEAVES
        if len(kept) != (last + 1) * HASH_BYTES:
            return None
        buffers: dict[int, Buffer] = {}
        for subtree in sorted({leaf // SUBTREE_LEAVES for leaf in drawn}):
            buffers[subtree] = read(row.multihash, subtree * SUBTREE_BYTES, SUBTREE_BYTES)
            if subtree != last and len(buffers[subtree]) != SUBTREE_BYTES:
                return None
        if last in buffers:
            length = last * SUBTREE_BYTES + len(buffers[last])
        else:
            before = (row.leaves - 1) * LEAF_BYTES
            length = before + len(read(row.multihash, before, LEAF_BYTES))
        if leaf_count(length) != row.leaves:
            return None
        return cls(length, buffers, [kept[i : i + HASH_BYTES] for i in range(0, len(kept), HASH_BYTES)])

    @classmethod
    def all(cls, row: PieceRow, read: Callable[[bytes, int, int], Buffer]) -> _Leaves | None:
        """The whole block; None if it has not the row's number of leaves."""
        data = memoryview(read(row.multihash, 0, row.leaves * LEAF_BYTES))
        if leaf_count(len(data)) != row.leaves:
            return None
        buffers: dict[int, Buffer] = {
            subtree: data[subtree * SUBTREE_BYTES : (subtree + 1) * SUBTREE_BYTES]
            for subtree in range((row.leaves - 1) // SUBTREE_LEAVES + 1)
        }
        leaves = cls(len(data), buffers, [])
        leaves.roots = [fold(leaves.hashes[subtree]) for subtree in buffers]
        return leaves

    def hash_of(self, start: int, count: int) -> bytes:
        """The node above `count` leaves: inside one opened subtree, or made of whole subtrees."""
        subtree, offset = divmod(start, SUBTREE_LEAVES)
        if count < SUBTREE_LEAVES and subtree in self.hashes:
            return fold(self.hashes[subtree][offset : offset + count])
        return fold(self.roots[subtree : subtree + -(-count // SUBTREE_LEAVES)])

    def data(self, leaf: int) -> bytes:
        """A drawn leaf's bytes."""
        subtree, offset = divmod(leaf, SUBTREE_LEAVES)
        return bytes(self.buffers[subtree][offset * LEAF_BYTES : (offset + 1) * LEAF_BYTES])
