"""What all handlers of the ledger's HTTP interface share: settings, parameters, answers."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ledger import limits
from ledger.engine.blocks import BlockEvents
from ledger.engine.engine import Engine
from ledger.engine.errors import TooManySubscribers
from ledger.engine.fanout import Subscription
from ledger.engine.render import CBOR_TYPE, JSON_TYPE, dump_cbor, dump_json, wants_cbor
from merkledag.cid import CID
from merkledag.errors import InvalidCID, MerkledagError
from merkledag.peer import parse_peer

DEFAULT_LIMIT = 100
RETRY_AFTER_S = 1
NO_ENCODING = "send the bytes themselves, without a Content-Encoding"


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits of one server."""

    max_requests: int = 2_048
    max_streams: int = 200
    body_timeout_s: float = 30.0
    heartbeat_s: float = 15.0
    write_timeout_s: float = 30.0


@dataclass(slots=True, eq=False)
class Stream:
    """A long answer and the network that reads it; `subscription` while it waits for the next block."""

    reader: str
    transport: asyncio.Transport | None
    subscription: Subscription[BlockEvents] | None = None

    def end(self) -> None:
        """Ends one that waits for blocks, after what is under way."""
        if self.subscription is not None:
            self.subscription.end()


@dataclass(slots=True)
class Streams:
    """The long answers that are under way, the oldest first."""

    closing: bool = False
    opened: dict[Stream, None] = field(default_factory=dict)

    def open(self, request: web.Request) -> Stream:
        """A place for one more. Where there is none, whoever has the most gives up its oldest.

        So nobody keeps all places from others; followers go on where they were cut. Raises
        TooManySubscribers if that would only take from one as good as the one that asks.
        """
        reader = _network(request.remote or "")
        if self.closing:
            raise TooManySubscribers("the ledger is stopping; try again later")
        if len(self.opened) >= request.app[SETTINGS].max_streams:
            counts = Counter(stream.reader for stream in self.opened)
            greediest, most = counts.most_common(1)[0]
            if counts[reader] + 1 >= most:
                raise TooManySubscribers("as many streams as allowed are open; try again later")
            self._cut(next(stream for stream in self.opened if stream.reader == greediest))
        stream = Stream(reader, request.transport)
        self.opened[stream] = None
        return stream

    def close(self, stream: Stream) -> None:
        """Its answer is over."""
        self.opened.pop(stream, None)

    def _cut(self, stream: Stream) -> None:
        self.close(stream)
        stream.end()
        if stream.transport is not None:
            stream.transport.abort()


def _network(address: str) -> str:
    """Whose an address is: an IPv6 network of 64 bits is one host's."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if parsed.version == 4 else parsed.exploded[:19]


ENGINE = web.AppKey("engine", Engine)
SETTINGS = web.AppKey("settings", Settings)
STREAMS = web.AppKey("streams", Streams)


async def read_body(request: web.Request) -> bytes:
    """All of a body, as it was sent; raises what the guard answers with."""
    try:
        async with asyncio.timeout(request.app[SETTINGS].body_timeout_s):
            raw = await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text="the body did not arrive in time") from error
    if "Content-Encoding" in request.headers:
        raise web.HTTPUnsupportedMediaType(text=NO_ENCODING)
    return raw


def reply(request: web.Request, value: Any, *, status: int = 200) -> web.Response:
    """The value as JSON, or as DAG-CBOR for who asks for it."""
    if wants_cbor(request.headers.get("Accept", "")):
        return web.Response(body=dump_cbor(value), content_type=CBOR_TYPE, status=status)
    return web.Response(body=dump_json(value), content_type=JSON_TYPE, charset="utf-8", status=status)


def fail(status: int, message: str, *, code: int | None = None, retry: bool = False) -> web.Response:
    """An error: always JSON. `code` is a ledger result code, or the HTTP status."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if retry else None
    body = dump_json({"error": message, "code": status if code is None else int(code)})
    return web.Response(body=body, content_type=JSON_TYPE, charset="utf-8", status=status, headers=headers)


def parse_uint(name: str, text: str) -> int:
    """A number of a path or query; raises HTTPBadRequest."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= limits.MAX_UINT):
        raise web.HTTPBadRequest(text=f"{name}: not a number from 0 to {limits.MAX_UINT}")
    return int(text)


def parse_cid(text: str) -> CID:
    """A CID of a path or query; raises HTTPBadRequest."""
    try:
        return CID.parse(text)
    except MerkledagError as error:
        raise web.HTTPBadRequest(text=f"not a CID: {error}") from error


def parse_account(text: str) -> bytes:
    """An account of a path or query; raises HTTPBadRequest."""
    try:
        return parse_peer(text)
    except InvalidCID as error:
        raise web.HTTPBadRequest(text=f"not an account: {error}") from error


def parse_hex(name: str, text: str, max_bytes: int, exact: bool = False) -> bytes:
    """Hexadecimal bytes of a path or query; raises HTTPBadRequest."""
    try:
        value = bytes.fromhex(text) if len(text) <= 2 * max_bytes else None
    except ValueError:
        value = None
    if not value or (exact and len(value) != max_bytes):
        raise web.HTTPBadRequest(
            text=f"{name}: not {'' if exact else 'at most '}{max_bytes} bytes in hexadecimal"
        )
    return value


def parse_limit(request: web.Request) -> int:
    """The `limit` of a list; raises HTTPBadRequest."""
    limit = parse_uint("limit", request.query.get("limit", str(DEFAULT_LIMIT)))
    if not 1 <= limit <= limits.MAX_PAGE:
        raise web.HTTPBadRequest(text=f"limit: 1 to {limits.MAX_PAGE}")
    return limit
