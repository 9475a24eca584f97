"""Limits on requests: how many at once, in all and of one client, and how long each may take."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from functools import lru_cache
from typing import Final

from aiohttp import web

from gateway.addresses.proxies import Proxies, parse_address
from gateway.settings import GatewaySettings

_SWEEP_S: Final = 1.0
_MAX_FORWARDED: Final = 32  # addresses of X-Forwarded-For that are looked at, from the nearest one
_IPV6_CLIENT_BITS: Final = 64  # a household or machine has at least one such network


class Clients:
    """Whose request or connection it is, and how many each client has at once.

    The peer of the connection; or, where that is a trusted proxy, the nearest address in X-Forwarded-For
    that is none. What stands before that may be invented. A trusted proxy's own request is nobody's: it is
    the operator, or a proxy that does not say for whom it asks, and others must not pay for that.
    """

    def __init__(self, settings: GatewaySettings, limit: int) -> None:
        self._limit = limit
        self._running: dict[str, int] = {}
        self._is_trusted = Proxies(settings).named

    def of(self, request: web.BaseRequest) -> str | None:
        """The client's address, or None for nobody's."""
        peer = request.remote or ""
        if self.of_peer(peer) is not None:
            return peer
        forwarded = request.headers.getall("X-Forwarded-For", None)
        if forwarded is None:
            return None
        hops = ",".join(forwarded).rsplit(",", _MAX_FORWARDED)[-_MAX_FORWARDED:]
        for hop in reversed(hops):
            address = hop.strip()
            if not self._is_trusted(address):
                return address if parse_address(address) is not None else None
        return None

    def of_peer(self, address: str) -> str | None:
        """The client at the other end of a connection, or None for a trusted proxy: it has many."""
        return None if self._is_trusted(address) else address

    def enter(self, client: str | None) -> bool:
        """Counts one more of what `of` or `of_peer` gave; False where that would be too many."""
        if client is None:
            return True
        key = fairness_key(client)
        count = self._running.get(key, 0)
        if count >= self._limit:
            return False
        self._running[key] = count + 1
        return True

    def leave(self, client: str | None) -> None:
        """One that had entered is over."""
        if client is None:
            return
        key = fairness_key(client)
        count = self._running[key]
        if count > 1:
            self._running[key] = count - 1
        else:
            del self._running[key]


@lru_cache(maxsize=4096)
def fairness_key(address: str) -> str:
    """What is counted as one client: an IPv4 address, or an IPv6 network of 64 bits."""
    parsed = parse_address(address)
    if parsed is None or parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, _IPV6_CLIENT_BITS), strict=False))


class Running:
    """The requests that are being answered; cancels those that take longer than `limit_s`."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._begun: dict[asyncio.Task[object], float] = {}  # the oldest first
        self._expired: set[asyncio.Task[object]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    def begin(self, now: float) -> asyncio.Task[object]:
        """The calling task answers a request since `now` (time.monotonic); `end` it with what is returned."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("requests are answered in tasks")
        self._begun[task] = now
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_S, self.sweep)
        return task

    def has_expired(self, task: asyncio.Task[object]) -> bool:
        """Whether the task was cancelled because it took too long; then it goes on, to say so."""
        if task not in self._expired:
            return False
        self._expired.discard(task)
        task.uncancel()
        return True

    def end(self, task: asyncio.Task[object]) -> None:
        """The request is answered."""
        del self._begun[task]
        if self._expired:
            self.has_expired(task)  # where the answer was whole just then

    def sweep(self) -> None:
        """Cancels what has run too long; again in a second while anything runs."""
        loop = asyncio.get_running_loop()
        latest = time.monotonic() - self._limit_s
        for task, began in list(self._begun.items()):
            if began > latest:
                break
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
        self._sweep = loop.call_later(_SWEEP_S, self.sweep) if self._begun else None
