"""A router on loopback for tests: gives back IPNS records that it was handed, and names providers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

RECORD = "application/vnd.ipfs.ipns-record"
STREAM = "application/x-ndjson"


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
    providers: dict[str, list[object]] = field(default_factory=dict)  # records by CID, "" for every other
    streams: bool = True
    provider_status: int = 200
    wanted: list[str] = field(default_factory=list)  # CIDs that providers were asked for
    last: asyncio.Event | None = None  # the last provider of a stream waits for it


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

    async def providers(request: web.Request) -> web.StreamResponse:
        cid = request.match_info["cid"]
        routed.wanted.append(cid)
        assert request.query["filter-protocols"] == "transport-ipfs-gateway-http"
        assert request.headers["Accept"].startswith(STREAM)
        if routed.provider_status != 200:
            return web.Response(status=routed.provider_status, headers={"Retry-After": "7"})
        records = routed.providers.get(cid, routed.providers.get("", []))
        if not routed.streams:
            return web.json_response({"Providers": records})
        response = web.StreamResponse(headers={"Content-Type": STREAM})
        await response.prepare(request)
        for number, record in enumerate(records):
            if routed.last is not None and number == len(records) - 1:
                await routed.last.wait()
            line = json.dumps(record).encode() + b"\n"
            await response.write(line[:5])
            await response.write(line[5:])
        return response

    app = web.Application()
    app.router.add_get("/routing/v1/providers/{cid}", providers)
    app.router.add_get("/routing/v1/ipns/{name}", get)
    app.router.add_put("/routing/v1/ipns/{name}", put)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    routed.url = str(server.make_url("")).rstrip("/")
    try:
        yield routed
    finally:
        await server.close()
