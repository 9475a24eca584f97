"""Works on pin jobs: fetches what is missing, reports how far it is, and makes the pin.

`work` runs one job in whatever process asked for it; `PinRunner` is a daemon's task that takes the jobs which
were left to it, and those whose process died.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import Any

from merkledag.cid import CID
from storage_node.blockstore.interface import Blockstore
from storage_node.errors import JobNotFound, StorageNodeError
from storage_node.pin_difference import protect_difference
from storage_node.pin_fetch import DagFetch, Progress
from storage_node.pin_jobs import JobState, PinJob, PinJobs
from storage_node.pin_peers import Peers
from storage_node.pins import Pin, PinMode, protect

SHOW_EVERY_S = 0.25
REPORT_EVERY_S = 1.0  # in the record, for other processes
POLL_S = 2.0
MAX_JOBS_AT_ONCE = 4

OpenPeers = Callable[[PinJob], AbstractAsyncContextManager[Peers]]
OnProgress = Callable[[Progress], None]
Sleep = Callable[[float], Awaitable[None]]

_log = logging.getLogger(__name__)


class JobStopped(StorageNodeError):
    """Somebody paused or cancelled the job, or works on it instead of us; `.state` is what it is now."""

    def __init__(self, message: str, state: JobState | None) -> None:
        super().__init__(message)
        self.state = state


class JobWork:
    """One claimed job. `clock` is monotonic seconds, `now` Unix time."""

    def __init__(
        self,
        jobs: PinJobs,
        store: Blockstore,
        job: PinJob,
        peers: Peers,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        tries: int = 0,
        on_progress: OnProgress = lambda _: None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._jobs = jobs
        self._store = store
        self._job = job
        self._peers = peers
        self._clock = clock
        self._now = now
        self._tries = tries
        self._on_progress = on_progress
        self._sleep = sleep
        self._fetch: DagFetch | None = None
        self._ended = Progress(job.blocks, job.size_bytes)  # what earlier runs and fetches brought
        self._committing = threading.Lock()  # the job's record is changed by one of our threads at a time
        self._finished = False

    async def run(self) -> Pin:
        """Fetch and pin.

        Raises JobStopped when somebody else paused or cancelled the job, and what `DagFetch.run` raises; the
        job is FAILED then and says why. Where this is cancelled itself, the job is left PAUSED.
        """
        working = asyncio.create_task(self._work())
        reporting = asyncio.create_task(self._report())
        try:
            await asyncio.wait({working, reporting}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                await reporting  # it ends by raising only
            return await working
        except asyncio.CancelledError:
            await _stop(working, reporting)
            self._leave(JobState.PAUSED)
            raise
        except JobStopped:
            raise
        except JobNotFound as error:
            raise JobStopped(f"pin job {self._job.number} was paused or cancelled", None) from error
        except Exception as error:
            self._leave(JobState.FAILED, " ".join(str(error).split()) or type(error).__name__)
            raise
        finally:
            await _stop(working, reporting)

    def progress(self) -> Progress:
        """How far the job is, with what earlier runs fetched."""
        now = self._fetch.progress() if self._fetch is not None else Progress()
        ended = self._ended
        return replace(
            now,
            blocks=ended.blocks + now.blocks,
            size_bytes=ended.size_bytes + now.size_bytes,
            found=ended.found + now.found,
        )

    async def _work(self) -> Pin:
        recursive = self._job.mode is PinMode.RECURSIVE
        wanted = [self._job.cid]
        if self._job.replaces is not None:
            wanted = await asyncio.to_thread(self._missing)
        while True:
            if wanted:
                self._fetch = DagFetch(
                    self._store,
                    self._peers.get,
                    clock=self._clock,
                    timeout_s=self._job.timeout_s,
                    tries=self._tries,
                )
                await self._fetch.run(wanted, recursive=recursive)
                self._ended = replace(self.progress(), waiting_for=None, waiting_s=0)
                self._fetch = None
            pin, wanted = await asyncio.to_thread(self._pin)
            if pin is not None:
                return pin

    def _missing(self) -> list[CID]:
        """What is not here; what is here is stamped (hold a lease until the pin is made)."""
        job = self._job
        if job.replaces is not None:
            return protect_difference(self._store, job.replaces, job.cid)
        return protect(self._store, job.cid, job.mode is PinMode.RECURSIVE, strict=True)

    def _pin(self) -> tuple[Pin | None, list[CID]]:
        """Make the pin if all of it is here; else what is missing."""
        with self._store.lease():
            missing = self._missing()
            if missing:
                return None, missing
            with self._committing:
                pin = self._jobs.finish(self._job)
                self._finished = True
        return pin, []

    async def _report(self) -> None:
        recorded_s = self._clock()
        while True:
            await self._sleep(SHOW_EVERY_S)
            self._on_progress(self.progress())
            if self._clock() - recorded_s >= REPORT_EVERY_S:
                recorded_s = self._clock()
                await asyncio.to_thread(self._record)

    def _record(self) -> None:
        """Write how far the job is. Raises JobStopped when it is not ours any more."""
        with self._committing:
            if self._finished:
                return
            try:
                current = self._own(self._jobs.get(self._job.number))
                if _reported(current, self.progress(), self._now()) != current:
                    self._jobs.change(
                        self._job.number,
                        lambda job: _reported(self._own(job), self.progress(), self._now()),
                    )
            except JobNotFound:
                raise JobStopped(f"pin job {self._job.number} was cancelled", None) from None

    def _own(self, job: PinJob) -> PinJob:
        ours = job.runner_pid == self._job.runner_pid and job.runner_start == self._job.runner_start
        if job.state is not JobState.RUNNING or not ours:
            raise JobStopped(f"pin job {job.number} is {job.label} now", job.state)
        return job

    def _leave(self, state: JobState, error: str = "") -> None:
        def left(job: PinJob) -> PinJob:
            return replace(_reported(self._own(job), self.progress(), self._now()), state=state, error=error)

        with self._committing, suppress(JobNotFound, JobStopped):
            if not self._finished:
                self._jobs.change(self._job.number, left)


class PinRunner:
    """A daemon's task: works on jobs that were left to a daemon, and says in the log how they end."""

    def __init__(
        self,
        jobs: PinJobs,
        store: Blockstore,
        open_peers: OpenPeers,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._jobs = jobs
        self._store = store
        self._open_peers = open_peers
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._working: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Works until it is cancelled; unfinished jobs are then left to the next daemon."""
        try:
            while True:
                try:
                    await self.check()
                except StorageNodeError as error:
                    _log.warning("pin jobs cannot be looked at now: %s", error)
                await self._sleep(POLL_S)
        finally:
            await _stop(*self._working.values())

    async def check(self) -> None:
        """Take the jobs that nobody works on, as many as may run at once."""
        self._working = {number: task for number, task in self._working.items() if not task.done()}
        for job in await asyncio.to_thread(lambda: list(self._jobs.ls())):
            if len(self._working) >= MAX_JOBS_AT_ONCE:
                return
            if not job.background or job.label != JobState.WAITING or job.number in self._working:
                continue
            claimed = await asyncio.to_thread(self._jobs.claim, job.number)
            if claimed is not None:
                self._working[job.number] = asyncio.create_task(self._run(claimed))

    async def _run(self, job: PinJob) -> None:
        try:
            async with self._open_peers(job) as peers:
                work = JobWork(
                    self._jobs, self._store, job, peers, clock=self._clock, now=self._now, sleep=self._sleep
                )
                await work.run()
            _log.info("pinned %s (job %d)", job.cid, job.number)
        except asyncio.CancelledError:
            with suppress(JobNotFound):
                self._jobs.change(job.number, _left_to_daemons)
            raise
        except JobStopped as stopped:
            _log.info("%s", stopped)
        except Exception as error:  # whatever it was, it is this job's and in its record
            _log.warning("pin job %d failed: %s", job.number, error)


def _left_to_daemons(job: PinJob) -> PinJob:
    return replace(job, state=JobState.WAITING) if job.state is JobState.PAUSED else job


def _reported(job: PinJob, progress: Progress, now_s: float) -> PinJob:
    waiting = progress.waiting_for
    return replace(
        job,
        blocks=progress.blocks,
        size_bytes=progress.size_bytes,
        found=progress.found,
        waiting_for="" if waiting is None else str(waiting),
        waiting_since_s=0 if waiting is None else int(now_s - progress.waiting_s),
    )


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
