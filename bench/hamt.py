"""HAMT folders at growing sizes: building, listing, looking up, and editing one entry.

Run from the repository's root: `python -m bench.hamt [--entries N…] [--rounds N]`. Prints one JSON document
on stdout and a table on stderr. Every size is measured in a process of its own, because peak memory
(anonymous, RssAnon, sampled) is part of the result; blocks are in a dict, so no store is measured. Beside
building and listing stand Python's and the machine's limits: hashing the same names and blocks and nothing
else, and a loop that takes names, CIDs and sizes out of the same blocks and hashes the names, without checks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.directory import DirectoryBuilder, DirEntry, build_directory
from merkledag.folder import entries, lookup
from merkledag.hamt import hash_name
from merkledag.mutate import edit
from merkledag.profile import UNIXFS_V1_2025
from merkledag.steps import iterate, run

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SAMPLE_S = 0.01
PICKS = 200  # lookups and edits a round
MIB = 1 << 20


def _anonymous_bytes() -> int:
    with Path("/proc/self/status").open(encoding="ascii") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


class Peak:
    """The most anonymous memory above where it stood at the beginning."""

    def __enter__(self) -> Peak:
        self._base = self._most = _anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self._most = max(self._most, _anonymous_bytes())

    def __exit__(self, *_: object) -> None:
        self._most = max(self._most, _anonymous_bytes())
        self._done.set()
        self._thread.join()

    @property
    def mib(self) -> float:
        return (self._most - self._base) / MIB


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _entries(count: int) -> Iterator[DirEntry]:
    for n in range(count):
        yield DirEntry(f"file-{n:07}.bin", CID.of(b"%d" % n, RAW), 1000 + n)


def _stream(entries: Iterator[DirEntry]) -> None:
    """Builds a folder as `add` does: nobody holds its blocks."""
    builder = DirectoryBuilder(UNIXFS_V1_2025)
    for entry in entries:
        builder.add(entry)
    for _ in builder.finish():
        pass


def _plain_listing(blocks: Iterable[bytes]) -> int:
    """What Python needs at least to list a HAMT of fanout 256: one loop that believes its links."""
    found = 0
    for block in blocks:
        at = 0
        while block[at] == 0x12:
            end = at + 2 + block[at + 1]
            after_cid = at + 4 + block[at + 3]
            after_name = after_cid + 2 + block[after_cid + 1]
            name = block[after_cid + 4 : after_name]
            if name:
                size = 0
                for byte in block[end - 1 : after_name : -1]:
                    size = size << 7 | byte & 0x7F
                entry = name.decode(), CID.decode(block[at + 4 : after_cid]), size, hash_name(name)
                found += bool(entry)
            at = end
    return found


def measure(count: int, rounds: int) -> dict[str, float]:
    """Figures for one size."""
    rows = list(_entries(count))
    with Peak() as peak:
        _stream(iter(rows))
    figures = {"entries": float(count), "build_extra_mib": peak.mib}
    link, blocks = build_directory(UNIXFS_V1_2025, rows, hamt="always")
    figures["blocks"] = float(len(blocks))
    seconds: dict[str, list[float]] = {}

    def note(name: str, work: Callable[[], object], per: int = 1) -> None:
        seconds.setdefault(name, []).append(_timed(work) / per)

    store = {block.cid: block.data for block in blocks}
    sizes = sum(len(data) for data in store.values())
    figures["block_mib"] = sizes / MIB
    del blocks
    picks = [f"file-{n * 7919 % count:07}.bin" for n in range(PICKS)]
    new = DirEntry("a new entry", rows[0].cid, count + 1000)
    batch = [new._replace(name=f"new {n}") for n in range(1_000)]
    for _ in range(rounds):
        note("build_s", lambda: _stream(iter(rows)))
        note("limit_hash_names_s", lambda: [hash_name(row.name.encode()) for row in rows])
        note("limit_sha256_blocks_s", lambda: [sha256(data) for data in store.values()])
        note("limit_plain_listing_s", lambda: _plain_listing(store.values()))
        note("first_entry_s", lambda: next(iterate(entries(link.cid), store.__getitem__)))
        note("list_s", lambda: sum(1 for _ in iterate(entries(link.cid), store.__getitem__)))
        note(
            "lookup_s",
            lambda: [run(lookup(link.cid, name), store.__getitem__) for name in picks],
            len(picks),
        )
        note(
            "replace_s",
            lambda: [
                run(edit(UNIXFS_V1_2025, link.cid, [new._replace(name=name)]), store.__getitem__)
                for name in picks
            ],
            len(picks),
        )
        note("remove_s", lambda: run(edit(UNIXFS_V1_2025, link.cid, remove=picks[:1]), store.__getitem__))
        note("add_s", lambda: run(edit(UNIXFS_V1_2025, link.cid, [new]), store.__getitem__))
        note(
            "add_each_of_1000_s",
            lambda: run(edit(UNIXFS_V1_2025, link.cid, batch), store.__getitem__),
            len(batch),
        )
    with Peak() as peak:
        for _ in iterate(entries(link.cid), store.__getitem__):
            pass
    figures["list_extra_mib"] = peak.mib
    return figures | {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    results = []
    for count in arguments.entries:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results.append(pool.apply(measure, (count, arguments.rounds)))
    print(json.dumps(results, indent=1))
    for name in results[0]:
        cells = "".join(f"{result[name]:>14.6g}" for result in results)
        print(f"{name:<24}{cells}", file=sys.stderr)


if __name__ == "__main__":
    main()
