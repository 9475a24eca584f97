"""Handlers that answer from the last committed state: accounts, providers, deals, datasets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from ledger.application import Application
from ledger.engine.render import AccountKey, dump_json
from ledger.engine.row_keys import PLACE_BYTES, place_key, read_place
from ledger.engine.rpc_common import (
    ENGINE,
    parse_account,
    parse_cid,
    parse_hex,
    parse_limit,
    parse_uint,
    reply,
)
from ledger.engine.schema import document
from ledger.engine.views import (
    AccountView,
    ChangeView,
    DatasetView,
    DealView,
    ProposalView,
    SlotView,
    SpotView,
    ValidatorView,
)
from ledger.limits import MAX_KEY_BYTES, MAX_UINT
from ledger.paging import Page
from ledger.views_datasets import DatasetInfo, SlotInfo

DATASET_ID_BYTES = 32
SCHEMA_TYPE = "application/schema+json"
T = TypeVar("T")


def add_routes(app: web.Application) -> None:
    """Adds this module's routes."""
    router = app.router
    router.add_get("/v1/status", _status)
    router.add_get("/v1/schema", _schema)
    router.add_get("/v1/genesis", _genesis)
    router.add_get("/v1/params", _params)
    router.add_get("/v1/account/{account}", _account)
    router.add_get("/v1/account/{account}/history", _history)
    router.add_get("/v1/providers", _providers)
    router.add_get("/v1/provider/{account}", _provider)
    router.add_get("/v1/validators", _validators)
    router.add_get("/v1/validator/{account}", _validator)
    router.add_get("/v1/deals", _deals)
    router.add_get("/v1/deal/{cid}", _deal)
    router.add_get("/v1/datasets", _datasets)
    router.add_get("/v1/dataset/{id}", _dataset)
    router.add_get("/v1/dataset/{id}/slots", _slots)
    router.add_get("/v1/spots", _spots)
    router.add_get("/v1/proposals", _proposals)
    router.add_get("/v1/proposal/{cid}", _proposal)
    router.add_get("/v1/proposal/{cid}/vote/{account}", _vote)


def _app(request: web.Request) -> Application:
    return request.app[ENGINE].app


def _list(request: web.Request, page: Page[T], show: Callable[[T], Any] = lambda x: x) -> web.Response:
    """A page of a list, and the cursor of the next."""
    following = None if page.next is None else page.next.hex()
    return reply(request, {"items": [show(item) for item in page.items], "next": following})


def _cursor(request: web.Request) -> bytes:
    text = request.query.get("cursor", "")
    return parse_hex("cursor", text, MAX_KEY_BYTES) if text else b""


async def _status(request: web.Request) -> web.StreamResponse:
    engine = request.app[ENGINE]
    app, pruned = engine.app, engine.history.pruned()
    return reply(
        request,
        {
            "chain_id": app.chain_id,
            "engine": engine.name,
            "height": app.height,
            "time": app.time,
            "block_time_s": app.block_time_s,
            "app_hash": app.app_hash,
            "beacon": app.beacon,
            "operator": AccountKey(app.genesis.operator),
            "rules": app.rules,
            "params_version": app.params_version,
            **app.totals().to_map(),
            "next_due": app.next_due(),
            "waiting": engine.status.waiting,
            "trouble": engine.status.trouble,
            "first_height": engine.history.first_height(),
            "pruned_height": pruned.blocks,
            "pruned_proofs_height": pruned.proofs,
            "retain_height": engine.status.retain_height,
            "snapshot_height": engine.snapshots.newest(),
            "signed_height": engine.history.signed_height() if app.genesis.validators else app.height,
        },
    )


async def _schema(request: web.Request) -> web.StreamResponse:
    return web.Response(body=dump_json(document()), content_type=SCHEMA_TYPE, charset="utf-8")


async def _genesis(request: web.Request) -> web.StreamResponse:
    return reply(request, _app(request).genesis)


async def _params(request: web.Request) -> web.StreamResponse:
    app, wanted = _app(request), request.query.get("version")
    if wanted is None:
        return reply(request, app.params)
    version = parse_uint("version", wanted)
    found = app.params_of(version)
    if found is None:
        raise web.HTTPNotFound(text=f"there is no version {version} of the parameters")
    return reply(request, found)


async def _account(request: web.Request) -> web.StreamResponse:
    account = parse_account(request.match_info["account"])
    return reply(request, AccountView(account, _app(request).account(account)))


