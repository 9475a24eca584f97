"""Speeds and sizes of commitments, Merkle proofs and beacon signatures.

Run from the repository's root: `python -m bench.proofs [--rounds N]`. Prints one JSON document on stdout
and a table on stderr. The machine's own limits (SHA-256, plain zfec) are measured in the same run, in turns
with what they are compared to; every figure is a median.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

from proofs import slot_tree
from proofs.bls import signatures as bls
from proofs.challenge import Challenge, period_seed
from proofs.commitment import PieceRow, PieceTree, commit_block
from proofs.merkle_proof import prove, verify
from proofs.walk import DatasetView, TreeView

MIB = 1024 * 1024
GIB = 1024 * MIB
DATA_ROWS, DATA_BLOCK_BYTES = 1024, MIB  # a piece of 1 GiB
META_ROWS, META_BLOCK_BYTES = 8, 50_000  # and what goes with it
Figures = dict[str, float]


def timed(rounds: int, *works: Callable[[], object]) -> list[float]:
    """The median seconds of each work, all taken in turn in every round."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, taken, strict=True):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


class SimulatedTree:
    """A slot tree of any size without its data: all blocks have the same bytes, each its own multihash.

    It behaves like a node that keeps the levels of its pieces' trees and the subtree roots of its blocks.
    """

    def __init__(self, name: bytes, pieces: int, rows: int, block_bytes: int) -> None:
        self.block = memoryview(os.urandom(block_bytes))
        self.commitment = commit_block(self.block)
        self.trees = [PieceTree(self._rows(name, piece, rows)) for piece in range(pieces)]
        self.nodes = slot_tree.MemoryNodes()
        self.depth = max(0, pieces - 1).bit_length()
        for slot, tree in enumerate(self.trees):
            slot_tree.set_slot(self.nodes, self.depth, slot, tree.root)
        self.view = TreeView(self.nodes, self.trees.__getitem__)
        self.root = slot_tree.root(self.nodes, self.depth)

    def _rows(self, name: bytes, piece: int, rows: int) -> list[PieceRow]:
        commitment = self.commitment
        return [
            PieceRow(
                b"\x12\x20" + name + hashlib.sha256(b"%d/%d" % (piece, row)).digest()[1:],
                commitment.leaves,
                commitment.root,
            )
            for row in range(rows)
        ]


def bench_commitment(rounds: int) -> Figures:
    """One block's commitment against one SHA-256 over the same bytes."""
    block = os.urandom(MIB)
    own, limit = timed(rounds * 10, lambda: commit_block(block), lambda: hashlib.sha256(block).digest())
    return {"commit MB/s": MIB / own / 1e6, "sha256 MB/s": MIB / limit / 1e6, "of sha256": limit / own}


def bench_merkle(rounds: int, pieces: int, challenges: int = 30) -> Figures:
    """A period's proof over `pieces` pieces of 1 GiB, other leaves in every round."""
    trees = {
        b"d": SimulatedTree(b"d", pieces, DATA_ROWS, DATA_BLOCK_BYTES),
        b"m": SimulatedTree(b"m", pieces, META_ROWS, META_BLOCK_BYTES),
    }
    data, meta = trees[b"d"], trees[b"m"]

    read_bytes = 0

    def read(multihash: bytes, offset: int, length: int) -> memoryview:
        nonlocal read_bytes
        read_bytes += length
        return trees[multihash[2:3]].block[offset : offset + length]

    def subtrees(multihash: bytes) -> bytes:
        return trees[multihash[2:3]].commitment.subtrees

    view = DatasetView(data.view, meta.view)
    figures: list[tuple[float, ...]] = []
    relayed: list[int] = []
    for period in range(rounds * 5):
        seed = period_seed("bench", bytes(32), bytes(32), period, bytes(32))
        challenge = Challenge(seed, data.root, data.depth, meta.root, meta.depth, challenges)
        read_bytes = 0
        proof = prove(challenge, view, read, subtrees)
        relayed.append(read_bytes)
        made, checked, limit = timed(
            1,
            lambda challenge=challenge: prove(challenge, view, read, subtrees),  # type: ignore[misc]
            lambda challenge=challenge, proof=proof: verify(challenge, proof),  # type: ignore[misc]
            lambda proof=proof: hashlib.sha256(proof).digest(),  # type: ignore[misc]
        )
        figures.append((made * 1e3, checked * 1e3, limit * 1e3, len(proof)))
    prove_ms, verify_ms, limit_ms, size = map(statistics.median, zip(*figures, strict=True))
    return {
        "dataset GiB": pieces * DATA_ROWS * DATA_BLOCK_BYTES / GIB,
        "K": challenges,
        "prove ms": prove_ms,
        "verify ms": verify_ms,
        "sha256 of the proof ms": limit_ms,
        "proof bytes": size,
        "proof bytes, most": max(row[3] for row in figures),
        # What a node that stores nothing but trees would have to fetch from others in each window.
        "MB read a period": statistics.median(relayed) / 1e6,
        "of the dataset": statistics.median(relayed) / (pieces * DATA_ROWS * DATA_BLOCK_BYTES),
    }


def bench_beacon(rounds: int) -> Figures:
    """One beacon signature, made and verified with the backend that is used here."""
    signer = bls.BlsSigner.from_seed(bytes(32))
    signature = signer.sign(b"bench")
    signing, verifying = timed(
        rounds * 5,
        lambda: signer.sign(b"bench"),
        lambda: bls.verify(signer.public_key, b"bench", signature),
    )
    return {"sign ms": signing * 1e3, "verify ms": verifying * 1e3}


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each measurement")
    rounds = parser.parse_args().rounds
    report: dict[str, Figures | list[Figures]] = {
        "commitment": bench_commitment(rounds),
        "merkle": [bench_merkle(rounds, pieces) for pieces in (1, 32, 1024)],
        f"beacon, {bls.backend().NAME}": bench_beacon(rounds),
    }
    print(json.dumps(report, indent=1))
    for name, figures in report.items():
        for row in figures if isinstance(figures, list) else [figures]:
            cells = "  ".join(f"{key} {value:,.6g}" for key, value in row.items())
            print(f"{name:18} {cells}", file=sys.stderr)


if __name__ == "__main__":
    main()
