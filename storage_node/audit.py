"""Proofs of content in the local store between two people: its commitment, and the answer to a seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from merkledag.cid import CID
from proofs import merkle_proof
from proofs.audit import AuditFile, Content
from proofs.challenge import Challenge
from proofs.commitment import PieceTree
from proofs.kinds import ProofKind
from proofs.kzg import proof as kzg_proof
from proofs.kzg.backend import backend
from proofs.slot_tree import MemoryNodes, set_slot
from proofs.walk import DatasetView, TreeView
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import BlockLost, IncompleteDag
from storage_node.kzg_rows import KzgRows
from storage_node.piece import piece_tree
from storage_node.rows import ProofRows
from storage_node.survey import survey

# Told of how much there is to commit to, and of what is done: bytes (merkle), or blobs (kzg).
Expect = Callable[[int], None]
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Audited:
    """A content's commitment and the trees below it."""

    content: Content
    view: DatasetView


class Auditor:
    """Commits to content and proves that it is here. Hashes and reads the disk; for one thread."""

    def __init__(self, store: Blockstore, rows: ProofRows, kzg: KzgRows) -> None:
        self._store = store
        self._rows = rows
        self._kzg = kzg

    def commit(self, root: CID, kind: ProofKind, expect: Expect, advance: Advance) -> Audited:
        """Reads what no row is kept of; with KZG that takes a core 0.1 s a blob.

        Raises IncompleteDag, BlockNotFound, DamagedBlock, ValueError.
        """
        found = survey(self._store, root)
        if not found.leaves and not found.interior:
            raise IncompleteDag(f"{root} has no blocks: it holds its bytes itself")
        if kind is ProofKind.KZG:
            asyncio.run(self._kzg.prepare(found.multihashes, _steps(expect, advance)))
            data, meta = (piece_tree(names, self._kzg.row, kind) for names in (found.leaves, found.interior))
        else:
            expect(found.leaf_bytes + sum(found.interior.values()))
            self._rows.ensure(found.multihashes, advance)
            data, meta = (piece_tree(names, self._rows.row) for names in (found.leaves, found.interior))
        return Audited(Content(root, kind, data.root, meta.root), DatasetView(_alone(data), _alone(meta)))

    def prove(self, audited: Audited, seed: bytes, k: int) -> AuditFile:
        """The answer to a seed: `k` leaves of the data that it draws.

        Raises BlockLost, proofs.errors.BlockChanged for a block whose bytes are no longer those committed to,
        ValueError as `Content.challenge`.
        """
        challenge = audited.content.challenge(seed, k)
        return AuditFile(audited.content, seed, k, self._proof(challenge, audited.view))

    def _proof(self, challenge: Challenge, view: DatasetView) -> bytes:
        if challenge.kind is ProofKind.KZG:
            setup = self._kzg.committer.setup()
            return kzg_proof.prove(challenge, view, self._read, self._kzg.row, setup, backend())
        return merkle_proof.prove(challenge, view, self._read, lambda name: self._rows.row(name).subtrees)

    def _read(self, multihash: bytes, offset: int, length: int) -> bytes:
        found = self._store.find(multihash)
        if found is None:
            raise BlockLost(multihash)
        with found as view:
            return bytes(view[offset : offset + length])


def _steps(expect: Expect, advance: Advance) -> Callable[[int, int], None]:
    """What is told of (done, total), for what wants to hear of each step."""
    before = 0

    def told(done: int, total: int) -> None:
        nonlocal before
        expect(total)
        advance(done - before)
        before = done

    return told


def _alone(piece: PieceTree) -> TreeView:
    """A dataset that holds this one piece."""
    nodes = MemoryNodes()
    set_slot(nodes, 0, 0, piece.root)
    return TreeView(nodes, lambda _slot: piece)