async def _history(request: web.Request) -> web.StreamResponse:
    account = parse_account(request.match_info["account"])
    limit, cursor = parse_limit(request), _cursor(request)
    if len(cursor) not in (0, PLACE_BYTES):
        raise web.HTTPBadRequest(text="cursor: not one that this list gave")
    before = read_place(cursor) if cursor else (MAX_UINT, 0)
    changes = request.app[ENGINE].history.account(account, before, limit + 1)
    more = len(changes) > limit
    last = changes[limit - 1] if more else None
    following = None if last is None else place_key(last.height, last.index).hex()
    return reply(request, {"items": [ChangeView.of(one) for one in changes[:limit]], "next": following})


async def _providers(request: web.Request) -> web.StreamResponse:
    return _list(request, _app(request).providers_page(_cursor(request), parse_limit(request)))


async def _provider(request: web.Request) -> web.StreamResponse:
    found = _app(request).provider(parse_account(request.match_info["account"]))
    if found is None:
        raise web.HTTPNotFound(text="no such provider is registered")
    return reply(request, found)


async def _validators(request: web.Request) -> web.StreamResponse:
    return _list(
        request, _app(request).validators_page(_cursor(request), parse_limit(request)), ValidatorView.of
    )


async def _validator(request: web.Request) -> web.StreamResponse:
    found = _app(request).validator(parse_account(request.match_info["account"]))
    if found is None:
        raise web.HTTPNotFound(text="this account registered no keys to validate with")
    return reply(request, ValidatorView.of(found))


async def _deals(request: web.Request) -> web.StreamResponse:
    query = request.query
    if query.get("active") not in (None, "true", "false"):
        raise web.HTTPBadRequest(text="active: 'true' or 'false'")
    page = _app(request).deals_page(
        client=parse_account(query["client"]) if "client" in query else None,
        provider=parse_account(query["provider"]) if "provider" in query else None,
        content=parse_cid(query["content"]) if "content" in query else None,
        active=query["active"] == "true" if "active" in query else None,
        after=_cursor(request),
        limit=parse_limit(request),
    )
    return _list(request, page, DealView.of)


async def _deal(request: web.Request) -> web.StreamResponse:
    deal = parse_cid(request.match_info["cid"])
    found = _app(request).deal(deal)
    if found is None:
        raise web.HTTPNotFound(text=f"no deal {deal}, or it is long over")
    return reply(request, DealView.of(found))


def _dataset_view(info: DatasetInfo) -> DatasetView:
    return DatasetView(info.id, info.record)


async def _datasets(request: web.Request) -> web.StreamResponse:
    text = request.query.get("provider")
    provider = None if text is None else parse_account(text)
    page = _app(request).datasets_page(provider, after=_cursor(request), limit=parse_limit(request))
    return _list(request, page, _dataset_view)


async def _spots(request: web.Request) -> web.StreamResponse:
    query = request.query
    page = _app(request).spots_page(
        parse_account(query["provider"]) if "provider" in query else None,
        parse_cid(query["deal"]) if "deal" in query else None,
        _cursor(request),
        parse_limit(request),
    )
    return _list(request, page, lambda info: SpotView(info.deal, info.shard, info.record))


async def _proposals(request: web.Request) -> web.StreamResponse:
    found = [ProposalView(info.id, info.record) for info in _app(request).proposals()]
    return reply(request, {"items": found, "next": None})


async def _proposal(request: web.Request) -> web.StreamResponse:
    name = parse_cid(request.match_info["cid"])
    found = _app(request).proposal(name)
    if found is None:
        raise web.HTTPNotFound(text=f"no proposal {name}, or it is long over")
    return reply(request, ProposalView(name, found.record))


async def _vote(request: web.Request) -> web.StreamResponse:
    name, account = parse_cid(request.match_info["cid"]), parse_account(request.match_info["account"])
    found = _app(request).vote_of(name, account)
    if found is None:
        raise web.HTTPNotFound(text=f"no vote of this account on {name}")
    return reply(request, found)


def _found_dataset(request: web.Request) -> DatasetInfo:
    dataset = parse_hex("dataset", request.match_info["id"], DATASET_ID_BYTES, exact=True)
    found = _app(request).dataset(dataset)
    if found is None:
        raise web.HTTPNotFound(text="no such dataset")
    return found


async def _dataset(request: web.Request) -> web.StreamResponse:
    return reply(request, _dataset_view(_found_dataset(request)))


async def _slots(request: web.Request) -> web.StreamResponse:
    dataset = _found_dataset(request).id
    return _list(
        request, _app(request).slots_page(dataset, _cursor(request), parse_limit(request)), _slot_view
    )


def _slot_view(info: SlotInfo) -> SlotView:
    assert info.slot is not None, "a page of slots has none that wait"
    return SlotView(info.slot, info.deal, info.shard)
