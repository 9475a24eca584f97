"""What every request passes: limits, an answer or an error instead, counts, the access log, the trace."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiohttp import web

from gateway.answers import error_response, translate
from gateway.errors import Denied, GatewayError, MethodNotAllowed, RetrievalTimeout, TooManyRequests
from gateway.headers import base_headers
from gateway.operating.access_log import CLIENT_LEFT, AccessLog, AccessRecord
from gateway.operating.limits import Clients, Running
from gateway.operating.metrics import Metrics
from gateway.operating.tracing import Tracer
from gateway.passage import Passage, begin_passage
from gateway.settings import GatewaySettings
from merkledag.errors import MerkledagError

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

METHODS: Final = ("GET", "HEAD")
_COUNTED_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"})
_ALLOW: Final = {"Allow": "GET, HEAD, OPTIONS"}
_log = logging.getLogger("holdfast.gateway")


@dataclass(frozen=True, slots=True)
class Observers:
    """Who is told of requests; all but the counts may be left out."""

    metrics: Metrics
    access_log: AccessLog | None = None
    tracer: Tracer | None = None


class Front:
    """Stands before the gateway proper, and turns what it raises into answers."""

    def __init__(self, answer: Answer, settings: GatewaySettings, observers: Observers) -> None:
        self._answer = answer
        self._settings = settings
        self._metrics = observers.metrics
        self._access_log = observers.access_log
        self._tracer = observers.tracer
        self._clients = Clients(settings, settings.max_client_requests)
        self._running = Running(settings.max_response_s)
        # Answers one request.
        self.handle: Answer = self._handle if self._tracer is None else partial(self._traced, self._tracer)

    async def _traced(self, tracer: Tracer, request: web.BaseRequest) -> web.StreamResponse:
        passage = begin_passage()
        with tracer.request(request) as span:
            response = await self._handle(request, passage)
            span.answered(*passage.told)
            return response

    async def _handle(self, request: web.BaseRequest, passage: Passage | None = None) -> web.StreamResponse:
        passage = passage or begin_passage()
        metrics, running = self._metrics, self._running
        began_s = time.monotonic()
        client = self._clients.of(request)
        response: web.StreamResponse | None = None
        if metrics.in_flight >= self._settings.max_concurrent_requests:
            response = self._refused(request, "requests", "too many requests at once; try again shortly")
        elif not self._clients.enter(client):
            message = "too many requests at once from your address; try again shortly"
            response = self._refused(request, "client_requests", message)
        if response is not None:
            self._tell(request, passage, response, client, began_s)
            return response
        metrics.in_flight += 1
        task = running.begin(began_s)
        try:
            if request.method in METHODS:
                response = await self._answer(request)
            else:
                response = _without_content(request.method)
        except (GatewayError, MerkledagError) as error:
            response = self._failed(request, error)
        except asyncio.CancelledError:
            if not running.has_expired(task):
                raise
            response = self._expired(request, passage)
        except ConnectionError:
            raise
        except Exception:
            _log.exception("gateway: a request failed for a reason that is ours")
            ours = GatewayError("an error inside the gateway; its log says more")
            response = self._failed(request, ours)
        finally:
            running.end(task)
            metrics.in_flight -= 1
            self._clients.leave(client)
            self._tell(request, passage, response, client, began_s)
        return response

    def _refused(self, request: web.BaseRequest, limit: str, message: str) -> web.StreamResponse:
        self._metrics.refused[limit] += 1
        return error_response(request, TooManyRequests(message), self._settings.retry_after_s)

    def _expired(self, request: web.BaseRequest, passage: Passage) -> web.StreamResponse:
        self._metrics.refused["response_s"] += 1
        if passage.body is not None:
            passage.body.abort()
        message = f"the answer took longer than {self._settings.max_response_s:g} s"
        return self._failed(request, RetrievalTimeout(message))

    def _failed(self, request: web.BaseRequest, error: GatewayError | MerkledagError) -> web.StreamResponse:
        """The error as an answer, unless the response has begun: then the connection was cut already."""
        if isinstance(error, MerkledagError):
            error = translate(error)
        if isinstance(error, Denied):
            self._metrics.denied[error.list_name] += 1
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the response was cut off") from error
        return error_response(request, error, self._settings.retry_after_s)

    def _tell(
        self,
        request: web.BaseRequest,
        passage: Passage,
        response: web.StreamResponse | None,
        client: str | None,
        began_s: float,
    ) -> None:
        """Counts and logs an answer; `response` None: the client left, or was cut off."""
        metrics = self._metrics
        seconds = time.monotonic() - began_s
        method, body = request.method, passage.body
        passage.body = None  # a connection's task may wait long for the next request
        status, kind, sent_bytes = CLIENT_LEFT, "error", 0
        if response is not None:
            status = response.status
            kind = passage.kind if status < 300 else _other_kind(status)
        if body is not None:
            sent_bytes = body.sent_bytes
        elif isinstance(response, web.Response) and method != "HEAD":
            data = response.body
            sent_bytes = len(data) if isinstance(data, bytes) else 0
        passage.told = status, kind, sent_bytes
        metrics.requests[method if method in _COUNTED_METHODS else "other", status // 100] += 1
        metrics.sent_bytes += sent_bytes
        metrics.request.observe(seconds)
        if response is not None:
            metrics.first_byte[kind].observe(seconds if body is None else body.began_s - began_s)
        elif body is not None:
            metrics.cut += 1
        if self._access_log is not None:
            headers = request.headers
            self._access_log(
                AccessRecord(
                    client or request.remote or "-",
                    method,
                    request.raw_path,
                    f"{request.version.major}.{request.version.minor}",
                    request.host,
                    status,
                    sent_bytes,
                    seconds,
                    kind,
                    headers.get("Referer", ""),
                    headers.get("User-Agent", ""),
                )
            )


def _other_kind(status: int) -> str:
    if status >= 400:
        return "error"
    return "not_modified" if status == 304 else "redirect"


def _without_content(method: str) -> web.Response:
    """The answer to OPTIONS; raises MethodNotAllowed for any other method."""
    if method != "OPTIONS":
        raise MethodNotAllowed(f"{method[:16]} is not served; use GET or HEAD", _ALLOW)
    return web.Response(status=204, headers={**base_headers(), **_ALLOW})
