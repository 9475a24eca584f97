"""The gateway as an aiohttp application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from aiohttp import web

from gateway.denylists.files import Denylists
from gateway.denylists.screen import Screen
from gateway.dispatch import Gateway
from gateway.front import METHODS, Front, Observers
from gateway.operating.access_log import AccessLog
from gateway.operating.control import Readiness, Ready, health_response, readiness_response
from gateway.operating.metrics import Metrics
from gateway.operating.tracing import Tracer
from gateway.operating.watched import WatchedNames, WatchedSource
from gateway.serving.listener import CANCEL_WITH_CLIENT, SOLE_HANDLER, SoleHandler
from gateway.settings import GatewaySettings
from gateway.source import BlockSource, NameResolver, RecordSource

_OWN_PATHS: Final = ("/healthz", "/readyz")


def build_app(
    source: BlockSource,
    names: NameResolver | None,
    settings: GatewaySettings | None = None,
    *,
    records: RecordSource | None = None,
    access_log: AccessLog | None = None,
    metrics: Metrics | None = None,
    denylist: Denylists | None = None,
    tracer: Tracer | None = None,
    ready: Ready | None = None,
) -> web.Application:
    """The whole gateway: every path of every host is content, but for two addresses on path gateways.

    `/healthz` says that the process answers, `/readyz` what `ready` says. `metrics` is counted up. The files
    of `denylist` are followed while the application runs.
    """
    settings = settings or GatewaySettings()
    metrics = metrics or Metrics()
    observers = Observers(metrics, access_log, tracer)
    gateway = _gateway(source, names, records, settings, observers, denylist)
    front = Front(gateway.answer, settings, observers)

    async def route(request: web.BaseRequest) -> web.StreamResponse:
        """Answers about this process, or with content; on a site's own origin all is the site's."""
        target = request.raw_path
        if target.startswith(_OWN_PATHS) and request.method in METHODS and not gateway.is_site(request):
            path = target.partition("?")[0].partition("#")[0]
            if path == "/healthz":
                return health_response()
            if path == "/readyz":
                return readiness_response(Readiness(True) if ready is None else await ready())
        return await front.handle(request)

    app = web.Application()
    app[CANCEL_WITH_CLIENT] = True
    app[SOLE_HANDLER] = SoleHandler(route)
    app.router.add_route("*", "/{path:.*}", route)
    if denylist is not None:
        app.cleanup_ctx.append(_following(denylist, gateway, metrics))
    return app


def add_trustless_routes(
    app: web.Application,
    source: BlockSource,
    *,
    settings: GatewaySettings | None = None,
    access_log: AccessLog | None = None,
) -> None:
    """Adds `/ipfs/{cid}?format=raw|car` (trustless gateway) to a storage node's application."""
    settings = replace(
        settings or GatewaySettings(),
        deserialize=False,
        full_hosts=(),
        subdomain_hosts=(),
        dnslink_hosts=False,
    )
    observers = Observers(Metrics(), access_log)
    front = Front(_gateway(source, None, None, settings, observers, None).answer, settings, observers)
    app.router.add_route("*", "/ipfs/{path:.*}", front.handle)


def _gateway(
    source: BlockSource,
    names: NameResolver | None,
    records: RecordSource | None,
    settings: GatewaySettings,
    observers: Observers,
    denylist: Denylists | None,
) -> Gateway:
    """The gateway proper, whose sources are watched and, where there are denylists, screened."""
    metrics, tracer = observers.metrics, observers.tracer
    watched = WatchedSource(source, metrics, tracer)
    watched_names: NameResolver | None = None if names is None else WatchedNames(names, metrics, tracer)
    screen = None if denylist is None else Screen(denylist)
    if screen is not None:
        watched_names = watched_names and screen.names(watched_names)
        records = records and screen.records(records)
    return Gateway(watched, watched_names, records, settings, screen, metrics)


def _following(
    denylist: Denylists, gateway: Gateway, metrics: Metrics
) -> Callable[[web.Application], AsyncIterator[None]]:
    def changed() -> None:
        metrics.denylist_rules = denylist.rules.count
        gateway.forget_answers()

    async def follow(_: web.Application) -> AsyncIterator[None]:
        changed()
        task = asyncio.create_task(denylist.follow(changed))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    return follow
