"""One request on its way to a response: what was asked, what is used to answer, and shared answers."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from aiohttp import web
from multidict import CIMultiDict

from gateway.addresses.request import ContentRequest, encode_path
from gateway.blocks import Blocks
from gateway.content import Located
from gateway.errors import Gone, PreconditionFailed
from gateway.formats.conditional import (
    changed_after,
    field,
    last_modified,
    matches_any,
    matches_strongly,
    range_still_valid,
)
from gateway.formats.negotiation import Format, Wanted
from gateway.formats.ranges import Span, parse_range
from gateway.headers import content_headers
from gateway.serving.body import Body
from gateway.serving.turns import Work
from gateway.settings import GatewaySettings

# Sends bytes `start` to `end` of the representation.
Sender = Callable[[Body, int, int], Awaitable[None]]
# The same bytes, where they are few.
Reader = Callable[[int, int], Awaitable[bytes]]
# Writes all of a body.
Writer = Callable[[Body], Awaitable[None]]

_ONE_WRITE_BYTES = 64 * 1024  # up to so many go out with their headers


@dataclass(slots=True)
class Exchange:
    """What every format handler gets."""

    request: web.BaseRequest
    asked: ContentRequest
    wanted: Wanted
    blocks: Blocks
    settings: GatewaySettings
    head: bool
    work: Work

    def headers(self, located: Located, etag: str, cache_control: str | None) -> CIMultiDict[str]:
        """The headers of a response about `located`, with Content-Location where Accept chose the format."""
        result = content_headers(self.asked, located.node.roots, cache_control, etag)
        if self.wanted.from_accept:
            result["Content-Location"] = content_location(self.asked, self.wanted)
            result["Vary"] = "Accept"
        return result

    def dated_headers(self, located: Located, etag: str) -> CIMultiDict[str]:
        """Those of content that is sent as it is: it was last modified when its name began to point at it."""
        result = self.headers(located, etag, located.cache_control)
        date = last_modified(located.changed_s)
        if date is not None:
            result["Last-Modified"] = date
        return result

    def not_modified(self, headers: CIMultiDict[str]) -> web.Response | None:
        """The 304 answer, where the client has this representation already (RFC 9110, section 13.2.2).

        `headers` has the Etag, and the Last-Modified if there is one. Raises PreconditionFailed where the
        client asks for another version only.
        """
        asked, etag = self.request.headers, headers["Etag"]
        required = field(asked, "If-Match")
        if required is not None and not matches_strongly(required, etag):
            raise PreconditionFailed(f"If-Match does not name the version that is here, {etag}")
        known = field(asked, "If-None-Match")
        if known is None:
            return self.not_modified_since(headers)
        return _unchanged(headers) if matches_any(known, etag) else None

    def not_modified_since(self, headers: CIMultiDict[str]) -> web.Response | None:
        """The same by dates alone, which count only where the client names no Etags."""
        changed = headers.get("Last-Modified")
        asked = self.request.headers
        if changed is None:
            return None
        until = asked.get("If-Unmodified-Since")
        if until is not None and "If-Match" not in asked and changed_after(changed, until):
            raise PreconditionFailed(f"the version that is here was modified on {changed}")
        since = asked.get("If-Modified-Since")
        if since is None or "If-None-Match" in asked or changed_after(changed, since) is not False:
            return None
        return _unchanged(headers)

    def file_name(self) -> str | None:
        """The `?filename=` of the request.

        Folder pages write it percent-encoded twice, as every gateway's do: that is undone here.
        """
        name = self.asked.query.get("filename")
        if name and "%" in name:
            name = unquote_strictly(name)
        return name or None

    def disposition_kind(self, default: str) -> str:
        """`attachment` for `?download=true`, else `default`."""
        return "attachment" if self.asked.query.get("download") == "true" else default


def _unchanged(headers: CIMultiDict[str]) -> web.Response:
    """304 says what a cache needs to renew what it has, and nothing of a body (RFC 9110, section 15.4.5)."""
    for name in ("Last-Modified", "Content-Type", "Content-Disposition", "Accept-Ranges"):
        headers.popall(name, None)
    return web.Response(status=304, headers=headers)


_JOINERS = dict.fromkeys((0x200C, 0x200D))


def unquote_strictly(name: str) -> str:
    """`name` with its percent-encoding undone, or as it is where that would not be text."""
    try:
        plain = unquote_to_bytes(name).decode()
    except UnicodeError:
        return name
    # Two joiners, which words and emoji need, count as unprintable.
    return plain if plain.translate(_JOINERS).isprintable() else name


def content_location(asked: ContentRequest, wanted: Wanted) -> str:
    """The URL that names this representation without an Accept header (path gateway, Content-Location)."""
    query = dict(asked.query)
    query["format"] = wanted.format.value
    if wanted.format is Format.CAR:
        car = wanted.car
        given = (("car-version", car.version), ("car-order", car.order), ("car-dups", car.dups))
        query.update((key, value) for key, value in given if value is not None)
    fields = "&".join(f"{encode_field(key)}={encode_field(value)}" for key, value in query.items())
    return f"{asked.url_path}{'/' if asked.slash else ''}?{fields}"


def encode_field(value: str) -> str:
    """One name or value of a query string."""
    return encode_path(value).replace("&", "%26").replace("+", "%2B").replace("=", "%3D")


async def send_ranges(
    exchange: Exchange,
    headers: CIMultiDict[str],
    size_bytes: int,
    send: Sender,
    read: Reader,
    status: int = 200,
) -> web.StreamResponse:
    """The whole representation, or the ranges asked for; raises RangeNotSatisfiable.

    `headers` has the Etag and Content-Type of the whole; it is used up. Another `status` than 200 (an error
    page from the content) has no ranges.
    """
    headers["Accept-Ranges"] = "bytes"
    spans = _spans(exchange, headers, size_bytes) if status == 200 else []
    if len(spans) > 1:
        return await _send_parts(exchange, headers, size_bytes, spans, send)
    span = Span(0, size_bytes)
    if spans:
        span, status = spans[0], 206
        headers["Content-Range"] = span.content_range(size_bytes)
    require_response_size(exchange, span.length)
    if span.length <= _ONE_WRITE_BYTES and not exchange.head:
        return web.Response(status=status, headers=headers, body=await read(span.start, span.end))
    headers["Content-Length"] = str(span.length)
    if exchange.head:
        return web.Response(status=status, headers=headers)
    return await send_stream(exchange, headers, lambda body: send(body, span.start, span.end), status)


async def send_stream(
    exchange: Exchange, headers: CIMultiDict[str], write: Writer, status: int = 200
) -> web.StreamResponse:
    """A response with the body that `write` writes; cut where that fails, so that no part passes for all."""
    response = web.StreamResponse(status=status, headers=headers)
    body = Body(exchange.request, response, exchange.settings)
    await body.begin()
    try:
        await write(body)
        await body.end()
    except BaseException:
        body.abort()
        raise
    return response


def require_response_size(exchange: Exchange, size_bytes: int) -> None:
    """Raises Gone where it is known before the first byte that a response would be too large."""
    limit_bytes = exchange.settings.max_response_bytes
    if size_bytes > limit_bytes:
        raise Gone(f"this response would have {size_bytes} bytes; this gateway sends up to {limit_bytes}")


def _spans(exchange: Exchange, headers: CIMultiDict[str], size_bytes: int) -> list[Span]:
    asked = exchange.request.headers
    wanted = asked.get("Range")
    if wanted is None:
        return []
    condition = asked.get("If-Range")
    if condition is not None and not range_still_valid(
        condition, headers["Etag"], headers.get("Last-Modified")
    ):
        return []
    return parse_range(wanted, size_bytes, exchange.settings.max_ranges)


async def _send_parts(
    exchange: Exchange, headers: CIMultiDict[str], size_bytes: int, spans: list[Span], send: Sender
) -> web.StreamResponse:
    """multipart/byteranges (RFC 9110, section 14.6), its length known beforehand."""
    kind = headers["Content-Type"]
    seed = f"{headers['Etag']} {spans}".encode("utf-8", "surrogateescape")
    boundary = "holdfast-" + hashlib.sha256(seed).hexdigest()[:32]
    heads = [
        f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {span.content_range(size_bytes)}\r\n\r\n"
        for span in spans
    ]
    tail = f"--{boundary}--\r\n"
    length = sum(len(head) + span.length + 2 for head, span in zip(heads, spans, strict=True)) + len(tail)
    headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    require_response_size(exchange, length)
    headers["Content-Length"] = str(length)
    if exchange.head:
        return web.Response(status=206, headers=headers)

    async def write(body: Body) -> None:
        for head, span in zip(heads, spans, strict=True):
            await body.write(head.encode())
            await send(body, span.start, span.end)
            await body.write(b"\r\n")
        await body.write(tail.encode())

    return await send_stream(exchange, headers, write, 206)


def send_bytes(exchange: Exchange, headers: CIMultiDict[str], data: bytes) -> web.Response:
    """A small body in one write, without ranges."""
    if exchange.head:
        headers["Content-Length"] = str(len(data))
        return web.Response(headers=headers)
    return web.Response(body=data, headers=headers)
