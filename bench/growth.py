"""Whole commands and library calls in stores of 10⁴, 10⁵ and 10⁶ blocks and as many pins: is it flat?

Run from the repository's root: `python -m bench.growth [--blocks N…] [--rounds N] [--folder DIR]
[--only WORD]`. Prints one JSON document on stdout and a table on stderr. Every size has a home of its own,
with that many tiny blocks, each of them pinned and half of the pins named, besides a file and a folder. A
round takes every line in all homes, one right after the other, so that what else the machine does hits all
sizes alike; every figure is a median. What is per command or call ought to be flat: the last column is the
largest size's figure by the smallest's. Lines per block or pin are for work that grows with the store; theirs
fall, because starting the program is a part of them. Commands are measured in processor time (user and
system) unless their name says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, cast

from bench.commands import HOLDFAST, MIB, ROOT, Bench, make_large, make_small
from merkledag.cid import CID
from merkledag.codecs import RAW
from storage_node.blockstore.store import Store, open_store
from storage_node.meta import Meta, MetaWrite
from storage_node.pins import Pins

SIZES: Final = (10_000, 100_000, 1_000_000)
BLOCK_BYTES: Final = 64
PINS_PER_TRANSACTION: Final = 10_000
FILE_MIB: Final = 4
FILES: Final = 100  # of the folder
CALLS: Final = 200  # of one library call in a round
GARBAGE: Final = 20  # blocks to collect


class OneTransaction:
    """A meta store for `Pins` whose writes all join the transaction that `group` has open."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta
        self._now: MetaWrite | None = None

    @contextmanager
    def group(self) -> Iterator[None]:
        with self._meta.write() as self._now:
            yield

    @contextmanager
    def write(self) -> Iterator[MetaWrite]:
        assert self._now is not None
        yield self._now


class World(NamedTuple):
    """One home, opened here too, and what is in it."""

    blocks: int
    home: Path
    store: Store
    pins: Pins
    file: str  # CID of a file of FILE_MIB
    folder: str
    leaf: CID  # of the file: pinned indirectly
    pinned: CID  # one of the tiny blocks


