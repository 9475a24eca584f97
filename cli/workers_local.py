"""The worker of a gateway that needs one only: it answers in this process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.operating.control import Readiness
from gateway.operating.metrics import Snapshot

if TYPE_CHECKING:
    from cli.compose_gateway import Answering
    from cli.home import Home


class LocalWorker:
    """A `cli.workers.Worker` in this process, with the settings that the home has when it starts."""

    def __init__(self, home: Home, sockets: Sequence[socket.socket], ledger_url: str | None) -> None:
        self._home = home
        self._sockets = sockets
        self._ledger_url = ledger_url
        self._found: asyncio.Future[Answering] = asyncio.get_running_loop().create_future()
        self._drained = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last: Snapshot = {}

    @property
    def name(self) -> str:
        """For messages."""
        return "the gateway"

    @property
    def pid(self) -> int:
        """This process."""
        return os.getpid()

    async def start(self) -> None:
        """Raises what is wrong with the store or the settings."""
        self._task = asyncio.create_task(self._run())
        await asyncio.wait((self._task, self._found), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            await self._task

    async def _run(self) -> None:
        from cli.compose_gateway import answering

        async with answering(self._home, self._ledger_url, [sock.dup() for sock in self._sockets]) as found:
            self._found.set_result(found)
            await self._drained.wait()
            self.last = found.snapshot()

    async def wait(self) -> str:
        """It ends by itself only when it breaks."""
        if self._task is None:
            raise RuntimeError("the worker was not started")
        await asyncio.wait((self._task,))
        if self._task.cancelled():
            return "it was cancelled"
        error = self._task.exception()
        return "it was told to" if error is None else str(error)

    async def snapshot(self) -> Snapshot:
        """What it has counted."""
        self.last = self._found.result().snapshot()
        return self.last

    async def ready(self) -> Readiness:
        """Whether the store can be read."""
        return await self._found.result().ready()

    async def drain(self, within_s: float, idle_s: float) -> None:
        """Ends it."""
        if not self._drained.is_set():
            await self._found.result().drain(within_s, idle_s)
            self._drained.set()
        await self.wait()

    def kill(self) -> None:
        """Nothing: it ends with this process."""
