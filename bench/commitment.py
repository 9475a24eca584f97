"""Commitment of new data, what a node keeps for it, how long making that again takes, what a window costs.

Run from the repository's root: `python -m bench.commitment [--mib N] [--rounds N] [--pieces 10,1000,10000]`.
Prints one JSON document on stdout and a table on stderr. One process and a process a core take turns, with
the machine's own limits (SHA-256 at 1 KiB and at 1 MiB) beside them; figures of speed are medians.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from ledger.genesis import DEMO_PARAMS
from ledger.records import DatasetRecord
from merkledag.cid import CID
from proofs.commitment import PieceRow, PieceTree, commit_block
from proofs.slot_tree import root
from storage_node import piece_file
from storage_node.blockstore.store import Store, open_store
from storage_node.commitments import Commitments
from storage_node.custody import Custody
from storage_node.duties import ShardKey
from storage_node.meta import Meta
from storage_node.mirror import mirror
from storage_node.piece import piece_tree
from storage_node.piece_file import PieceFile
from storage_node.prover import Prover
from storage_node.row_workers import RowWorkers
from storage_node.rows import ProofRows
from storage_node.worker_pool import WorkerPool

KIB, MIB = 1024, 1024 * 1024
KEPT_SIZES = {MIB: 512 * MIB, 256 * KIB: 256 * MIB, 4 * KIB: 32 * MIB, 100: 2_000_000}
Figures = dict[str, float]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def put(store: Store, size: int, total: int) -> list[bytes]:
    """Stores `total` bytes in blocks of `size`, all different; returns their multihashes."""
    noise = os.urandom(size)
    names: list[bytes] = []

    def blocks() -> Iterator[tuple[bytes, bytes]]:
        for number in range(total // size):
            data = number.to_bytes(8, "big") + noise[8:]
            names.append(b"\x12\x20" + hashlib.sha256(data).digest())
            yield names[-1], data

    store.put_many(blocks())
    return names


def nobody(_: int) -> None:
    """Looks at the progress."""


def bench_speed(folder: Path, mib: int, rounds: int) -> Figures:
    """MB/s of one process and of one a core, from the store's files to the rows on disk."""
    store = open_store(folder / "blocks", reserve_bytes=0)
    names = put(store, MIB, mib * MIB)
    pool = WorkerPool()
    block = os.urandom(MIB)
    taken: dict[str, list[float]] = {}
    for number in range(rounds):
        works: dict[str, Callable[[], object]] = {}
        for label, workers in (("one process", None), ("a process a core", RowWorkers(pool, store.folder))):
            rows = ProofRows(store, Commitments(Meta(folder / f"meta-{number}-{label}")), workers)
            works[label] = lambda rows=rows: rows.ensure(names, nobody)  # type: ignore[misc]
        for label, work in works.items():
            taken.setdefault(label, []).append(mib * MIB / timed(work) / 1e6)
        pool.close()  # so that each round has the start of the processes in it
        for label, size in (("sha256 of 1 MiB, one core", MIB), ("sha256 of 1 KiB, one core", KIB)):
            pieces = [block[at : at + size] for at in range(0, MIB, size)]
            limit = timed(lambda pieces=pieces: [hashlib.sha256(each).digest() for each in pieces])  # type: ignore[misc]
            taken.setdefault(label, []).append(MIB / limit / 1e6)
    pool.close()
    figures = {f"{label} MB/s": statistics.median(speeds) for label, speeds in taken.items()}
    return {"cores": pool.workers, **figures}


def bench_kept(folder: Path, size: int, total: int) -> Figures:
    """Bytes on disk beside a piece's blocks, and the seconds that making all of them anew takes."""
    store = open_store(folder / "blocks", reserve_bytes=0)
    names = put(store, size, total)
    meta = Meta(folder / "meta")
    rows = ProofRows(store, Commitments(meta), RowWorkers(pool := WorkerPool(), store.folder))

    def make() -> None:
        rows.ensure(names, nobody)
        tree, none = piece_tree(names, rows.row), PieceTree([])
        piece_file.save(folder, PieceFile(CID.of(b""), 0, CID.of(b""), CID.of(b""), none, tree))
        rows.leave_to_piece(tree.rows)

    seconds = timed(make)
    piece_bytes = next(folder.glob("*.piece")).stat().st_size
    table_bytes = used_bytes(meta)
    data_bytes = len(names) * size
    pool.close()
    return {
        "block bytes": size,
        "blocks": len(names),
        "piece file bytes a block": piece_bytes / len(names),
        "table bytes a block": table_bytes / len(names),
        "% of the data": 100 * (piece_bytes + table_bytes) / data_bytes,
        "s to make, a GiB": seconds / data_bytes * 2**30,
    }


