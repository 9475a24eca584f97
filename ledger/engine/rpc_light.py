"""Handler of `/v1/light`: headers with what verifies them, where the engine has such."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from ledger.engine.errors import LedgerNotFound
from ledger.engine.rpc_common import parse_uint, reply

LATEST = "latest"


class LightBlocks(Protocol):
    """Who has the light blocks of a chain."""

    async def light_block(self, height: int | None) -> tuple[int, bytes]:
        """Height and CometBFT's LightBlock message, of a height or of the last one.

        Raises LedgerNotFound, PrunedHistory, EngineUnavailable.
        """


LIGHT = web.AppKey("light", LightBlocks)


def add_routes(app: web.Application, light: LightBlocks | None) -> None:
    """Adds this module's route; None on an engine whose blocks are signed by its operator."""
    if light is not None:
        app[LIGHT] = light
    app.router.add_get("/v1/light/{height}", _light)


async def _light(request: web.Request) -> web.StreamResponse:
    light = request.app.get(LIGHT)
    if light is None:
        raise web.HTTPNotFound(text="this ledger's blocks are signed by its operator: it has no such headers")
    text = request.match_info["height"]
    try:
        height, raw = await light.light_block(None if text == LATEST else parse_uint("height", text))
    except LedgerNotFound as error:
        raise web.HTTPNotFound(text=str(error)) from error
    return reply(request, {"height": height, "light_block": raw})
