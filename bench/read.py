"""Reading content: files, ranges, folders and whole DAGs, beside what the machine can do at best.

Run from the repository's root: `python -m bench.read [--size-mib N] [--files N] [--entries N] [--rounds N]
[--folder DIR]`. Prints one JSON document on stdout and a table on stderr. Limits of the machine (memory copy,
SHA-256, plain reading and copying of files) are measured in the same rounds; every figure is a median.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from merkledag.block import Block
from merkledag.builder import Link, build_file
from merkledag.chunker import fixed_chunks
from merkledag.cid import CID
from merkledag.directory import DirEntry, build_directory
from merkledag.profile import UNIXFS_V1_2025
from merkledag.reader import entries, read_file
from merkledag.steps import Buffer, iterate
from merkledag.traverse import walk_dag
from storage_node.blockstore.store import Store, open_store

MIB = 1 << 20
RANGES = 1_000
RANGE_BYTES = 100
SMALL_BYTES = 5_900
PER_FOLDER = 100
RSS = "import sys; from cli.main import run; run(sys.argv[1:]); status = open('/proc/self/status');" + (
    "sys.stderr.write(next(line.split()[1] for line in status if line.startswith('RssAnon')))"
)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class World:
    """A home with one large file, a folder of small ones, and a large HAMT."""

    def __init__(self, folder: Path, size_mib: int, files: int, entry_count: int) -> None:
        self.folder = folder
        self.size_bytes = size_mib * MIB
        self.env = os.environ | {"HOLDFAST_HOME": str(folder / "home"), "HOLDFAST_STORAGE_RESERVE_BYTES": "0"}
        self.command("repo", "stat")
        self.store: Store = open_store(folder / "home" / "blocks", reserve_bytes=0)
        self.plain = folder / "plain"
        self.plain.write_bytes(os.urandom(self.size_bytes))
        with self.plain.open("rb") as file:
            pieces: Iterator[Buffer] = iter(lambda: file.read(MIB), b"")
            self.large = self.put(*build_file(UNIXFS_V1_2025, fixed_chunks(pieces, MIB)))
        self.small = self.put_small(files)
        link, made = build_directory(
            UNIXFS_V1_2025,
            (DirEntry(f"file {n}", CID.of(b"%d" % n), SMALL_BYTES) for n in range(entry_count)),
            hamt="always",
        )
        self.hamt = self.put(link, made)

    def put(self, link: Link, made: Iterable[Block]) -> CID:
        self.store.put_many((block.cid.multihash, block.data) for block in made)
        return link.cid

    def put_small(self, files: int) -> CID:
        root = self.folder / "small"
        for number in range(files):
            (root / str(number // PER_FOLDER)).mkdir(parents=True, exist_ok=True)
            (root / str(number // PER_FOLDER) / str(number)).write_bytes(os.urandom(SMALL_BYTES))
        return CID.parse(self.command("add", "-Q", str(root)).decode().strip())

    def command(self, *arguments: str, output: int = subprocess.PIPE) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env=self.env, stdout=output, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        return done.stdout or b""

    def get_block(self, cid: CID) -> bytes:
        return self.store.get(cid.multihash)

    def read(self, cid: CID, start: int = 0, end: int | None = None) -> int:
        parts: Iterator[Buffer] = iterate(read_file(cid, start, end), self.get_block)
        return sum(map(len, parts))

    def walk(self, cid: CID) -> int:
        return sum(1 for _ in iterate(walk_dag(cid), self.get_block))

    def list(self, cid: CID) -> int:
        return sum(1 for _ in iterate(entries(cid), self.get_block))

    def fresh(self, name: str) -> str:
        path = self.folder / "out" / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        return str(path)

    def piped(self, *command: str) -> float:
        """Seconds until everything that a command prints has been read from a pipe."""
        start = time.perf_counter()
        with subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            buffer = bytearray(MIB)
            while child.stdout.readinto(buffer):  # type: ignore[attr-defined]
                pass
        return time.perf_counter() - start

    def first_line(self, *arguments: str) -> float:
        """Seconds until a command prints its first line."""
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            env=self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            child.stdout.readline()
            taken = time.perf_counter() - start
            child.stdout.close()
        return taken

    def memory_mib(self, *arguments: str) -> float:
        """Anonymous memory of a command at its end, which is about its peak here."""
        done = subprocess.run(
            [sys.executable, "-c", RSS, *arguments],
            env=self.env | {"PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True,
        )  # fmt: skip
        return int(done.stderr.split()[-1]) / 1024


def copy_memory(data: bytes) -> int:
    target = bytearray(MIB)
    view = memoryview(data)
    for at in range(0, len(data), MIB):
        target[:] = view[at : at + MIB]
    return len(target)


def one_round(world: World, data: bytes, spots: list[int]) -> dict[str, float]:
    """Seconds (or what the name says) of everything once, limits first."""
    cid, holdfast = str(world.large), (sys.executable, "-m", "cli.main")
    return {
        "limit: memory copy": seconds(lambda: copy_memory(data)),
        "limit: sha2-256, one core": seconds(lambda: hashlib.sha256(data)),
        "limit: cat FILE | reader": world.piped("cat", str(world.plain)),
        "limit: cp FILE": seconds(lambda: shutil.copyfile(world.plain, world.fresh("plain"))),
        "limit: cp -r SMALL": seconds(lambda: shutil.copytree(world.folder / "small", world.fresh("small"))),
        "read_file": seconds(lambda: world.read(world.large)),
        "walk_dag of the file": seconds(lambda: world.walk(world.large)),
        "walk_dag of the folder": seconds(lambda: world.walk(world.small)),
        f"{RANGES} ranges of {RANGE_BYTES} bytes": seconds(
            lambda: [world.read(world.large, at, at + RANGE_BYTES) for at in spots]
        ),
        "entries of the HAMT": seconds(lambda: world.list(world.hamt)),
        "cat | reader": world.piped(*holdfast, "cat", cid),
        "get": seconds(lambda: world.command("get", cid, "-o", world.fresh("x"))),
        "get -a -o - | reader": world.piped(*holdfast, "get", cid, "-a", "-o", "-"),
        "get of the folder": seconds(lambda: world.command("get", str(world.small), "-o", world.fresh("s"))),
        "ls of the HAMT": world.piped(*holdfast, "ls", str(world.hamt)),
        "ls of the HAMT, first line": world.first_line("ls", str(world.hamt)),
        "cat, anonymous MiB": world.memory_mib("cat", cid),
        "ls of the HAMT, anonymous MiB": world.memory_mib("ls", str(world.hamt)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    wanted = parser.parse_args()
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(dir=wanted.folder) as scratch:
        world = World(Path(scratch), wanted.size_mib, wanted.files, wanted.entries)
        data = world.plain.read_bytes()
        spots = [chance.randrange(world.size_bytes - RANGE_BYTES) for _ in range(RANGES)]
        rounds = [one_round(world, data, spots) for _ in range(wanted.rounds)]
        world.store.close()
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    for name, value in medians.items():
        sys.stderr.write(f"{name:36} {value:9.3f}\n")
    sizes = {"size_mib": wanted.size_mib, "files": wanted.files, "entries": wanted.entries}
    print(json.dumps({**sizes, "rounds": wanted.rounds, "medians": medians}, indent=1))


if __name__ == "__main__":
    main()