def used_bytes(meta: Meta) -> int:
    """What the meta store's file takes as it grew, without what it will reuse."""
    with meta._environment.read() as txn:
        return meta._environment.file_bytes() - meta._environment.reusable_bytes(txn)


def bench_window(folder: Path, pieces: int) -> Figures:
    """A window of a dataset of so many pieces, each of 64 blocks of 4 KiB, in files of its own."""
    store = open_store(folder / "blocks", reserve_bytes=0)
    names = put(store, 4 * KIB, 64 * 4 * KIB)
    made = [PieceRow(name, 4, commit_block(store.get(name)).root) for name in names]
    meta_tree, sync = PieceTree(made[:1]), os.fsync
    keys = {slot: ShardKey(CID.of(b"%d" % slot), 0) for slot in range(pieces)}
    os.fsync = lambda fd: None
    for slot, key in keys.items():  # other orders: other pieces
        rows = made[slot % 64 :] + made[: slot % 64] if slot < 64 else [made[slot % 64], *made]
        tree = PieceTree(rows)
        piece_file.save(folder, PieceFile(key.deal, 0, key.deal, key.deal, meta_tree, tree))
    os.fsync = sync
    custody = Custody(folder, store, ProofRows(store, Commitments(Meta(folder / "meta"))))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loading = timed(custody.load)
    depth = max(0, pieces - 1).bit_length()
    known = mirror(depth, keys, custody.roots)
    data, meta = root(known.data, depth), root(known.meta, depth)
    prover = Prover(custody, store, ProofRows(store, Commitments(Meta(folder / "meta"))))

    def record(period: int) -> DatasetRecord:
        return DatasetRecord(
            client=bytes(32), provider=bytes(32), challenges=30, terms=0, deposit=0, depth=depth,
            data_root=data.hash, data_leaves=data.sum, meta_root=meta.hash, meta_leaves=meta.sum,
            seed=hashlib.sha256(b"%d" % period).digest(),
        )  # fmt: skip

    first = timed(lambda: prover.answer(bytes(32), record(0), keys, DEMO_PARAMS))
    later = [
        timed(lambda period=period: prover.answer(bytes(32), record(period), None, DEMO_PARAMS))  # type: ignore[misc]
        for period in range(1, 8)
    ]
    return {
        "pieces": pieces,
        "start ms": loading * 1e3,
        "first window ms": first * 1e3,
        "window ms": statistics.median(later) * 1e3,
        "open files": len(list(islice(Path("/proc/self/fd").iterdir(), 10**6))),
        "memory MiB more": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / KIB,
    }


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mib", type=int, default=512, help="data to commit to in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pieces", default="10,1000,10000", help="sizes of datasets")
    wanted = parser.parse_args()
    report: dict[str, list[Figures]] = {"commitment": [], "kept": [], "window": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report["commitment"].append(bench_speed(made(folder / "speed"), wanted.mib, wanted.rounds))
        for size, total in KEPT_SIZES.items():
            report["kept"].append(bench_kept(made(folder / f"kept-{size}"), size, total))
        for pieces in map(int, wanted.pieces.split(",")):
            report["window"].append(bench_window(made(folder / f"window-{pieces}"), pieces))
    print(json.dumps(report, indent=1))
    for title, rows in report.items():
        for row in rows:
            cells = "  ".join(f"{key} {value:,.6g}" for key, value in row.items())
            print(f"{title:11} {cells}", file=sys.stderr)


def made(folder: Path) -> Path:
    """A new folder."""
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
