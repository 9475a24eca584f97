"""The default proof of a period: the drawn leaves and their Merkle paths, made and checked.

Format: docs/proofs.md, "Merkle proof".
"""

from __future__ import annotations

from collections.abc import Callable

from merkledag import dag_cbor
from merkledag.multihash import Buffer
from proofs import walk
from proofs.challenge import Challenge
from proofs.commitment import PieceRow
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from proofs.opened_block import OpenedBlock
from proofs.walk import DatasetView, ShownUnit

VERSION = 2
_KEYS = frozenset({"data", "kind", "meta", "version"})

Read = Callable[[bytes, int, int], Buffer]
Subtrees = Callable[[bytes], bytes | None]


def prove(challenge: Challenge, view: DatasetView, read: Read, subtrees: Subtrees) -> bytes:
    """The proof that answers `challenge`.

    `read(multihash, offset, length)` returns a block's bytes from `offset`, fewer than `length` only where
    the block ends; what it raises passes through. `subtrees(multihash)` returns the block's
    `BlockCommitment.subtrees`, or None if they are not kept: then the whole block is read, else only the
    drawn 128 KiB. Raises ViewMismatch if `view` is not what was challenged, BlockChanged if a block's bytes
    have changed, ValueError if the challenge is for another kind.
    """
    if challenge.kind is not ProofKind.MERKLE:
        raise ValueError(f"a challenge for a proof of kind {challenge.kind.value!r}")

    def open_block(row: PieceRow, drawn: list[int]) -> OpenedBlock:
        return OpenedBlock(row, drawn, read, subtrees)

    data, meta = walk.show(challenge, view, open_block)
    return dag_cbor.encode({"data": data, "kind": challenge.kind.value, "meta": meta, "version": VERSION})


def verify(challenge: Challenge, proof: bytes) -> list[ShownUnit]:
    """The leaves that the proof shows, if it answers `challenge`: those of the data tree first.

    Else raises InvalidProof; never anything else, for any bytes. The work is bounded by the challenge:
    O(k · depth) hashes, and nothing for bytes that are too long.
    """
    if challenge.kind is not ProofKind.MERKLE:
        raise InvalidProof(f"a {challenge.kind.value} proof is asked for")
    content = walk.open_envelope(challenge, proof, VERSION, _KEYS)
    return walk.check(challenge, content["data"], content["meta"])
