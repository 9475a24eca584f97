"""A DNS over HTTPS server on loopback for tests: a zone behind HTTP, and its errors."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.storage_node.dns_server import Zone

MESSAGE = "application/dns-message"


@dataclass
class Doh:
    """How the server answers for its zone. `questions` are the request targets it saw."""

    zone: Zone = field(default_factory=Zone)
    status: int = 200
    content_type: str = MESSAGE
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    wrong_question: bool = False
    questions: list[str] = field(default_factory=list)
    url: str = ""


@asynccontextmanager
async def doh_server(doh: Doh) -> AsyncIterator[Doh]:
    """Serves `doh` at `doh.url`."""

    async def get(request: web.Request) -> web.Response:
        assert request.headers["Accept"] == MESSAGE
        doh.questions.append(request.raw_path)
        text = request.query["dns"]
        wire = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        assert wire[:2] == b"\0\0"
        answer = doh.zone.answer(wire)
        if doh.wrong_question:
            answer.question.clear()
        body = answer.to_wire(max_size=65_535) if doh.body is None else doh.body
        return web.Response(status=doh.status, body=body, content_type=doh.content_type, headers=doh.headers)

    app = web.Application()
    app.router.add_get("/dns-query", get)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    doh.url = str(server.make_url("/dns-query"))
    try:
        yield doh
    finally:
        await server.close()
