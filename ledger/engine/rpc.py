"""The ledger's HTTP interface: transactions in, answers and events out (docs/ledger-rpc.md)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ledger import limits
from ledger.engine import rpc_events, rpc_export, rpc_light, rpc_proofs, rpc_prove, rpc_state
from ledger.engine.blocks import Block, Receipt
from ledger.engine.engine import Engine
from ledger.engine.errors import (
    EngineStopped,
    EngineUnavailable,
    MempoolFull,
    PrunedHistory,
    StoreError,
    TooManySubscribers,
)
from ledger.engine.render import CBOR_TYPE
from ledger.engine.rpc_common import (
    ENGINE,
    NO_ENCODING,
    SETTINGS,
    STREAMS,
    Settings,
    Streams,
    fail,
    parse_cid,
    parse_uint,
    read_body,
    reply,
)
from ledger.engine.rpc_light import LightBlocks
from ledger.errors import CorruptState
from ledger.result import Code, explain
from merkledag import dag_cbor
from merkledag.errors import DecodeError

MAX_BATCH_TXS = 1_000
# Of all requests that are being read: each may have less than its own limit, but not all at once.
MAX_BODIES_BYTES = 64 << 20

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class _Load:
    """Requests that are being answered, and the bytes of their bodies."""

    active: int = 0
    bodies_bytes: int = 0


_LOAD = web.AppKey("load", _Load)


def build_rpc(
    engine: Engine, settings: Settings | None = None, light: LightBlocks | None = None
) -> web.Application:
    """The application, to be run by any aiohttp runner. The engine's owner starts and stops the engine.

    `light` has the light blocks of an engine with many validators.

    On shutdown, event streams end at once and requests under way are left to the runner's own grace.
    """
    settings = settings or Settings()
    app = web.Application(middlewares=[_guard], client_max_size=limits.MAX_TX_BYTES)
    app[ENGINE] = engine
    app[SETTINGS] = settings
    app[STREAMS] = Streams()
    app[_LOAD] = _Load()
    app.router.add_post("/v1/tx", _submit)
    app.router.add_post("/v1/txs", _submit_all)
    app.router.add_get("/v1/tx/{cid}", _tx)
    app.router.add_get("/v1/block/{height}", _block)
    app.router.add_get("/v1/node/{cid}", _node)
    app.router.add_get("/v1/events", rpc_events.events)
    rpc_state.add_routes(app)
    rpc_prove.add_routes(app)
    rpc_export.add_routes(app)
    rpc_proofs.add_routes(app)
    rpc_light.add_routes(app, light)
    app.on_shutdown.append(_end_streams)
    return app


async def _end_streams(app: web.Application) -> None:
    app[STREAMS].closing = True
    for stream in list(app[STREAMS].opened):
        stream.end()


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Bounds the requests in flight, and makes every error JSON with the status that says whose it is."""
    load = request.app[_LOAD]
    if load.active >= request.app[SETTINGS].max_requests:
        return fail(503, "too many requests at once; try again later", retry=True)
    body_bytes = _body_bytes(request)
    if load.bodies_bytes + body_bytes > MAX_BODIES_BYTES:
        return fail(503, "too many bytes are being sent at once; try again later", retry=True)
    load.active += 1
    load.bodies_bytes += body_bytes
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return fail(error.status, _http_reason(error))
    except ConnectionError:
        return fail(400, "the connection was lost")  # nobody reads it
    except web.RequestPayloadError:
        if "Content-Encoding" in request.headers:
            return await _refuse_and_close(request, 415, NO_ENCODING)
        return await _refuse_and_close(request, 400, "the body could not be read")
    except MempoolFull as error:
        return fail(429, str(error), code=Code.POOL_FULL, retry=True)
    except PrunedHistory as error:
        return fail(410, str(error))
    except (EngineStopped, EngineUnavailable, TooManySubscribers, StoreError, CorruptState) as error:
        return fail(503, str(error), retry=True)
    except Exception:
        _log.exception("%s %s failed", request.method, request.path)
        return fail(500, "the server failed; its log says why")
    finally:
        load.active -= 1
        load.bodies_bytes -= body_bytes


