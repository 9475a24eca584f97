"""A gateway as an operator runs it: with denylists, counts, an access log and a control listener."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from gateway.app import build_app
from gateway.serving.listener import listen
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


async def received_until_cut(client: Client, path: str) -> bytes:
    """What comes of a response that is cut off."""
    received = bytearray()
    async with client.stream(path) as response:
        assert response.status == 200
        try:
            async for part in response.content.iter_any():
                received += part
        except ClientError:
            return bytes(received)
    raise AssertionError(f"{path} was not cut")
