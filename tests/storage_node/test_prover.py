"""What a node keeps for proving may be lost or damaged: it proves all the same, or says what to make anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.genesis import DEMO_PARAMS
from ledger.records import DatasetRecord
from ledger.rules_proofs import challenge_of
from ledger.transactions import PieceCommitment
from merkledag.cid import CID
from proofs import commitment, slot_tree
from proofs.commitment import SUBTREE_BYTES, SumNode
from proofs.errors import BlockChanged, ViewMismatch
from proofs.proof import verify
from storage_node import prover as prover_module
from storage_node import rows as rows_module
from storage_node.blockstore.store import Store
from storage_node.commitments import Commitments
from storage_node.custody import Custody, ShardTerms
from storage_node.duties import ShardKey
from storage_node.errors import BlockLost, PieceLost, UploadRefused
from storage_node.meta import Meta, Table
from storage_node.piece import PieceLayout, piece_tree
from storage_node.piece_file import PieceFile, PieceHead
from storage_node.placement import commitment_of
from storage_node.prover import Prover
from storage_node.rows import ProofRows
from tests.storage_node.blockstore_conformance import block
from tests.storage_node.content import a_store

DATASET = b"dataset".ljust(32)
CONTENT = CID.of(b"content")
LARGE, SMALL = 300_000, 2_000


@dataclass
class House:
    """A node's disk, and the dataset of all pieces that it took."""

    folder: Path
    store: Store
    meta: Meta
    pieces: dict[int, tuple[ShardTerms, PieceLayout]]

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.rows = ProofRows(self.store, Commitments(self.meta))
        self.custody = Custody(self.folder, self.store, self.rows)
        self.custody.load()
        assert self.custody.damaged() == {}
        self.prover = Prover(self.custody, self.store, self.rows)

    def take(self, number: int, sizes: dict[int, int], content: CID = CONTENT) -> ShardTerms:
        """A piece of blocks (seed → size); the first is its metadata."""
        blocks = [block(seed, size) for seed, size in sizes.items()]
        self.store.put_many(blocks)
        names = [name for name, _ in blocks]
        layout = PieceLayout(tuple(names[:1]), tuple(names[1:]))
        lengths = {name: len(data) for name, data in blocks}
        terms = ShardTerms(
            ShardKey(CID.of(b"deal %d" % number), 0), bytes(32), content, content, 1, 1, True,
            piece=self.commitment(layout, lengths), price=1, periods=1,
        )  # fmt: skip
        self.pieces[number] = terms, layout
        self.custody.keep(terms, layout)
        return terms

    def commitment(self, layout: PieceLayout, lengths: dict[bytes, int]) -> PieceCommitment:
        def made(name: bytes) -> commitment.BlockCommitment:
            return commitment.commit_block(self.store.get(name))

        return commitment_of(
            piece_tree(layout.data, made),
            sum(lengths[name] for name in layout.data),
            piece_tree(layout.meta, made),
            sum(lengths[name] for name in layout.meta),
        )

    @property
    def slots(self) -> dict[int, ShardKey]:
        return {slot: terms.key for slot, (terms, _) in self.pieces.items()}

    def record(self, period: int = 0) -> DatasetRecord:
        """As the ledger has it, in an open window."""
        depth = max(0, max(self.pieces)).bit_length()
        data, meta = slot_tree.MemoryNodes(), slot_tree.MemoryNodes()
        for slot, (terms, _) in self.pieces.items():
            slot_tree.set_slot(data, depth, slot, terms.piece.data)
            slot_tree.set_slot(meta, depth, slot, terms.piece.meta)
        data_root, meta_root = slot_tree.root(data, depth), slot_tree.root(meta, depth)
        return DatasetRecord(
            client=bytes(32), provider=bytes(32), challenges=30, terms=0, deposit=0, depth=depth,
            data_root=data_root.hash, data_leaves=data_root.sum,
            meta_root=meta_root.hash, meta_leaves=meta_root.sum,
            period=period, seed=period.to_bytes(32, "big"),
        )  # fmt: skip

    def prove(self, period: int = 0, *, ask: bool = True) -> bytes:
        """Returns a proof that the ledger takes, or raises what is to be mended."""
        record = self.record(period)
        proof = self.prover.answer(DATASET, record, self.slots if ask else None, DEMO_PARAMS)
        verify(challenge_of(record, DEMO_PARAMS), proof)
        return proof

    def prove_often(self, *, ask: bool = True) -> None:
        """Until every leaf was drawn, in all likelihood."""
        for period in range(20):
            self.prove(period, ask=ask)

    def mend(self, lost: PieceLost) -> None:
        """Make a piece's file anew from its blocks."""
        (found,) = (each for each in self.pieces.values() if each[0].key == (lost.deal, lost.shard))
        self.custody.keep(*found)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    store = a_store(tmp_path / "blocks")
    yield House(tmp_path / "pieces", store, Meta(tmp_path / "meta"), {})
    store.close()


