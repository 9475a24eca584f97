"""Proofs between two people: the commitment written out by hand, the file's one form, and what is refused."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from typing import Any

import pytest

from merkledag import dag_cbor
from merkledag.cid import CID
from proofs.audit import MAX_FILE_BYTES, AuditFile, Content
from proofs.commitment import EMPTY, SumNode
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from tests.proofs import simple_files
from tests.proofs.datasets import Dataset, random_dataset, simple_says

ROOT = CID.of(b"content", codec=0x70)


@pytest.fixture
def dataset() -> Dataset:
    return random_dataset(random.Random(3), depth=0, pieces=1, rows=6, max_bytes=20_000, meta_rows=3)


def answer(dataset: Dataset, k: int, seed: bytes = b"s" * 32) -> AuditFile:
    content = Content(ROOT, ProofKind.MERKLE, dataset.data.root, dataset.meta.root)
    return AuditFile(content, seed, k, dataset.prove(content.challenge(seed, k)))


def test_a_file_is_checked_by_whoever_has_it_alone(dataset: Dataset) -> None:
    file = AuditFile.decode(answer(dataset, 10).encode())
    shown = file.verify()
    assert [unit.data for unit in shown] == [
        bytes(dataset.holder.blocks[unit.multihash][unit.unit * 1024 : (unit.unit + 1) * 1024])
        for unit in shown
    ]
    assert simple_says(file.challenge, file.proof)


def test_the_commitment_is_the_formula_of_the_page() -> None:
    data, meta = SumNode(b"d" * 32, 7), SumNode(b"m" * 32, 2)
    raw = bytes(ROOT)
    what = b"holdfast/audit-commitment/1\0\6merkle" + bytes([len(raw)]) + raw
    what += (7).to_bytes(8, "big") + b"d" * 32 + (2).to_bytes(8, "big") + b"m" * 32
    content = Content(ROOT, ProofKind.MERKLE, data, meta)
    assert content.commitment() == hashlib.sha256(what).digest()
    others = (
        replace(content, cid=CID.of(b"other")),
        replace(content, kind=ProofKind.KZG),
        replace(content, data=meta, meta=data),
        replace(content, data=SumNode(b"d" * 32, 8)),
        replace(content, meta=EMPTY),
    )
    assert len({content.commitment(), *(other.commitment() for other in others)}) == 6


def test_another_seed_number_or_root_is_not_answered(dataset: Dataset) -> None:
    file = answer(dataset, 10)
    content = file.content
    wrong = (
        replace(file, seed=b"t" * 32),
        replace(file, k=9),
        replace(file, k=11),
        replace(file, content=replace(content, data=content.data._replace(sum=content.data.sum + 1))),
        replace(file, content=replace(content, data=content.data._replace(hash=bytes(32)))),
        replace(file, content=replace(content, meta=EMPTY)),
        replace(file, content=replace(content, kind=ProofKind.KZG)),
        replace(file, proof=b""),
    )
    for each in wrong:
        with pytest.raises(InvalidProof):
            each.verify()


def test_every_byte_is_bound_by_commitment_and_seed(dataset: Dataset) -> None:
    good = answer(dataset, 3)
    raw, kept = good.encode(), (good.content.commitment(), good.seed)
    rng = random.Random(4)
    assert holds(raw, kept)
    for at in rng.sample(range(len(raw)), 400):
        changed = bytearray(raw)
        changed[at] ^= 1 << rng.randrange(8)
        assert not holds(bytes(changed), kept), f"byte {at} is free"


def holds(raw: bytes, kept: tuple[bytes, bytes]) -> bool:
    """What a verifier finds that keeps a commitment and a seed; the second one finds the same."""
    try:
        file = AuditFile.decode(raw)
        file.verify()
        found = (file.content.commitment(), file.seed) == kept
    except InvalidProof:
        found = False
    assert simple_files.audit(raw, *kept, k=1) is found
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"k": 0},
        {"k": 513},
        {"k": True},
        {"k": "3"},
        {"seed": b"s" * 31},
        {"seed": "s" * 32},
        {"data": [1]},
        {"data": [-1, b"r" * 32]},
        {"data": [2**63, b"r" * 32]},
        {"data": [1, b"r"]},
        {"meta": {"leaves": 1}},
        {"meta": [0, b"r" * 32]},
        {"data": [0, b"r" * 32], "meta": [0, b"r" * 32]},
        {"of": "other"},
        {"of": ["merkle"]},
        {"cid": "text"},
        {"kind": "holdfast/audit-proof/2"},
        {"proof": 1},
        {"more": 1},
    ],
)
def test_other_fields_are_refused(dataset: Dataset, change: dict[str, Any]) -> None:
    value = dag_cbor.decode(answer(dataset, 3).encode()) | change
    with pytest.raises(InvalidProof):
        AuditFile.decode(dag_cbor.encode(value))


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\x80", b"\x81" * 100_000, bytes(MAX_FILE_BYTES + 1)])
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidProof):
        AuditFile.decode(raw)
