"""Speed of Filecoin piece commitments: one core, all cores, Go's library, and what SHA-256 alone would allow.

Run from the repository's root: `python -m bench.commp [--rounds N] [--mib N]`. Prints one JSON document on
stdout and a table on stderr. The limit is one hash by hashlib a node, four for 127 bytes, and nothing else: a
node has 64 bytes, for which the calls cost several times the hashing. Figures of one core are by its own
time, others by the clock; all are medians of rounds in turns. Go's library is measured where `make peers` has
been run, as a process that starts and reads the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cli.car_commp import commit, open_file
from proofs.piece_cid import fr32
from proofs.piece_cid.stream import piece_of
from proofs.piece_cid.tree import SEGMENT_BYTES

MIB = 1024 * 1024
PEER = (
    Path(os.environ.get("HOLDFAST_PEERS") or Path.home() / ".cache" / "holdfast-peers") / "bin" / "boxo-peer"
)
Work = Callable[[], int]  # returns the bytes of payload it was done for


def measured(rounds: int, works: dict[str, Work], clock: Callable[[], float]) -> dict[str, float]:
    """MB of payload a second of each work, all taken in turns."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start_s = clock()
            done_bytes = work()
            rates[name].append(done_bytes / (clock() - start_s) / 1e6)
    return {name: statistics.median(rate) for name, rate in rates.items()}


def hash_alone(payload: bytes) -> int:
    """One SHA-256 of 64 bytes, in the fastest way known, for each node that the tree over `payload` has."""
    new, pair = hashlib.sha256().copy, payload[:64]
    for _ in range(4 * len(payload) // fr32.QUAD_BYTES):
        hashed = new()
        hashed.update(pair)
        hashed.digest()
    return len(payload)


def pad_alone(payload: bytes) -> int:
    """fr32 alone."""
    step = fr32.BATCH_QUADS * fr32.QUAD_BYTES
    for start in range(0, len(payload), step):
        fr32.pad(payload[start : start + step])
    return len(payload)


def in_go(file: Path) -> int:
    """Go's library over the file, in a process of its own."""
    job = json.dumps([{"do": "piece", "file": str(file)}])
    done = subprocess.run([str(PEER)], input=job, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)[0]["payload"])


def by_command(file: Path) -> int:
    """What `holdfast car commp` does with the file: by processes if it is large."""
    with open_file(str(file)) as payload:
        return commit(payload).piece.payload_bytes


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=128, help="size of the large file")
    options = parser.parse_args()
    segment = os.urandom(SEGMENT_BYTES)
    single: dict[str, Work] = {
        "one core": lambda: piece_of([segment]).payload_bytes,
        "SHA-256 alone": lambda: hash_alone(segment),
        "fr32 alone": lambda: pad_alone(segment),
    }
    rates = measured(5 * options.rounds, single, time.process_time)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "payload"
        file.write_bytes(os.urandom(MIB) * options.mib)
        works: dict[str, Work] = {"all cores, from a file": lambda: by_command(file)}
        if os.access(PEER, os.X_OK):
            works["Go, all cores, from a file"] = lambda: in_go(file)
        rates |= measured(options.rounds, works, time.perf_counter)
    figures = {f"{name} MB/s": round(rate, 1) for name, rate in rates.items()}
    figures["one core, of SHA-256 alone"] = round(rates["one core"] / rates["SHA-256 alone"], 2)
    for name, figure in figures.items():
        print(f"{name:36} {figure:>8}", file=sys.stderr)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
