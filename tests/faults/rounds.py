"""Rounds of living and dying: a home is used, a fault strikes somewhere, the home is recounted, and so on.

    python -m tests.faults.rounds FOLDER --rounds N --seed S --how kill|tear|power|full|broken …

Every round is a fork of this process, which has everything imported and no store open, so a round costs some
ten milliseconds, and starting this process as much as twenty rounds. Prints a JSON document for each kind;
exit 1, with the seed and the round, at the first finding. Kinds go together, but for power: only it keeps
what was written.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.checker import recount
from tests.faults.shim import CHANGES, Action, Call, Faults
from tests.faults.version1 import make_home
from tests.faults.workload import BACKUP, HOME, Ledger, Program, live

ROUNDS_PER_HOME = 9
TURNS = 6  # of one life that ends by itself
MAX_CALLS = 160  # a life makes about so many system calls that change something
PRELOADED = "HOLDFAST_FAULTS_READY"
SETTINGS = {"HOLDFAST_STORAGE_RESERVE_BYTES": "0", "HOLDFAST_NAMES_DNS": "off"}
RESTORES = 0.05  # chance of restoring a snapshot after a round
FULL_CODES, BROKEN_CODES = {6}, {1, 4, 6}

KILLS = {
    "kill": (Action.KILL, Action.KILL_AFTER),
    "tear": (Action.TEAR,),
    "power": (Action.KILL, Action.TEAR),
}
ERRORS = {"full": (Action.ENOSPC, Action.EDQUOT, Action.SHORTEN), "broken": (Action.EIO,)}


@dataclass
class Outcome:
    """What the rounds saw."""

    rounds: int = 0
    struck: int = 0  # rounds in which a fault hit
    acknowledged: int = 0  # commands that said they were done
    refused: int = 0  # commands that failed as they must
    sectors_lost: int = 0
    restored: int = 0  # snapshots that became homes
    interrupted: dict[str, int] = field(default_factory=dict)  # commands that a fault hit, by name
    findings: list[str] = field(default_factory=list)


class Rounds:
    """One home after the other in `folder`."""

    def __init__(self, folder: Path, seed: str, how: str, peer: dict[str, Any]) -> None:
        self.folder = folder
        self.seed = seed
        self.how = how
        self.faults = Faults(folder, undo=how == "power")
        self.outcome = Outcome()
        self._peer = peer
        self._ledger = Ledger()
        self._chance = random.Random(seed)

    @property
    def home(self) -> Path:
        return self.folder / HOME

    def run(self, rounds: int) -> Outcome:
        """Until a finding, or all of them."""
        for number in range(rounds):
            if number % ROUNDS_PER_HOME == 0:
                self._begin_anew(old=number // ROUNDS_PER_HOME % 2 == 1)
            self.outcome.rounds += 1
            findings = self._round(number)
            if findings:
                self.outcome.findings = [
                    f"seed {self.seed}, {self.how}, round {number}: {each}" for each in findings
                ]
                break
        return self.outcome

    def _begin_anew(self, *, old: bool) -> None:
        shutil.rmtree(self.folder / "disk", ignore_errors=True)
        self.home.parent.mkdir()
        self._ledger = Ledger()
        if old:
            self._ledger.pins = {cid.hex() for cid in make_home(self.home, self._chance)}
        self.faults.keep()

    def _round(self, number: int) -> list[str]:
        self._arm()
        said, status = self._life(f"{self.seed} {number}", TURNS)
        self.faults.disarm()
        self.outcome.struck += self.faults.struck > 0
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed and status != 0:
            return [f"the process ended with status {status}: {said[-1:]}"]
        if killed and self.how in ERRORS:
            return ["killed, and nobody meant to"]
        if self.how == "power" and killed:
            self.outcome.sectors_lost += self.faults.cut_power(self._chance)
        begun = self._take(said)
        findings = self._unexpected(said) + self._recounted(begun)
        if self.how in ERRORS and not findings:  # the cause has gone: everything works again by itself
            said, status = self._life(f"{self.seed} {number} after", 2)
            begun = self._take(said)
            wrong = [each["said"] for each in said if each["what"] == "refused"]
            findings = [f"afterwards: {each}" for each in wrong + self._recounted(begun)]
        return findings

    def _arm(self) -> None:
        chance = self._chance
        action = chance.choice((KILLS | ERRORS)[self.how])
        calls = CHANGES
        if action is Action.SHORTEN:
            calls = Call.WRITE
        elif self.how in ERRORS:
            calls = chance.choice((Call.WRITE, Call.SYNC, Call.TRUNCATE | Call.WRITE, CHANGES & ~Call.UNLINK))
        times = chance.choice((0, 1, 3)) if self.how in ERRORS else 0
        after = int(MAX_CALLS * chance.random() ** 1.5)
        self.faults.arm(action, calls, self.folder / "disk", after=after, times=times)

    def _life(self, seed: str, turns: int) -> tuple[list[dict[str, Any]], int]:
        """What a life said, and its wait status."""
        gc.collect()
        ears, mouth = os.pipe()
        child = os.fork()
        if child == 0:
            code = 70
            with suppress(BaseException):
                os.close(ears)
                live(self.folder, seed, self._ledger, turns, mouth, self._peer)
                code = 0
            os._exit(code)
        os.close(mouth)
        with os.fdopen(ears, "rb") as lines:
            said = [json.loads(line) for line in lines if line.endswith(b"\n")]
        _, status = os.waitpid(child, 0)
        return said, status

    def _take(self, said: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Note what was acknowledged; returns what was begun and neither done nor cleanly refused."""
        begun: dict[str, Any] | None = None
        for each in said:
            if each["what"] == "begun":
                begun = each
            elif each["what"] == "done":
                self._ledger.apply(each)
                self.outcome.acknowledged += 1
                begun = None
            else:
                self.outcome.refused += 1
        if self.faults.struck and (begun is not None):
            name = str(begun["name"])
            self.outcome.interrupted[name] = self.outcome.interrupted.get(name, 0) + 1
        return begun

    def _unexpected(self, said: list[dict[str, Any]]) -> list[str]:
        allowed = {"full": FULL_CODES, "broken": BROKEN_CODES}.get(self.how, set())
        wrong = []
        for each in said:
            if each["what"] == "refused":
                lines = [line for line in each["said"].splitlines() if "holdfast: " in line]
                if each["code"] not in allowed or "Traceback" in each["said"] or len(lines) != 1:
                    wrong.append(f"exit {each['code']}: {each['said']}")
        return wrong

    def _recounted(self, begun: dict[str, Any] | None) -> list[str]:
        if not (self.home / "blocks" / "format.json").exists():
            return ["acknowledged, and there is no store"] if self._ledger.pins else []
        seen = recount(self.home)
        findings = seen.findings + self._ledger.differences(seen, begun)
        self._ledger.settle(seen)
        return findings + self._restored()

    def _restored(self) -> list[str]:
        """Now and then: the last snapshot, restored to another home and recounted."""
        if self._ledger.saved is None or self._chance.random() > RESTORES:
            return []
        target = self.folder / "restored"
        shutil.rmtree(target, ignore_errors=True)
        child = os.fork()
        if child == 0:
            code = 70
            with suppress(BaseException):
                Program(self.folder)("repo", "restore", str(self.folder / BACKUP), str(target))
                code = 0
            os._exit(code)
        if os.waitpid(child, 0)[1] != 0:
            return ["the backup cannot be restored"]
        self.outcome.restored += 1
        seen = recount(target)
        lost = set(self._ledger.saved) - {cid.hex() for cid in seen.pins}
        return seen.findings + [f"the restored home lacks {len(lost)} pins"] * bool(lost)


