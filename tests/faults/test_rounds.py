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


def rounds(folder: Path, kinds: dict[str, int], seed: str) -> list[dict[str, Any]]:
    """What tests.faults.rounds saw, in a process of its own that has the library loaded."""
    command = [sys.executable, "-m", "tests.faults.rounds", str(folder), "--seed", seed]
    done = subprocess.run(
        [*command, "--how", *kinds, "--rounds", *map(str, kinds.values())],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(
    compiler() is None, reason="needs Linux and a C compiler, for the library that makes calls fail"
)
@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(
            {"kill": 16, "tear": 10, "full": 8, "broken": 8},
            id="killed between system calls and in the middle of a write, a full disk, a disk with errors",
        ),
        pytest.param({"power": 12}, id="the power cut, and what was not synced lost by chance"),
    ],
)
def test_what_was_acknowledged_is_there_and_everything_works_on(
    kinds: dict[str, int], tmp_path: Path
) -> None:
    outcomes = rounds(tmp_path, kinds, "suite")
    for (how, number), outcome in zip(kinds.items(), outcomes, strict=False):
        assert outcome["findings"] == []
        assert outcome["rounds"] == number
        assert outcome["struck"] >= number // 4, f"the faults missed: {how}"
        assert outcome["acknowledged"] > number
        if how == "power":
            assert outcome["sectors_lost"] > 0
        if how in ("full", "broken"):
            assert outcome["refused"] > 0
    assert len(outcomes) == len(kinds)
