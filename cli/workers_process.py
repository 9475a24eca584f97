"""Workers as processes of their own (`cli.worker`): how the parent starts one and speaks to it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from cli.output import CommandError, ExitCode
from cli.processes import Lifeline, end, spawn
from cli.worker_channel import Channel, Document
from gateway.operating.control import Readiness
from gateway.operating.metrics import Snapshot, is_snapshot

START_TIMEOUT_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 2.0
GRACE_S: Final = 2.0  # beyond what it may take to drain; then it is killed


class ProcessWorker:
    """One worker process: a `cli.workers.Worker`."""

    def __init__(
        self,
        number: int,
        sockets: Sequence[socket.socket],
        ledger_url: str | None,
        environ: Mapping[str, str],
        lifeline: Lifeline,
    ) -> None:
        self._number = number
        self._sockets = sockets
        self._ledger_url = ledger_url
        self._environ = environ
        self._lifeline = lifeline
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._listening: asyncio.Task[None] | None = None
        self._serving: asyncio.Future[None] | None = None
        self._asked: dict[str, asyncio.Future[Document | None]] = {}
        self.last: Snapshot = {}

    @property
    def name(self) -> str:
        """`worker 1 (process 4711)`."""
        return f"worker {self._number + 1} (process {self.pid})"

    @property
    def pid(self) -> int:
        """The operating system's number, 0 before there is any."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Raises CommandError with what the worker says."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [sock.fileno() for sock in self._sockets]
            arguments = ["--channel", str(theirs.fileno()), "--sockets", ",".join(map(str, descriptors))]
            if self._ledger_url is not None:
                arguments += ["--ledger", self._ledger_url]
            self._process = await spawn(
                "cli.worker", arguments, self._lifeline, self._environ,
                passed=(theirs.fileno(), *descriptors), stdout=True,
            )  # fmt: skip
        self._channel = await Channel.over(ours)
        self._serving = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen(self._channel, self._serving))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await asyncio.shield(self._serving)
        except TimeoutError:
            self.kill()
            raise CommandError(f"{self.name} did not serve within {START_TIMEOUT_S:.0f} s") from None
        except BaseException:
            self.kill()
            raise
        finally:
            self._serving.cancel()

    async def wait(self) -> str:
        """How it ended: `exit code 1`, `SIGKILL`."""
        process = self._running()
        code = await process.wait()
        await self._listened()
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    async def snapshot(self) -> Snapshot:
        """The last one it gave, if it does not answer."""
        answer = await self._ask("snapshot")
        if answer is not None and is_snapshot(answer.get("snapshot")):
            self.last = answer["snapshot"]
        return self.last

    async def ready(self) -> Readiness:
        """Not ready if it does not answer."""
        answer = await self._ask("ready")
        if answer is None:
            return Readiness(False, f"{self.name} does not answer")
        return Readiness(answer.get("ready") is True, str(answer.get("reason", "")))

    async def drain(self, within_s: float, idle_s: float) -> None:
        """Asks it to, and kills it when it does not end in time."""
        process = self._running()
        if self._channel is not None:
            self._channel.send({"do": "drain", "within_s": within_s, "idle_s": idle_s})
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s + GRACE_S):
                await process.wait()
        await end(process, 0)
        await self._listened()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the worker was not started")
        return self._process

    async def _listened(self) -> None:
        """Waits for what it said last, and closes our end."""
        if self._listening is not None:
            await asyncio.shield(self._listening)

    async def _ask(self, what: str) -> Document | None:
        """Its answer; None if it is gone or does not answer in time."""
        if self._channel is None or self._listening is None or self._listening.done():
            return None
        waiting = self._asked.get(what)
        if waiting is None:
            waiting = self._asked[what] = asyncio.get_running_loop().create_future()
            self._channel.send({"ask": what})
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await asyncio.shield(waiting)
        except TimeoutError:
            return None

    async def _listen(self, channel: Channel, serving: asyncio.Future[None]) -> None:
        while (said := await channel.receive()) is not None:
            if "serving" in said and not serving.done():
                serving.set_result(None)
            elif "failed" in said and not serving.done():
                serving.set_exception(CommandError(str(said["failed"]), ExitCode(said["code"])))
            elif "last" in said and is_snapshot(said["last"]):
                self.last = said["last"]
            elif (waiting := self._asked.pop(str(said.get("answer")), None)) is not None:
                waiting.set_result(said)
        for waiting in self._asked.values():
            waiting.set_result(None)  # cancelled, it would cancel whoever awaits it
        self._asked.clear()
        if not serving.done():
            serving.set_exception(CommandError(f"{self.name} ended before it served"))
        await channel.aclose()
