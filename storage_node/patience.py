"""A directory that keeps no fetch waiting: a ledger that is silent is left alone for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

from ledger.engine.errors import LedgerUnreachable
from merkledag.cid import CID
from storage_node.providers import REFRESH_S, Directory, Holding

PATIENCE_S = 3.0
REST_S = 15.0

T = TypeVar("T")


class PatientDirectory:
    """As the directory it is made of; raises LedgerUnreachable where the ledger takes over ``PATIENCE_S``.

    It is then not asked for ``REST_S``, and for that long the same is raised at once. ``clock`` is monotonic
    seconds. See Directory for the methods.
    """

    def __init__(
        self, directory: Directory, clock: Callable[[], float], *, patience_s: float = PATIENCE_S
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._patience_s = patience_s
        self._rests_until_s = float("-inf")
        self.holdings: Callable[[], tuple[Holding, ...]] = directory.holdings

    async def refresh(self, manifests: Collection[CID], *, max_age_s: float = REFRESH_S) -> bool:
        """See Directory."""
        return await self._asked(lambda: self._directory.refresh(manifests, max_age_s=max_age_s))

    async def learn_content(self, content: CID) -> bool:
        """See Directory."""
        return await self._asked(lambda: self._directory.learn_content(content))

    async def learn_deal(self, deal: CID) -> CID:
        """See Directory. Who names a deal waits for it."""
        return await self._directory.learn_deal(deal)

    async def learn_node(self, endpoint: str) -> bool:
        """See Directory."""
        return await self._asked(lambda: self._directory.learn_node(endpoint))

    async def learn_some(self) -> None:
        """See Directory."""
        await self._asked(self._directory.learn_some)

    async def endpoints(self) -> tuple[str, ...]:
        """See Directory."""
        return await self._asked(self._directory.endpoints)

    async def _asked(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._clock() < self._rests_until_s:
            raise LedgerUnreachable("the ledger did not answer a moment ago")
        try:
            async with asyncio.timeout(self._patience_s):
                return await ask()
        except TimeoutError:
            self._rests_until_s = self._clock() + REST_S
            raise LedgerUnreachable(f"the ledger did not answer within {self._patience_s:g} s") from None
