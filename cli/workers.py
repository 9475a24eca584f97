"""Keeps a number of workers answering: starts one that ended again, and replaces all without a gap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from cli.output import describe, note
from gateway.operating.control import Readiness
from gateway.operating.metrics import Snapshot, merge, retired

STEADY_S: Final = 10.0  # who served so long ended by chance, and is started again at once
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 30.0
MAX_FAILURES: Final = 6  # in a row of every worker; then they are given up
MAX_DRAINING: Final = 4  # sets of old workers that still answer; before a further one, the oldest is cut
COLLECT_EVERY_S: Final = 2.0  # what a worker counted since is lost when it is killed


class Worker(Protocol):
    """Something that answers on its share of the sockets, in this process or in another one."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def pid(self) -> int:
        """The process that it is in."""

    @property
    def last(self) -> Snapshot:
        """What it had counted when it was asked last."""

    async def start(self) -> None:
        """Returns when it serves. Raises what is wrong, and leaves nothing behind then."""

    async def wait(self) -> str:
        """Returns when it has ended: how."""

    async def snapshot(self) -> Snapshot:
        """What it has counted."""

    async def ready(self) -> Readiness:
        """Whether it answers requests as it should."""

    async def drain(self, within_s: float, idle_s: float) -> None:
        """Ends it as `gateway.listener.Listener.drain` does; returns when it has ended."""

    def kill(self) -> None:
        """Ends it at once."""


class Workers:
    """All of them. `start`, then `replace` as often as wanted, then `stop`."""

    def __init__(
        self,
        make: Callable[[int], Worker],
        count: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`make(number)` is a worker that is not started. `changed` hears of every change of the workers."""
        self._make = make
        self._count = count
        self._clock = clock
        self._sleep = sleep
        self._changed = changed
        self._slots: list[Worker | None] = [None] * count
        self._keepers: list[asyncio.Task[None]] = []
        self._failures = [0] * count
        self._draining: list[asyncio.Task[None]] = []
        self._old: set[Worker] = set()
        self._past: Snapshot = {}
        self._stopping = False
        self.given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def serving(self) -> list[Worker]:
        """Those that take new connections."""
        return [worker for worker in self._slots if worker is not None]

    async def start(self) -> None:
        """Starts all; raises what is wrong with one."""
        self._take_up(await self._started())

    async def replace(self, within_s: float, idle_s: float) -> None:
        """Starts new ones in the place of all, which then end as `Worker.drain` does, in the background.

        Raises what is wrong with a new one: then there are no new ones, and the old go on.
        """
        new = await self._started()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        old = self.serving
        self._old.update(old)
        self._take_up(new)
        self._draining = [task for task in self._draining if not task.done()]
        while len(self._draining) >= MAX_DRAINING:
            oldest = self._draining.pop(0)
            oldest.cancel()
            await asyncio.gather(oldest, return_exceptions=True)
        self._draining.append(asyncio.create_task(self._drain(old, within_s, idle_s)))

    async def stop(self, within_s: float, idle_s: float) -> None:
        """Ends all, those that drain as well, within about so many seconds."""
        self._stopping = True
        for task in (*self._keepers, *self._draining):
            task.cancel()
        workers = {*self.serving, *self._old}
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.drain(within_s, idle_s) for worker in workers))
        await asyncio.gather(*self._draining, return_exceptions=True)

    def kill(self) -> None:
        """Ends all at once, without the event loop."""
        for worker in {*self.serving, *self._old}:
            worker.kill()

    async def collect(self) -> list[Snapshot]:
        """What all of them have counted, also those that are no more."""
        past, workers = self._past, [*self.serving, *self._old]  # both of one moment: nobody counts twice
        found = await asyncio.gather(*(worker.snapshot() for worker in workers))
        return [past, *found]

    async def collect_forever(self) -> None:
        """Asks every now and then, so that little is lost when a worker is killed."""
        while True:
            await self._sleep(COLLECT_EVERY_S)
            await self.collect()

    async def ready(self) -> Readiness:
        """Whether all of them answer."""
        if self._stopping:
            return Readiness(False, "it is being stopped")
        said = ""
        for number, worker in enumerate(self._slots, 1):
            if worker is None:
                return Readiness(False, f"worker {number} of {self._count} does not run")
            answer = await worker.ready()
            if not answer.ready:
                return answer
            said = answer.reason or said
        return Readiness(True, said)

    async def _started(self) -> list[Worker]:
        new = [self._make(number) for number in range(self._count)]
        tasks = [asyncio.create_task(worker.start()) for worker in new]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for worker, task in zip(new, tasks, strict=True):
                if not task.cancelled() and task.exception() is None:
                    await worker.drain(0, 0)
            raise
        return new

    def _take_up(self, new: Sequence[Worker]) -> None:
        self._slots = list(new)
        self._failures = [0] * self._count
        now_s = self._clock()
        self._keepers = [asyncio.create_task(self._keep(i, worker, now_s)) for i, worker in enumerate(new)]
        self._changed()

    async def _keep(self, number: int, worker: Worker, since_s: float) -> None:
        """Starts the worker of one slot again whenever it ends."""
        while True:
            how = await worker.wait()
            self._slots[number] = None
            self._retire(worker)
            if self._clock() - since_s >= STEADY_S:
                self._failures[number] = 0
            else:
                self._failures[number] += 1
            note(f"{worker.name} ended: {how}; {self._again(number)}")
            self._changed()
            worker = await self._restarted(number)
            since_s = self._clock()
            self._slots[number] = worker
            self._changed()

    async def _restarted(self, number: int) -> Worker:
        while True:
            await self._sleep(self._pause_s(number))
            worker = self._make(number)
            try:
                await worker.start()
            except Exception as error:
                self._failures[number] += 1
                note(f"{worker.name} did not start: {describe(error)}; {self._again(number)}")
                if not self.serving and min(self._failures) >= MAX_FAILURES and not self.given_up.done():
                    self.given_up.set_result(describe(error))
            else:
                return worker

    def _pause_s(self, number: int) -> float:
        failures = self._failures[number]
        return min(FIRST_PAUSE_S * 2 ** (failures - 1), MAX_PAUSE_S) if failures else 0.0

    def _again(self, number: int) -> str:
        pause_s = self._pause_s(number)
        return f"it starts again in {pause_s:g} s" if pause_s else "it starts again"

    async def _drain(self, workers: Sequence[Worker], within_s: float, idle_s: float) -> None:
        try:
            await asyncio.gather(*(worker.drain(within_s, idle_s) for worker in workers))
        except asyncio.CancelledError:
            if not self._stopping:  # `stop` drains them itself, in less time
                await asyncio.gather(*(worker.drain(0, 0) for worker in workers))
                raise
            return
        finally:
            for worker in workers:
                self._old.discard(worker)
                self._retire(worker)
            self._changed()

    def _retire(self, worker: Worker) -> None:
        """Keeps the counts of a worker that has ended: sums must never fall."""
        self._past = merge([self._past, retired(worker.last)])
