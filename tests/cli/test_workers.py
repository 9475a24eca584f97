"""What keeps workers answering: pauses, giving up, replacing, and sums that never fall."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import pytest

from cli.output import CommandError
from cli.serve import running
from cli.workers import MAX_DRAINING, MAX_FAILURES, STEADY_S, Workers
from gateway.operating.control import Readiness
from gateway.operating.metrics import Snapshot, series

REQUESTS = series("requests_total", method="GET", status="2xx")
CONNECTIONS = series("connections")


class Pretended:
    """A worker that ends when the test says so."""

    def __init__(self, number: int, fails: bool) -> None:
        self.number = number
        self.fails = fails
        self.counted = 0
        self.last: Snapshot = {}
        self.drains: list[float] = []
        self.may_end = asyncio.Event()
        self.ended = asyncio.Event()
        self.how = "exit code 0"

    @property
    def name(self) -> str:
        return f"worker {self.number}"

    @property
    def pid(self) -> int:
        return self.number

    async def start(self) -> None:
        if self.fails:
            raise CommandError("the store is locked")

    async def wait(self) -> str:
        await self.ended.wait()
        return self.how

    async def snapshot(self) -> Snapshot:
        if not self.ended.is_set():
            self.last = {REQUESTS: [self.counted], CONNECTIONS: [1]}
        return self.last

    async def ready(self) -> Readiness:
        return Readiness(True)

    async def drain(self, within_s: float, idle_s: float) -> None:
        self.drains.append(within_s)
        if within_s:
            await self.may_end.wait()
        await self.snapshot()
        self.ended.set()

    def kill(self) -> None:
        self.ended.set()


class Stage:
    """Workers of two slots, a clock that only sleeping moves, and what was started."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []
        self.started: list[Pretended] = []
        self.failing: deque[bool] = deque()  # whether the next ones start; then all do
        self.always_failing = False
        self.workers = Workers(self.make, 2, clock=lambda: self.now_s, sleep=self.sleep)

    def make(self, number: int) -> Pretended:
        made = Pretended(number, self.failing.popleft() if self.failing else self.always_failing)
        self.started.append(made)
        return made

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    async def until(self, found: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not found():  # noqa: ASYNC110 (turns of the event loop, not time)
                await asyncio.sleep(0)

    async def requests(self) -> float:
        return sum(snapshot.get(REQUESTS, [0])[0] for snapshot in await self.workers.collect())

    async def connections(self) -> float:
        return sum(snapshot.get(CONNECTIONS, [0])[0] for snapshot in await self.workers.collect())


async def test_who_ended_starts_again_sooner_if_it_had_served_long() -> None:
    stage = Stage()
    await stage.workers.start()

    for expected in (0.5, 1.0, 2.0):  # it breaks each time as soon as it serves
        next(w for w in stage.workers.serving if w.pid == 0).kill()
        await stage.until(lambda: len(stage.workers.serving) == 1)
        await stage.until(lambda: len(stage.workers.serving) == 2)
        assert stage.pauses[-1] == expected
    stage.now_s += STEADY_S
    next(w for w in stage.workers.serving if w.pid == 0).kill()
    await stage.until(lambda: len(stage.pauses) == 4)

    assert stage.pauses[-1] == 0
    assert not stage.workers.given_up.done()
    await stage.workers.stop(0, 0)


async def test_one_that_does_not_run_makes_the_whole_not_ready() -> None:
    stage = Stage()
    await stage.workers.start()
    assert (await stage.workers.ready()).ready
    stage.failing.extend([True, True])
    stage.started[1].kill()
    await stage.until(lambda: len(stage.workers.serving) == 1)

    assert await stage.workers.ready() == Readiness(False, "worker 2 of 2 does not run")

    await stage.until(lambda: len(stage.workers.serving) == 2)
    assert (await stage.workers.ready()).ready
    await stage.workers.stop(0, 0)
    assert not (await stage.workers.ready()).ready


async def test_when_none_can_be_kept_running_they_are_given_up() -> None:
    stage = Stage()
    await stage.workers.start()
    stage.always_failing = True
    for worker in stage.started[:2]:
        worker.kill()

    async with asyncio.timeout(60):
        assert await stage.workers.given_up == "the store is locked"

    assert len(stage.started) >= 2 + 2 * (MAX_FAILURES - 1)
    await stage.workers.stop(0, 0)


async def test_replacing_drains_the_old_after_the_new_have_started() -> None:
    stage = Stage()
    await stage.workers.start()
    await stage.workers.replace(60, 5)
    old, new = stage.started[:2], stage.started[2:]
    await stage.until(lambda: [worker.drains for worker in old] == [[60], [60]])

    assert stage.workers.serving == new
    for worker in old:
        worker.may_end.set()
    await stage.until(lambda: all(worker.ended.is_set() for worker in old))
    assert len(stage.started) == 4  # who was told to end is not started again
    await stage.workers.stop(0, 0)


async def test_if_a_new_one_does_not_start_the_old_go_on() -> None:
    stage = Stage()
    await stage.workers.start()
    stage.failing.extend([False, True])

    with pytest.raises(CommandError, match="the store is locked"):
        await stage.workers.replace(60, 5)

    assert stage.workers.serving == stage.started[:2]
    assert [worker.drains for worker in stage.started[:2]] == [[], []]
    assert stage.started[2].ended.is_set()
    stage.started[0].kill()  # and they are still looked after
    await stage.until(lambda: len(stage.started) == 5)
    await stage.workers.stop(0, 0)


async def test_sets_of_old_ones_do_not_pile_up() -> None:
    stage = Stage()
    await stage.workers.start()
    for _ in range(MAX_DRAINING + 1):
        await stage.workers.replace(60, 5)
        await asyncio.sleep(0)

    alive = [worker for worker in stage.started if not worker.ended.is_set()]
    assert len(alive) == 2 * (MAX_DRAINING + 1)
    assert stage.started[0].ended.is_set()
    await stage.workers.stop(0, 0)
    assert all(worker.ended.is_set() for worker in stage.started)


async def test_who_replaces_and_is_cancelled_while_the_oldest_are_cut_hears_of_it() -> None:
    stage = Stage()
    await stage.workers.start()
    for _ in range(MAX_DRAINING):
        await stage.workers.replace(60, 5)
        await asyncio.sleep(0)
    replacing = asyncio.create_task(stage.workers.replace(60, 5))
    await stage.until(lambda: bool(stage.started[0].drains[1:]))  # they are being cut
    replacing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await replacing
    await stage.workers.stop(0, 0)


async def test_what_runs_beside_is_waited_for_and_a_cancellation_meanwhile_is_not_lost() -> None:
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    async def body() -> None:
        async with running(work()):
            await asyncio.sleep(0)

    task = asyncio.create_task(body())
    await ending.wait()
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_runs_beside_and_fails_says_so_in_the_end() -> None:
    async def work() -> None:
        raise CommandError("no")

    with pytest.raises(CommandError, match="no"):
        async with running(work()):
            await asyncio.sleep(0)


async def test_sums_never_fall_and_gauges_count_the_living() -> None:
    stage = Stage()
    await stage.workers.start()
    stage.started[0].counted, stage.started[1].counted = 10, 5
    assert await stage.requests() == 15

    stage.started[0].kill()
    await stage.until(lambda: len(stage.started) == 3 and len(stage.workers.serving) == 2)
    assert (await stage.requests(), await stage.connections()) == (15, 2)

    await stage.workers.replace(60, 5)
    stage.started[1].counted = 7  # while it drains
    assert await stage.requests() == 17
    for worker in stage.started[1:3]:
        worker.may_end.set()
    await stage.until(lambda: all(worker.ended.is_set() for worker in stage.started[1:3]))
    await asyncio.sleep(0)
    assert (await stage.requests(), await stage.connections()) == (17, 2)
    await stage.workers.stop(0, 0)
