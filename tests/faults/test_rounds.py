"""Homes that are used while something goes wrong; in large it is `python -m bench.crash`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.shim import compiler
from tests.storage_node.processes import ROOT

TIMEOUT_S = 150


def rounds(folder: Path, how: str, number: int, seed: str) -> dict[str, Any]:
    """What tests.faults.rounds saw, in a process of its own that has the library loaded."""
    command = [sys.executable, "-m", "tests.faults.rounds", str(folder), "--how", how, "--seed", seed]
    done = subprocess.run(
        [*command, "--rounds", str(number)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


@pytest.mark.skipif(
    compiler() is None, reason="needs Linux and a C compiler, for the library that makes calls fail"
)
@pytest.mark.parametrize(
    ("how", "number"),
    [
        pytest.param("kill", 16, id="killed between two system calls"),
        pytest.param("tear", 10, id="killed in the middle of a write"),
        pytest.param("power", 12, id="the power cut, and what was not synced lost by chance"),
        pytest.param("full", 8, id="a full disk"),
        pytest.param("broken", 8, id="a disk with errors"),
    ],
)
def test_what_was_acknowledged_is_there_and_everything_works_on(
    how: str, number: int, tmp_path: Path
) -> None:
    outcome = rounds(tmp_path, how, number, "suite")
    assert outcome["findings"] == []
    assert outcome["rounds"] == number
    assert outcome["struck"] >= number // 4, "the faults missed"
    assert outcome["acknowledged"] > number
    if how == "power":
        assert outcome["sectors_lost"] > 0
    if how in ("full", "broken"):
        assert outcome["refused"] > 0
