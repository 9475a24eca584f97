"""Handlers that hand out the chain's history as CARs, for archives and for whoever checks it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from ledger.engine.archive import CAR_TYPE, GivenBlock, sections
from ledger.engine.blocks import node_cid
from ledger.engine.engine import Engine
from ledger.engine.errors import PrunedHistory
from ledger.engine.rpc_common import ENGINE, SETTINGS, STREAMS, parse_uint
from merkledag import car

PORTION_BYTES = 256 << 10
MIN_BYTES_S = 32 << 10


def add_routes(app: web.Application) -> None:
    """Adds this module's routes."""
    app.router.add_get("/v1/blocks", _blocks)
    app.router.add_get("/v1/snapshot/{height}", _snapshot)
    app.router.add_get("/v1/origin", _origin)


async def _origin(request: web.Request) -> web.StreamResponse:
    """`GET /v1/origin`: the archive of the end of the chain that this one goes on from."""
    path = request.app[ENGINE].history.origin
    if path is None:
        raise web.HTTPNotFound(text="this chain goes on from no other one")
    return await _hand_out(request, path)


async def _hand_out(request: web.Request, path: Path) -> web.StreamResponse:
    """Sends a file. Whoever takes less than `MIN_BYTES_S` of it is cut off: streams are few."""
    streams, settings = request.app[STREAMS], request.app[SETTINGS]
    stream = streams.open(request)
    response = web.FileResponse(path, headers={"Content-Type": f"{CAR_TYPE}; version=1"})
    try:
        async with asyncio.timeout(settings.write_timeout_s + _size_bytes(path) / MIN_BYTES_S):
            await response.prepare(request)  # sends all of it
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    except FileNotFoundError as error:
        raise web.HTTPNotFound(text="the snapshot has just been dropped for a newer one") from error
    finally:
        streams.close(stream)
    return response


def _size_bytes(path: Path) -> int:
    return path.stat().st_size


async def _snapshot(request: web.Request) -> web.StreamResponse:
    """`GET /v1/snapshot/{height}` or `…/latest`: the file as it is; ranges of it, too."""
    snapshots = request.app[ENGINE].snapshots
    heights, text = snapshots.heights(), request.match_info["height"]
    height = snapshots.newest() if text == "latest" else parse_uint("height", text)
    if height not in heights:
        there = ", ".join(map(str, heights)) or "none"
        raise web.HTTPNotFound(text=f"no snapshot of block {text}; there are: {there}")
    snapshots.note_read(height)
    return await _hand_out(request, snapshots.path(height))


async def _blocks(request: web.Request) -> web.StreamResponse:
    """`GET /v1/blocks?from=A&to=B`: a CAR of blocks A…B, each before its transactions; B is its root.

    Where validators decide, a block's header comes last, as in an archive, and the last block is by default
    the last one of which is known who signed it.
    """
    engine = request.app[ENGINE]
    signed = engine.history.signed_height() if engine.app.genesis.validators else engine.app.height
    first = parse_uint("from", request.query.get("from", "1"))
    last = parse_uint("to", request.query.get("to", str(max(first, min(signed, engine.app.height)))))
    if not 1 <= first <= last <= engine.app.height:
        raise web.HTTPBadRequest(text=f"from, to: blocks 1 to {engine.app.height}, in this order")
    if last > signed:
        raise web.HTTPNotFound(text=f"who signed the blocks after {signed} is not known here yet")
    streams = request.app[STREAMS]
    stream = streams.open(request)
    try:
        return await _send(request, engine, first, last)
    except ConnectionError:
        return web.Response()  # nobody reads it
    finally:
        streams.close(stream)


async def _send(request: web.Request, engine: Engine, first: int, last: int) -> web.StreamResponse:
    try:
        portion = bytearray(sections(await _given(engine, first)))
    except PrunedHistory as error:
        raise web.HTTPNotFound(text=str(error)) from error
    root = engine.history.block(last)
    assert root is not None, "blocks after one that is kept are kept"
    response = web.StreamResponse(headers={"Content-Type": f"{CAR_TYPE}; version=1"})
    await response.prepare(request)
    portion[:0] = car.header([node_cid(root.encode())])
    for height in range(first + 1, last + 1):
        if len(portion) >= PORTION_BYTES:
            await _write(request, response, portion)
            portion.clear()
        portion += sections(await _given(engine, height))
    await _write(request, response, portion)
    await response.write_eof()
    return response


async def _write(request: web.Request, response: web.StreamResponse, portion: bytearray) -> None:
    """Sends a portion, or breaks the connection off: an answer that ends early must not look whole."""
    try:
        async with asyncio.timeout(request.app[SETTINGS].write_timeout_s):
            await response.write(bytes(portion))
    except TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the reader does not read") from error
    if request.app[STREAMS].closing:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the ledger is stopping")


async def _given(engine: Engine, height: int) -> GivenBlock:
    given = await asyncio.to_thread(engine.history.given, height)
    if engine.app.genesis.validators and not given.light:
        raise PrunedHistory(f"who signed block {height} is not known here, or not yet")
    return given
