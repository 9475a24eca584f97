"""Collections at growing sizes: time a block, anonymous memory, and how long adds and reads take beside them.

`python -m bench.collect` fills stores of small blocks, half of them in pinned DAGs (100 raw leaves under a
node, those under a root), and collects in a process of its own: a dry run, one that frees the other half, one
that finds nothing, one from every block to nothing. Figures are hints: compare within a run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from merkledag import dag_pb
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from storage_node import gc
from storage_node.blockstore.store import Store, open_store
from storage_node.gc_journal import GcJournal
from storage_node.meta import Meta
from storage_node.pins import Pins

LEAF_BYTES = 64
LEAVES = 100
PAUSE_S = 0.002


def dag(count: int) -> Iterator[Block]:
    """Blocks of a DAG of about so many; the root comes last."""
    above: list[CID] = []
    for _ in range(max(1, count // (LEAVES + 1))):
        leaves = [Block(CID.of(data), data) for data in (os.urandom(LEAF_BYTES) for _ in range(LEAVES))]
        yield from leaves
        block = parent([leaf.cid for leaf in leaves])
        above.append(block.cid)
        yield block
    yield parent(above)


def parent(children: list[CID]) -> Block:
    links = tuple(dag_pb.PBLink(cid=cid, name="", tsize=1) for cid in children)
    data = dag_pb.encode(dag_pb.PBNode(links=links, data=None))
    return Block(CID.of(data, DAG_PB), data)


def fill(folder: Path, count: int) -> None:
    """A store of so many blocks, half of them pinned."""
    store, pins = open_store(folder / "blocks", reserve_bytes=0), Pins(Meta(folder / "meta"), time.time)
    for pinned in (True, False):
        left = count // 2
        while left > 0:
            blocks = list(dag(min(left, 20_000)))
            with store.lease():
                store.put_many((block.cid.multihash, block.data) for block in blocks)
                if pinned:
                    pins.add(blocks[-1].cid)
            left -= len(blocks)
    store.close()


def anonymous_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


class Watch:
    """The most anonymous memory while the context lasts."""

    def __enter__(self) -> Watch:
        self.most_mib = anonymous_mib()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(PAUSE_S):
            self.most_mib = max(self.most_mib, anonymous_mib())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def collections(folder: Path) -> dict[str, float]:
    """Seconds and MiB of collections in a filled store."""
    store, meta = open_store(folder / "blocks", reserve_bytes=0), Meta(folder / "meta")
    pins = Pins(meta, time.time)
    begin_mib = anonymous_mib()
    found: dict[str, float] = {}

    def collect(name: str, *, dry_run: bool = False) -> None:
        before = store.stat().blocks
        began_s = time.perf_counter()
        with Watch() as watch:
            report = gc.collect(store, pins, journal=GcJournal(folder / "gc", meta), dry_run=dry_run)
        took_s = time.perf_counter() - began_s
        found[f"{name}, us a block"] = took_s / before * 1e6
        found[f"{name}, anonymous MiB more"] = watch.most_mib - begin_mib
        assert report.complete

    collect("dry run", dry_run=True)
    collect("half freed", dry_run=False)
    collect("nothing freed", dry_run=False)
    for pin in list(pins.ls()):
        pins.rm(pin.cid)
    collect("all freed", dry_run=False)
    assert store.stat().blocks == 0
    store.close()
    return found


def beside(folder: Path) -> dict[str, float]:
    """How long single durable puts and reads take alone, and while another process collects, in ms."""
    found: dict[str, float] = {}
    store = open_store(folder / "blocks", reserve_bytes=0)
    known = list(islice(store, 1000))
    for name in ("alone", "beside a collection"):
        process = None
        if name != "alone":
            command = [sys.executable, "-m", "bench.collect", "--loop", str(folder)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            process.stdout.readline()
        puts, gets = [], []
        ends_s = time.perf_counter() + 4
        while time.perf_counter() < ends_s:
            data = os.urandom(1000)
            began_s = time.perf_counter()
            store.put_many([(CID.of(data).multihash, data)])
            put_s = time.perf_counter()
            for each in known[:100]:
                store.has(each)
            puts.append(put_s - began_s)
            gets.append((time.perf_counter() - put_s) / 100)
        if process is not None:
            process.kill()
            process.communicate()
        for what, times in (("put", puts), ("has", gets)):
            ordered = sorted(times)
            found[f"{what} {name}, median ms"] = ordered[len(ordered) // 2] * 1e3
            found[f"{what} {name}, 99th of 100 ms"] = ordered[len(ordered) * 99 // 100] * 1e3
            found[f"{what} {name}, longest ms"] = ordered[-1] * 1e3
    store.close()
    return found


def loop(folder: Path) -> None:
    """Collects again and again until it is killed; says so when it has begun."""
    store: Store = open_store(folder / "blocks", reserve_bytes=0)
    meta = Meta(folder / "meta")
    print("collecting", flush=True)
    while True:
        gc.collect(store, Pins(meta, time.time), journal=GcJournal(folder / "gc", meta))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    parser.add_argument("--loop", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop is not None:
        return loop(options.loop)
    if options.measure is not None:
        return print(json.dumps(collections(options.measure)))
    for count in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            fill(folder, count)
            command = [sys.executable, "-m", "bench.collect", "--measure", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures: dict[str, float] = json.loads(done.stdout)
            fill(folder, count)
            figures |= beside(folder)
        for what, figure in figures.items():
            print(f"{count:>9,} blocks  {what:<42} {figure:10.2f}")
    return None


if __name__ == "__main__":
    main()
