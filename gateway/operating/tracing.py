"""Spans of requests, fetches and name look-ups by OpenTelemetry, where it is installed and switched on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

_SCOPE = "holdfast.gateway"
_FLUSH_S = 2.0


class TracingUnavailableError(RuntimeError):
    """`gateway.tracing` is on, but OpenTelemetry is not installed."""


class Tracer(Protocol):
    """What the gateway reports to."""

    def request(self, request: web.BaseRequest) -> AbstractContextManager[RequestSpan]:
        """The span of a request, under the one that the client names in `traceparent` (W3C Trace Context)."""

    def step(self, name: str, /, **attributes: str) -> AbstractContextManager[object]:
        """A span inside that of the request: one block fetched, one name resolved."""


class RequestSpan:
    """The span of one request."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def answered(self, status: int, kind: str, sent_bytes: int) -> None:
        """Says how it was answered."""
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attribute("http.response.body.size", sent_bytes)
        self._span.set_attribute("holdfast.kind", kind)
        if status >= 500:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR)


class OpenTelemetryTracer:
    """Spans with the names and attributes of OpenTelemetry's conventions for HTTP servers."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """`provider` None is the process-wide one. Raises TracingUnavailableError."""
        try:
            from opentelemetry import propagate, trace
        except ImportError as error:
            raise TracingUnavailableError(
                'OpenTelemetry is not installed: pip install "holdfast[tracing]" or switch tracing off'
            ) from error
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=provider)
        self._extract = propagate.extract
        self._server = trace.SpanKind.SERVER

    @contextmanager
    def request(self, request: web.BaseRequest) -> Iterator[RequestSpan]:
        headers: dict[str, str] = {key.lower(): value for key, value in request.headers.items()}
        attributes: dict[str, Any] = {
            "http.request.method": request.method,
            "url.path": request.raw_path.partition("?")[0],
            "server.address": request.host,
        }
        with self._tracer.start_as_current_span(
            request.method, context=self._extract(headers), kind=self._server, attributes=attributes
        ) as span:
            yield RequestSpan(span)

    def step(self, name: str, /, **attributes: str) -> AbstractContextManager[object]:
        return self._tracer.start_as_current_span(name, attributes=attributes)


class Export:
    """The spans of a process on their way to who collects them; `close` it."""

    def __init__(self, provider: TracerProvider, processor: SpanProcessor, exporter: SpanExporter) -> None:
        self.provider = provider
        self._processor = processor
        self._exporter = exporter

    async def close(self) -> None:
        """Sends what is left; who collects and does not answer keeps nobody from stopping."""
        loop = asyncio.get_running_loop()
        flushed = loop.run_in_executor(None, self._processor.force_flush)
        await asyncio.wait((flushed,), timeout=_FLUSH_S)
        if not flushed.done():
            self._exporter.shutdown()  # ends its waiting between tries
        await asyncio.to_thread(self.provider.shutdown)


def start_export(service_name: str) -> Export:
    """Makes the process send its spans as OTLP over HTTP.

    Where to is read from OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, …).
    Raises TracingUnavailableError.
    """
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter()
    except ImportError as error:
        raise TracingUnavailableError(
            'the exporter of OpenTelemetry is not installed: pip install "holdfast[tracing]"'
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service_name}))
    processor = BatchSpanProcessor(exporter)
    provider.add_span_processor(processor)
    return Export(provider, processor, exporter)
