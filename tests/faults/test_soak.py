"""Several processes on one home at once; for longer it is `python -m bench.soak`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.storage_node.processes import ROOT

TURNS = 45
TIMEOUT_S = 150


def test_processes_that_add_read_collect_compact_and_evict_at_once(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.faults.soak",
        str(tmp_path),
        "--turns",
        str(TURNS),
        "--seed",
        "suite",
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert {"add", "read", "unpin", "write", "collect", "compact", "cache", "evict"} <= set(found["done"])
    assert found["pins"] > 0
    assert found["looks"] > 0
    assert 0.7 * found["max_bytes"] < found["most_bytes"] <= found["max_bytes"], "the quota was never near"
