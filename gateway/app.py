"""The gateway as an aiohttp application: routes, limits, errors, health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from gateway.answers import error_response, translate
from gateway.control import Readiness, Ready, health_response, readiness_response
from gateway.dispatch import Gateway
from gateway.errors import GatewayError, MethodNotAllowed, TooManyRequests
from gateway.headers import base_headers
from gateway.listener import CANCEL_WITH_CLIENT, SOLE_HANDLER, SoleHandler
from gateway.metrics import Metrics
from gateway.settings import GatewaySettings
from gateway.source import BlockSource, NameResolver, RecordSource
from merkledag.errors import MerkledagError

_log = logging.getLogger("holdfast.gateway")
_METHODS: Final = ("GET", "HEAD")
_HEALTH_PATH: Final = "/healthz"
_OWN_PATHS: Final = (_HEALTH_PATH, "/readyz")


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """One answered request, for an access log."""

    remote: str | None
    method: str
    target: str
    host: str
    status: int
    sent_bytes: int
    seconds: float


AccessLog = Callable[[AccessRecord], None]


def build_app(
    source: BlockSource,
    names: NameResolver | None,
    settings: GatewaySettings | None = None,
    *,
    records: RecordSource | None = None,
    access_log: AccessLog | None = None,
    metrics: Metrics | None = None,
    ready: Ready | None = None,
) -> web.Application:
    """The whole gateway: every path of every host is content, but for two addresses on path gateways.

    `/healthz` says that the process answers, `/readyz` what `ready` says. `metrics` is counted up.
    """
    settings = settings or GatewaySettings()
    front = _Front(Gateway(source, names, records, settings), settings, access_log, metrics, ready)
    app = web.Application()
    app[CANCEL_WITH_CLIENT] = True
    app[SOLE_HANDLER] = SoleHandler(front.route)
    app.router.add_route("*", "/{path:.*}", front.route)
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
        settings or GatewaySettings(), deserialize=False, subdomain_hosts=(), dnslink_hosts=False
    )
    front = _Front(Gateway(source, None, None, settings), settings, access_log)
    app.router.add_route("*", "/ipfs/{path:.*}", front.handle)


class _Front:
    """What stands before the gateway proper: methods, concurrency, and errors turned into answers."""

    def __init__(
        self,
        gateway: Gateway,
        settings: GatewaySettings,
        access_log: AccessLog | None,
        metrics: Metrics | None = None,
        ready: Ready | None = None,
    ) -> None:
        self._gateway = gateway
        self._settings = settings
        self._access_log = access_log
        self._metrics = metrics or Metrics()
        self._ready = ready

    async def route(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers any request: about this process, or with content.

        `/healthz` says that the process answers, `/readyz` whether to send requests here. On a site's own
        origin these paths are the site's.
        """
        target = request.raw_path
        if (
            target.startswith(_OWN_PATHS)
            and request.method in _METHODS
            and not self._gateway.is_site(request)
        ):
            path = target.partition("?")[0].partition("#")[0]
            if path == "/healthz":
                return health_response()
            if path == "/readyz":
                return readiness_response(Readiness(True) if self._ready is None else await self._ready())
        return await self.handle(request)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request."""
        if self._access_log is None:
            return await self._limited(request)
        loop = asyncio.get_running_loop()
        start, status, sent = loop.time(), 499, 0
        try:
            response = await self._limited(request)
            status, sent = response.status, response.body_length
            return response
        finally:
            self._access_log(
                AccessRecord(
                    request.remote,
                    request.method,
                    request.raw_path,
                    request.host,
                    status,
                    sent,
                    loop.time() - start,
                )
            )

    async def _limited(self, request: web.BaseRequest) -> web.StreamResponse:
        metrics = self._metrics
        if metrics.in_flight >= self._settings.max_concurrent_requests:
            metrics.refused["requests"] += 1
            wait_s = str(self._settings.retry_after_s)
            busy = TooManyRequests("too many requests at once; try again shortly", {"Retry-After": wait_s})
            return error_response(request, busy, request.raw_path)
        metrics.in_flight += 1
        try:
            return await self._answered(request)
        finally:
            metrics.in_flight -= 1

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        method = request.method
        try:
            if method not in _METHODS:
                if method == "OPTIONS":
                    return web.Response(status=204, headers=base_headers())
                raise MethodNotAllowed(
                    f"{method[:16]} is not served; use GET or HEAD", {"Allow": "GET, HEAD, OPTIONS"}
                )
            return await self._gateway.answer(request)
        except GatewayError as error:
            return self._failed(request, error)
        except MerkledagError as error:
            return self._failed(request, translate(error))
        except ConnectionError:
            raise
        except Exception:
            _log.exception("gateway: a request failed for a reason that is ours")
            return self._failed(request, GatewayError("an error inside the gateway; its log says more"))

    def _failed(self, request: web.BaseRequest, error: GatewayError) -> web.StreamResponse:
        """The error as an answer, unless the response has begun: then the connection was cut already."""
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the response was cut off") from error
        return error_response(request, error, request.raw_path)
