"""Work that nobody waits for, done one thing after the other behind the answers that it would delay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable

MAX_WAITING = 64

_log = logging.getLogger(__name__)


class Behind:
    """For one event loop; end it by `aclose`."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, Callable[[], Awaitable[object]]] = {}
        self._worker: asyncio.Task[None] | None = None

    def do(self, what: Hashable, work: Callable[[], Awaitable[object]]) -> None:
        """Have it done soon; nothing is added where the same waits already, or too much else."""
        if what in self._waiting or len(self._waiting) >= MAX_WAITING:
            return
        self._waiting[what] = work
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._run(), name="behind")

    async def idle(self) -> None:
        """Waits until nothing is left to do."""
        while self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker])

    async def aclose(self) -> None:
        """Ends what is under way and drops the rest."""
        self._waiting.clear()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])

    async def _run(self) -> None:
        while self._waiting:
            what = next(iter(self._waiting))
            try:
                await self._waiting[what]()
            except Exception:
                _log.exception("what was to be done behind an answer failed: %s", what)
            finally:
                self._waiting.pop(what, None)
