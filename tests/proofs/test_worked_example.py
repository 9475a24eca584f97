"""The worked example of docs/proofs.md: each number is what the code makes, and its proofs are accepted."""

from __future__ import annotations

import re
from pathlib import Path

from merkledag import dag_cbor, multihash
from proofs import slot_tree
from proofs.beacon import chain as beacon
from proofs.bls.signatures import BlsSigner
from proofs.challenge import Challenge, period_seed
from proofs.commitment import (
    PieceRow,
    PieceTree,
    inner_hash,
    piece_leaf,
    proof_root,
    unit_hash,
)
from proofs.kinds import ProofKind
from proofs.kzg.backend import backend
from proofs.kzg.blob_commitments import commit_block
from proofs.kzg.polynomial import combine
from proofs.kzg.proof import coefficients, point
from proofs.proof import verify
from tests.proofs.datasets import Dataset, Holder, Tree, simple_says
from tests.proofs.kzg import datasets as kzg_datasets
from tests.proofs.simple_files import next_beacon
from tests.proofs.simple_files import period_seed as simple_seed

PAGE = (Path(__file__).parents[2] / "docs" / "proofs.md").read_text(encoding="utf-8")
SIGNER = BlsSigner.from_seed(bytes(range(32)))
CHAIN, DATASET, NODE, PERIOD = "example", b"\x11" * 32, b"\x22" * 32, 5
A, B = b"Hello, Holdfast!\n", b"a" * 1030
NAMES = [multihash.digest(A), multihash.digest(B)]


def section() -> str:
    found = re.search(r"^## A worked example\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def said() -> dict[str, str]:
    """What the page's lines `name  hex` say; a line of hex alone goes on with the one before."""
    values: dict[str, str] = {}
    name = ""
    for line in section().splitlines():
        if found := re.fullmatch(r"    (\S.*?)  +([0-9a-f]{32,})", line):
            name = found[1]
            values[name] = found[2]
        elif found := re.fullmatch(r" {34}([0-9a-f]+)", line):
            values[name] += found[1]
    return values


def taken() -> bytes:
    """The part of the proof that the page takes apart, `hex  meaning` a line."""
    lines = re.findall(r"^    ((?:[0-9a-f]{2})+)  +\D", section(), re.MULTILINE)
    return bytes.fromhex("".join(lines))


def seed_values() -> tuple[bytes, dict[str, bytes]]:
    signature = SIGNER.sign(beacon.message(CHAIN, 9, bytes(32)))
    value = beacon.verify_step(SIGNER.public_key, CHAIN, 9, bytes(32), signature)
    assert next_beacon(SIGNER.public_key, CHAIN, 9, bytes(32), signature) == value
    seed = period_seed(CHAIN, DATASET, NODE, PERIOD, value)
    assert simple_seed(CHAIN, DATASET, NODE, PERIOD, value) == seed
    return seed, {
        "BLS key of the proposer": SIGNER.public_key,
        "its signature": signature,
        "R(9)": value,
        "seed": seed,
    }


def merkle_dataset() -> Dataset:
    holder = Holder()
    return Dataset(holder, Tree(1, {0: [holder.add(A), holder.add(B)]}), Tree(1, {}))


def merkle_values(proof: bytes) -> dict[str, bytes]:
    leaves = [
        unit_hash(ProofKind.MERKLE, index, data) for index, data in ((0, A), (0, B[:1024]), (1, B[1024:]))
    ]
    top = inner_hash(*leaves[1:])
    rows = [
        PieceRow(NAMES[0], 1, proof_root(17, leaves[0])),
        PieceRow(NAMES[1], 2, proof_root(1030, top)),
    ]
    dataset = merkle_dataset()
    assert list(dataset.data.pieces[0].rows) == rows
    return {
        "multihash of A": NAMES[0],
        "multihash of B": NAMES[1],
        "leaf 0 of A": leaves[0],
        "leaf 0 of B": leaves[1],
        "leaf 1 of B": leaves[2],
        "top of B": top,
        "proof root of A": rows[0].root,
        "proof root of B": rows[1].root,
        "piece leaf of A (sum 1)": piece_leaf(rows[0]).hash,
        "piece leaf of B (sum 2)": piece_leaf(rows[1]).hash,
        "piece (sum 3)": PieceTree(rows).root.hash,
        "root of the data (sum 3)": dataset.data.root.hash,
        "root of the metadata (sum 0)": dataset.meta.root.hash,
        "merkle proof": proof,
    }


def kzg_values(seed: bytes, proof: bytes) -> dict[str, bytes]:
    setup, by = kzg_datasets.setup(), backend()
    blocks = [commit_block(data, setup, by) for data in (A, B)]
    rows = [block.row(name) for block, name in zip(blocks, NAMES, strict=True)]
    scalars = coefficients(seed, 2)
    y, pi = by.open(setup, combine(iter([A, B]), scalars), point(seed))
    return {
        "commitment to A": blocks[0].commitments,
        "commitment to B": blocks[1].commitments,
        "kzg proof root of A": rows[0].root,
        "kzg proof root of B": rows[1].root,
        "kzg root of the data (sum 2)": slot_tree.root(kzg_dataset().data.nodes, 1).hash,
        "z": point(seed).to_bytes(32, "big"),
        "nu 0": scalars[0].to_bytes(16, "big"),
        "nu 1": scalars[1].to_bytes(16, "big"),
        "y": y.to_bytes(32, "big"),
        "pi": pi,
        "kzg proof": proof,
    }


def kzg_dataset() -> kzg_datasets.Dataset:
    holder = kzg_datasets.Holder()
    data = kzg_datasets.Tree(1, {0: [holder.add(A), holder.add(B)]})
    return kzg_datasets.Dataset(holder, data, kzg_datasets.Tree(1, {}))


def merkle_answer(seed: bytes) -> tuple[Challenge, bytes]:
    dataset = merkle_dataset()
    challenge = dataset.challenge(k=1, seed=seed)
    return challenge, dataset.prove(challenge)


def kzg_answer(seed: bytes) -> tuple[Challenge, bytes]:
    dataset = kzg_dataset()
    challenge = dataset.challenge(k=30, meta_k=4, seed=seed)
    return challenge, dataset.prove(challenge)


def computed() -> dict[str, bytes]:
    """All values of the page, made by the code."""
    seed, values = seed_values()
    _, merkle = merkle_answer(seed)
    _, kzg = kzg_answer(seed)
    return merkle_values(merkle) | values | kzg_values(seed, kzg)


def test_every_number_is_what_the_code_makes() -> None:
    assert said() == {name: value.hex() for name, value in computed().items()}


def test_the_proofs_of_the_page_are_accepted() -> None:
    page = said()
    seed = bytes.fromhex(page["seed"])
    challenge, _ = merkle_answer(seed)
    assert challenge.data_leaves() == (2,)
    merkle = bytes.fromhex(page["merkle proof"])
    assert [unit.data for unit in verify(challenge, merkle)] == [b"aaaaaa"]
    assert simple_says(challenge, merkle)
    assert taken() == dag_cbor.decode(merkle)["data"]
    challenge, _ = kzg_answer(seed)
    assert kzg_datasets.both_say(challenge, bytes.fromhex(page["kzg proof"]))
