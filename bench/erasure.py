"""Speed of the erasure code as it is used, on whole plans and manifests, against plain zfec on padded blocks.

Run from the repository's root: `python -m bench.erasure [--rounds N]`. Prints one JSON document on stdout and
a table on stderr. "encode of zfec" is the time of zfec's own call, on blocks padded beforehand, by the time
of `encode_plan` over the same groups, padding and all; figures are medians of the processor's time in rounds
in turns. Restoring also checks every block against its CID, so it is compared with zfec and SHA-256 together.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable

import zfec

from merkledag import multihash
from merkledag.cid import CID
from proofs.erasure import backend_tables
from proofs.erasure.code import encode_group
from proofs.erasure.groups import encode_plan, restore_groups
from proofs.erasure.manifest import build_manifest, plan

MIB = 1024 * 1024
CODES = ((2, 3), (4, 6), (10, 16), (20, 40))
GROUPS = 5
SIZES: dict[str, Callable[[random.Random], int]] = {
    "equal": lambda rng: MIB,
    "nearly equal": lambda rng: MIB - rng.randrange(4000),
    "mixed": lambda rng: rng.randrange(MIB // 4, MIB),
    "small": lambda rng: rng.randrange(2000, 4000),
}
Figures = dict[str, float | str]


def consume(made: Iterable[object]) -> None:
    """Takes one after the other and keeps none."""
    deque(made, maxlen=0)


def bench_code(rounds: int, k: int, m: int, sizes: str) -> Figures:
    """Encoding, restoring all with as many members lost as can be, and rebuilding one node."""
    rng = random.Random(1)
    many = GROUPS * (100 if sizes == "small" else 1)
    blocks = [rng.randbytes(SIZES[sizes](rng)) for _ in range(k * many)]
    stored = {multihash.digest(block): block for block in blocks}
    planned = plan([(name, len(block)) for name, block in stored.items()], k, m)
    total = sum(map(len, blocks))
    groups = [[stored[name] for name in group.members] for group in planned.groups()]
    padded = [tuple(block.ljust(len(group[0]), b"\0") for block in group) for group in groups]
    parity = [made for _, group in encode_plan(planned, stored.__getitem__) for made in group]
    stored |= {multihash.digest(made): made for made in parity}
    manifest = build_manifest(CID.of(b""), planned, map(multihash.digest, parity), [])
    gone = range(m - k) if m - k < k else range(k)
    order = (*range(k, k + len(gone)), *range(len(gone), k))
    shares = [
        tuple(stored[(*group.members, *group.parity)[index]].ljust(len(own[0]), b"\0") for index in order)
        for group, own in zip(manifest.groups(), padded, strict=True)
    ]
    encoder, decoder = zfec.Encoder(k, m), zfec.Decoder(k, m)

    def get(share: int, name: bytes) -> bytes:
        return stored[name]

    works: dict[str, Callable[[], object]] = {
        "zfec": lambda: consume(encoder.encode(group, tuple(range(k, m))) for group in padded),
        "encode": lambda: consume(encode_plan(planned, stored.__getitem__)),
        "zfec decode": lambda: consume(decoder.decode(group, order) for group in shares),
        "restore": lambda: consume(restore_groups(manifest, range(k), get, lost=gone)),
        "rebuild one": lambda: consume(restore_groups(manifest, [0], get, lost=[0])),
        "hash": lambda: consume(map(multihash.digest, blocks)),
        "plain Python": lambda: encode_group(k, m, groups[0], using=backend_tables),
    }
    times = _timed(rounds, works)
    rates = {name: total / taken / 1e6 for name, taken in times.items()}
    rates["plain Python"] /= many
    return {
        "code": f"{k}-of-{m}",
        "sizes": sizes,
        "zfec encode MB/s": rates["zfec"],
        "encode MB/s": rates["encode"],
        "encode of zfec": times["zfec"] / times["encode"],
        "restore MB/s": rates["restore"],
        "restore of zfec and hashing": (times["zfec decode"] + times["hash"]) / times["restore"],
        "rebuild one node, read MB/s": rates["rebuild one"],
        "plain Python encode MB/s": rates["plain Python"],
    }


def _timed(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start_s = time.process_time()
            work()
            taken[name].append(time.process_time() - start_s)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each measurement")
    rounds = parser.parse_args().rounds
    report = [bench_code(rounds, k, m, sizes) for k, m in CODES for sizes in SIZES]
    print(json.dumps(report, indent=1))
    for row in report:
        cells = "  ".join(f"{key} {value:.3g}" for key, value in row.items() if not isinstance(value, str))
        print(f"{row['code']:9} {row['sizes']:13} {cells}", file=sys.stderr)


if __name__ == "__main__":
    main()
