"""`holdfast pin jobs`, and the options of commands that may have to fetch what they pin."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.durations import roughly
from cli.home import Home
from cli.options import JsonFlag, ProgressFlag
from cli.output import count_text, emit, note, printable, size_text, text, usage
from cli.urls import is_web_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage_node.pin_jobs import PinJob

FromOption = Annotated[
    list[str] | None,
    typer.Option("--from", metavar="URL", help="A gateway or node to fetch from; repeatable."),
]
TimeoutOption = Annotated[
    str,
    typer.Option("--timeout", metavar="SPAN", help="Give up when nothing came for so long, such as 1h."),
]
BackgroundFlag = Annotated[
    bool, typer.Option("--background", help="Leave the fetching to the daemon of this home.")
]
ACTIONS = ("ls", "pause", "resume", "cancel")
WORTH_SAYING_S = 2  # a job that goes well waits for some block all the time


def source_urls(urls: list[str] | None) -> list[str]:
    """The URLs of --from; exit 2 for what is none."""
    for url in urls or ():
        if not is_web_url(url) or "?" in url or "#" in url:
            raise usage(f"--from {url}: write the URL of a gateway, such as https://example.net")
    return [url.rstrip("/") for url in urls or ()]


def timeout_seconds(timeout: str) -> int:
    """The seconds of --timeout, 0 where it is not given."""
    from cli.durations import seconds

    return seconds(timeout, "--timeout") if timeout else 0


def background_job(home: Home, job: PinJob, *, json_output: bool) -> None:
    """Says what was left to the daemon, and so if there is none."""
    if home.server("gateway") is None:
        note("no daemon runs in this home: `holdfast up` or `holdfast gateway` will work on the job")
    if json_output:
        emit(document_of_job(job))
    else:
        text(f"job {job.number} pins {job.cid} in the background: `holdfast pin jobs` shows it")


def document_of_job(job: PinJob) -> dict[str, Any]:
    """A job as programs read it."""
    return {
        "job": job.number,
        "cid": str(job.cid),
        "mode": str(job.mode),
        "name": job.name,
        "metadata": job.metadata,
        "state": job.label,
        "background": job.background,
        "sources": list(job.sources),
        "timeout_s": job.timeout_s or None,
        "replaces": None if job.replaces is None else str(job.replaces),
        "fetched_blocks": job.blocks,
        "fetched_bytes": job.size_bytes,
        "found_blocks": job.found,
        "waiting_for": job.waiting_for or None,
        "waiting_since_s": job.waiting_since_s or None,
        "created_s": job.created_s,
        "changed_s": job.changed_s,
        "error": job.error or None,
    }


def jobs(
    action: Annotated[str, typer.Argument(metavar="[ACTION]", help=", ".join(ACTIONS))] = "ls",
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[NUMBER…]", help="Which jobs.")] = None,
    background: BackgroundFlag = False,
    sources: FromOption = None,
    timeout: TimeoutOption = "",
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """List pins that are being fetched, or pause, resume or cancel some of them.

    Resuming works here and now unless --background; --from and --timeout change the job.
    """
    if action not in ACTIONS:
        raise usage(f"{action!r}: choose one of {', '.join(ACTIONS)}")
    if action != "ls" and not numbers:
        raise usage(f"say which: `holdfast pin jobs {action} NUMBER`")
    if action != "resume" and (background or sources or timeout):
        raise usage("--background, --from and --timeout go with `resume`")
    urls, timeout_s = source_urls(sources), timeout_seconds(timeout)
    with Home.locate() as home:
        if not home.exists() and not numbers:
            return
        records = home.open_pin_jobs()
        chosen = [records.get(number) for number in numbers] if numbers else records.ls()
        if action == "ls":
            for job in chosen:
                _show(job, json_output=json_output)
            return
        for job in chosen:
            if action == "resume":
                _resume(home, job, urls, timeout_s, background, progress=progress, json_output=json_output)
                continue
            change: Callable[[PinJob], PinJob | None] = _paused if action == "pause" else lambda _: None
            records.change(job.number, change)
            left = None if action == "cancel" else records.get(job.number)
            if json_output:
                emit(document_of_job(left) if left else {"job": job.number, "state": "cancelled"})
            else:
                text(f"{'cancelled' if left is None else 'paused'} job {job.number}")


def _show(job: PinJob, *, json_output: bool) -> None:
    if json_output:
        emit(document_of_job(job))
        return
    came = f"{count_text(job.blocks, 'block')} and {size_text(job.size_bytes)} came"
    line = f"{job.number} {job.cid} {job.label} {printable(job.name)}".rstrip() + f": {came}"
    waits_s = int(time.time()) - job.waiting_since_s
    if job.waiting_for and job.is_running() and waits_s >= WORTH_SAYING_S:
        line += f", waiting for {job.waiting_for} for {roughly(waits_s)}"
    if job.error:
        line += f"; {printable(job.error)}"
    text(line)


def _paused(job: PinJob) -> PinJob:
    from storage_node.pin_jobs import JobState

    return replace(job, state=JobState.PAUSED)


def _resume(
    home: Home,
    job: PinJob,
    urls: list[str],
    timeout_s: int,
    background: bool,
    *,
    progress: bool,
    json_output: bool,
) -> None:
    from cli.pinned import say_pinned
    from cli.pinned_fetch import run_job, start_again

    asked = replace(job, sources=tuple(urls), timeout_s=timeout_s, background=background)
    waiting = start_again(home.open_pin_jobs(), job.number, asked)
    if background:
        background_job(home, waiting, json_output=json_output)
    else:
        say_pinned(run_job(home, job.number, progress=progress), json_output=json_output)
