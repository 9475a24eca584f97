"""Several processes use one home at once, each a fixed number of times; a recount at the end.

    python -m tests.faults.soak FOLDER --workers 3 --turns 30 --seed S --max-bytes N

Workers add, pin, unpin and edit the mutable tree, and read back what they pinned; one more process collects,
compacts, verifies, evicts, fills the cache and makes backups; another looks at the quota all the time. Prints
one JSON document; exit 1 if something that was acknowledged is not there, a count is wrong, the quota was
passed or a command failed for another reason than lack of room.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from storage_node.blockstore.store import open_store
from storage_node.blockstore.tables import Counters
from tests.faults.checker import recount
from tests.faults.workload import HOME, Ledger, Life, Program, Refused, readable

WORK = {
    "add": 6,
    "add_loose": 2,
    "unpin": 3,
    "name": 1,
    "link": 2,
    "pin": 2,
    "update": 2,
    "write": 3,
    "remove": 1,
    "read": 4,
}
UPKEEP = {"collect": 4, "compact": 2, "repair": 1, "cache": 6, "evict": 2, "back_up": 1}
FULL = 6
SETTINGS = {"HOLDFAST_STORAGE_RESERVE_BYTES": "0", "HOLDFAST_NAMES_DNS": "off"}


@dataclass
class Member:
    """One of the processes: what it does by chance, and its own pins."""

    number: int
    kinds: dict[str, int]
    turns: int


def live(member: Member, folder: Path, seed: str) -> dict[str, Any]:
    """Take the member's turns; its pins, what it did and what went wrong."""
    own = folder / f"member-{member.number}"
    own.mkdir()
    chance, known, done = random.Random(f"{seed} {member.number}"), Ledger(), Counter[str]()
    program = Program(own, backup=folder / "backup")
    life = Life(program, chance, known, lambda *_: None, None, b"member %d " % member.number)
    wrong: list[str] = []
    for _ in range(member.turns):
        name = chance.choices(list(member.kinds), list(member.kinds.values()))[0]
        try:
            if name == "read":
                if known.pins:
                    _read_back(program, readable(chance.choice(sorted(known.pins))))
            elif name in life.possible():
                getattr(life, name)()
            else:
                continue
            done[name] += 1
        except Refused as refused:
            if refused.code == FULL:
                done["no room"] += 1
            else:
                wrong.append(str(refused))
    return {"pins": sorted(known.pins), "done": done, "wrong": wrong}


def _read_back(program: Program, cid: str) -> None:
    """The whole DAG, by the command that checks what it reads."""
    program("get", "--output", str(program.folder / "read"), cid)
    (program.folder / "read").unlink()


def watch(folder: Path, max_bytes: int) -> dict[str, Any]:
    """Add up the bytes of all blocks until the others are done; the most that there were at one moment."""
    store = open_store(folder / HOME / "blocks", max_bytes=max_bytes, reserve_bytes=0)
    most_bytes = looks = 0
    before: list[tuple[int, int]] = []
    while not (folder / "over").exists():
        now = []
        for shard in store._shards:
            with shard.environment.read() as txn:
                now.append((txn.id(), Counters.read(txn).bytes))
        if now == before:  # nothing was written in between, so this is how it was at one moment
            most_bytes, looks = max(most_bytes, sum(size_bytes for _, size_bytes in now)), looks + 1
        before = now
    store.close()
    return {"most_bytes": most_bytes, "looks": looks}


def _start(work: Callable[[], dict[str, Any]]) -> tuple[int, int]:
    """A fork that does `work`; its process ID, and a handle that its answer is read from."""
    ears, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(ears)
            answer = json.dumps(work()).encode()
            while answer:
                answer = answer[os.write(mouth, answer) :]
            code = 0
        except BaseException as error:  # a fork must end here, whatever happens
            os.write(mouth, json.dumps({"wrong": [repr(error)]}).encode())
        os._exit(code)
    os.close(mouth)
    return child, ears


def _end(child: int, ears: int) -> dict[str, Any]:
    with os.fdopen(ears, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    found: dict[str, Any] = json.loads(text) if text else {}
    if status != 0:
        found.setdefault("wrong", []).append(f"a process ended with status {status}")
    return found


def soak(folder: Path, workers: int, turns: int, seed: str, max_bytes: int) -> dict[str, Any]:
    """Let them all live at once in a new home below `folder`, and recount it."""
    (folder / HOME).parent.mkdir(parents=True, exist_ok=True)
    made = _end(*_start(lambda: live(Member(0, {"add_loose": 1}, 1), folder, seed)))
    members = [Member(number, WORK, turns) for number in range(1, workers + 1)]
    members.append(Member(workers + 1, UPKEEP, turns))
    watcher = _start(lambda: watch(folder, max_bytes))
    started = [_start(partial(live, member, folder, seed)) for member in members]
    answers = [_end(*each) for each in started]
    (folder / "over").touch()
    watched = _end(*watcher)
    wrong = [each for answer in (made, watched, *answers) for each in answer.get("wrong", [])]
    seen = recount(folder / HOME)
    wrong += seen.findings
    acknowledged = {cid for answer in answers for cid in answer.get("pins", [])}
    there = {cid.hex() for cid in seen.pins}
    if acknowledged != there:
        wrong.append(
            f"pins are gone: {sorted(acknowledged - there)}, or too many: {sorted(there - acknowledged)}"
        )
    if max(watched.get("most_bytes", 0), seen.size_bytes) > max_bytes:
        wrong.append(f"{watched['most_bytes']} bytes at one moment, {seen.size_bytes} now: over the quota")
    done = sum((Counter(answer.get("done", {})) for answer in answers), Counter[str]())
    return {
        "wrong": wrong, "done": done, "pins": len(there), "bytes": seen.size_bytes,
        "most_bytes": watched.get("most_bytes", 0), "looks": watched.get("looks", 0), "max_bytes": max_bytes,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)))
    parser.add_argument("--max-bytes", type=int, default=3_000_000)
    options = parser.parse_args()
    os.environ.update(SETTINGS)
    os.environ["HOLDFAST_HOME"] = str(options.folder / HOME)
    os.environ["HOLDFAST_STORAGE_MAX_BYTES"] = str(options.max_bytes)
    found = soak(options.folder, options.workers, options.turns, options.seed, options.max_bytes)
    print(json.dumps({"seed": options.seed, **found}))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
