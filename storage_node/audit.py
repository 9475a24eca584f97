"""Proofs of content in the local store between two people: its commitment, and the answer to a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from merkledag.cid import CID
from proofs.audit import AuditFile, Content
from proofs.commitment import PieceTree
from proofs.kinds import ProofKind
from proofs.merkle_proof import prove
from proofs.slot_tree import MemoryNodes, set_slot
from proofs.walk import DatasetView, TreeView
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import BlockLost, IncompleteDag
from storage_node.piece import piece_tree
from storage_node.rows import ProofRows
from storage_node.survey import survey

# Told of bytes that were committed to, and first of how many there are.
Expect = Callable[[int], None]
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Audited:
    """A content's commitment and the trees below it."""

    content: Content
    view: DatasetView


class Auditor:
    """Commits to content and proves that it is here. Hashes and reads the disk; for one thread."""

    def __init__(self, store: Blockstore, rows: ProofRows) -> None:
        self._store = store
        self._rows = rows

    def commit(self, root: CID, expect: Expect, advance: Advance) -> Audited:
        """Reads what no row is kept of. Raises IncompleteDag, BlockNotFound, DamagedBlock, ValueError."""
        found = survey(self._store, root)
        if not found.leaves and not found.interior:
            raise IncompleteDag(f"{root} has no blocks: it holds its bytes itself")
        expect(sum(found.leaves.values()) + sum(found.interior.values()))
        self._rows.ensure(found.multihashes, advance)
        data = piece_tree(found.leaves, self._rows.row)
        meta = piece_tree(found.interior, self._rows.row)
        content = Content(root, ProofKind.MERKLE, data.root, meta.root)
        return Audited(content, DatasetView(_alone(data), _alone(meta)))

    def prove(self, audited: Audited, seed: bytes, k: int) -> AuditFile:
        """The answer to a seed: `k` leaves of the data that it draws.

        Raises BlockLost, proofs.errors.DamagedBlock for a block whose bytes are no longer those committed to,
        ValueError as `Content.challenge`.
        """
        challenge = audited.content.challenge(seed, k)
        proof = prove(challenge, audited.view, self._read, lambda name: self._rows.row(name).subtrees)
        return AuditFile(audited.content, seed, k, proof)

    def _read(self, multihash: bytes, offset: int, length: int) -> bytes:
        found = self._store.find(multihash)
        if found is None:
            raise BlockLost(multihash)
        with found as view:
            return bytes(view[offset : offset + length])


def _alone(piece: PieceTree) -> TreeView:
    """A dataset that holds this one piece."""
    nodes = MemoryNodes()
    set_slot(nodes, 0, 0, piece.root)
    return TreeView(nodes, lambda _slot: piece)
