"""Duties take turns, let others have the lock, and try again what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage_node.daemon_lock import daemon_lock, is_wanted
from storage_node.errors import IncompleteDag, LockHeld, StoreFull
from storage_node.maintenance import LOCKED_SLICE_S, RETRY_S, SLICE_S, Duty, DutyRecords, Maintenance, Stop
from storage_node.meta import Meta


class Worker:
    """Maintenance on a clock that napping moves, for a bounded time."""

    def __init__(self, folder: Path, until_s: float) -> None:
        self.now_s = 0.0
        self.until_s = until_s
        self.held = False
        self.busy: Callable[[], bool] = lambda: False
        self.wanted: Callable[[], bool] = lambda: False
        self.told: list[str] = []
        self.records = DutyRecords(Meta(folder / "meta"))

    def nap(self, seconds: float) -> None:
        self.now_s += seconds

    @contextmanager
    def lock(self) -> Iterator[None]:
        if self.busy():
            raise LockHeld("held", 1)
        self.held = True
        yield
        self.held = False

    def run(self, *duties: Duty) -> None:
        Maintenance(
            duties,
            self.records,
            lock=self.lock,
            is_wanted=lambda: self.wanted(),
            clock=lambda: self.now_s,
            wall_clock=lambda: self.now_s,
            nap=self.nap,
            stop=lambda: self.now_s >= self.until_s,
            tell=self.told.append,
        ).run()


def test_duties_take_turns_and_rest_as_they_say(tmp_path: Path) -> None:
    worker = Worker(tmp_path, until_s=100)
    seen: list[tuple[str, bool]] = []

    def duty(name: str, rest_s: float, *, locked: bool) -> Duty:
        def work(_: Stop) -> float:
            seen.append((name, worker.held))
            return rest_s

        return Duty(name, work, locked)

    worker.run(duty("often", 10, locked=True), duty("seldom", 50, locked=False))
    assert 9 <= seen.count(("often", True)) <= 11
    assert seen.count(("seldom", False)) == 2
    assert len(set(seen)) == 2


def test_a_slice_ends_in_time_or_when_somebody_waits(tmp_path: Path) -> None:
    worker = Worker(tmp_path, until_s=200)
    slices: list[float] = []

    def work(stop: Stop) -> float:
        began_s = worker.now_s
        while not stop():
            worker.nap(0.5)
        slices.append(worker.now_s - began_s)
        return 0

    worker.run(Duty("long", work, locked=True))
    assert slices[0] == LOCKED_SLICE_S
    worker.until_s += 20
    worker.run(Duty("long", work, locked=False))
    assert slices[-2] == SLICE_S
    slices.clear()
    worker.until_s += 5
    worker.wanted = lambda: worker.held and worker.now_s > worker.until_s - 4
    worker.run(Duty("long", work, locked=True))
    assert max(slices[1:]) <= 0.5


def test_what_fails_is_told_once_recorded_and_tried_again(tmp_path: Path) -> None:
    worker = Worker(tmp_path, until_s=3 * RETRY_S - 1)
    tries: list[float] = []

    def work(_: Stop) -> float:
        tries.append(worker.now_s)
        if len(tries) < 4:
            raise IncompleteDag("block X is missing")
        worker.records.note("gc", {"at_s": int(worker.now_s)})
        return 10

    worker.run(Duty("gc", work, locked=True))
    assert worker.told == ["gc: block X is missing"]
    assert worker.records.problems()["gc"]["problem"] == "block X is missing"
    worker.until_s += RETRY_S
    worker.run(Duty("gc", work, locked=True))
    assert worker.records.problems() == {}
    assert worker.records.last("gc") is not None


def test_a_full_disk_that_nothing_can_be_recorded_on_ends_no_maintenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(tmp_path, until_s=RETRY_S + 1)
    worker.records.problem("gc", 0, "no room")
    tries: list[float] = []

    def work(_: Stop) -> float:
        tries.append(worker.now_s)
        return 10

    def full(*_: object) -> None:
        raise StoreFull("no room")

    monkeypatch.setattr(worker.records, "solved", full)
    monkeypatch.setattr(worker.records, "problem", full)
    worker.run(Duty("gc", work, locked=True))
    assert len(tries) == 2
    assert worker.told == ["gc: no room", "gc: this could not be recorded: no room"]


def test_a_lock_that_others_hold_is_waited_for(tmp_path: Path) -> None:
    worker = Worker(tmp_path, until_s=10)
    worker.busy = lambda: worker.now_s < 5
    tries: list[float] = []

    def work(_: Stop) -> float:
        tries.append(worker.now_s)
        return 100

    worker.run(Duty("gc", work, locked=True))
    assert len(tries) == 1
    assert 5 <= tries[0] < 7
    assert worker.told == []


def test_whoever_waits_for_the_lock_is_seen_and_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    holding = daemon_lock(path)
    holding.__enter__()
    waited: list[int | None] = []
    seen: list[bool] = [is_wanted(path)]

    def sleep(_: float) -> None:
        seen.append(is_wanted(path))
        if len(seen) == 30:
            holding.__exit__(None, None, None)

    with daemon_lock(path, sleep, patience_s=10, on_wait=waited.append):
        assert not is_wanted(path)
    assert seen == [False, *[True] * 29]
    assert len(waited) == 1
    with daemon_lock(path), pytest.raises(LockHeld), daemon_lock(path, lambda _: None, patience_s=1):
        pass
