"""`holdfast add` with flags has the roots that boxo has with the options they stand for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.peers import support
from tests.peers.generate import RandomCase, random_cases

pytestmark = pytest.mark.peers

ROOT = Path(__file__).resolve().parent.parent.parent
CASES = 12
SEED = 900
COMMAND_HASHES = {"sha2-256", "sha2-512", "blake3"}


def flags(options: dict[str, Any]) -> list[str]:
    """The options of the peers as a user writes them."""
    values = {
        "--profile": options["profile"],
        "--chunker": options["chunker"],
        "--layout": options["layout"],
        "--max-links": options["max_links"],
        "--cid-version": options["cid_version"],
        "--hash": options.get("hash"),
        "--hamt-threshold": options["hamt_threshold"],
        "--hamt-fanout": options["hamt_fanout"],
        "--hamt-estimate": options["hamt_estimate"],
        "--max-directory-links": options.get("directory_links"),
        "--inline-limit": options.get("inline_limit"),
    }
    written = [f"{name}={value}" for name, value in values.items() if value is not None]
    written.append("--raw-leaves" if options["raw_leaves"] else "--no-raw-leaves")
    if "inline_limit" in options:
        written.append("--inline")
    if "attributes" in options:
        written += ["--preserve-mode", "--preserve-mtime"]
    return written


def is_for_the_command(case: RandomCase) -> bool:
    return case.options.get("hash", "sha2-256") in COMMAND_HASHES


def test_flags_have_the_roots_of_the_options_they_stand_for(tmp_path: Path) -> None:
    boxo = support.find_peer("boxo")
    jobs, ours = [], []
    cases = list(filter(is_for_the_command, random_cases(SEED, 4 * CASES)))[:CASES]
    for case in cases:
        folder = tmp_path / str(case.seed)
        case.write(folder)
        jobs.append({"do": "import", "folder": str(folder), **case.options})
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "add", "-n", "-Q", "-H", *flags(case.options), str(folder)],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
            env=os.environ | {"HOLDFAST_HOME": str(tmp_path / "home")},
        )  # fmt: skip
        ours.append(done.stdout.strip() or done.stderr)
    for case, root, result in zip(cases, ours, boxo.run(jobs), strict=True):
        assert result == {"root": root}, (case.seed, flags(case.options))
