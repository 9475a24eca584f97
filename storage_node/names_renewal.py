"""Keeps the names that were published here alive: signs their records again in time, and hands them out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from merkledag.ed25519 import Signer
from merkledag.errors import MerkledagError
from merkledag.peer import name_text
from merkledag.rfc3339 import SECOND_NS
from storage_node.errors import StorageNodeError
from storage_node.names import Kept, NameStore
from storage_node.names_resolver import NameResolver

CHECK_EVERY_S = 60.0  # names are published by other processes meanwhile
MIN_SLEEP_S = 1.0
HAND_OUT_EVERY_S = 4 * 3600.0  # routers forget records; as kubo

_log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]


def due_in_s(kept: Kept, now_ns: int) -> float:
    """Seconds until a name published here enters the second half of its lifetime; 0 or less: now."""
    assert kept.lifetime_s is not None
    assert kept.record.eol_ns is not None
    return (kept.record.eol_ns - now_ns) / SECOND_NS - kept.lifetime_s / 2


class Renewal:
    """A daemon's task. `signer` gives the key of a name (a multihash), None where it is not at hand.

    `clock` counts seconds; `sleep` waits for some.
    """

    def __init__(
        self,
        store: NameStore,
        resolver: NameResolver,
        signer: Callable[[bytes], Signer | None],
        *,
        clock: Callable[[], float],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._signer = signer
        self._clock = clock
        self._sleep = sleep
        self._handed_out_s: dict[bytes, float] = {}
        self._troubles: dict[bytes, str] = {}

    async def run(self) -> None:
        """Works until it is cancelled; what fails is logged once and tried again."""
        while True:
            sleep_s = CHECK_EVERY_S
            try:
                sleep_s = max(MIN_SLEEP_S, min(sleep_s, await self.check()))
            except Exception:  # whatever it was, the names of the next days depend on this task
                _log.exception("names are not renewed now")
            await self._sleep(sleep_s)

    async def check(self) -> float:
        """One round over the names published here; returns the seconds until the next one is due."""
        next_s = CHECK_EVERY_S
        for kept in list(self._store):
            if kept.lifetime_s is None:
                continue
            try:
                attended = await self._attend(kept)
                next_s = min(next_s, due_in_s(attended, self._store.now_ns()))
                self._troubles.pop(kept.name, None)
            except (MerkledagError, StorageNodeError, ValueError) as error:
                if self._troubles.get(kept.name) != str(error):
                    self._troubles[kept.name] = str(error)
                    _log.warning("the name %s is not renewed: %s", name_text(kept.name), error)
        return next_s

    async def _attend(self, kept: Kept) -> Kept:
        if due_in_s(kept, self._store.now_ns()) <= 0:
            # A sealed key takes scrypt's time, a durable write the disk's: neither may hold up the loop.
            renewed = await asyncio.to_thread(self._renew, kept.name)
            if renewed is None:
                raise ValueError("its key is not at hand")
            if renewed.record.raw != kept.record.raw:
                _log.info("renewed the name %s", name_text(kept.name))
            kept = renewed
            self._handed_out_s.pop(kept.name, None)
        handed_out_s = self._handed_out_s.get(kept.name)
        if not self._resolver.router_count:
            return kept
        if handed_out_s is not None and self._clock() - handed_out_s < HAND_OUT_EVERY_S:
            return kept
        failures = await self._resolver.announce(kept.name, kept.record.raw)
        if len(failures) == self._resolver.router_count:
            raise ValueError(failures[0])  # tried again in the next round
        self._handed_out_s[kept.name] = self._clock()
        return kept

    def _renew(self, name: bytes) -> Kept | None:
        signer = self._signer(name)
        return None if signer is None else self._store.renew(signer)
