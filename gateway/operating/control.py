"""What operators ask a running gateway, on a listener that strangers do not reach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from gateway.headers import NO_STORE
from gateway.operating import metrics
from gateway.operating.metrics import Snapshot
from gateway.serving.unreadable import PLAIN


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests can be sent here, and if not why, in one line; or what is not as it should be."""

    ready: bool
    reason: str = ""


Collect = Callable[[], Awaitable[Sequence[Snapshot]]]
Ready = Callable[[], Awaitable[Readiness]]
# Takes up changed configuration and denylists. One line on what it did; ValueError: refused, the old goes on.
Reload = Callable[[], Awaitable[str]]


def build_control_app(collect: Collect, ready: Ready, reload: Reload) -> web.Application:
    """`/metrics`, `/healthz`, `/readyz`, and `POST /reload`.

    A reload that is refused is 422 with the reason; one that a page in a browser asks for, 403.
    """

    async def show_metrics(_: web.Request) -> web.Response:
        body = metrics.exposition(metrics.merge(await collect()))
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE, **_HEADERS})

    async def show_health(_: web.Request) -> web.Response:
        return health_response()

    async def show_readiness(_: web.Request) -> web.Response:
        return readiness_response(await ready())

    async def do_reload(request: web.Request) -> web.Response:
        if any(name in request.headers for name in _FROM_BROWSERS):
            return _line(403, "a page in a browser may not do this")
        try:
            done = await reload()
        except ValueError as error:
            return _line(422, f"not reloaded: {error}")
        return _line(200, done)

    app = web.Application()
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", show_health)
    app.router.add_get("/readyz", show_readiness)
    app.router.add_post("/reload", do_reload)
    return app


# Browsers send one of these with every POST. Any page that the operator reads could make one to this machine.
_FROM_BROWSERS = ("Origin", "Sec-Fetch-Site")
_HEADERS = {"Cache-Control": NO_STORE, **PLAIN}


def health_response() -> web.Response:
    """The process answers; that is all it says."""
    return _line(200, "ok")


def readiness_response(readiness: Readiness) -> web.Response:
    """200, or 503; with the reason."""
    if readiness.ready:
        return _line(200, f"ready, but {readiness.reason}" if readiness.reason else "ready")
    return _line(503, f"not ready: {readiness.reason}")


def _line(status: int, text: str) -> web.Response:
    headers = {"Content-Type": "text/plain; charset=utf-8", **_HEADERS}
    return web.Response(status=status, body=f"{' '.join(text.split())}\n".encode(), headers=headers)
