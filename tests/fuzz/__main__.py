"""Fuzzes a decoder for as long as wanted: `python -m tests.fuzz TARGET --seconds 60`."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.fuzz.registry import TARGETS
from tests.fuzz.target import Finding, run


def main() -> int:
    """Prints what was tried; exit status 1 with the seed and a small input for the first finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=("all", *TARGETS))
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    arguments = parser.parse_args()
    status = 0
    for target in TARGETS.values() if arguments.target == "all" else [TARGETS[arguments.target]]:
        started = time.monotonic()
        try:
            outcome = run(target, arguments.seed, seconds=arguments.seconds)
        except Finding as finding:
            print(finding, flush=True)
            status = 1
            continue
        rate = outcome.inputs / (time.monotonic() - started)
        print(
            f"{target.name:12} seed {arguments.seed}: {outcome.inputs} inputs, "
            f"{outcome.accepted} of them valid, {rate:.0f} a second",
            flush=True,
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
