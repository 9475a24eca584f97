"""Runs servers in this process: listening, announcing them in run/, signals, and a clean end."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cli.output import CommandError, flush, note, usage

if TYPE_CHECKING:
    from aiohttp.web import Application

    from cli.home import Home

PROBE_S: Final = 1.0
# The read end of a pipe whose other end a parent holds: it ends when the parent does, however that happens.
LIFELINE: Final = "HOLDFAST_LIFELINE_FD"


def address(listen: str) -> tuple[str, int]:
    """`ADDRESS:PORT` (IPv6 in brackets) as a pair; exit 2 for anything else."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise usage(
            f"{listen!r} is no address: write ADDRESS:PORT, for example 127.0.0.1:8080 (port 0 is any)"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


@asynccontextmanager
async def listening(
    app: Application, home: Home, role: str, listen: str, details: Mapping[str, Any] | None = None
) -> AsyncIterator[str]:
    """Serves `app` at `listen` while the context lasts and writes run/<role>.json; yields the URL.

    Raises CommandError when the address cannot be had.
    """
    from gateway.listener import listen as start_listening
    from gateway.settings import GatewaySettings

    host, port = address(listen)
    _refuse_a_second(home, role)
    try:
        listener = await start_listening(app, host, port, GatewaySettings())
    except OSError as error:
        raise _cannot_listen(role, listen, error) from None
    try:
        # Whoever listens everywhere is found here.
        url = listener.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        announced = home.announce(role, {"url": url, **(details or {})})
        try:
            yield url
        finally:
            announced.unlink(missing_ok=True)
    finally:
        await listener.close()


def _refuse_a_second(home: Home, role: str) -> None:
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


def _cannot_listen(role: str, listen: str, error: OSError) -> CommandError:
    if error.errno == errno.EADDRINUSE or "address already in use" in str(error):
        return CommandError(
            f"{listen} is in use by another program: stop it, or choose another address for the {role}"
        )
    if error.errno == errno.EACCES:
        return CommandError(f"this user may not listen at {listen}: choose a port above 1023 for the {role}")
    return CommandError(f"the {role} cannot listen at {listen}: {error.strerror or error}")


async def until(stop: asyncio.Event) -> None:
    """Waits for `stop`, after what was said of the start is on its way."""
    flush()
    await stop.wait()


def run_forever(
    main: Callable[[asyncio.Event], Awaitable[None]], at_once: Callable[[], None] | None = None
) -> int:
    """Runs `main(stop)` on a fast event loop; `stop` is set by SIGINT, SIGTERM or a parent's end.

    Returns exit code 0 after a clean stop. A second signal ends the process at once, after `at_once`.
    """

    async def guarded() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def asked(number: int) -> None:
            if stop.is_set():
                try:
                    if at_once is not None:
                        at_once()
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

    with _runner() as runner:
        runner.run(guarded())
    return 0


def run_once(task: Awaitable[Any]) -> Any:
    """Runs one coroutine to its end on a fast event loop; Ctrl-C cancels it."""

    async def awaited() -> Any:
        return await task

    with _runner() as runner:
        return runner.run(awaited())


def _runner() -> asyncio.Runner:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
