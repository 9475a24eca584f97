"""Small real datasets that are proven by KZG: blocks of mostly zeros, whose commitments cost little."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import proofs.kzg
from merkledag import multihash
from merkledag.multihash import Buffer
from proofs import slot_tree
from proofs.challenge import Challenge, period_seed
from proofs.commitment import PieceRow, PieceTree
from proofs.errors import InvalidProof
from proofs.kinds import ProofKind
from proofs.kzg.backend import backend
from proofs.kzg.blob_commitments import BlobCommitments, commit_block
from proofs.kzg.proof import prove, verify
from proofs.kzg.setup import Setup
from proofs.walk import DatasetView, TreeView
from tests.proofs.datasets import BEACON, CHAIN, DATASET, NODE
from tests.proofs.kzg import simple_verifier

BLOB = 4096 * 31


@cache
def setup() -> Setup:
    return Setup(Path(proofs.kzg.__file__).with_name("setup.bin").read_bytes())


def sparse(rng: random.Random, length: int) -> bytes:
    """A block with some random bytes in each of its blobs."""
    block = bytearray(length)
    for start in range(0, length, BLOB):
        some = rng.randbytes(min(40, length - start))
        at = rng.randint(start, min(start + BLOB, length) - len(some))
        block[at : at + len(some)] = some
    return bytes(block)


@dataclass
class Holder:
    """A node's blocks, the commitments that it keeps, and what is read of its blocks."""

    blocks: dict[bytes, bytes] = field(default_factory=dict)
    commitments: dict[bytes, BlobCommitments] = field(default_factory=dict)
    reads: list[tuple[bytes, int, int]] = field(default_factory=list)

    def add(self, data: bytes) -> PieceRow:
        name = multihash.digest(data)
        self.blocks[name] = data
        if name not in self.commitments:
            self.commitments[name] = commit_block(data, setup(), backend())
        return self.commitments[name].row(name)

    def read(self, name: bytes, offset: int, length: int) -> Buffer:
        self.reads.append((name, offset, length))
        return memoryview(self.blocks[name])[offset : offset + length]


class Tree:
    """A slot tree with its pieces."""

    def __init__(self, depth: int, pieces: dict[int, list[PieceRow]]) -> None:
        self.depth = depth
        self.pieces = {slot: PieceTree(rows, kind=ProofKind.KZG) for slot, rows in pieces.items()}
        self.nodes = slot_tree.MemoryNodes()
        for slot, piece in self.pieces.items():
            slot_tree.set_slot(self.nodes, depth, slot, piece.root)

    @property
    def view(self) -> TreeView:
        return TreeView(self.nodes, self.pieces.__getitem__)


@dataclass
class Dataset:
    """Both trees of one dataset and the node that holds it."""

    holder: Holder
    data: Tree
    meta: Tree

    def challenge(self, k: int = 6, meta_k: int = 2, seed: bytes | None = None) -> Challenge:
        seed = seed or period_seed(CHAIN, DATASET, NODE, 7, BEACON)
        data, meta = (slot_tree.root(tree.nodes, tree.depth) for tree in (self.data, self.meta))
        return Challenge(seed, data, self.data.depth, meta, self.meta.depth, k, meta_k, ProofKind.KZG)

    @property
    def view(self) -> DatasetView:
        return DatasetView(self.data.view, self.meta.view)

    def prove(self, challenge: Challenge) -> bytes:
        kept = self.holder.commitments.get
        return prove(challenge, self.view, self.holder.read, kept, setup(), backend())


def random_dataset(rng: random.Random, *, depth: int, pieces: int, rows: int, blobs: int) -> Dataset:
    """`pieces` pieces of 1 to `rows` blocks of up to `blobs` blobs in random slots."""
    holder = Holder()

    def tree(most_rows: int) -> Tree:
        slots = rng.sample(range(1 << depth), pieces)
        sizes = [0, 1, BLOB, BLOB + 1, blobs * BLOB]
        return Tree(
            depth,
            {
                slot: [
                    holder.add(sparse(rng, min(rng.choice([*sizes, rng.randint(0, blobs * BLOB)]), 1 << 21)))
                    for _ in range(rng.randint(1, most_rows))
                ]
                for slot in slots
            },
        )

    return Dataset(holder, tree(rows), tree(2))


def both_say(challenge: Challenge, proof: bytes) -> bool:
    """The verdict of both verifiers, which must be one."""
    try:
        verify(challenge, proof)
        verdict = True
    except InvalidProof:
        verdict = False
    simple = simple_verifier.accepts(
        challenge.seed,
        challenge.data,
        challenge.data_depth,
        challenge.meta,
        challenge.meta_depth,
        challenge.k,
        challenge.meta_k,
        proof,
    )
    assert simple is verdict
    return verdict
