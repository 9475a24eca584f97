"""Gateways on loopback for tests of pin jobs: real HTTP servers that can be slow, lie, break off or die."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

from merkledag.block import Block


@dataclass
class Gateway:
    """What a server has and how it behaves; `asked` counts requests by CID."""

    blocks: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    lies: bool = False
    breaks_off: bool = False
    endless: bool = False
    status: int = 0  # answer with this one whatever is asked
    dies_after: int = 0  # requests, then the connections end without an answer
    hold: asyncio.Event | None = None  # answers wait for it
    providers: list[str] = field(default_factory=list)  # multiaddrs, as a router
    asked: Counter[str] = field(default_factory=Counter)
    on_request: Callable[[int], None] = lambda _: None

    def put(self, blocks: Iterable[Block]) -> None:
        self.blocks.update((str(block.cid), block.data) for block in blocks)


@asynccontextmanager
async def gateway(blocks: Iterable[Block] = (), **behaviour: object) -> AsyncIterator[Gateway]:
    """Serves `/ipfs/CID` and `/routing/v1/providers/CID`."""
    served = Gateway(**behaviour)  # type: ignore[arg-type]
    served.put(blocks)

    async def block(request: web.Request) -> web.StreamResponse:
        name = request.match_info["cid"]
        assert request.query["format"] == "raw"
        served.asked[name] += 1
        served.on_request(served.asked.total())
        if served.hold is not None:
            await served.hold.wait()
        if served.status:
            return web.Response(status=served.status)
        if served.dies_after and served.asked.total() > served.dies_after:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        data = served.blocks.get(name)
        if data is None:
            return web.Response(status=404)
        if served.lies:
            data = data[:-1] + b"?"
        if served.breaks_off or served.endless:
            response = web.StreamResponse(headers={} if served.endless else {"Content-Length": "100000"})
            await response.prepare(request)
            await response.write(data)
            while served.endless:
                await response.write(bytes(1 << 20))
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.Response(body=data)

    async def providers(_: web.Request) -> web.Response:
        return web.json_response({"Providers": [{"Schema": "peer", "Addrs": served.providers}]})

    app = web.Application()
    app.router.add_get("/ipfs/{cid}", block)
    app.router.add_get("/routing/v1/providers/{cid}", providers)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    served.url = str(server.make_url("")).rstrip("/")
    try:
        yield served
    finally:
        if served.hold is not None:
            served.hold.set()
        await server.close()
