"""Throughput of the blockstore beside a plain file and the hash function, and its costs as it grows.

Run from the repository's root: `python -m bench.blockstore [--size-mib N] [--rounds N] [--growth N…]
[--folder DIR]`. Prints one JSON document on stdout and a table on stderr. The machine's own limits (SHA-256
on one core and on all, plain file write and read) are measured in the same run, in turns with what they
are compared to; every figure is a median. The folder's disk must be the one that is of interest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from merkledag import multihash as mh
from merkledag.cid import CID
from storage_node import gc
from storage_node.blockstore.check import check
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import Store, open_store
from storage_node.meta import Meta
from storage_node.pins import Pins

MIB = 1024 * 1024
SMALL_BYTES = 4096
SMALL_COUNT = 10_000
PROBES = 2_000
Figures = dict[str, float]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def random_blocks(count: int, size_bytes: int) -> list[memoryview]:
    data = memoryview(os.urandom(count * size_bytes))
    return [data[start : start + size_bytes] for start in range(0, len(data), size_bytes)]


def hashed(blocks: list[memoryview], pool: ThreadPoolExecutor) -> Iterator[tuple[bytes, memoryview]]:
    """(multihash, block) pairs in order, hashed in threads as an import does."""
    yield from zip(pool.map(mh.digest, blocks, chunksize=1), blocks, strict=True)


def write_plain(path: Path, blocks: list[memoryview]) -> None:
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def read_plain(path: Path) -> int:
    buffer, total = bytearray(MIB), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total


def scan(store: Store, keys: list[bytes]) -> int:
    total = 0
    for key in keys:
        with store.view(key) as block:
            total += len(block)
    return total


def throughput(folder: Path, size_mib: int) -> dict[str, float]:
    """Seconds of one round over 1 MiB blocks."""
    blocks = random_blocks(size_mib, MIB)
    folder.mkdir()
    store = open_store(folder / "blocks", reserve_bytes=0)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        taken = {
            "sha2-256, one core": seconds(lambda: [mh.digest(block) for block in blocks]),
            "sha2-256, all cores": seconds(lambda: list(pool.map(mh.digest, blocks))),
            "plain file write + fsync": seconds(lambda: write_plain(folder / "plain", blocks)),
        }
        keys = [mh.digest(block) for block in blocks]
        pairs = list(zip(keys, blocks, strict=True))
        taken["put"] = seconds(lambda: store.put_many(pairs))
        taken["put again (present)"] = seconds(lambda: store.put_many(pairs))
        taken["delete"] = seconds(lambda: store.delete_many(keys))
        taken["hash + put"] = seconds(lambda: store.put_many(hashed(blocks, pool)))
        taken["plain file read"] = seconds(lambda: read_plain(folder / "plain"))
        taken["get"] = seconds(lambda: sum(len(store.get(key)) for key in keys))
        taken["scan (views)"] = seconds(lambda: scan(store, keys))
    store.close()
    shutil.rmtree(folder)
    return taken


def small_blocks(folder: Path) -> dict[str, float]:
    """Seconds of one round over SMALL_COUNT blocks of 4 KiB."""
    folder.mkdir()
    pairs = [(mh.digest(block), block) for block in random_blocks(SMALL_COUNT, SMALL_BYTES)]
    keys = [key for key, _ in pairs]
    store = open_store(folder / "blocks", reserve_bytes=0)
    blocks = [block for _, block in pairs]
    taken = {
        "plain file write + fsync": seconds(lambda: write_plain(folder / "plain", blocks)),
        "put": seconds(lambda: store.put_many(pairs)),
        "put one, durably": SMALL_COUNT
        * statistics.median(seconds(lambda: store.put_many(random_pair())) for _ in range(20)),
        "get": seconds(lambda: [store.get(key) for key in keys]),
        "view": seconds(lambda: scan(store, keys)),
        "has": seconds(lambda: [store.has(key) for key in keys]),
    }
    store.close()
    shutil.rmtree(folder)
    return taken


def random_pair() -> list[tuple[bytes, bytes]]:
    block = os.urandom(SMALL_BYTES)
    return [(mh.digest(block), block)]


def growth(folder: Path, count: int) -> Figures:
    """Costs in a store of `count` tiny blocks, half of them garbage."""
    store = open_store(folder / "blocks", reserve_bytes=0)
    pins = Pins(Meta(folder / "meta"), time.time)
    keys = [mh.digest(number.to_bytes(8, "big")) for number in range(count)]
    fill_s = seconds(lambda: store.put_many((key, b"%d" % number) for number, key in enumerate(keys)))
    probes = keys[:: max(1, count // PROBES)]
    kept = [CID(1, 0x55, key) for key in keys[::2]]
    figures = {
        "fill, us a block": fill_s / count * 1e6,
        "get, us": seconds(lambda: [store.get(key) for key in probes]) / len(probes) * 1e6,
        "has, us": seconds(lambda: [store.has(key) for key in probes]) / len(probes) * 1e6,
        "put one, ms": statistics.median(seconds(lambda: store.put_many(random_pair())) for _ in range(20))
        * 1e3,
        "lease, us": statistics.median(seconds(lambda: _lease(store)) for _ in range(20)) * 1e6,
        "stat, us": statistics.median(seconds(store.stat) for _ in range(20)) * 1e6,
    }
    cached = random_blocks(PROBES, 64)
    store.put_many(((mh.digest(block), block) for block in cached), BlockClass.CACHE)
    figures["use, us a block"] = (
        seconds(lambda: store.use_many([mh.digest(block) for block in cached], int(time.time()) + 60))
        / PROBES
        * 1e6
    )
    figures["evict, us a block"] = seconds(lambda: store.evict(0)) / PROBES * 1e6
    figures["check, us a block"] = seconds(lambda: check(store)) / count * 1e6
    figures["collect half, us a block"] = seconds(lambda: gc.collect(store, pins, roots=kept)) / count * 1e6
    store.close()
    return figures


def _lease(store: Store) -> None:
    with store.lease():
        pass


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        large = medians([throughput(folder / f"l{turn}", options.size_mib) for turn in range(options.rounds)])
        small = medians([small_blocks(folder / f"s{turn}") for turn in range(options.rounds)])
        grown = {count: growth(folder / f"g{count}", count) for count in options.growth}
    document = {
        "large": {"mib": options.size_mib, "seconds": large},
        "small": {"blocks": SMALL_COUNT, "block_bytes": SMALL_BYTES, "seconds": small},
        "growth": grown,
    }
    print(json.dumps(document, indent=2))
    out = sys.stderr
    print(f"\n{options.size_mib} MiB in blocks of 1 MiB", file=out)
    for label, taken in large.items():
        print(f"  {label:<28} {taken:8.3f} s {options.size_mib / taken:10.0f} MiB/s", file=out)
    print(f"\n{SMALL_COUNT} blocks of 4 KiB", file=out)
    for label, taken in small.items():
        print(f"  {label:<28} {taken:8.3f} s {taken / SMALL_COUNT * 1e6:10.1f} us each", file=out)
    print("\ncosts as the store grows" + "".join(f"{count:>12}" for count in grown), file=out)
    for label in next(iter(grown.values()), {}):
        print(f"  {label:<34}" + "".join(f"{each[label]:12.1f}" for each in grown.values()), file=out)


if __name__ == "__main__":
    main()
