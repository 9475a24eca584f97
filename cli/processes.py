"""Starts `holdfast` servers as processes of their own and makes sure that none is left behind.

Each child has its own home and log, and the read end of a pipe that this process holds
(`cli.serve.LIFELINE`): when this process ends, even by SIGKILL, the children stop by themselves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from cli.home import Home
from cli.output import CommandError
from cli.serve import LIFELINE

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.05
LOG_TAIL_BYTES: Final = 2000


@dataclass(slots=True)
class Child:
    """A running server: its role names run/<role>.json in its home."""

    name: str
    role: str
    home: Home
    log: Path
    process: asyncio.subprocess.Process
    url: str = ""

    @property
    def pid(self) -> int:
        """The operating system's number of the process."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    def last_words(self) -> str:
        """The last line of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


class Lifeline:
    """A pipe by which children notice the end of this process, however that happens."""

    def __init__(self) -> None:
        self.end, self._held = os.pipe()

    def cut(self) -> None:
        """Asks the children to end."""
        if self._held >= 0:
            os.close(self._held)
            os.close(self.end)
            self._held = -1


async def spawn(
    module: str,
    arguments: Sequence[str],
    lifeline: Lifeline,
    environ: Mapping[str, str],
    output: IO[bytes] | None = None,
    *,
    passed: Sequence[int] = (),
    stdout: bool = False,
) -> asyncio.subprocess.Process:
    """Starts a module of this program in a session of its own.

    Without `output` it shares our stderr, and our stdout if told so. It gets the descriptors `passed`.
    """
    other = None if stdout else asyncio.subprocess.DEVNULL
    kept = (lifeline.end, *passed)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", module, *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=output or other, stderr=output,
        env={**environ, LIFELINE: str(lifeline.end)}, pass_fds=kept, start_new_session=True,
    )  # fmt: skip


async def end(process: asyncio.subprocess.Process, timeout_s: float) -> None:
    """Asks a child to stop, and ends it when it has not done so in time."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), timeout_s)
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.wait()


class Network:
    """The children of this process, in the order they were started. Use as a context: leaving stops all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []
        self._lifeline = Lifeline()

    async def __aenter__(self) -> Network:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())

    async def start(
        self, name: str, role: str, arguments: list[str], environ: Mapping[str, str] | None = None
    ) -> Child:
        """Starts `holdfast ARGUMENTS…` with the home `folder/name`; does not wait until it serves."""
        home = Home(self.folder / name)
        home.create()
        log = home.path / f"{role}.log"
        settings = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
        settings |= {"HOLDFAST_HOME": str(home.path), **(environ or {})}
        with log.open("ab") as out:
            process = await spawn("cli.main", arguments, self._lifeline, settings, out)
        child = Child(name, role, home, log, process)
        self.children.append(child)
        return child

    async def ready(self, child: Child) -> Child:
        """Waits until `child` serves, and notes its URL; CommandError when it ends or takes too long."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if not child.is_running:
                raise CommandError(f"{child.name} did not start: {child.last_words()}")
            document: dict[str, Any] | None = child.home.server(child.role)
            if document is not None and document["pid"] == child.pid:
                child.url = str(document["url"])
                return child
            await asyncio.sleep(POLL_S)
        raise CommandError(f"{child.name} did not start within {START_TIMEOUT_S:.0f} s: {child.last_words()}")

    async def kill(self, child: Child) -> None:
        """Ends one child at once, as a power cut would."""
        if child.is_running:
            child.process.send_signal(signal.SIGKILL)
        await child.process.wait()

    def kill_all(self) -> None:
        """Ends every child at once, without the event loop; returns when they are gone, or after a while."""
        running = [child for child in self.children if child.is_running]
        for child in running:
            child.process.send_signal(signal.SIGKILL)
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        for child in running:
            while not _has_ended(child.pid) and time.monotonic() < deadline_s:
                time.sleep(POLL_S)

    async def stop(self) -> None:
        """Asks every child to stop, last started first, and ends those that do not in time."""
        running = [child.process for child in reversed(self.children)]
        await asyncio.gather(*(end(process, STOP_TIMEOUT_S) for process in running))
        self._lifeline.cut()


def _has_ended(pid: int) -> bool:
    """Whether a child of ours has ended; it stays for the event loop to be reaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
