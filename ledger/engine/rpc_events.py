"""The event stream: one line (or frame) a block, from any height on, with heartbeats in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from ledger.engine.answers import GONE
from ledger.engine.blocks import BlockEvents
from ledger.engine.engine import Engine
from ledger.engine.errors import PrunedHistory, SubscriberTooSlow
from ledger.engine.event_filter import EventFilter
from ledger.engine.fanout import Subscription
from ledger.engine.render import CBOR_TYPE, dump_cbor, dump_json, wants_cbor
from ledger.engine.rpc_common import (
    ENGINE,
    SETTINGS,
    STREAMS,
    Stream,
    Streams,
    parse_account,
    parse_cid,
    parse_uint,
)
from merkledag import varint

NDJSON_TYPE = "application/x-ndjson"
FRAMES_TYPE = CBOR_TYPE + "; framing=varint"
YIELD_EVERY = 64
MAX_FILTERS = 64


async def events(request: web.Request) -> web.StreamResponse:
    """`GET /v1/events?from=H&account=&deal=&kind=`: NDJSON, or DAG-CBOR maps behind varint lengths."""
    engine = request.app[ENGINE]
    settings = request.app[SETTINGS]
    start = parse_uint("from", request.query.get("from", str(engine.app.height + 1)))
    wanted = _parse_filter(request)
    engine.history.events(start)  # before the answer begins: refuses what is no longer kept
    as_cbor = wants_cbor(request.headers.get("Accept", ""))
    streams = request.app[STREAMS]
    stream = streams.open(request)
    response = web.StreamResponse(
        headers={
            "Content-Type": FRAMES_TYPE if as_cbor else NDJSON_TYPE,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    try:
        await response.prepare(request)
        async with aclosing(_items(engine, streams, stream, start, wanted, settings.heartbeat_s)) as items:
            async for item in items:
                data = _frame(dump_cbor(item)) if as_cbor else dump_json(item)
                async with asyncio.timeout(settings.write_timeout_s):
                    await response.write(data)
        await response.write_eof()
    except (ConnectionError, TimeoutError):
        pass  # the reader has gone or does not read; nothing is owed to it
    finally:
        streams.close(stream)
    return response


def _frame(data: bytes) -> bytes:
    return varint.encode(len(data)) + data


async def _items(
    engine: Engine,
    streams: Streams,
    stream: Stream,
    start: int,
    wanted: EventFilter,
    heartbeat_s: float,
) -> AsyncGenerator[BlockEvents | dict[str, Any], None]:
    """The blocks from `start` on, as far as they are wanted: the past from the store, then the present."""
    pulse = _Pulse(heartbeat_s)
    following = max(1, start)
    while following <= engine.app.height:
        try:
            past = engine.history.events(following)
        except PrunedHistory as error:
            yield {"error": str(error), "code": GONE}
            return
        if past is None or streams.closing:
            return
        found = wanted.of(past)
        if found is not None:
            yield found
            pulse.beaten()
        elif pulse.is_due():
            yield _heartbeat(following, past.time)
            pulse.beaten()
        following += 1
        if following % YIELD_EVERY == 0:
            await asyncio.sleep(0)
    # No block can come between the last look at the height and this.
    subscription = engine.subscribe()
    stream.subscription = subscription
    try:
        async with aclosing(_live(engine, subscription, start, wanted, pulse)) as items:
            async for item in items:
                yield item
    finally:
        subscription.close()
        stream.subscription = None


async def _live(
    engine: Engine, subscription: Subscription[BlockEvents], start: int, wanted: EventFilter, pulse: _Pulse
) -> AsyncGenerator[BlockEvents | dict[str, Any], None]:
    """What comes, with heartbeats while nothing does that is wanted."""
    coming: asyncio.Task[BlockEvents | None] | None = None
    height, time = engine.app.height, engine.app.time
    try:
        while True:
            coming = coming or asyncio.create_task(subscription.next())
            done, _ = await asyncio.wait({coming}, timeout=pulse.left_s)
            if done:
                block, coming = coming.result(), None
                if block is None:
                    return
                if block.height > max(start, height + 1):  # another state was put in this one's place
                    yield {"error": f"events up to block {block.height - 1} are not kept here", "code": GONE}
                    return
                height, time = block.height, block.time
                item = wanted.of(block)
                if item is not None:
                    yield item
                    pulse.beaten()
                    continue
            if pulse.is_due():
                yield _heartbeat(height, time)
                pulse.beaten()
    except SubscriberTooSlow as error:
        yield {"error": str(error), "code": 503}
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})


def _heartbeat(height: int, time: int) -> dict[str, Any]:
    """That nothing was wanted up to `height`."""
    return {"height": height, "time": time, "heartbeat": True}


class _Pulse:
    """When the next heartbeat is due, by the event loop's clock."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self.beaten()

    def beaten(self) -> None:
        """Something was sent."""
        self._due_at = asyncio.get_running_loop().time() + self._every_s

    @property
    def left_s(self) -> float:
        """Seconds until then."""
        return max(0.0, self._due_at - asyncio.get_running_loop().time())

    def is_due(self) -> bool:
        """Whether it is time."""
        return self.left_s == 0.0


def _parse_filter(request: web.Request) -> EventFilter:
    """From `account`, `deal` and `kind`, each of which may be there several times; raises HTTPBadRequest."""
    query = request.query
    given = {name: query.getall(name, []) for name in ("account", "deal", "kind")}
    if sum(map(len, given.values())) > MAX_FILTERS:
        raise web.HTTPBadRequest(text=f"at most {MAX_FILTERS} accounts, deals and kinds in all")
    if not all(kind.isascii() and kind.replace("_", "").isalpha() for kind in given["kind"]):
        raise web.HTTPBadRequest(text="kind: not a kind of event")
    return EventFilter(
        frozenset(parse_account(text) for text in given["account"]),
        frozenset(parse_cid(text) for text in given["deal"]),
        frozenset(given["kind"]),
    )
