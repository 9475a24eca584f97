"""Fetching what a pin lacks: whom to ask, the job in this process or left to a daemon, and its progress."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cli.output import CommandError, count_text, exit_code, meter, note

if TYPE_CHECKING:
    from cli.home import Home
    from storage_node.pin_fetch import Progress
    from storage_node.pin_jobs import PinJob, PinJobs
    from storage_node.pin_peers import Peers
    from storage_node.pin_runner import PinRunner
    from storage_node.pins import Pin

TRIES: Final = 3  # without --timeout, a block that everybody lacks so often is said to be missing
SILENCE_S: Final = 60  # without --timeout, how long nobody may answer
WAIT_NOTE_S: Final = 5  # then it is said what is waited for …
WAIT_NOTE_EVERY_S: Final = 30


@asynccontextmanager
async def job_peers(home: Home, job: PinJob, ledger_url: str | None) -> AsyncIterator[Peers]:
    """Whom a job asks: the gateways that it names, a ledger's nodes, and whom the home's routers name."""
    from cli.compose import content_routers, network_peer
    from storage_node.endpoints import open_session
    from storage_node.pin_peers import GatewayPeer, Peer, Peers, open_gateway
    from storage_node.provider_routing import ProviderRouter

    routers = content_routers(home)
    private = home.config.truth("network.allow_private")
    async with AsyncExitStack() as stack:
        named = await stack.enter_async_context(open_session(allow_private=True))
        strangers = await stack.enter_async_context(open_session(allow_private=private))
        peers: list[Peer] = [GatewayPeer(named, url) for url in job.sources]
        if ledger_url is not None:
            peers.append(await stack.enter_async_context(network_peer(home, ledger_url)))
        yield Peers(
            peers,
            clock=time.monotonic,
            routers=[ProviderRouter(named, url, time.time) for url in routers],
            open_gateway=lambda url: open_gateway(strangers, url, allow_private=private),
        )


def has_peers(home: Home, sources: list[str]) -> bool:
    """Whether there is anybody whom a job could ask."""
    from cli.compose import content_routers
    from cli.servers import known_ledger

    return bool(sources or known_ledger(home) or content_routers(home))


def record_job(home: Home, job: PinJob) -> PinJob:
    """Records a job; one for the same pin that was interrupted goes on under its number."""
    jobs = home.open_pin_jobs()
    wanted = (job.cid.to_v1(), job.mode, job.replaces)
    for known in jobs.ls():
        if (known.cid.to_v1(), known.mode, known.replaces) == wanted:
            return start_again(jobs, known.number, job)
    return jobs.create(job)


def start_again(jobs: PinJobs, number: int, asked: PinJob) -> PinJob:
    """Lets a job wait for somebody to work on it, with what was asked for now: sources are added.

    Exit 1 if somebody works on it.
    """
    from storage_node.pin_jobs import JobState

    def again(known: PinJob) -> PinJob:
        if known.is_running():
            raise CommandError(f"process {known.runner_pid} works on job {number} already")
        return replace(
            known,
            state=JobState.WAITING,
            name=asked.name or known.name,
            metadata=asked.metadata or known.metadata,
            sources=tuple(dict.fromkeys((*known.sources, *asked.sources))),
            timeout_s=asked.timeout_s or known.timeout_s,
            background=asked.background,
            unpin=asked.unpin,
            error="",
        )

    waiting = jobs.change(number, again)
    assert waiting is not None
    return waiting


def pin_runner(home: Home, ledger_url: str | None) -> PinRunner:
    """What works, in a daemon, on the jobs that were left to one."""
    from storage_node.pin_runner import PinRunner

    return PinRunner(
        home.open_pin_jobs(),
        home.open_store(),
        lambda job: job_peers(home, job, ledger_url),
        clock=time.monotonic,
        now=time.time,
    )


def run_job(home: Home, number: int, *, progress: bool) -> Pin:
    """Work on a waiting job here until its pin is made.

    Ctrl-C pauses it. What fails it says how to go on; a job that fetched nothing is removed then. Exit 3 for
    a block that nobody has, 5 where nobody answers, 1 if another process works on it or stopped it.
    """
    from cli.serve import run_once
    from storage_node.pin_runner import JobStopped

    jobs = home.open_pin_jobs()
    job = jobs.claim(number)
    if job is None:
        raise CommandError(f"pin job {number} is {jobs.get(number).label}: `holdfast pin jobs` shows it")
    try:
        pin: Pin = run_once(_work(home, job, progress=progress))
    except KeyboardInterrupt:
        note(f"paused: {_how_to_go_on(number)}")
        raise
    except JobStopped as error:
        raise CommandError(str(error)) from None
    except Exception as error:
        raise _failed(jobs, number, error) from error
    return pin


async def _work(home: Home, job: PinJob, *, progress: bool) -> Pin:
    from cli.servers import known_ledger
    from storage_node.pin_runner import JobWork

    patient = replace(job, timeout_s=job.timeout_s or SILENCE_S)
    shown = _Shown(job, wanted=progress)
    try:
        async with job_peers(home, patient, known_ledger(home)) as peers:
            work = JobWork(
                home.open_pin_jobs(),
                home.open_store(),
                patient,
                peers,
                clock=time.monotonic,
                now=time.time,
                tries=0 if job.timeout_s else TRIES,
                on_progress=shown.update,
            )
            return await work.run()
    finally:
        shown.finish()


def _failed(jobs: PinJobs, number: int, error: Exception) -> CommandError:
    from cli.output import describe
    from storage_node.errors import JobNotFound

    try:
        job = jobs.get(number)
    except JobNotFound:
        return CommandError(describe(error), exit_code(error))
    if not job.blocks:
        jobs.change(number, lambda _: None)
        return CommandError(f"{job.cid} is not pinned: {describe(error)}", exit_code(error))
    came = count_text(job.blocks, "block")
    return CommandError(f"{describe(error)}; {came} came and stay: {_how_to_go_on(number)}", exit_code(error))


def _how_to_go_on(number: int) -> str:
    return f"`holdfast pin jobs resume {number}` goes on, `… cancel {number}` gives up"


class _Shown:
    """Progress on a terminal, and a line now and then about what does not come."""

    def __init__(self, job: PinJob, *, wanted: bool) -> None:
        self._wanted = wanted
        self._bar = meter("fetched", None, wanted=wanted)
        self._bytes = job.size_bytes
        self._said_s = float(WAIT_NOTE_S)

    def update(self, progress: Progress) -> None:
        """Called a few times a second."""
        self._bar.advance(progress.size_bytes - self._bytes)
        self._bytes = progress.size_bytes
        if progress.waiting_s < WAIT_NOTE_S:
            self._said_s = float(WAIT_NOTE_S)
        elif self._wanted and progress.waiting_s >= self._said_s:
            note(f"waiting for {progress.waiting_for} for {progress.waiting_s:.0f} s")
            self._said_s = progress.waiting_s + WAIT_NOTE_EVERY_S

    def finish(self) -> None:
        """Removes the line."""
        self._bar.finish()
