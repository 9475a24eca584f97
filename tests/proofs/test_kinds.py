"""The kinds of proof: units and tags, held against the formulas written out."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from proofs.commitment import PieceRow, PieceTree, piece_leaf, proof_root, unit_hash
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from proofs.merkle_proof import prove, verify
from tests.proofs.datasets import Dataset, Holder, Tree

UNITS = {ProofKind.MERKLE: 1024, ProofKind.KZG: 126_976}
TAGS = {ProofKind.MERKLE: (0, 2, 3), ProofKind.KZG: (5, 6, 7)}


@pytest.mark.parametrize("kind", ProofKind)
def test_blocks_are_cut_into_units(kind: ProofKind) -> None:
    unit = UNITS[kind]
    for length, count in ((0, 1), (1, 1), (unit, 1), (unit + 1, 2), (2**21, -(-(2**21) // unit))):
        assert kind.unit_count(length) == count <= kind.rules.max_units
    assert kind.unit_count(2**21) == kind.rules.max_units


@pytest.mark.parametrize("kind", ProofKind)
def test_trees_of_a_kind_have_its_tags(kind: ProofKind) -> None:
    leaf, root, row_tag = (bytes([tag]) for tag in TAGS[kind])
    top = unit_hash(kind, 7, b"shown")
    assert top == hashlib.sha256(leaf + (7).to_bytes(4, "big") + b"shown").digest()
    proven = proof_root(1000, top, kind)
    assert proven == hashlib.sha256(root + (1000).to_bytes(4, "big") + top).digest()
    row = PieceRow(b"\x12\x20" + bytes(32), 9, proven)
    expected = hashlib.sha256(row_tag + row.multihash + (9).to_bytes(4, "big") + proven).digest()
    assert piece_leaf(row, kind) == PieceTree([row], kind=kind).root == (expected, 9)
    with pytest.raises(ValueError, match="not a row"):
        PieceTree([row._replace(leaves=kind.rules.max_units + 1)], kind=kind)


def test_a_merkle_proof_answers_no_challenge_of_another_kind() -> None:
    holder = Holder()
    tree = Tree(0, {0: [holder.add(b"x" * 5000)]})
    dataset = Dataset(holder, tree, tree)
    challenge = dataset.challenge()
    proof = dataset.prove(challenge)
    other = dataclasses.replace(challenge, kind=ProofKind.KZG)
    with pytest.raises(InvalidProof, match="kzg"):
        verify(other, proof)
    with pytest.raises(ValueError, match="kzg"):
        prove(other, dataset.view, holder.read, holder.subtrees)