@pytest.fixture
def filled(house: House) -> House:
    """Three pieces: large blocks, small ones, and both; not every slot is taken."""
    house.take(0, {1: SMALL, 2: LARGE, 3: LARGE})
    house.take(2, {4: SMALL, **dict.fromkeys(range(10, 40), SMALL)})
    house.take(3, {5: LARGE, 6: LARGE, **dict.fromkeys(range(40, 51), SMALL), 7: 0})
    return house


class Read:
    """What the prover reads of blocks."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lengths: list[int] = []
        real = prover_module._Using.read

        def read(using: prover_module._Using, multihash: bytes, offset: int, length: int) -> bytes:
            self.lengths.append(length)
            return real(using, multihash, offset, length)

        monkeypatch.setattr(prover_module._Using, "read", read)

    def most(self) -> int:
        most = max(self.lengths)
        self.lengths.clear()
        return most


def test_lost_and_damaged_rows_are_made_anew_by_the_proof_that_needs_them(
    filled: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Read(filled, monkeypatch)
    first = filled.prove()
    assert reads.most() <= SUBTREE_BYTES
    kept = dict(filled.meta.items(Table.COMMITMENTS))
    assert len(kept) == 4  # the large blocks'
    for damage in (None, b"", b"junk", bytes(len(next(iter(kept.values()))))):
        for name in kept:
            if damage is None:
                filled.meta.delete(Table.COMMITMENTS, name)
            else:
                filled.meta.put(Table.COMMITMENTS, name, damage)
        assert filled.prove() == first
        assert reads.most() > SUBTREE_BYTES
        assert filled.prove() == first
        assert reads.most() <= SUBTREE_BYTES
        assert dict(filled.meta.items(Table.COMMITMENTS)) == kept


def test_a_proof_needs_no_row_and_no_piece_file_that_cannot_be_made_anew(filled: House) -> None:
    first = filled.prove()
    filled.rows.forget(dict(filled.meta.items(Table.COMMITMENTS)))
    for path in filled.folder.iterdir():
        path.unlink()
    filled.restart()
    for _ in filled.pieces:
        with pytest.raises(PieceLost) as lost:
            filled.prove()
        filled.mend(lost.value)
    assert filled.prove() == first


def test_whatever_byte_of_a_piece_file_changes_no_wrong_proof_leaves_the_node(filled: House) -> None:
    """And where damage shows, the file is made anew from the blocks, byte for byte."""
    first = filled.prove()
    noticed = number = 0
    for path in sorted(filled.folder.glob("*.piece")):
        whole = path.read_bytes()
        for at in range(number := number + 1, len(whole), 151):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
            try:
                assert filled.prove() == first  # the byte is not on the way to what was drawn
                path.write_bytes(whole)
            except PieceLost as lost:
                noticed += 1
                filled.mend(lost)
                assert path.read_bytes() == whole
    assert noticed > 10
    assert filled.prove() == first


def test_lost_and_changed_blocks_are_named(filled: House) -> None:
    large = filled.pieces[0][1].data[0]
    data = filled.store.get(large)
    first = filled.prove()
    filled.store.replace(large, bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(BlockChanged) as damaged:
        filled.prove_often()
    assert damaged.value.multihash == large
    filled.store.delete_many([large])
    with pytest.raises(BlockLost) as lost:
        filled.prove_often()
    assert lost.value.multihash == large
    filled.store.put_many([(large, data)])
    assert filled.prove() == first


def test_rows_that_were_made_of_changed_bytes_do_not_stay(house: House) -> None:
    """Given a block that changed before its row was made, when it is healed, the piece can be kept."""
    terms = house.take(0, {1: SMALL, 2: LARGE})
    large = house.pieces[0][1].data[0]
    data = house.store.get(large)
    house.custody.drop(terms.key)
    house.rows.forget([large])
    house.store.replace(large, bytes(len(data)))
    with pytest.raises(BlockChanged) as damaged:
        house.custody.keep(*house.pieces[0])
    assert damaged.value.multihash == large
    house.store.replace(large, data)
    house.custody.keep(*house.pieces[0])
    house.prove()


def test_a_piece_of_other_blocks_than_the_ledger_has_is_refused(house: House) -> None:
    terms = house.take(0, {1: SMALL, 2: LARGE})
    house.custody.drop(terms.key)
    with pytest.raises(UploadRefused, match="commitment"):
        house.custody.keep(terms, PieceLayout(house.pieces[0][1].meta, house.pieces[0][1].meta))


def test_a_second_deal_for_the_same_content_hashes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of small blocks are in the first deal's piece file, those of large ones in the table."""
    sizes = {1: SMALL, 2: LARGE, **dict.fromkeys(range(10, 20), SMALL)}
    terms = house.take(0, sizes)
    made: list[int] = []

    def counted(data: bytes) -> commitment.BlockCommitment:
        made.append(len(data))
        return commitment.commit_block(data)

    monkeypatch.setattr(rows_module, "commit_block", counted)
    house.take(1, sizes)
    house.restart()
    house.custody.drop(terms.key)
    assert made == []
    del house.pieces[0]
    house.prove()
    assert made == []


