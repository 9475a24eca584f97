"""A server between a client and a real ledger that alters what the ledger answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.render import CBOR_TYPE
from ledger.engine.rpc import build_rpc
from ledger.result import Code
from ledger.transactions import decode
from merkledag import dag_cbor

Lie = Callable[[str, Any], Any]


@dataclass
class Liar:
    """Passes requests on to a real server, and alters what it answers. `sent` is what was signed."""

    upstream: str
    session: aiohttp.ClientSession
    lie: Lie = lambda path, answer: answer
    swallows: bool = False
    denies: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self.sent: list[bytes] = []
        self.code = Code.NONCE_USED

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        is_sent = request.path.startswith("/v1/tx") and request.method == "POST"
        if is_sent:
            self.sent.append(body)
            if self.swallows and self.denies:
                return self._denied()
            if self.swallows:
                receipt = {"tx_id": decode(body).id, "height": 1, "code": 0, "log": "", "name": "OK"}
                return web.Response(body=dag_cbor.encode(self.lie(request.path, receipt)))
        async with self.session.request(
            request.method, self.upstream + request.path_qs, data=body, headers={"Accept": CBOR_TYPE}
        ) as response:
            if is_sent and self.denies:  # it is done, and said not to be
                return self._denied()
            if response.status != 200:
                return web.Response(status=response.status, body=await response.read())
            answer = dag_cbor.decode(await response.read())
        return web.Response(body=dag_cbor.encode(self.lie(request.path, answer)))

    def _denied(self) -> web.Response:
        self.denies -= 1
        return web.json_response({"error": "used", "code": int(self.code)}, status=400)


@asynccontextmanager
async def lying(engine: EmbeddedEngine) -> AsyncIterator[Liar]:
    """One in front of an engine's own HTTP; it tells the truth until told otherwise."""
    real = web.AppRunner(build_rpc(engine), access_log=None, shutdown_timeout=1)
    await real.setup()
    await web.TCPSite(real, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        liar = Liar(f"http://127.0.0.1:{real.addresses[0][1]}", session)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", liar.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        liar.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield liar
        await runner.cleanup()
    await real.cleanup()
