"""Random trees with random options have the same root everywhere, and either side reads the other's archive.

HOLDFAST_PEER_CASES and HOLDFAST_PEER_SEED widen and move the search; `python -m tests.peers.compare` goes on
for as long as it is wanted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.peers import support
from tests.peers.compare import BATCH, compare, for_js
from tests.peers.generate import RandomCase, profile_of, random_cases

pytestmark = pytest.mark.peers

# Read here, because a fixture takes HOLDFAST_* variables away from the tests themselves.
CASES = int(os.environ.get("HOLDFAST_PEER_CASES", "1000"))
SEED = int(os.environ.get("HOLDFAST_PEER_SEED", "4"))
JS_CASES = CASES // 5
ARCHIVED = 60


def is_built(case: RandomCase) -> bool:
    """Whether our importer has the options yet."""
    options = case.options
    return (
        options["chunker"].startswith("size-")
        and options["layout"] == "balanced"
        and "inline_limit" not in options
    )


@pytest.mark.timeout(60 + CASES // 10)
@pytest.mark.parametrize("first", range(SEED, SEED + CASES, BATCH))
def test_random_trees_and_options_have_one_root(first: int, tmp_path: Path) -> None:
    peer = support.find_peer("boxo")
    cases = filter(is_built, random_cases(first, min(BATCH, SEED + CASES - first)))
    mismatches = compare(cases, peer, tmp_path)
    assert not mismatches, "\n".join(map(str, mismatches[:5]))


@pytest.mark.timeout(60 + CASES // 10)
def test_the_javascript_importer_agrees_where_it_has_the_options(tmp_path: Path) -> None:
    peer = support.find_peer("js")
    cases = filter(is_built, map(for_js, random_cases(SEED, JS_CASES)))
    mismatches = compare(cases, peer, tmp_path)
    assert not mismatches, "\n".join(map(str, mismatches[:5]))


@pytest.mark.parametrize("peer_name", ["boxo", "js"])
def test_archives_of_random_trees_are_read_by_the_other_side(peer_name: str, tmp_path: Path) -> None:
    peer = support.find_peer(peer_name)
    cases = list(random_cases(SEED + CASES, ARCHIVED))
    if peer_name == "js":
        cases = list(map(for_js, cases))
    cases = list(filter(is_built, cases))
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
