"""Commitment of new data, what a node keeps for it, how long making that again takes, what a window costs.

Run from the repository's root: `python -m bench.commitment [--mib N] [--rounds N] [--pieces 10,1000,10000]`.
Prints one JSON document on stdout and a table on stderr. One process and a process a core take turns, with
the machine's own limits (SHA-256 at 1 KiB and at 1 MiB) beside them; figures of speed are medians. Where CPU
seconds are given, they are those of all processes, which hold while others use the machine.
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
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from ledger.genesis import DEMO_PARAMS
from ledger.records import DatasetRecord
from merkledag.cid import CID
from proofs.commitment import (
    HASH_BYTES,
    SUBTREE_BYTES,
    BlockCommitment,
    PieceRow,
    PieceTree,
    commit_block,
    leaf_count,
)
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
from storage_node.rows import BATCH_WORK, ProofRows
from storage_node.worker_pool import WorkerPool

KIB, MIB = 1024, 1024 * 1024
KEPT_SIZES = {MIB: 1024 * MIB, 256 * KIB: 512 * MIB, 4 * KIB: 128 * MIB, 100: 15_000_000}
TABLE_ROWS = 1 << 16
Figures = dict[str, float]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_s() -> float:
    """CPU seconds so far of this process and of those it started that have ended."""
    uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


@contextmanager
def without_sync() -> Iterator[None]:
    """Files need not survive a power cut; their sizes do not depend on it."""
    sync = os.fsync, os.fdatasync
    os.fsync = os.fdatasync = lambda fd: None
    try:
        yield
    finally:
        os.fsync, os.fdatasync = sync


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
    """Bytes on disk beside a piece's blocks, and what making all of them anew takes."""
    store = open_store(folder / "blocks", reserve_bytes=0)
    names = put(store, size, total)
    rows = ProofRows(
        store, Commitments(Meta(folder / "meta")), RowWorkers(pool := WorkerPool(), store.folder)
    )

    def make() -> None:
        rows.ensure(names, nobody)
        tree, none = piece_tree(names, rows.row), PieceTree([])
        piece_file.save(folder, PieceFile(CID.of(b""), 0, CID.of(b""), CID.of(b""), none, tree))
        rows.leave_to_piece(tree.rows)

    used_s = cpu_s()
    seconds = timed(make)
    pool.close()
    used_s = cpu_s() - used_s
    piece_bytes = next(folder.glob("*.piece")).stat().st_size / len(names)
    table_bytes = bench_table(folder / "table", size)
    gib = len(names) * size / 2**30
    return {
        "block bytes": size,
        "blocks": len(names),
        "piece file bytes a block": piece_bytes,
        "table bytes a block": table_bytes,
        "% of the data": 100 * (piece_bytes + table_bytes) / size,
        "CPU s to make, a GiB": used_s / gib,
        "s to make, a GiB": seconds / gib,
    }


def bench_table(folder: Path, size: int) -> float:
    """Bytes on disk a row, free pages and all, of the table of large blocks' rows when it is large itself."""
    subtrees = -(-size // SUBTREE_BYTES)
    if subtrees == 1:
        return 0  # left to the piece's file
    commitments = Commitments(Meta(folder))
    row = BlockCommitment(bytes(HASH_BYTES), size, leaf_count(size), bytes(HASH_BYTES * subtrees))
    names = (b"\x12\x20" + hashlib.sha256(b"%d" % number).digest() for number in range(TABLE_ROWS))
    empty = disk_bytes(folder)
    with without_sync():
        while group := list(islice(names, max(1, BATCH_WORK // size))):  # as `ProofRows` keeps them
            commitments.put_many(dict.fromkeys(group, row))
    return (disk_bytes(folder) - empty) / TABLE_ROWS


def disk_bytes(folder: Path) -> int:
    """What the files in a folder take."""
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def bench_window(folder: Path, pieces: int) -> Figures:
    """A window of a dataset of so many pieces, each of 64 blocks of 4 KiB, in files of its own."""
    store = open_store(folder / "blocks", reserve_bytes=0)
    names = put(store, 4 * KIB, 64 * 4 * KIB)
    made = [PieceRow(name, 4, commit_block(store.get(name)).root) for name in names]
    meta_tree = PieceTree(made[:1])
    keys = {slot: ShardKey(CID.of(b"%d" % slot), 0) for slot in range(pieces)}
    with without_sync():
        for slot, key in keys.items():  # other orders: other pieces
            rows = made[slot % 64 :] + made[: slot % 64] if slot < 64 else [made[slot % 64], *made]
            tree = PieceTree(rows)
            piece_file.save(folder, PieceFile(key.deal, 0, key.deal, key.deal, meta_tree, tree))
    custody = Custody(folder, store, ProofRows(store, Commitments(Meta(folder / "meta"))))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used_s = cpu_s()
    custody.load()
    loading = cpu_s() - used_s
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

    used_s = cpu_s()
    prover.answer(bytes(32), record(0), keys, DEMO_PARAMS)
    first = cpu_s() - used_s
    later: list[float] = []
    for period in range(1, 8):
        used_s = cpu_s()
        prover.answer(bytes(32), record(period), None, DEMO_PARAMS)
        later.append(cpu_s() - used_s)
    return {
        "pieces": pieces,
        "CPU ms to start": loading * 1e3,
        "CPU ms of the first window": first * 1e3,
        "CPU ms of a later window": statistics.median(later) * 1e3,
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
