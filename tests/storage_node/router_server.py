"""A router on loopback for tests: keeps IPNS records and gives them back over HTTP, whatever they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

RECORD = "application/vnd.ipfs.ipns-record"


@dataclass
class Routed:
    """What the router has, by the names as they stand in its URLs, and what it was asked."""

    records: dict[str, bytes] = field(default_factory=dict)
    content_type: str = RECORD
    get_status: int = 200
    put_status: int = 200
    location: str = ""
    asked: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    url: str = ""


@asynccontextmanager
async def router_server(routed: Routed) -> AsyncIterator[Routed]:
    """Serves `routed` at `routed.url`."""

    async def get(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        routed.asked.append(name)
        assert request.headers["Accept"] == RECORD
        if routed.location:
            raise web.HTTPFound(routed.location)
        if routed.get_status != 200:
            return web.Response(status=routed.get_status)
        if name not in routed.records:
            return web.json_response({"Message": "none"})  # as IPIP-513 has it
        return web.Response(body=routed.records[name], content_type=routed.content_type)

    async def put(request: web.Request) -> web.Response:
        assert request.content_type == RECORD
        if routed.put_status != 200:
            return web.Response(status=routed.put_status, text="not\nthis one")
        name = request.match_info["name"]
        routed.records[name] = await request.read()
        routed.taken.append(name)
        return web.Response()

    app = web.Application()
    app.router.add_get("/routing/v1/ipns/{name}", get)
    app.router.add_put("/routing/v1/ipns/{name}", put)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    routed.url = str(server.make_url("")).rstrip("/")
    try:
        yield routed
    finally:
        await server.close()
