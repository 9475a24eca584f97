"""Chunkers beside a plain loop over bytes and beside SHA-256, on one core.

Run from the repository's root: `python -m bench.chunkers [--size-mib N] [--rounds N]`. Prints one JSON
document on stdout and a table on stderr. Every figure is the median of processor seconds over the rounds,
in which all lines are measured in turn. The loop is the definition of the rolling hash in Python, over a
part of the data. Ratios to SHA-256 of the same bytes say how much of an import's time goes into finding the
ends of chunks.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from hashlib import sha256

from merkledag.chunker import parse_chunker
from merkledag.chunker_buzhash import _WORDS

MIB = 1 << 20
LOOP_BYTES = MIB
CHUNKERS = ("size-262144", "buzhash", "rabin", "rabin-262144-524288-1048576", "rabin-4096")
INPUTS = ("random", "zeros", "period of 37")


def make(kind: str, size_mib: int) -> list[bytes]:
    """Pieces of 1 MiB."""
    chance = random.Random(1)
    if kind == "random":
        return [chance.randbytes(MIB) for _ in range(size_mib)]
    if kind == "zeros":
        return [bytes(MIB)] * size_mib
    whole = (chance.randbytes(37) * (size_mib * MIB // 37 + 1))[: size_mib * MIB]
    return [whole[at : at + MIB] for at in range(0, len(whole), MIB)]


def plain_loop(data: bytes) -> int:
    """Buzhash as one writes it down: how many positions end a chunk."""
    words = [int.from_bytes(_WORDS[4 * n : 4 * n + 4], "big") for n in range(256)]
    state = found = 0
    for out, entering in zip(data, data[32:], strict=False):
        state = (state << 1 & 0xFFFFFFFF | state >> 31) ^ words[out] ^ words[entering]
        found += state & 0x1FFFF == 0
    return found


def hashed(pieces: list[bytes]) -> None:
    for piece in pieces:
        sha256(piece).digest()


def split(name: str, pieces: list[bytes]) -> None:
    for _ in parse_chunker(name).split(pieces):
        pass


def measure(size_mib: int, rounds: int) -> dict[str, float]:
    """Megabytes a second by line."""
    data = {kind: make(kind, size_mib) for kind in INPUTS}
    size = size_mib * MIB
    lines: dict[str, tuple[int, Callable[[], object]]] = {
        "sha2-256": (size, lambda: hashed(data["random"])),
        "a plain loop (buzhash)": (LOOP_BYTES, lambda: plain_loop(data["random"][0])),
    }
    for name in CHUNKERS:
        for kind in INPUTS if name in ("buzhash", "rabin") else INPUTS[:1]:
            lines[f"{name}, {kind}"] = (size, lambda name=name, kind=kind: split(name, data[kind]))  # type: ignore[misc]
    taken: dict[str, list[float]] = {line: [] for line in lines}
    for _ in range(rounds):
        for line, (_, work) in lines.items():
            began_s = time.process_time()
            work()
            taken[line].append(time.process_time() - began_s)
    return {line: lines[line][0] / 1e6 / max(statistics.median(spent), 1e-9) for line, spent in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size-mib", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rates = measure(arguments.size_mib, arguments.rounds)
    loop, hashing = rates["a plain loop (buzhash)"], rates["sha2-256"]
    sys.stderr.write(f"{'':44} {'MB/s':>9} {'x loop':>8} {'/ sha2-256':>11}\n")
    for line, rate in rates.items():
        sys.stderr.write(f"{line:44} {rate:9.1f} {rate / loop:8.1f} {rate / hashing:11.3f}\n")
    document = {
        "size_mib": arguments.size_mib,
        "rounds": arguments.rounds,
        "lines": {
            line: {
                "mb_per_s": round(rate, 1),
                "times_the_loop": round(rate / loop, 1),
                "part_of_sha2_256": round(rate / hashing, 3),
            }
            for line, rate in rates.items()
        },
    }
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
