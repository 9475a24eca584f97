"""Handlers of `/v1/light`: headers with what verifies them, where the engine has such, and false ones."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from ledger.engine.errors import LedgerNotFound
from ledger.engine.rpc_common import parse_uint, read_body, reply

LATEST = "latest"


class LightBlocks(Protocol):
    """Who has the light blocks of a chain."""

    async def light_block(self, height: int | None) -> tuple[int, bytes]:
        """Height and CometBFT's LightBlock message, of a height or of the last one.

        Raises LedgerNotFound, PrunedHistory, EngineUnavailable.
        """

    async def accuse(self, raw: bytes, common_height: int) -> None:
        """Has those punished who signed this LightBlock message, which is not of the chain.

        `common_height` is that of a block before it which the chain has too. Raises ValueError for what is no
        evidence, LedgerNotFound, PrunedHistory, EngineUnavailable.
        """


LIGHT = web.AppKey("light", LightBlocks)


def add_routes(app: web.Application, light: LightBlocks | None) -> None:
    """Adds this module's route; None on an engine whose blocks are signed by its operator."""
    if light is not None:
        app[LIGHT] = light
    app.router.add_get("/v1/light/{height}", _light)
    app.router.add_post("/v1/light", _accuse)


async def _light(request: web.Request) -> web.StreamResponse:
    light = _blocks(request)
    text = request.match_info["height"]
    try:
        height, raw = await light.light_block(None if text == LATEST else parse_uint("height", text))
    except LedgerNotFound as error:
        raise web.HTTPNotFound(text=str(error)) from error
    return reply(request, {"height": height, "light_block": raw})


async def _accuse(request: web.Request) -> web.StreamResponse:
    light = _blocks(request)
    common_height = parse_uint("common", request.query.get("common", ""))
    try:
        await light.accuse(await read_body(request), common_height)
    except LedgerNotFound as error:
        raise web.HTTPNotFound(text=str(error)) from error
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from error
    return reply(request, {"taken": True})


def _blocks(request: web.Request) -> LightBlocks:
    light = request.app.get(LIGHT)
    if light is None:
        raise web.HTTPNotFound(text="this ledger's blocks are signed by its operator: it has no such headers")
    return light
