"""Small real datasets for the tests of proofs: blocks with bytes, pieces in slots, and what a node keeps."""

from __future__ import annotations

import random
from collections.abc import Set
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from merkledag import dag_cbor, multihash
from merkledag.multihash import Buffer
from proofs import slot_tree
from proofs.challenge import Challenge, period_seed
from proofs.commitment import BlockCommitment, PieceRow, PieceTree, SumNode, commit_block, fold, leaf_hashes
from proofs.merkle_proof import prove, verify
from proofs.walk import DatasetView, TreeView, climb, show
from tests.proofs import simple_verifier

CHAIN, DATASET, NODE, BEACON = "holdfast-test", b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


@dataclass
class Holder:
    """A node's blocks and kept subtree roots, and a record of what is read of them."""

    blocks: dict[bytes, bytes] = field(default_factory=dict)
    commitments: dict[bytes, BlockCommitment] = field(default_factory=dict)
    reads: list[tuple[bytes, int, int]] = field(default_factory=list)
    keeps_subtrees: bool = True
    hashes: dict[tuple[bytes, int, int], bytes] = field(default_factory=dict)

    def add(self, data: bytes) -> PieceRow:
        name = multihash.digest(data)
        self.blocks[name] = data
        commitment = self.commitments.setdefault(name, commit_block(data))
        return PieceRow(name, commitment.leaves, commitment.root)

    def read(self, name: bytes, offset: int, length: int) -> Buffer:
        self.reads.append((name, offset, length))
        return memoryview(self.blocks[name])[offset : offset + length]

    def node(self, name: bytes, start: int, count: int) -> bytes:
        """A node of a block's tree, made once."""
        if (name, start, count) not in self.hashes:
            end = (start + count) * 1024
            self.hashes[name, start, count] = fold(leaf_hashes(self.blocks[name][start * 1024 : end], start))
        return self.hashes[name, start, count]

    def subtrees(self, name: bytes) -> bytes | None:
        return self.commitments[name].subtrees if self.keeps_subtrees else None


class Tree:
    """A slot tree with its pieces."""

    def __init__(self, depth: int, pieces: dict[int, list[PieceRow]]) -> None:
        self.depth = depth
        self.pieces = {slot: PieceTree(rows) for slot, rows in pieces.items()}
        self.nodes = slot_tree.MemoryNodes()
        for slot, piece in self.pieces.items():
            slot_tree.set_slot(self.nodes, depth, slot, piece.root)

    @property
    def root(self) -> SumNode:
        return slot_tree.root(self.nodes, self.depth)

    @property
    def view(self) -> TreeView:
        return TreeView(self.nodes, self.pieces.__getitem__)


class Dataset:
    """Both trees of one dataset and the node that holds it."""

    def __init__(self, holder: Holder, data: Tree, meta: Tree) -> None:
        self.holder = holder
        self.data = data
        self.meta = meta

    def challenge(
        self, k: int = 30, meta_k: int = 4, seed: bytes | None = None, period: int = 7
    ) -> Challenge:
        seed = seed or period_seed(CHAIN, DATASET, NODE, period, BEACON)
        return Challenge(seed, self.data.root, self.data.depth, self.meta.root, self.meta.depth, k, meta_k)

    @property
    def view(self) -> DatasetView:
        return DatasetView(self.data.view, self.meta.view)

    def prove(self, challenge: Challenge) -> bytes:
        return prove(challenge, self.view, self.holder.read, self.holder.subtrees)


def random_dataset(
    rng: random.Random, *, depth: int, pieces: int, rows: int, max_bytes: int, meta_rows: int = 2
) -> Dataset:
    """`pieces` pieces of 1 to `rows` blocks in random slots."""
    holder = Holder()

    def tree(most_rows: int) -> Tree:
        slots = rng.sample(range(1 << depth), pieces)
        return Tree(
            depth,
            {
                slot: [
                    holder.add(rng.randbytes(rng.randint(0, max_bytes)))
                    for _ in range(rng.randint(1, most_rows))
                ]
                for slot in slots
            },
        )

    return Dataset(holder, tree(rows), tree(meta_rows))


class Shown(NamedTuple):
    """What a prover shows of a block; implements `walk.Opened`."""

    shown: list[bytes]
    hashes: list[bytes]
    length: int


def cheat(dataset: Dataset, challenge: Challenge, lost: Set[tuple[bytes, int]]) -> bytes:
    """The proof of a node that kept every hash, but has zeros for the leaves (multihash, index) of `lost`."""

    def open_block(row: PieceRow, drawn: list[int]) -> Shown:
        data = dataset.holder.blocks[row.multihash]
        leaves = {leaf: data[leaf * 1024 : leaf * 1024 + 1024] for leaf in drawn}
        for leaf in drawn:
            if (row.multihash, leaf) in lost:
                leaves[leaf] = bytes(len(leaves[leaf]))
        _, beside = climb(row.leaves, drawn, partial(dataset.holder.node, row.multihash))
        return Shown(list(leaves.values()), beside, len(data))

    return as_proof(*show(challenge, dataset.view, open_block))


def simple_says(challenge: Challenge, proof: bytes) -> bool:
    """The verdict of the second verifier."""
    return simple_verifier.accepts(
        challenge.seed,
        (challenge.data.hash, challenge.data.sum),
        challenge.data_depth,
        (challenge.meta.hash, challenge.meta.sum),
        challenge.meta_depth,
        challenge.k,
        challenge.meta_k,
        proof,
    )


@dataclass
class Taken:
    """A proof as a list of what a verifier takes, [name, bytes] each, to be altered and joined again."""

    data: list[tuple[str, bytes]]
    meta: list[tuple[str, bytes]]

    @classmethod
    def apart(cls, challenge: Challenge, proof: bytes) -> Taken:
        content = dag_cbor.decode(proof)
        data = simple_verifier.check_tree(
            content["data"], *challenge.data, challenge.data_depth, list(challenge.data_leaves())
        )
        meta = simple_verifier.check_tree(
            content["meta"], *challenge.meta, challenge.meta_depth, list(challenge.meta_leaves())
        )
        return cls(data.taken, meta.taken)

    def proof(self) -> bytes:
        return as_proof(*(b"".join(found for _, found in part) for part in (self.data, self.meta)))

    def places(self, what: str) -> list[int]:
        """Where in `data` there are such."""
        return [place for place, (name, _) in enumerate(self.data) if name == what]

    def put(self, place: int, found: bytes) -> None:
        self.data[place] = (self.data[place][0], found)


def as_proof(data: bytes, meta: bytes = b"") -> bytes:
    """A proof of these two parts."""
    return dag_cbor.encode({"data": data, "kind": "merkle", "meta": meta, "version": 2})


def both_say(challenge: Challenge, proof: bytes) -> bool:
    """The verdict of both verifiers, which must be one."""
    from proofs.errors import InvalidProof

    try:
        verify(challenge, proof)
        verdict = True
    except InvalidProof:
        verdict = False
    assert simple_says(challenge, proof) is verdict
    return verdict
