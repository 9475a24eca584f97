"""The process that keeps a home's store well beside its servers, which start it: `python -m cli.maintenance`.

A process of its own, so that hashing and collecting never hold up a server's event loop; niced, and ending
with the server that started it (`cli.serve.LIFELINE`). One works in a home at a time: it holds
run/maintenance.lock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from cli.output import note, report
from cli.serve import LIFELINE, running

if TYPE_CHECKING:
    from pathlib import Path

    from cli.home import Home

NICENESS: Final = 10
STOP_TIMEOUT_S: Final = 10.0
RESTART_S: Final = 60.0
TURN_S: Final = 5.0  # how often one that waits for its turn looks


def lock_file(home: Home) -> Path:
    """Held by the process that works."""
    return home.run / "maintenance.lock"


@asynccontextmanager
async def maintenance(home: Home, ledger_url: str | None) -> AsyncIterator[None]:
    """Keeps the worker of this home running for as long as the context lasts, if the settings want one."""
    if not home.config.truth("maintenance.enabled"):
        yield
        return
    from cli.processes import Lifeline, end, spawn

    environ = {**os.environ, **home.environ, "HOLDFAST_HOME": str(home.path)}
    if ledger_url is not None:
        environ["HOLDFAST_LEDGER_URL"] = ledger_url
    lifeline = Lifeline()
    worker: asyncio.subprocess.Process | None = None

    async def supervise() -> None:
        nonlocal worker
        while True:
            worker = await spawn("cli.maintenance", (), lifeline, environ)
            code = await worker.wait()
            note(f"the maintenance of the store ended with {code}; it starts again in {RESTART_S:.0f} s")
            await asyncio.sleep(RESTART_S)

    try:
        async with running(supervise()):
            yield
    finally:
        lifeline.cut()
        if worker is not None:
            await end(worker, STOP_TIMEOUT_S)


def work(home: Home, stop: threading.Event) -> None:
    """Does the duties of a home until `stop`, as soon as no other process does them."""
    from cli.maintenance_duties import duties
    from storage_node.daemon_lock import daemon_lock, is_wanted
    from storage_node.errors import LockHeld
    from storage_node.maintenance import DutyRecords, Maintenance

    while not stop.is_set():
        try:
            with daemon_lock(lock_file(home)):
                Maintenance(
                    duties(home, stop.wait),
                    DutyRecords(home.open_meta()),
                    lock=lambda: daemon_lock(home.lock_file),
                    is_wanted=lambda: is_wanted(home.lock_file),
                    clock=time.monotonic,
                    wall_clock=time.time,
                    nap=stop.wait,
                    stop=stop.is_set,
                    tell=note,
                ).run()
        except LockHeld:
            stop.wait(TURN_S)


def _stop_with_parent(stop: threading.Event) -> None:
    """Sets `stop` when the process that started this one ends."""
    lifeline = int(os.environ.get(LIFELINE, "-1"))
    if lifeline < 0:
        return

    def watch() -> None:
        while os.read(lifeline, 1):
            continue
        stop.set()

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Works until a signal or the parent's end; returns the exit code."""
    from cli.home import Home

    os.nice(NICENESS)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    _stop_with_parent(stop)
    try:
        with Home.locate() as home:
            work(home, stop)
    except Exception as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