def _body_bytes(request: web.Request) -> int:
    """How many bytes a request's body may take."""
    if not request.body_exists:
        return 0
    stated = request.content_length
    return limits.MAX_TX_BYTES if stated is None else min(stated, limits.MAX_TX_BYTES)


def _http_reason(error: web.HTTPException) -> str:
    if error.status == 413:
        return f"the body is larger than {limits.MAX_TX_BYTES} bytes"
    if error.status == 404 and not error.text:
        return "no such resource"
    return error.text or error.reason


async def _refuse_and_close(request: web.Request, status: int, message: str) -> web.Response:
    """Answers a request whose body cannot be read to its end: aiohttp would try to, and fail on it again."""
    response = fail(status, message)
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()
    return response


async def _submit(request: web.Request) -> web.StreamResponse:
    if request.query.get("wait", "commit") != "commit":
        raise web.HTTPBadRequest(text="wait: only 'commit' is known")
    raw = await read_body(request)
    receipt = await request.app[ENGINE].submit(raw)
    status = 200 if receipt.height else 429 if receipt.code == Code.POOL_FULL else 400
    return reply(request, _answer(receipt), status=status)


async def _submit_all(request: web.Request) -> web.StreamResponse:
    raws = _parse_batch(await read_body(request))
    receipts = await request.app[ENGINE].submit_all(raws)
    return reply(request, {"receipts": [_answer(receipt) for receipt in receipts]})


def _parse_batch(body: bytes) -> list[bytes]:
    try:
        raws = dag_cbor.decode(body, max_items=MAX_BATCH_TXS + 1)
    except DecodeError as error:
        raise web.HTTPBadRequest(text=f"the body is not a list of transactions: {error}") from error
    if not isinstance(raws, list) or not all(type(raw) is bytes for raw in raws):
        raise web.HTTPBadRequest(text="the body is not a list of transactions, each a byte string")
    if not 1 <= len(raws) <= MAX_BATCH_TXS:
        raise web.HTTPBadRequest(text=f"{len(raws)} transactions; 1 to {MAX_BATCH_TXS} go together")
    return raws


def _answer(receipt: Receipt) -> dict[str, Any]:
    answer = receipt_map(receipt)
    if receipt.height == 0:
        answer["error"] = receipt.log or explain(receipt.code)
    return answer


def receipt_map(receipt: Receipt) -> dict[str, Any]:
    """A receipt's fields, and its code's name."""
    try:
        name = Code(receipt.code).name
    except ValueError:
        name = ""
    return {**receipt.to_map(), "name": name}


async def _tx(request: web.Request) -> web.StreamResponse:
    cid = parse_cid(request.match_info["cid"])
    found = request.app[ENGINE].history.tx(cid)
    if found is None:
        raise web.HTTPNotFound(text=f"no transaction {cid}")
    return reply(
        request,
        {"height": found.height, "index": found.index, "receipt": receipt_map(found.receipt), "tx": found.tx},
    )


async def _block(request: web.Request) -> web.StreamResponse:
    engine = request.app[ENGINE]
    text = request.match_info["height"]
    height = engine.app.height if text == "latest" else parse_uint("height", text)
    block: Block | None = engine.history.block(height)
    if block is None and 1 <= height <= engine.app.height:
        first = engine.history.first_height()
        raise PrunedHistory(f"this ledger began with a later state: its first block is {first}, not {height}")
    if block is None:
        raise web.HTTPNotFound(text=f"no block {height}; the last is {engine.app.height}")
    return reply(request, {"cid": block.cid, "block": block})


async def _node(request: web.Request) -> web.StreamResponse:
    cid = parse_cid(request.match_info["cid"])
    raw = request.app[ENGINE].get_node(cid)
    if raw is None:
        raise web.HTTPNotFound(text=f"no node {cid}")
    headers = {"Cache-Control": "public, max-age=29030400, immutable", "Etag": f'"{cid}"'}
    return web.Response(body=raw, content_type=CBOR_TYPE, headers=headers)
