"""Random trees with random options, built by us and by a peer: `python -m tests.peers.compare --cases 10000`.

Every case follows from its seed, so that `--seed N --cases 1` builds the one case of a report again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.peers import support
from tests.peers.generate import Folder, RandomCase, profile_of, random_case

BATCH = 500  # cases in one process of the peer


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A case that came out differently, and how."""

    case: RandomCase
    ours: str
    theirs: str

    def __str__(self) -> str:
        again = f"python -m tests.peers.compare --seed {self.case.seed} --cases 1 --keep FOLDER"
        return f"seed {self.case.seed} {self.case.options}: ours {self.ours}, theirs {self.theirs} ({again})"


def for_js(case: RandomCase) -> RandomCase:
    """The case with what the JavaScript importer lacks, or does by a known fault otherwise, taken out.

    It has one hash function, chunks of fixed size, no inlining and no limit of links in a folder, gives
    attributes to none of our files, and leaves folders that are not empty out of the size that decides on a
    HAMT.
    """
    lacking = {"hash", "inline_limit", "attributes", "directory_links"}
    options = {name: value for name, value in case.options.items() if name not in lacking}
    if not options["chunker"].startswith("size-"):
        options["chunker"] = "size-100"
    if any(isinstance(entry, Folder) for entry in case.tree.entries.values()):
        options["hamt_threshold"] = 256 * 1024
    return replace(case, options=options)


def compare(cases: Iterable[RandomCase], peer: support.Peer, at: Path) -> list[Mismatch]:
    """Builds every case in a folder below `at` with both; returns those whose roots differ."""
    jobs, ours = [], []
    cases = list(cases)
    for case in cases:
        folder = at / str(case.seed)
        case.write(folder)
        jobs.append({"do": "import", "folder": str(folder), **case.options})
        ours.append(our_root(case, folder))
    results = peer.run(jobs)
    return [
        Mismatch(case, root, str(result.get("root") or result))
        for case, root, result in zip(cases, ours, results, strict=True)
        if result != {"root": root}
    ]


def our_root(case: RandomCase, folder: Path) -> str:
    """The root by our importer, or its error."""
    try:
        profile = profile_of(case.options)
        root, _ = support.import_blocks(folder, profile, attributes="attributes" in case.options)
    except Exception as error:  # every failure is a difference from a peer that builds it
        return f"{type(error).__name__}: {error}"
    return str(root)


def main() -> int:
    """Prints every difference; exit status 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers.compare", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--peer", choices=("boxo", "js"), default="boxo")
    parser.add_argument("--keep", type=Path, help="leave the trees in this folder, which must not exist")
    arguments = parser.parse_args()
    peer = support.find_peer(arguments.peer)
    started, wrong, kinds = time.monotonic(), 0, Counter[str]()
    print(f"{arguments.cases} cases from seed {arguments.seed} on, with {arguments.peer}")
    for first in range(arguments.seed, arguments.seed + arguments.cases, BATCH):
        count = min(BATCH, arguments.seed + arguments.cases - first)
        cases = [random_case(seed) for seed in range(first, first + count)]
        if arguments.peer == "js":
            cases = list(map(for_js, cases))
        at = Path(tempfile.mkdtemp(prefix="holdfast-compare-"))
        try:
            for mismatch in compare(cases, peer, at):
                wrong += 1
                print(mismatch, flush=True)
        finally:
            if arguments.keep:
                shutil.move(at, arguments.keep / str(first))
            else:
                shutil.rmtree(at)
        kinds.update(
            f"{case.options['chunker'].partition('-')[0]}, {case.options['layout']}" for case in cases
        )
    for kind, count in sorted(kinds.items()):
        print(f"{count:8} {kind}")
    print(f"{kinds.total()} compared in {time.monotonic() - started:.0f} s, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
