"""The event stream: one line (or frame) a block, from any height on, with heartbeats in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from ledger.engine.blocks import BlockEvents
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import SubscriberTooSlow, TooManySubscribers
from ledger.engine.fanout import Subscription
from ledger.engine.render import CBOR_TYPE, dump_cbor, dump_json, wants_cbor
from ledger.engine.rpc_common import ENGINE, SETTINGS, STREAMS, Streams, parse_uint
from merkledag import varint

NDJSON_TYPE = "application/x-ndjson"
FRAMES_TYPE = CBOR_TYPE + "; framing=varint"
YIELD_EVERY = 64


async def events(request: web.Request) -> web.StreamResponse:
    """`GET /v1/events?from=H`: NDJSON, or DAG-CBOR maps each behind its length as a varint."""
    engine = request.app[ENGINE]
    settings = request.app[SETTINGS]
    start = parse_uint("from", request.query.get("from", str(engine.app.height + 1)))
    as_cbor = wants_cbor(request.headers.get("Accept", ""))
    streams = request.app[STREAMS]
    if streams.active >= settings.max_streams or streams.closing:
        raise TooManySubscribers("as many event streams as allowed are open; try again later")
    response = web.StreamResponse(
        headers={
            "Content-Type": FRAMES_TYPE if as_cbor else NDJSON_TYPE,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    streams.active += 1
    try:
        await response.prepare(request)
        async with aclosing(_items(engine, streams, start, settings.heartbeat_s)) as items:
            async for item in items:
                data = _frame(dump_cbor(item)) if as_cbor else dump_json(item)
                async with asyncio.timeout(settings.write_timeout_s):
                    await response.write(data)
        await response.write_eof()
    except (ConnectionError, TimeoutError):
        pass  # the reader has gone or does not read; nothing is owed to it
    finally:
        streams.active -= 1
    return response


def _frame(data: bytes) -> bytes:
    return varint.encode(len(data)) + data


async def _items(
    engine: EmbeddedEngine, streams: Streams, start: int, heartbeat_s: float
) -> AsyncGenerator[BlockEvents | dict[str, Any], None]:
    """The blocks from `start` on: the past from the store, then the present."""
    following = max(1, start)
    while following <= engine.app.height:
        past = engine.history.events(following)
        if past is None or streams.closing:
            return
        yield past
        following += 1
        if following % YIELD_EVERY == 0:
            await asyncio.sleep(0)
    # No block can come between the last look at the height and this.
    subscription = engine.subscribe()
    streams.subscriptions.add(subscription)
    try:
        async with aclosing(_live(engine, subscription, heartbeat_s)) as items:
            async for item in items:
                yield item
    finally:
        subscription.close()
        streams.subscriptions.discard(subscription)


async def _live(
    engine: EmbeddedEngine, subscription: Subscription[BlockEvents], heartbeat_s: float
) -> AsyncGenerator[BlockEvents | dict[str, Any], None]:
    """What comes, with heartbeats while nothing does."""
    coming: asyncio.Task[BlockEvents | None] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(subscription.next())
            done, _ = await asyncio.wait({coming}, timeout=heartbeat_s)
            if not done:
                yield {"height": engine.app.height, "time": engine.app.time, "heartbeat": True}
                continue
            item, coming = coming.result(), None
            if item is None:
                return
            yield item
    except SubscriberTooSlow as error:
        yield {"error": str(error), "code": 503}
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})
