"""A limit on how fast one address may read blocks for nothing.

A token bucket an address, bounded in number.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

MAX_ADDRESSES = 10_000
BURST_S = 4.0
READ_PREFIX = "/ipfs/"


class ReadLimit:
    """Token buckets by address: ``per_s`` requests a second, ``BURST_S`` seconds' worth at once."""

    def __init__(self, per_s: float, clock: Callable[[], float], max_addresses: int = MAX_ADDRESSES) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s * BURST_S)
        self._clock = clock
        self._max_addresses = max_addresses
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Take one token: 0 when there was one, else the seconds until there is."""
        now_s = self._clock()
        tokens, at_s = self._buckets.get(address, (self._burst, now_s))
        tokens = min(self._burst, tokens + max(0.0, now_s - at_s) * self._per_s)
        wait_s = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._per_s
        self._buckets[address] = (tokens - 1.0 if wait_s == 0.0 else tokens, now_s)
        self._buckets.move_to_end(address)
        # Whoever was forgotten starts with a full bucket, as a new address would.
        while len(self._buckets) > self._max_addresses:
            self._buckets.popitem(last=False)
        return wait_s


def read_limit(per_s: float, clock: Callable[[], float]) -> Middleware:
    """Answers 429 to those who read faster. ``clock`` is monotonic seconds."""
    limit = ReadLimit(per_s, clock)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(READ_PREFIX):
            wait_s = limit.wait_s(request.remote or "")
            if wait_s > 0.0:
                headers = {"Retry-After": str(math.ceil(wait_s))}
                return web.json_response({"error": "too many reads: slow down"}, status=429, headers=headers)
        return await handler(request)

    return middleware
