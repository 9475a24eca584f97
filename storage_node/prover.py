"""Answers a dataset's challenge from the pieces in custody and the blocks in the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from ledger.genesis import Params
from ledger.records import DatasetRecord
from ledger.rules_proofs import challenge_of
from proofs import merkle_proof
from proofs.challenge import Challenge
from proofs.commitment import SUBTREE_BYTES, PieceTree
from proofs.errors import ViewMismatch
from proofs.kinds import ProofKind
from proofs.kzg import proof as kzg_proof
from proofs.kzg.backend import backend
from proofs.kzg.blob_commitments import BlobCommitments
from proofs.walk import DatasetView, TreeView
from storage_node.blockstore.interface import Blockstore
from storage_node.custody import Custody
from storage_node.duties import ShardKey
from storage_node.errors import BlockLost, BlockNotFound, DamagedBlock, PieceLost
from storage_node.kzg_rows import KzgRows
from storage_node.mirror import Mirror, mirror
from storage_node.piece_file import PieceFile
from storage_node.rows import ProofRows

# Slots of all mirrors that are kept, with what belongs to them some 25 MB; a larger one is kept alone.
MAX_MIRRORED_SLOTS = 1 << 16


class Prover:
    """Makes proofs. Hashes and reads the disk, so call it in a thread; several threads may.

    Of a dataset of any size it keeps 80 bytes a slot and tree, opens the files of the pieces that were drawn,
    and reads of each drawn block at most 128 KiB and its last leaf.
    """

    def __init__(
        self, custody: Custody, store: Blockstore, rows: ProofRows, kzg: KzgRows | None = None
    ) -> None:
        """Without ``kzg``, nothing is proven by KZG."""
        self._custody = custody
        self._store = store
        self._rows = rows
        self._kzg = kzg
        self._lock = threading.Lock()
        self._mirrors: OrderedDict[bytes, Mirror] = OrderedDict()

    def knows(self, dataset: bytes, record: DatasetRecord) -> bool:
        """Whether `answer` can do without the slots, as the dataset is what it was."""
        with self._lock:
            known = self._mirrors.get(dataset)
        return known is not None and known.is_of(record)

    def answer(
        self, dataset: bytes, record: DatasetRecord, slots: Mapping[int, ShardKey] | None, terms: Params
    ) -> bytes:
        """The proof for the open window of a dataset whose slots hold these shards (None: see `knows`).

        Raises PieceLost or BlockLost when something that was drawn is not here any more or damaged,
        proofs.errors.BlockChanged for a block whose bytes changed, ViewMismatch when the slots are not those
        of the record.
        """
        return self._proof(challenge_of(record, terms), self._mirror(dataset, record, slots))

    def answer_spot(self, key: ShardKey, challenge: Challenge) -> bytes:
        """The proof for a spot challenge of one piece. Raises as `answer`."""
        return self._proof(challenge, mirror(0, {0: key}, self._custody.roots))

    def _mirror(self, dataset: bytes, record: DatasetRecord, slots: Mapping[int, ShardKey] | None) -> Mirror:
        with self._lock:
            known = self._mirrors.get(dataset)
        if known is None or not known.is_of(record):
            if slots is None:
                raise ViewMismatch("the dataset has changed; read its slots from the ledger again")
            known = mirror(record.depth, slots, self._custody.roots, known)
        with self._lock:
            self._mirrors[dataset] = known
            self._mirrors.move_to_end(dataset)
            while len(self._mirrors) > 1 and self._mirrored_slots() > MAX_MIRRORED_SLOTS:
                self._mirrors.popitem(last=False)
        return known

    def _mirrored_slots(self) -> int:
        return sum(len(each.slots) for each in self._mirrors.values())

    def _proof(self, challenge: Challenge, known: Mirror) -> bytes:
        """A proof that has been verified: a wrong one would cost its fee, and the time to make another."""
        using = _Using(known.slots, self._custody, self._store)
        view = DatasetView(
            data=TreeView(known.data, using.data_tree), meta=TreeView(known.meta, using.meta_tree)
        )
        try:
            return self._prove(challenge, view, using)
        except PieceLost:
            raise
        except Exception:
            # Damage in a piece's file may look like anything else, a lost block for instance.
            for key in using.opened:
                self._custody.checked(key)
            raise

    def _prove(self, challenge: Challenge, view: DatasetView, using: _Using) -> bytes:
        if challenge.kind is ProofKind.KZG:  # it is verified where it is made
            kzg = self._kzg
            assert kzg is not None, "nothing is held that could not be proven"
            return kzg_proof.prove(challenge, view, using.read, self._blobs, kzg.committer.setup(), backend())
        proof = merkle_proof.prove(challenge, view, using.read, self._subtrees)
        merkle_proof.verify(challenge, proof)
        for multihash in using.read_whole:
            self._rows.renew(multihash)  # its row was lost or damaged: next time a part is enough
        return proof

    def _blobs(self, multihash: bytes) -> BlobCommitments:
        """What is kept of a block that is proven by KZG; made anew where that is lost."""
        assert self._kzg is not None, "nothing is held that could not be proven"
        try:
            return self._kzg.row(multihash)
        except (BlockNotFound, DamagedBlock) as error:
            raise BlockLost(multihash) from error

    def _subtrees(self, multihash: bytes) -> bytes | None:
        known = self._rows.find(multihash)
        return None if known is None else known.subtrees


@dataclass(slots=True)
class _Using:
    """What making one proof reads; notes the opened pieces, and the large blocks that were read whole."""

    slots: Mapping[int, ShardKey]
    custody: Custody
    store: Blockstore
    opened: set[ShardKey] = field(default_factory=set)
    read_whole: set[bytes] = field(default_factory=set)

    def data_tree(self, slot: int) -> PieceTree:
        return self._piece(slot).data

    def meta_tree(self, slot: int) -> PieceTree:
        return self._piece(slot).meta

    def _piece(self, slot: int) -> PieceFile:
        self.opened.add(self.slots[slot])
        return self.custody.opened(self.slots[slot])

    def read(self, multihash: bytes, offset: int, length: int) -> bytes:
        try:
            found = self.store.find(multihash)
        except DamagedBlock as error:
            raise BlockLost(multihash) from error
        if found is None:
            raise BlockLost(multihash)
        if length > SUBTREE_BYTES:
            self.read_whole.add(multihash)
        with found as view:
            return bytes(view[offset : offset + length])
