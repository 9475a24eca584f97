"""KZG proofs of datasets up to 1 TiB: making one, verifying it alone and with others, and its size.

Run from the repository's root: `python -m bench.kzg_proof [--rounds N]`. Prints one JSON document on stdout
and a table on stderr. The dataset is one block of 1 MiB that stands in it as often as it takes; times are
medians of CPU time, in ms.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from proofs import slot_tree
from proofs.challenge import Challenge
from proofs.commitment import PieceTree
from proofs.kinds import ProofKind
from proofs.kzg import setup as setup_module
from proofs.kzg.backend import backend
from proofs.kzg.blob_commitments import commit_block
from proofs.kzg.proof import prove, verify, verify_many
from proofs.kzg.setup import Setup
from proofs.walk import DatasetView, TreeView

BLOCK = os.urandom(1 << 20)
NAME = b"\x12\x20" + bytes(32)
ROWS = 1024  # blocks of a piece: 1 GiB
BATCH = 16


def cpu_ms(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return 1e3 * (time.process_time() - begun)


def tree_of(piece: PieceTree, pieces: int, depth: int) -> TreeView:
    """A slot tree with the same piece in so many slots."""
    nodes = slot_tree.MemoryNodes()
    for slot in range(pieces):
        slot_tree.set_slot(nodes, depth, slot, piece.root)
    return TreeView(nodes, lambda _: piece)


def measure(pieces: int, rounds: int) -> dict[str, float]:
    """Median CPU times, and the longest proof's bytes, at K = 30 and 4 metadata leaves."""
    points = Setup(Path(setup_module.__file__).with_name("setup.bin").read_bytes())
    kept = commit_block(BLOCK, points, backend())
    data = PieceTree([kept.row(NAME)] * ROWS, kind=ProofKind.KZG)
    meta = PieceTree([kept.row(NAME)] * 2, kind=ProofKind.KZG)
    depth = (pieces - 1).bit_length()
    view = DatasetView(tree_of(data, pieces, depth), tree_of(meta, pieces, depth))
    roots = [slot_tree.root(tree.nodes, depth) for tree in (view.data, view.meta)]
    claims: list[tuple[Challenge, bytes]] = []
    made = []
    for _ in range(rounds):
        asked = Challenge(os.urandom(32), roots[0], depth, roots[1], depth, kind=ProofKind.KZG)

        def make(asked: Challenge = asked) -> None:
            proof = prove(
                asked, view, lambda _, at, length: BLOCK[at : at + length], lambda _: kept, points, backend()
            )
            claims.append((asked, proof))

        made.append(cpu_ms(make))
    alone = [cpu_ms(partial(verify, *claim)) for claim in claims]
    together = (claims * BATCH)[:BATCH]
    return {
        "prove": statistics.median(made),
        "verify": statistics.median(alone),
        f"verify, one of {BATCH}": statistics.median(
            cpu_ms(lambda: verify_many(together)) / BATCH for _ in range(rounds)
        ),
        "bytes": max(len(proof) for _, proof in claims),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    figures = {f"{pieces} GiB": measure(pieces, rounds) for pieces in (1, 32, 1024)}
    for size, found in figures.items():
        print(size, ", ".join(f"{name} {value:,.1f}" for name, value in found.items()), file=sys.stderr)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
