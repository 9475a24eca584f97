"""Sources of blocks and names whose reads are counted and traced."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from gateway.operating.metrics import Metrics
from gateway.operating.tracing import Tracer
from gateway.source import Asking, BlockSource, NameResolver, NameTarget, Provider
from merkledag.cid import CID


class WatchedSource:
    """A `BlockSource`."""

    def __init__(self, source: BlockSource, metrics: Metrics, tracer: Tracer | None) -> None:
        self._source = source
        self._metrics = metrics
        self._tracer = tracer
        self._fetching: dict[bytes, int] = {}

    def view(self, cid: CID) -> AbstractContextManager[memoryview] | None:
        view = self._source.view(cid)
        if view is not None:
            self._metrics.blocks_here += 1
        return view

    async def get(self, cid: CID) -> bytes:
        """Of several that ask for one block at once, the first fetches it, and the others wait for it too."""
        metrics, key = self._metrics, cid.multihash
        others = self._fetching.get(key, 0)
        self._fetching[key] = others + 1
        began = time.monotonic()
        try:
            with nullcontext() if self._tracer is None else self._tracer.step("fetch block", cid=str(cid)):
                data = await self._source.get(cid)
        except (LookupError, TimeoutError):
            metrics.blocks_failed += 1
            raise
        finally:
            left = self._fetching[key] - 1
            if left:
                self._fetching[key] = left
            else:
                del self._fetching[key]
        metrics.block_fetch.observe(time.monotonic() - began)
        if others:
            metrics.blocks_coalesced += 1
        else:
            metrics.blocks_fetched += 1
        return data

    async def has(self, cid: CID) -> bool:
        return await self._source.has(cid)

    def asked(self, cid: CID) -> Sequence[Provider]:
        return self._source.asked(cid) if isinstance(self._source, Asking) else ()


class WatchedNames:
    """A `NameResolver`."""

    def __init__(self, names: NameResolver, metrics: Metrics, tracer: Tracer | None) -> None:
        self._names = names
        self._metrics = metrics
        self._tracer = tracer

    async def resolve(self, name: str) -> NameTarget:
        outcome = "none"
        try:
            with nullcontext() if self._tracer is None else self._tracer.step("resolve name", name=name):
                target = await self._names.resolve(name)
            outcome = "found"
        except TimeoutError:
            outcome = "timeout"
            raise
        finally:
            self._metrics.names[outcome] += 1
        return target