def test_a_window_costs_what_is_drawn_not_what_is_held(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files opened and nodes hashed, at 10 and at 80 pieces."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    opened: list[PieceHead] = []
    hashed: list[SumNode] = []
    open_file = PieceHead.open

    def noted_open(head: PieceHead) -> PieceFile:
        opened.append(head)
        return open_file(head)

    def noted_hash(left: SumNode, right: SumNode) -> SumNode:
        hashed.append(left)
        return commitment.sum_node(left, right)

    monkeypatch.setattr(PieceHead, "open", noted_open)
    monkeypatch.setattr(slot_tree, "sum_node", noted_hash)
    house.store.put_many([block(seed, 100) for seed in range(161)])
    for pieces in (10, 80):
        for number in range(len(house.pieces), pieces):
            house.take(number, {0: 100, 2 * number + 1: 100, 2 * number + 2: 100}, CID.of(b"%d" % number))
        record = house.record()
        house.prover.answer(DATASET, record, house.slots, DEMO_PARAMS)  # mirrors it
        next_period = house.record(1)
        assert house.prover.knows(DATASET, next_period)
        opened.clear()
        hashed.clear()
        house.prover.answer(DATASET, next_period, None, DEMO_PARAMS)
        assert 0 < len(opened) <= 30 + 4
        assert hashed == []
    house.take(80, {0: 100, 1001: 100, 1002: 100})
    record = house.record()
    assert not house.prover.knows(DATASET, record)
    with pytest.raises(ViewMismatch):
        house.prover.answer(DATASET, record, None, DEMO_PARAMS)
    hashed.clear()
    house.prover.answer(DATASET, record, house.slots, DEMO_PARAMS)
    assert len(hashed) <= 4 * record.depth  # two trees; one slot changed


def test_mirrors_are_bounded_by_slots(filled: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prover_module, "MAX_MIRRORED_SLOTS", 7)
    record = filled.record()
    for number in range(4):
        filled.prover.answer(bytes([number]) * 32, record, filled.slots, DEMO_PARAMS)
    kept = [filled.prover.knows(bytes([number]) * 32, record) for number in range(4)]
    assert kept == [False, False, True, True]
    filled.prover.answer(bytes([3]) * 32, record, None, DEMO_PARAMS)


def test_a_piece_that_is_let_go_while_it_is_proven(filled: House) -> None:
    terms, _ = filled.pieces[0]
    filled.prove()
    opened = filled.custody.opened(terms.key)
    filled.custody.drop(terms.key)
    assert opened.data.root == terms.piece.data  # what is in use stays until it is not
    with pytest.raises(PieceLost):
        filled.prove_often(ask=False)
