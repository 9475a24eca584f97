"""A block in a dataset proven by KZG: the commitments to its blobs, and the tree over them."""

from __future__ import annotations

from dataclasses import dataclass

from merkledag.block import MAX_BLOCK_BYTES
from merkledag.multihash import Buffer
from proofs.bls.points import G1_BYTES
from proofs.commitment import PieceRow, fold, proof_root, unit_hash
from proofs.kinds import ProofKind
from proofs.kzg.backend import Backend
from proofs.kzg.blobs import blobs_of
from proofs.kzg.setup import Setup
from proofs.walk import climb


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
        return proof_root(self.length, fold(_hashes(self)), ProofKind.KZG)

    def each(self) -> list[bytes]:
        """One after the other."""
        return [self.commitments[at : at + G1_BYTES] for at in range(0, len(self.commitments), G1_BYTES)]

    def row(self, multihash: bytes) -> PieceRow:
        """The block's row in a piece."""
        return PieceRow(multihash, self.leaves, self.root)


def commit_block(block: Buffer, setup: Setup, using: Backend) -> BlobCommitments:
    """The commitments to a block's blobs: what a node keeps of it. ValueError over `MAX_BLOCK_BYTES`."""
    if len(block) > MAX_BLOCK_BYTES:
        raise ValueError(f"a block of {len(block)} bytes; at most {MAX_BLOCK_BYTES}")
    return BlobCommitments(len(block), b"".join(using.commit(setup, blob) for blob in blobs_of(block)))


class OpenedBlobs:
    """What a proof shows of a block: the commitments to the drawn blobs and the hashes beside their paths.

    `hashes` are in the order in which the verifier takes them; `length` is the block's.
    """

    __slots__ = ("hashes", "length", "shown")

    def __init__(self, block: BlobCommitments, drawn: list[int]) -> None:
        """`drawn` counts in the block, ascending, at least one."""
        commitments, leaves = block.each(), _hashes(block)
        self.length = block.length
        self.shown = [commitments[index] for index in drawn]
        _, self.hashes = climb(block.leaves, drawn, lambda start, count: fold(leaves[start : start + count]))


def _hashes(block: BlobCommitments) -> list[bytes]:
    return [unit_hash(ProofKind.KZG, index, each) for index, each in enumerate(block.each())]
