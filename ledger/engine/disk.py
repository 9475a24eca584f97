"""Writing in a thread, again and again while the disk refuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from ledger.engine.errors import CorruptStore, StoreError

RETRY_S = 1.0

_log = logging.getLogger(__name__)


class Disk:
    """Runs what writes in `thread`; `trouble` is why the disk refused the last write, "" if it did not.

    `rest` waits for some seconds before the next try, unless `is_stopping`.
    """

    def __init__(
        self,
        thread: Executor,
        rest: Callable[[float], Awaitable[object]],
        is_stopping: Callable[[], bool],
    ) -> None:
        self.trouble = ""
        self._thread = thread
        self._rest = rest
        self._is_stopping = is_stopping

    async def try_once(self, write: Callable[[], object]) -> None:
        """Writes; raises StoreError where the disk refuses."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, write)
        except StoreError as error:
            if self.trouble != str(error):
                _log.error("the ledger cannot write: %s", error)
            self.trouble = str(error)
            raise
        self.trouble = ""

    async def write(self, write: Callable[[], object]) -> None:
        """Writes, however long the disk refuses. Raises CorruptStore, and StoreError when it is to stop."""
        while True:
            try:
                return await self.try_once(write)
            except CorruptStore:
                raise
            except StoreError:
                if self._is_stopping():
                    raise
            await self._rest(RETRY_S)
