"""Runs servers in this process: listening, announcing them in run/, signals, and a clean end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cli.notify import READY, STOPPING, notify
from cli.output import CommandError, flush, note
from cli.sockets import bind

if TYPE_CHECKING:
    from aiohttp.web import Application

    from cli.home import Home

PROBE_S: Final = 1.0
# The read end of a pipe whose other end a parent holds: it ends when the parent does, however that happens.
LIFELINE: Final = "HOLDFAST_LIFELINE_FD"


class Stop(asyncio.Event):
    """Set when this process is to end; a second signal calls what is in `at_once` and ends it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once: list[Callable[[], None]] = []


@asynccontextmanager
async def listening(
    app: Application, home: Home, role: str, listen: str, details: Mapping[str, Any] | None = None
) -> AsyncIterator[str]:
    """Serves `app` at `listen` while the context lasts and writes run/<role>.json; yields the URL.

    Raises CommandError when the address cannot be had.
    """
    refuse_a_second(home, role)
    async with serving(app, home, role, listen) as url:
        announced = home.announce(role, {"url": url, **(details or {})})
        try:
            yield url
        finally:
            announced.unlink(missing_ok=True)


@asynccontextmanager
async def serving(app: Application, home: Home, role: str, listen: str) -> AsyncIterator[str]:
    """Serves `app` at `listen`, under the gateway's limits on connections and times; yields the URL."""
    from cli.settings_gateway import gateway_settings
    from gateway.serving.listener import listen_on

    settings = gateway_settings(home.config)
    bound = bind(role, listen)
    listener = await listen_on(app, bound.shares[0], settings)
    try:
        yield bound.url
    finally:
        await listener.close(settings.shutdown_s)


def refuse_a_second(home: Home, role: str) -> None:
    """One server of a role a home: a second would take over its name in run/ and on the ledger."""
    running = home.server(role)
    if running is None or running["pid"] == os.getpid():
        return
    parts = urlsplit(running["url"])
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), PROBE_S).close()
    except OSError:
        return  # left behind by one that was killed
    raise CommandError(
        f"this home's {role} runs already at {running['url']} (process {running['pid']}): "
        "stop it first, or choose another HOLDFAST_HOME"
    )


@asynccontextmanager
async def running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Keeps a task going for as long as the context lasts, and waits for its end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})  # not for the task itself: who is cancelled meanwhile must hear of it
        if not task.cancelled():
            task.result()


async def until(stop: asyncio.Event) -> None:
    """Waits for `stop`, after what was said of the start is on its way."""
    flush()
    notify(READY)
    await stop.wait()
    notify(STOPPING)


def run_forever(main: Callable[[Stop], Awaitable[None]]) -> int:
    """Runs `main(stop)` on a fast event loop; `stop` is set by SIGINT, SIGTERM or a parent's end.

    Returns exit code 0 after a clean stop. A second signal ends the process at once.
    """

    async def guarded() -> None:
        loop = asyncio.get_running_loop()
        stop = Stop()

        def asked(number: int) -> None:
            if stop.is_set():
                try:
                    for end in stop.at_once:
                        end()
                finally:
                    os._exit(128 + number)
            note("stopping (once more ends it at once)")
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, asked, number)

        def parent_ended() -> None:
            loop.remove_reader(lifeline)
            stop.set()

        lifeline = int(os.environ.get(LIFELINE, "-1"))
        if lifeline >= 0:
            loop.add_reader(lifeline, parent_ended)
        await main(stop)

    with fast_runner() as runner:
        runner.run(guarded())
    return 0


def run_once(task: Awaitable[Any]) -> Any:
    """Runs one coroutine to its end on a fast event loop; Ctrl-C cancels it."""

    async def awaited() -> Any:
        return await task

    with fast_runner() as runner:
        return runner.run(awaited())


def fast_runner() -> asyncio.Runner:
    """Runs coroutines on uvloop, where there is one."""
    try:
        import uvloop
    except ImportError:  # not on every platform
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
