"""Answers a dataset's challenge from the pieces in custody and the blocks in the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from ledger.genesis import Params
from ledger.records import DatasetRecord
from ledger.rules_proofs import challenge_of
from proofs.challenge import Challenge
from proofs.commitment import PieceTree
from proofs.merkle_proof import prove
from proofs.slot_tree import MemoryNodes, set_slot
from proofs.walk import DatasetView, TreeView
from storage_node.blockstore.interface import Blockstore
from storage_node.custody import Custody
from storage_node.duties import ShardKey
from storage_node.errors import BlockLost, PieceLost
from storage_node.piece_file import PieceFile
from storage_node.rows import ProofRows

MAX_CACHED_VIEWS = 64


class Prover:
    """Makes proofs. Hashes and reads the disk, so call it in a thread; several threads may."""

    def __init__(self, custody: Custody, store: Blockstore, rows: ProofRows) -> None:
        self._custody = custody
        self._store = store
        self._rows = rows
        self._lock = threading.Lock()
        self._views: OrderedDict[tuple[bytes, bytes, int], DatasetView] = OrderedDict()

    def answer(self, record: DatasetRecord, slots: Mapping[int, ShardKey], terms: Params) -> bytes:
        """The proof for the open window of a dataset whose slots hold these shards.

        Raises PieceLost or BlockLost when something that was drawn is not here any more,
        proofs.errors.DamagedBlock for a block whose bytes changed, ViewMismatch when the slots are not those
        of the record.
        """
        return prove(challenge_of(record, terms), self._view(record, slots), self._read, self._subtrees)

    def answer_spot(self, key: ShardKey, challenge: Challenge) -> bytes:
        """The proof for a spot challenge of one piece. Raises as `answer`."""
        piece = self._piece(key)
        view = DatasetView(data=_mirror({0: piece.data}, 0), meta=_mirror({0: piece.meta}, 0))
        return prove(challenge, view, self._read, self._subtrees)

    def _view(self, record: DatasetRecord, slots: Mapping[int, ShardKey]) -> DatasetView:
        """The mirror of the dataset's trees, kept while its roots stay the same."""
        name = (record.data_root, record.meta_root, record.depth)
        with self._lock:
            known = self._views.get(name)
            if known is not None:
                self._views.move_to_end(name)
                return known
        pieces = {slot: self._piece(key) for slot, key in slots.items()}
        view = DatasetView(
            data=_mirror({slot: piece.data for slot, piece in pieces.items()}, record.depth),
            meta=_mirror({slot: piece.meta for slot, piece in pieces.items()}, record.depth),
        )
        with self._lock:
            self._views[name] = view
            while len(self._views) > MAX_CACHED_VIEWS:
                self._views.popitem(last=False)
        return view

    def _piece(self, key: ShardKey) -> PieceFile:
        piece = self._custody.piece(key)
        if piece is None:
            raise PieceLost(key.deal, key.shard)
        return piece

    def _read(self, multihash: bytes, offset: int, length: int) -> bytes:
        found = self._store.find(multihash)
        if found is None:
            raise BlockLost(multihash)
        with found as view:
            return bytes(view[offset : offset + length])

    def _subtrees(self, multihash: bytes) -> bytes | None:
        known = self._rows.find(multihash)
        return None if known is None else known.subtrees


def _mirror(trees: Mapping[int, PieceTree], depth: int) -> TreeView:
    nodes = MemoryNodes()
    for slot, tree in trees.items():
        set_slot(nodes, depth, slot, tree.root)
    return TreeView(nodes, trees.__getitem__)
