"""The blockstore under churn: fill it, delete half of the blocks at random, refill it, again and again.

Run from the repository's root: `python -m bench.churn [--size-mib N] [--rounds N] [--sizes BYTES…] [--folder
DIR]`. Prints one JSON document on stdout and a table on stderr. Block sizes are mixed, so that free pages
have to be found in rows of every length. Each round measures the machine's limit in turns with the refill:
the same bytes written to a plain file and synced. Processor time suffers less from what else the machine
does and shows what the search for free pages costs. A thread reads random blocks all the while, as a gateway
does; its slowest read is told. At the end the store is compacted beside that reader, and a few rounds more
follow. Exits with 1 if in the last rounds the speed (as a part of the machine's) or the size of the files is
more than 20 % worse than in the first ones, and compaction does not bring it back.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from storage_node.blockstore.check import check
from storage_node.blockstore.store import Store, open_store

MIB = 1 << 20
SIZES = (4096, 65_536, 262_144, 300_000, MIB)  # bytes; 300,000 fills no whole number of pages
TOLERANCE = 0.2
EDGE_ROUNDS = 3  # rounds that are compared at either end, and that follow the compaction
TURN_BYTES = 32 * MIB  # written to the store, then to a plain file, and so on
Figures = dict[str, float]


class Churn:
    """A store, what it holds, and where random bytes come from."""

    def __init__(self, folder: Path, size_bytes: int, sizes: tuple[int, ...], seed: int) -> None:
        self.folder = folder
        self.store: Store = open_store(folder / "blocks", reserve_bytes=0)
        self.size_bytes = size_bytes
        self.lengths: dict[bytes, int] = {}
        self.readable: list[bytes] = []
        self.slowest_read_s = 0.0
        self._sizes = sizes
        self._chance = random.Random(seed)
        self._pool = memoryview(os.urandom(2 * max(sizes)))

    def new_blocks(self) -> list[tuple[bytes, memoryview]]:
        """What fills the store up again; each size has the same part of the bytes."""
        missing = self.size_bytes - sum(self.lengths.values())
        chosen: list[tuple[bytes, memoryview]] = []
        weights = [1 / size for size in self._sizes]
        while missing > 0:
            (size,) = self._chance.choices(self._sizes, weights)
            start = self._chance.randrange(len(self._pool) - size)
            multihash = b"\x12\x20" + self._chance.randbytes(32)  # the store does not look at hashes
            chosen.append((multihash, self._pool[start : start + size]))
            missing -= size
        return chosen

    def refill(self) -> Figures:
        """Fill the store up; MiB/s of the store and of a plain file with the same bytes."""
        new = self.new_blocks()
        total = sum(len(block) for _, block in new) / MIB
        plain_s = store_s = cpu_s = 0.0
        for part in _turns(new):
            plain_s += _seconds(lambda: _write_plain(self.folder / "plain", part))  # noqa: B023
            cpu_began_s = time.process_time()
            store_s += _seconds(lambda: self.store.put_many(part))  # noqa: B023
            cpu_s += time.process_time() - cpu_began_s
        self.lengths.update((multihash, len(block)) for multihash, block in new)
        self.readable = list(self.lengths)
        return {
            "refill_mib": total,
            "plain_mib_s": total / plain_s,
            "put_mib_s": total / store_s,
            "cpu_ms_mib": cpu_s / total * 1e3,
        }

    def delete_half(self) -> Figures:
        """Delete each block with a chance of one half; µs for each that goes."""
        gone = [multihash for multihash in self.lengths if self._chance.random() < 0.5]
        seconds = _seconds(lambda: self.store.delete_many(gone))
        for multihash in gone:
            del self.lengths[multihash]
        return {"deleted": len(gone), "delete_us": seconds / max(1, len(gone)) * 1e6}

    def sizes(self) -> Figures:
        """File size beside what is in it, and the slowest read since the last call."""
        stat = self.store.stat()
        slowest_s, self.slowest_read_s = self.slowest_read_s, 0.0
        return {
            "blocks_mib": stat.bytes / MIB,
            "file_mib": stat.file_bytes / MIB,
            "reusable_mib": stat.reusable_bytes / MIB,
            "slowest_read_ms": slowest_s * 1e3,
        }

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Read random blocks meanwhile, some hundred a second."""
        over = threading.Event()

        def read() -> None:
            chance = random.Random(0)
            while not over.wait(0.005):
                if self.readable:
                    began = time.perf_counter()
                    found = self.store.find(chance.choice(self.readable))  # deleted by now, perhaps
                    if found is not None:
                        with found as block:
                            sum(block[::4096])
                    self.slowest_read_s = max(self.slowest_read_s, time.perf_counter() - began)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _turns(blocks: list[tuple[bytes, memoryview]]) -> Iterator[list[tuple[bytes, memoryview]]]:
    part: list[tuple[bytes, memoryview]] = []
    size_bytes = 0
    for each in blocks:
        part.append(each)
        size_bytes += len(each[1])
        if size_bytes >= TURN_BYTES:
            yield part
            part, size_bytes = [], 0
    if part:
        yield part


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _write_plain(path: Path, blocks: list[tuple[bytes, memoryview]]) -> None:
    with path.open("wb") as file:
        for _, block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of the first filling, of each round, of the compaction, and of the rounds behind it."""

    filling: Figures
    rounds: list[Figures]
    compaction: Figures
    afterwards: list[Figures]


def run(churn: Churn, rounds: int) -> Measured:
    """Everything, beside a reader."""

    def turn(number: str) -> Figures:
        figures = {**churn.delete_half(), **churn.refill(), **churn.sizes()}
        names = ("put_mib_s", "plain_mib_s", "cpu_ms_mib", "delete_us", "file_mib", "slowest_read_ms")
        print(f"{number:>6}" + "".join(f"{figures[name]:>17.1f}" for name in names), file=sys.stderr)
        return figures

    head = ("put MiB/s", "plain file MiB/s", "cpu ms/MiB", "delete us", "file MiB", "slowest read ms")
    print("round " + "".join(f"{each:>17}" for each in head), file=sys.stderr)
    with churn.reader():
        filling = {**churn.refill(), **churn.sizes()}
        measured = [turn(str(number)) for number in range(1, rounds + 1)]
        shrunk: list[int] = []
        seconds = _seconds(lambda: shrunk.append(churn.store.compact()))
        compaction = {"seconds": seconds, "shrunk_mib": shrunk[0] / MIB, **churn.sizes()}
        print(
            f"compacted in {seconds:.1f} s, {compaction['shrunk_mib']:.0f} MiB given back; slowest read "
            f"meanwhile {compaction['slowest_read_ms']:.0f} ms",
            file=sys.stderr,
        )
        afterwards = [turn(f"+{number}") for number in range(1, EDGE_ROUNDS + 1)]
    return Measured(filling, measured, compaction, afterwards)


def verdict(measured: Measured) -> dict[str, float | bool]:
    """The last rounds and those behind the compaction as parts of the first ones."""
    edge = max(1, min(EDGE_ROUNDS, len(measured.rounds) // 2))
    first, last, after = measured.rounds[:edge], measured.rounds[-edge:], measured.afterwards

    def speed(rounds: list[Figures]) -> float:
        return statistics.median(each["put_mib_s"] / each["plain_mib_s"] for each in rounds)

    def cpu(rounds: list[Figures]) -> float:
        return statistics.median(each["cpu_ms_mib"] for each in rounds)

    def file(rounds: list[Figures]) -> float:
        return max(each["file_mib"] for each in rounds)

    ratios = {
        f"{what}_{when}": of(rounds) / of(first)
        for what, of in (("speed", speed), ("cpu", cpu), ("file", file))
        for when, rounds in (("last", last), ("compacted", after))
    }
    least, most = 1 - TOLERANCE, 1 + TOLERANCE
    flat = ratios["speed_last"] >= least and ratios["file_last"] <= most
    back = ratios["speed_compacted"] >= least and ratios["file_compacted"] <= most
    return {**ratios, "flat": flat, "flat_or_brought_back": flat or back}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024, help="of blocks in a full store")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="of blocks, in bytes")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        churn = Churn(folder, options.size_mib * MIB, tuple(options.sizes), options.seed)
        measured = run(churn, options.rounds)
        report = check(churn.store)
        churn.store.close()
    finally:
        shutil.rmtree(folder)
    result = verdict(measured)
    for name, value in result.items():
        shown = value if isinstance(value, bool) else f"{value:.2f} of the first rounds"
        print(f"{name.replace('_', ', ', 1).replace('_', ' ')}: {shown}", file=sys.stderr)
    document = {
        "seed": options.seed,
        "mib": options.size_mib,
        "sizes": options.sizes,
        **asdict(measured),
        "consistent": report.clean,
        **result,
    }
    print(json.dumps(document, indent=2))
    return 0 if result["flat_or_brought_back"] and report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
