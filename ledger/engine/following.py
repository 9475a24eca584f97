"""A chain's events as an endless stream without gaps: taken up again where it breaks off, at any server."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from ledger.engine.answers import block_events, filter_query, seen_up_to
from ledger.engine.blocks import BlockEvents
from ledger.engine.errors import LedgerProtocolError, LedgerUnreachable
from ledger.engine.event_filter import EventFilter
from ledger.engine.servers import Server, Servers
from ledger.engine.transport import backoff
from ledger.errors import LedgerError

_log = logging.getLogger(__name__)


async def follow(
    servers: Servers,
    from_height: int,
    wanted: EventFilter,
    sleep: Callable[[float], Awaitable[object]],
) -> AsyncGenerator[BlockEvents, None]:
    """As `LedgerClient.events`."""
    following = max(1, from_height)
    failures = 0
    while True:
        server = None
        try:
            server = await servers.pick()
            told = _events_of(servers, server, following, wanted, again=failures > 0)
            async with aclosing(told) as blocks:
                async for block, then in blocks:
                    if block is not None:
                        yield block
                        failures = 0
                    following = then
        except LedgerError as error:
            if not servers.goes_on(server, error, failures):
                raise
            _log.debug("the event stream broke off: %s", error)
        await backoff(failures, sleep)
        failures += 1


async def _events_of(
    servers: Servers, server: Server, following: int, wanted: EventFilter, *, again: bool
) -> AsyncGenerator[tuple[BlockEvents | None, int], None]:
    """What one server tells until it breaks off: blocks, each time with the height that is to follow."""
    await servers.require(server, again=again)
    if again:
        server.chain.require_height(following - 1)
    query = [("from", str(following)), *filter_query(wanted)]
    silent_at = -1
    async with aclosing(server.http.frames("/v1/events", query)) as frames:
        async for frame in frames:
            block = block_events(frame)
            if block is None:
                height = seen_up_to(frame)
                if wanted.is_open and height >= following:
                    raise LedgerProtocolError(f"the event stream lacks block {following}")
                if height == silent_at and not await servers.is_best(server):
                    raise LedgerUnreachable(f"{server.url} stands still at block {height}")
                silent_at = height
                if not wanted.is_open:
                    following = max(following, height + 1)
                    yield None, following
                continue
            if block.height < following:
                continue
            if block.height > following and wanted.is_open:
                raise LedgerProtocolError(f"the event stream lacks block {following}")
            servers.saw(block.height)
            following = block.height + 1
            yield block, following
