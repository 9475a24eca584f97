"""Handlers that give proofs of storage with all that shows them to others (`evidence`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from ledger import limits
from ledger.engine.errors import LedgerNotFound
from ledger.engine.evidence import LIGHT_KIND, Evidence
from ledger.engine.evidence_maker import EvidenceMaker
from ledger.engine.render import CBOR_TYPE
from ledger.engine.rpc_common import ENGINE, parse_cid, parse_hex, parse_uint
from ledger.engine.rpc_light import LIGHT

DATASET_ID_BYTES = 32
LATEST = "latest"


def add_routes(app: web.Application) -> None:
    """Adds this module's routes."""
    app.router.add_get("/v1/dataset/{id}/proof/{period}", _of_period)
    app.router.add_get("/v1/deal/{cid}/answer/{shard}/{height}", _of_spot)


async def _of_period(request: web.Request) -> web.StreamResponse:
    dataset = parse_hex("dataset", request.match_info["id"], DATASET_ID_BYTES, exact=True)
    period = _number(request, "period")
    return await _file(request, lambda maker: maker.of_period(dataset, period))


async def _of_spot(request: web.Request) -> web.StreamResponse:
    deal, height = parse_cid(request.match_info["cid"]), _number(request, "height")
    if len(bytes(deal)) > limits.MAX_CID_BYTES:
        raise web.HTTPNotFound(text=f"no deal {deal}")
    shard = parse_uint("shard", request.match_info["shard"])
    if shard >= limits.MAX_SHARDS:
        raise web.HTTPNotFound(text=f"no deal has a shard {shard}")
    return await _file(request, lambda maker: maker.of_spot(deal, shard, height))


def _number(request: web.Request, name: str) -> int | None:
    """A number of the path; None for the latest."""
    text = request.match_info[name]
    return None if text == LATEST else parse_uint(name, text)


async def _file(request: web.Request, make: Callable[[EvidenceMaker], Evidence]) -> web.Response:
    engine = request.app[ENGINE]
    maker = EvidenceMaker(engine.history, engine.app.genesis)
    try:
        found = await asyncio.to_thread(lambda: make(maker))
        if LIGHT in request.app:
            heights = sorted({found.block.height, found.state_block.height + 1})
            lights = [(await request.app[LIGHT].light_block(height))[1] for height in heights]
            found = replace(found, kind=LIGHT_KIND, lights=tuple(lights))
    except LedgerNotFound as error:
        raise web.HTTPNotFound(text=str(error)) from error
    return web.Response(body=found.encode(), content_type=CBOR_TYPE)
