"""Handlers of `/v1/prove`: what the state has at keys, shown by proofs that lead to its app hash."""

from __future__ import annotations

from aiohttp import web

from ledger import state_proof
from ledger.engine.rpc_common import ENGINE, parse_hex, parse_uint, read_body, reply
from ledger.limits import MAX_KEY_BYTES, MAX_PROVEN_KEYS
from merkledag import dag_cbor
from merkledag.errors import DecodeError


def add_routes(app: web.Application) -> None:
    """Adds this module's routes."""
    app.router.add_get("/v1/prove/{key}", _prove)
    app.router.add_post("/v1/prove", _prove_all)


async def _prove(request: web.Request) -> web.StreamResponse:
    app = request.app[ENGINE].app
    proof = app.prove(parse_hex("key", request.match_info["key"], MAX_KEY_BYTES))
    forms = {
        "compact": state_proof.encode(proof),
        "cometbft": None if proof.value is None else state_proof.cometbft_ops(proof),
    }
    return reply(request, {"height": app.height, "app_hash": app.app_hash, "proof": proof, **forms})


async def _prove_all(request: web.Request) -> web.StreamResponse:
    least = parse_uint("least", request.query.get("least", "0"))
    wanted = _parse_keys(await read_body(request))
    state = request.app[ENGINE].provable(least)
    proofs = [state_proof.encode(state.prove(key)) for key in wanted]
    return reply(request, {"height": state.height, "proofs": proofs})


def _parse_keys(body: bytes) -> list[bytes]:
    try:
        wanted = dag_cbor.decode(body, max_items=MAX_PROVEN_KEYS + 1)
    except DecodeError as error:
        raise web.HTTPBadRequest(text=f"the body is not a list of keys: {error}") from error
    if not isinstance(wanted, list) or not all(type(key) is bytes for key in wanted):
        raise web.HTTPBadRequest(text="the body is not a list of keys, each a byte string")
    if not 1 <= len(wanted) <= MAX_PROVEN_KEYS:
        raise web.HTTPBadRequest(text=f"{len(wanted)} keys; 1 to {MAX_PROVEN_KEYS} go together")
    if not all(1 <= len(key) <= MAX_KEY_BYTES for key in wanted):
        raise web.HTTPBadRequest(text=f"a key has 1 to {MAX_KEY_BYTES} bytes")
    return wanted
