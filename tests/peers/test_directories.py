"""Folders that are edited entry by entry: after every step the root is the one that boxo's directory has."""

from __future__ import annotations

import random
from typing import Any

import pytest

from merkledag.builder import build_file
from merkledag.cid import CID
from merkledag.dag_pb import name_bytes
from merkledag.directory import DirEntry, build_directory
from merkledag.mutate import edit
from merkledag.profile import ImportProfile
from merkledag.reader import entries
from merkledag.steps import iterate, run
from tests.peers import support
from tests.peers.generate import profile_of

pytestmark = pytest.mark.peers

CASES = 60
STEPS = 60
CHUNK_BYTES = 16


def options(dice: random.Random) -> dict[str, Any]:
    return {
        "profile": "unixfs-v1-2025",
        "chunker": f"size-{CHUNK_BYTES}",
        "layout": "balanced",
        "max_links": 3,
        "cid_version": dice.choice((0, 1)),
        "raw_leaves": dice.random() < 0.5,
        "hamt_threshold": dice.choice((60, 200, 800, 2_000)),
        "hamt_fanout": dice.choice((8, 16, 256)),
        "hamt_estimate": dice.choice(("links", "block")),
    }


def steps(dice: random.Random) -> list[list[str]]:
    """Additions, replacements and removals; the folder grows, and shrinks again towards the end."""
    made: list[list[str]] = []
    present: list[str] = []
    for number in range(STEPS):
        growing = number < STEPS * 2 // 3
        if present and dice.random() < (0.2 if growing else 0.8):
            name = present.pop(dice.randrange(len(present)))
            made.append(["rm", name])
            continue
        name = dice.choice(present) if present and dice.random() < 0.2 else random_name(dice)
        if name not in present:
            present.append(name)
        made.append(["add", name, "x" * dice.randrange(40)])
    return made


def random_name(dice: random.Random) -> str:
    return "".join(dice.choices("abéxyz019 ", k=dice.choice((1, 2, 8, 40))))


class Folder:
    """Our side: blocks, and the root after each edit."""

    def __init__(self, profile: ImportProfile) -> None:
        self.profile = profile
        self.blocks: dict[CID, bytes] = {}
        link, blocks = build_directory(profile, [])
        self.root = link.cid
        self.blocks |= {block.cid: block.data for block in blocks}

    def step(self, step: list[str]) -> str:
        """Makes one change; the new root."""
        if step[0] == "add":
            content = step[2].encode()
            chunks = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]
            link, _ = build_file(self.profile, chunks)
            editing = edit(self.profile, self.root, put=[DirEntry(step[1], link.cid, link.tsize)])
        else:
            editing = edit(self.profile, self.root, remove=[step[1]])
        edited = run(editing, self.blocks.__getitem__)
        self.blocks |= {block.cid: block.data for block in edited.blocks}
        self.root = edited.link.cid
        return str(self.root)

    def flat_bytes(self) -> int:
        """What the folder is compared with its threshold by."""
        found = list(iterate(entries(self.root), self.blocks.__getitem__))
        if self.profile.hamt_estimate == "links":
            return sum(len(name_bytes(entry.name)) + len(bytes(entry.cid)) for entry in found)
        listed = [DirEntry(entry.name, entry.cid, entry.tsize or 0) for entry in found]
        _, blocks = build_directory(self.profile, listed, hamt="never")
        return len(blocks[-1].data)


def is_boxos_slack(folder: Folder, step: list[str]) -> bool:
    """Whether boxo v0.39 may have left a HAMT too early: just above the threshold.

    When it looks whether a HAMT fits into one block again, it takes the entry that goes with the bucket's
    number before its name, and the one that replaces it without its name.
    """
    threshold = folder.profile.hamt_threshold_bytes
    over = folder.flat_bytes() - threshold
    return 0 < over <= len(name_bytes(step[1])) + len(f"{folder.profile.hamt_fanout - 1:X}") + 2


def test_every_step_has_the_root_that_boxo_has() -> None:
    boxo = support.find_peer("boxo")
    cases = []
    for seed in range(CASES):
        dice = random.Random(seed)
        cases.append((options(dice), steps(dice)))
    results = boxo.run([{"do": "directory", "steps": each, **chosen} for chosen, each in cases])
    compared = slack = 0
    for seed, ((chosen, each), result) in enumerate(zip(cases, results, strict=True)):
        assert "error" not in result, (seed, result)
        folder = Folder(profile_of(chosen))
        for number, (step, root) in enumerate(zip(each, result["roots"], strict=True)):
            compared += 1
            if folder.step(step) != root:
                assert is_boxos_slack(folder, step), f"seed {seed}, step {number}: {step} {chosen}"
                slack += 1
                break
    assert compared > 0.8 * CASES * STEPS
    assert slack < CASES / 5
