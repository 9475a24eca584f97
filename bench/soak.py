"""Hours of several processes at once on one home after the other, each recounted at its end.

    python -m bench.soak --minutes 60 [--workers 4] [--turns 400] [--max-bytes N] [--folder PATH] [--seed N]

What happens is `tests/faults/soak.py`. Prints one JSON line a home; exit 1 at the first that is wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--turns", type=int, default=400, help="of each process")
    parser.add_argument("--max-bytes", type=int, default=30_000_000)
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)))
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to try")
    options = parser.parse_args()
    ends_s = time.monotonic() + 60 * options.minutes
    homes = 0
    while time.monotonic() < ends_s:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            numbers = {"workers": options.workers, "turns": options.turns, "max-bytes": options.max_bytes}
            flags = [word for key, value in numbers.items() for word in (f"--{key}", str(value))]
            command = [sys.executable, "-m", "tests.faults.soak", name, "--seed", f"{options.seed}-{homes}"]
            done = subprocess.run(
                [*command, *flags], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
            )
        if done.returncode != 0:
            return 1
        homes += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
