"""This node as a router: the IPNS records it keeps, over Delegated Routing V1 HTTP.

Anybody may ask. Records are taken for names that are kept here already, so strangers cannot fill the disk: a
name's key signs what it sends, and a newer record replaces the older one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from aiohttp import web

from merkledag import ipns
from merkledag.errors import InvalidCID, RecordError
from merkledag.peer import name_text, parse_name
from merkledag.rfc3339 import SECOND_NS
from storage_node.errors import RecordOutdated
from storage_node.names import NameStore
from storage_node.names_resolver import DEFAULT_TTL_NS

PATH = "/routing/v1/ipns/{name}"
ABSENT_MAX_AGE_S = 15
READ_TIMEOUT_S = 10.0
MAX_HTTP_DATE_S = 253_402_300_799  # the last second of the year 9999

Handler = Callable[[web.Request], Awaitable[web.Response]]

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, PUT, OPTIONS",
    "Access-Control-Allow-Headers": "Accept, Content-Type, If-None-Match",
    "Access-Control-Expose-Headers": "Etag, Expires, Last-Modified",
}


def add_routing_routes(app: web.Application, store: NameStore) -> None:
    """Adds `GET` and `PUT /routing/v1/ipns/NAME` to an application."""
    routes = _Routes(store)
    app.router.add_get(PATH, _for_all(routes.get))  # and HEAD
    app.router.add_put(PATH, _for_all(routes.put))
    app.router.add_options(PATH, _for_all(_preflight))


def _for_all(handler: Handler) -> Handler:
    """Lets pages of every origin read what the handler answers (Delegated Routing V1, CORS)."""

    async def handle(request: web.Request) -> web.Response:
        response = await handler(request)
        response.headers.update(_CORS)
        return response

    return handle


async def _preflight(request: web.Request) -> web.Response:
    return web.Response(status=204)


class _Routes:
    def __init__(self, store: NameStore) -> None:
        self._store = store

    async def get(self, request: web.Request) -> web.Response:
        """The valid record of a name; 200 with a line of text says that there is none (IPIP-513)."""
        accept = request.headers.get("Accept", ipns.MEDIA_TYPE)
        if not any(kind in accept for kind in (ipns.MEDIA_TYPE, "*/*", "application/*")):
            return _refused(406, f"retry with Accept: {ipns.MEDIA_TYPE}")
        try:
            name = parse_name(request.match_info["name"])
        except InvalidCID as error:
            return _refused(400, str(error))
        kept = self._store.get(name)
        now_ns = self._store.now_ns()
        try:
            if kept is None:
                return _absent(f"no record of {name_text(name)} is kept here")
            ipns.verify(kept.record, name, now_ns)
        except RecordError as error:
            return _absent(f"the record of {name_text(name)} is not valid any more: {error}")
        response = _served(kept.record, name, now_ns)
        if response.headers["Etag"] in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers={**response.headers})
        return response

    async def put(self, request: web.Request) -> web.Response:
        """Takes a valid record that is not older than the one kept here; 403 for names that are not."""
        if request.content_type != ipns.MEDIA_TYPE:
            return _refused(406, f"retry with Content-Type: {ipns.MEDIA_TYPE}")
        try:
            name = parse_name(request.match_info["name"])
        except InvalidCID as error:
            return _refused(400, str(error))
        if self._store.get(name) is None:
            return _refused(
                403, "this node takes records of the names that it keeps already, and of no others"
            )
        received = bytearray()
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                async for part in request.content.iter_chunked(ipns.MAX_RECORD_BYTES + 1):
                    received += part
                    if len(received) > ipns.MAX_RECORD_BYTES:
                        return _refused(400, f"a record has at most {ipns.MAX_RECORD_BYTES} bytes")
        except TimeoutError:
            return _refused(408, "the record did not arrive in time")
        try:
            await asyncio.to_thread(self._store.keep, name, bytes(received))
        except (RecordError, RecordOutdated) as error:
            return _refused(400, str(error))
        return web.Response()


def _served(record: ipns.Record, name: bytes, now_ns: int) -> web.Response:
    assert record.eol_ns is not None
    left_s = (record.eol_ns - now_ns) // SECOND_NS
    max_age_s = record.remaining_ttl_ns(now_ns, DEFAULT_TTL_NS) // SECOND_NS
    headers = {
        "Cache-Control": f"public, max-age={max_age_s or min(DEFAULT_TTL_NS // SECOND_NS, left_s)}, "
        f"stale-while-revalidate={left_s}, stale-if-error={left_s}",
        "Etag": f'"{hashlib.sha256(record.raw).hexdigest()[:32]}"',
        "Last-Modified": formatdate(now_ns / SECOND_NS, usegmt=True),
        # A record of RFC 3339 ends before the year 10000, but an offset may carry it a day further.
        "Expires": formatdate(min(record.eol_ns // SECOND_NS, MAX_HTTP_DATE_S), usegmt=True),
        "Vary": "Accept",
        "Content-Disposition": f'attachment; filename="{name_text(name)}.ipns-record"',
    }
    return web.Response(body=record.raw, content_type=ipns.MEDIA_TYPE, headers=headers)


def _absent(reason: str) -> web.Response:
    headers = {"Cache-Control": f"public, max-age={ABSENT_MAX_AGE_S}", "Vary": "Accept"}
    return web.Response(text=reason + "\n", headers=headers)


def _refused(status: int, reason: str) -> web.Response:
    return web.Response(status=status, text=reason + "\n")