def block_of(number: int) -> bytes:
    return sha256(b"%d" % number).digest() * (BLOCK_BYTES // 32)


def make_world(bench: Bench, folder: Path, blocks: int, large: Path, small: Path) -> World:
    """Fills a home, the tiny blocks and pins past the command line."""
    home = folder / f"home{blocks}"
    roots = [
        bench.command("prepare", home, *HOLDFAST, "add", "-Q", str(path)).strip() for path in (large, small)
    ]
    store = open_store(home / "blocks", reserve_bytes=0)
    datas = map(block_of, range(blocks))
    store.put_many((b"\x12\x20" + sha256(data).digest(), data) for data in datas)
    meta = Meta(home / "meta")
    joined = OneTransaction(meta)
    pins = Pins(cast(Meta, joined), time.time)
    numbers = iter(range(blocks))
    while page := list(islice(numbers, PINS_PER_TRANSACTION)):
        with joined.group():
            for number in page:
                pins.add(CID.of(block_of(number), RAW), name=f"pin {number}" if number % 2 else "")
    leaf, middle = CID.of(large.read_bytes()[:MIB], RAW), CID.of(block_of(blocks // 2), RAW)
    return World(blocks, home, store, Pins(meta, time.time), roots[0], roots[1], leaf, middle)


class Growth:
    """Runs rounds and keeps figures by line and size."""

    def __init__(self, bench: Bench, scratch: Path, only: str) -> None:
        self._bench = bench
        self._scratch = scratch
        self._only = only
        self._fresh = 0
        self.lines: dict[str, dict[int, list[float]]] = {}

    def line(self, name: str, worlds: list[World], work: Callable[[World], float]) -> None:
        """`work` returns seconds, or what the name says."""
        if self._only not in name:
            return
        for world in worlds:
            self.lines.setdefault(name, {}).setdefault(world.blocks, []).append(work(world))

    def new_file(self, size_bytes: int) -> str:
        """A file that nobody has stored."""
        self._fresh += 1
        path = self._scratch / f"new{self._fresh}"
        path.write_bytes(os.urandom(size_bytes))
        return str(path)

    def command(
        self, *arguments: str | Callable[[World], str], per_block: bool = False
    ) -> Callable[[World], float]:
        """Milliseconds of processor time of a command (microseconds a block, if so asked)."""

        def work(world: World) -> float:
            words = [each if isinstance(each, str) else each(world) for each in arguments]
            self._bench.forget()
            self._bench.command("command", world.home, *HOLDFAST, *words, wanted=False)
            taken = self._bench.cpu_s["command"][0]
            return taken * 1e6 / world.blocks if per_block else taken * 1e3

        return work

    def wall(self, *arguments: str | Callable[[World], str]) -> Callable[[World], float]:
        """As `command`, but milliseconds on the wall."""
        inner = self.command(*arguments)

        def work(world: World) -> float:
            inner(world)
            return self._bench.seconds["command"][0] * 1e3

        return work

    def first_line(self, *arguments: str) -> Callable[[World], float]:
        """Milliseconds on the wall until a command has printed something."""

        def work(world: World) -> float:
            began = time.perf_counter()
            with subprocess.Popen(
                [*HOLDFAST, *arguments], cwd=ROOT, env=self._bench.environ(world.home),
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            ) as process:  # fmt: skip
                assert process.stdout is not None
                process.stdout.readline()
                return (time.perf_counter() - began) * 1e3

        return work


def take_lease(store: Store) -> None:
    with store.lease():
        pass


def calls(call: Callable[[World, int], object], count: int = CALLS) -> Callable[[World], float]:
    """Microseconds of one library call."""

    def work(world: World) -> float:
        began = time.perf_counter()
        for number in range(count):
            call(world, number)
        return (time.perf_counter() - began) * 1e6 / count

    return work


def one_round(growth: Growth, worlds: list[World]) -> None:
    """Every line once in every home."""

    def picked(world: World, number: int) -> bytes:
        return CID.of(block_of(number * 7919 % world.blocks), RAW).multihash

    def collect(world: World) -> float:
        world.store.put_many((b"\x12\x20" + os.urandom(32), b"garbage") for _ in range(GARBAGE))
        return growth.command("repo", "gc", per_block=True)(world)

    def out(_: World) -> str:
        return growth.new_file(0) + ".out"

    for name, work in {
        "ms: --version": growth.command("--version"),
        "ms: add of 11 bytes": growth.command("add", "-Q", lambda _: growth.new_file(11)),
        f"ms: add of {FILE_MIB} MiB": growth.command("add", "-Q", lambda _: growth.new_file(FILE_MIB * MIB)),
        "ms on the wall: add of 11 bytes": growth.wall("add", "-Q", lambda _: growth.new_file(11)),
        "ms: get": growth.command("get", lambda world: world.file, "-o", out),
        "ms: get of a folder": growth.command("get", lambda world: world.folder, "-o", out),
        "ms: cat": growth.command("cat", lambda world: world.file),
        "ms: ls": growth.command("ls", lambda world: world.folder),
        "ms: stat": growth.command("stat", lambda world: world.file),
        "ms: stat --with-local": growth.command("stat", "--with-local", lambda world: world.folder),
        "ms: dag stat": growth.command("dag", "stat", lambda world: world.folder),
        "ms: car export": growth.command("car", "export", lambda world: world.folder, "-o", out),
        "ms: block stat": growth.command("block", "stat", lambda world: str(world.leaf)),
        "ms: block put": growth.command("block", "put", lambda _: growth.new_file(11)),
        "ms: pin add": growth.command("pin", "add", lambda world: world.folder),
        "ms: pin ls CID": growth.command("pin", "ls", lambda world: str(world.pinned)),
        "ms: pin ls CID, indirect": growth.command(
            "pin", "ls", "--type", "indirect", lambda world: str(world.leaf)
        ),
        "ms: pin ls --name": growth.command("pin", "ls", "--name", "pin 77"),
        "ms on the wall: pin ls, first line": growth.first_line("pin", "ls"),
        "ms: repo stat": growth.command("repo", "stat"),
        "ms: files ls": growth.command("files", "ls", "/"),
        "us: store.has": calls(lambda world, at: world.store.has(picked(world, at))),
        "us: store.get": calls(lambda world, at: world.store.get(picked(world, at))),
        "us: store.stat": calls(lambda world, _: world.store.stat()),
        "us: store.lease": calls(lambda world, _: take_lease(world.store)),
        "us: store.put_many of one": calls(
            lambda world, _: world.store.put_many([(b"\x12\x20" + os.urandom(32), b"one")]), 20
        ),
        "us: pins.get": calls(lambda world, _: world.pins.get(world.pinned)),
        "us: pins.count": calls(lambda world, _: world.pins.count(), 1),
        "us: pins.ls, a page of 100": calls(
            lambda world, _: list(islice(world.pins.ls(after=world.pinned), 100)), 20
        ),
        "us: pins.add": calls(lambda world, _: world.pins.add(world.leaf), 20),
        "us a pin: pin ls": growth.command("pin", "ls", per_block=True),
        "us a pin: pin verify": growth.command("pin", "verify", per_block=True),
        "us a block: repo gc, a little garbage": collect,
        "us a block: repo gc --dry-run": growth.command("repo", "gc", "--dry-run", per_block=True),
        "us a block: repo verify": growth.command("repo", "verify", per_block=True),
    }.items():
        growth.line(name, worlds, work)


def report(lines: dict[str, dict[int, list[float]]], rounds: int) -> dict[str, object]:
    """Medians by line and size."""
    medians = {
        name: {str(blocks): round(statistics.median(found), 2) for blocks, found in sizes.items()}
        for name, sizes in lines.items()
    }
    return {"rounds": rounds, "medians": medians}


def table(lines: dict[str, dict[int, list[float]]]) -> str:
    sizes = list(next(iter(lines.values())))
    shown = [f"{'':42}" + "".join(f"{size:>12,}" for size in sizes) + f"{'growth':>9}"]
    for name, found in lines.items():
        medians = [statistics.median(found[size]) for size in sizes]
        cells = "".join(f"{median:12.2f}" for median in medians)
        shown.append(f"{name:42}{cells}{medians[-1] / medians[0]:9.2f}")
    return "\n".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk that is of interest")
    parser.add_argument("--only", default="", help="lines with this in their names")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=wanted.folder, prefix="holdfast-bench-") as name:
        scratch = Path(name)
        bench = Bench(scratch / "compiled")
        large, small = make_large(scratch / "large", FILE_MIB), make_small(scratch / "small", FILES)
        worlds = [make_world(bench, scratch, blocks, large, small) for blocks in wanted.blocks]
        growth = Growth(bench, scratch, wanted.only)
        one_round(growth, worlds)  # everything compiled, the files in memory
        growth.lines.clear()
        for _ in range(wanted.rounds):
            one_round(growth, worlds)
        for world in worlds:
            world.store.close()
    sys.stderr.write(table(growth.lines) + "\n")
    json.dump(report(growth.lines, wanted.rounds), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
