"""Thousands of interruptions of a store in use, each followed by a recount: what the tests do, in large.

    python -m bench.crash --rounds 2000 [--how kill tear power full broken] [--seed N] [--folder PATH]

Two processes share the rounds, a seed each. Prints JSON; exit 1 if anything acknowledged was lost, a count
was wrong or an error was not a clear one. The seed and the round that it names repeat it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults.rounds import ERRORS, KILLS
from tests.faults.shim import compiler

ROOT = Path(__file__).resolve().parents[1]
ROUNDS_PER_PROCESS = 100


def interrupt(folder: Path, how: str, rounds: int, seed: str) -> dict[str, Any]:
    """What `rounds` of one kind saw, in a process of their own."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.faults.rounds", str(folder), "--how", how, "--seed", seed]
    done = subprocess.run(
        [*command, "--rounds", str(rounds)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if not done.stdout:
        return {"findings": [f"seed {seed}, {how}: the rounds themselves failed"]}
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def summed(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers added up, lists joined."""
    total: dict[str, Any] = {}
    for outcome in outcomes:
        for name, value in outcome.items():
            if isinstance(value, dict):
                total[name] = summed([total.get(name, {}), value])
            else:
                total[name] = total[name] + value if name in total else value
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000, help="of each kind")
    parser.add_argument("--how", nargs="*", default=[*KILLS, *ERRORS], choices=[*KILLS, *ERRORS])
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)))
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to try")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if compiler() is None:
        parser.error("needs Linux and a C compiler")
    failed = False
    document: dict[str, Any] = {"seed": options.seed}
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as name,
        ThreadPoolExecutor(options.processes) as pool,
    ):
        for how in options.how:
            began_s = time.monotonic()
            tasks = []
            for first in range(0, options.rounds, ROUNDS_PER_PROCESS):
                rounds = min(ROUNDS_PER_PROCESS, options.rounds - first)
                folder = Path(name, f"{how}-{first}")
                tasks.append(pool.submit(interrupt, folder, how, rounds, f"{options.seed}-{first}"))
            document[how] = summed([task.result() for task in tasks])
            document[how]["seconds"] = round(time.monotonic() - began_s, 1)
            failed = failed or bool(document[how]["findings"])
            print(how, document[how], file=sys.stderr, flush=True)
    print(json.dumps(document, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