def prepare(folder: Path, peer: dict[str, Any]) -> None:
    """Import whatever the commands import, found out by a life in a process of its own."""
    ears, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            null = os.open(os.devnull, os.O_WRONLY)
            live(folder, "prepare", Ledger(), 0, null, peer)
            os.write(mouth, " ".join(sys.modules).encode())
        os._exit(0)
    os.close(mouth)
    with os.fdopen(ears) as text:
        names = text.read().split()
    os.waitpid(child, 0)
    for name in names:
        if name not in sys.modules and name != "__main__":
            with suppress(ImportError):
                importlib.import_module(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, nargs="+", default=[100], help="of each kind")
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)))
    parser.add_argument("--how", choices=[*KILLS, *ERRORS], nargs="+", default=["kill"])
    options = parser.parse_args()
    folder, power = options.folder, "power" in options.how
    if len(options.rounds) != len(options.how) or (power and len(options.how) > 1):
        parser.error("one --rounds for each --how; power stands alone")
    if PRELOADED not in os.environ:  # the library is loaded when a process begins
        faults = Faults(folder, undo=power)
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.faults.rounds", *sys.argv[1:]],
            os.environ
            | faults.environment()
            | {PRELOADED: "1", "HOLDFAST_HOME": str(folder / HOME)}
            | SETTINGS,
        )
    with subprocess.Popen([sys.executable, "-m", "tests.faults.peer"], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            peer = json.loads(server.stdout.readline())
            prepare(folder, peer)
            for how, number in zip(options.how, options.rounds, strict=True):
                outcome = Rounds(folder, options.seed, how, peer).run(number)
                print(json.dumps(asdict(outcome)), flush=True)
                if outcome.findings:
                    return 1
        finally:
            server.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
