"""Real processes for tests: run Python code to its end, or start it and kill it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with arguments in `sys.argv`; the caller looks at the return code."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment(), check=False
    )


def start_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start `code`; its standard output is a pipe of lines."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def wait_for_end(process: int, patience_s: float = 90) -> bool:
    """Whether the process of a pidfd ends in time."""
    try:
        ended = select.poll()  # `select` takes no number above 1,023
        ended.register(process, select.POLLIN)
        return bool(ended.poll(patience_s * 1_000))
    finally:
        os.close(process)
