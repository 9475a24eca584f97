"""Random trees with random options have the same root everywhere, and either side reads the other's archive.

HOLDFAST_PEER_CASES and HOLDFAST_PEER_SEED widen and move the search; `python -m tests.peers.compare` goes on
for as long as it is wanted.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from merkledag.chunker import parse_chunker
from merkledag.profile import UNIXFS_V1_2025
from tests.peers import support
from tests.peers.compare import BATCH, compare, for_js
from tests.peers.generate import profile_of, random_cases

pytestmark = pytest.mark.peers

# Read here, because a fixture takes HOLDFAST_* variables away from the tests themselves.
CASES = int(os.environ.get("HOLDFAST_PEER_CASES", "1000"))
SEED = int(os.environ.get("HOLDFAST_PEER_SEED", "4"))
JS_CASES = CASES // 10
ARCHIVED = 40


@pytest.mark.timeout(60 + CASES // 10)
@pytest.mark.parametrize("first", range(SEED, SEED + CASES, BATCH))
def test_random_trees_and_options_have_one_root(first: int, tmp_path: Path) -> None:
    peer = support.find_peer("boxo")
    cases = random_cases(first, min(BATCH, SEED + CASES - first))
    mismatches = compare(cases, peer, tmp_path)
    assert not mismatches, "\n".join(map(str, mismatches[:5]))


@pytest.mark.timeout(60 + CASES // 10)
def test_the_javascript_importer_agrees_where_it_has_the_options(tmp_path: Path) -> None:
    peer = support.find_peer("js")
    cases = map(for_js, random_cases(SEED, JS_CASES))
    mismatches = compare(cases, peer, tmp_path)
    assert not mismatches, "\n".join(map(str, mismatches[:5]))


@pytest.mark.parametrize("chunker", ["rabin", "rabin-100000", "rabin-20000-60000-90000", "buzhash"])
def test_content_is_cut_where_boxo_cuts_it(chunker: str, tmp_path: Path) -> None:
    """Files of several chunks of usual size; content that repeats, and content without a place to cut."""
    peer = support.find_peer("boxo")
    dice = random.Random(chunker)
    pattern = dice.randbytes(300_000)
    contents = {
        "noise": dice.randbytes(3_000_000),
        "again": pattern * 7,
        "shifted": b"x" + pattern * 4,
        "zeros": bytes(1_500_000),
        "short": dice.randbytes(150_000),
        "border": dice.randbytes(512 * 1024),
    }
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    for layout in ("balanced", "trickle"):
        profile = replace(UNIXFS_V1_2025, chunker=parse_chunker(chunker), layout=layout)
        root, _ = support.import_blocks(folder, profile)
        job = {"do": "import", "folder": str(folder), "profile": "unixfs-v1-2025"}
        assert peer.run([job | {"chunker": chunker, "layout": layout}]) == [{"root": str(root)}]


@pytest.mark.parametrize("peer_name", ["boxo", "js"])
def test_archives_of_random_trees_are_read_by_the_other_side(peer_name: str, tmp_path: Path) -> None:
    peer = support.find_peer(peer_name)
    cases = list(random_cases(SEED + CASES, ARCHIVED))
    if peer_name == "js":
        cases = list(map(for_js, cases))
    folders = [tmp_path / str(case.seed) for case in cases]
    jobs: list[dict[str, Any]] = []
    for case, folder in zip(cases, folders, strict=True):
        case.write(folder)
        root, blocks = support.import_blocks(
            folder, profile_of(case.options), attributes="attributes" in case.options
        )
        support.write_car(folder.with_suffix(".ours"), root, blocks)
        jobs.append({"do": "export", "car": str(folder.with_suffix(".ours"))})
        theirs = {"car": str(folder.with_suffix(".theirs")), "car_version": 1 + case.seed % 2}
        jobs.append({"do": "import", "folder": str(folder), **theirs, **case.options})
    results = iter(peer.run(jobs))
    for case, folder, exported, imported in zip(cases, folders, results, results, strict=True):
        expected = support.tree_of_folder(folder)
        assert "error" not in exported | imported, (case.seed, exported, imported)
        assert support.tree_of_result(exported) == expected, f"ours, read by {peer_name}: seed {case.seed}"
        header, blocks = support.read_car(folder.with_suffix(".theirs"))
        assert [str(root) for root in header.roots] == [imported["root"]]
        tree = support.tree_of_dag(header.roots[0], blocks)
        assert tree == expected, f"theirs, read by us: seed {case.seed}"
        if "attributes" in case.options:
            attributes = support.attributes_of_result(exported)
            assert attributes == support.attributes_of_folder(folder), f"seed {case.seed}"
