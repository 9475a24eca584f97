"""A gateway as an operator runs it: with denylists, counts, an access log and a control listener."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, ClientTimeout

from gateway.app import build_app
from gateway.listener import listen
from gateway.settings import GatewaySettings
from gateway.source import BlockSource
from tests.gateway.support import Client, MemoryNames


@asynccontextmanager
async def operated(
    source: BlockSource,
    names: MemoryNames | None = None,
    settings: GatewaySettings | None = None,
    **parts: Any,
) -> AsyncIterator[Client]:
    """`parts` are those of `build_app`."""
    settings = settings or GatewaySettings()
    listener = await listen(build_app(source, names, settings, **parts), "127.0.0.1", 0, settings)
    async with ClientSession(timeout=ClientTimeout(total=20), auto_decompress=False) as session:
        try:
            yield Client(listener, session)
        finally:
            await listener.close()
