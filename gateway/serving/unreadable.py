"""Refusals of requests for what they are as HTTP, with the status that says why (RFC 9110, RFC 6585)."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final, cast

from aiohttp import HttpVersion10, HttpVersion11, http_exceptions, web
from aiohttp.web_protocol import RequestHandler

from gateway.headers import base_headers

_LINE_EXTRA_BYTES = 64  # of a request line, beside the address
_TOO_MANY_HEADERS = "Too many headers"
# What the parser says of a request: without the request's own bytes, which come behind it.
_REASON = re.compile(r"[A-Z][A-Za-z'` -]{8,80}")
# Of answers that are no content: they say nothing of the software, and are read as what they are.
PLAIN: Final = {"Server": "holdfast", "X-Content-Type-Options": "nosniff"}


def line_limit(max_url_bytes: int) -> int:
    """The parser's limit on the request line; odd, so that its errors tell it from that on header lines."""
    return (max_url_bytes + _LINE_EXTRA_BYTES) | 1


def field_limit(max_header_bytes: int) -> int:
    """The parser's limit on a header line; even."""
    return max_header_bytes & ~1


def bare_refusal(status: HTTPStatus) -> bytes:
    """A whole answer for where aiohttp gives none, or would in the version that was asked for."""
    headers = {**base_headers(), "Content-Length": "0", "Connection": "close"}
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{key}: {value}" for key, value in headers.items()),
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


class Telling(RequestHandler):
    """aiohttp's connection, which answers 400 to all that its parser refuses."""

    __slots__ = ()

    def waits(self) -> bool:
        """Whether all that came was answered, but for the part of a head at most."""
        return self._waiter is not None and not self._messages

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        found = _status(exc)
        if isinstance(exc, http_exceptions.HttpProcessingError):
            request._version = HttpVersion11  # what cannot be read has none, and aiohttp answers in 1.0
        if found is not None:
            status, message = found, f"{found.value} {found.phrase}\n"
        elif isinstance(exc, http_exceptions.HttpProcessingError):
            reason = _REASON.match(message or "")
            message = f"{status} {reason[0] if reason else HTTPStatus(status).phrase}\n"
        response = super().handle_error(request, status, exc, message)
        response.headers.update(base_headers())
        return response


def telling(connection: RequestHandler) -> Telling:
    """The connection, which says from now on what was too long."""
    connection.__class__ = Telling
    return cast("Telling", connection)


def _status(exc: BaseException | None) -> HTTPStatus | None:
    if isinstance(exc, http_exceptions.LineTooLong):
        limit = exc.args[1]
        is_address = isinstance(limit, int) and limit & 1
        return HTTPStatus.REQUEST_URI_TOO_LONG if is_address else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if isinstance(exc, http_exceptions.BadHttpMessage) and _TOO_MANY_HEADERS in str(exc):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return None


def refusal(request: web.BaseRequest) -> web.Response | None:
    """An answer that ends the connection, to what is not spoken here, or whose end is doubtful.

    Raises ConnectionResetError where the answer is sent already.
    """
    refused: web.Response | None = None
    if request.version not in (HttpVersion10, HttpVersion11):
        if request.transport is not None:
            request.transport.write(bare_refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED))
            request.transport.close()
        raise ConnectionResetError("refused for its version of HTTP")
    if request.version == HttpVersion10 and "Transfer-Encoding" in request.headers:  # RFC 9112, section 6.1
        refused = web.Response(status=400, text="400 HTTP/1.0 has no Transfer-Encoding\n")
    elif any(each.lower() != "100-continue" for each in request.headers.getall("Expect", ())):
        refused = web.Response(status=417, text="417 Nothing but 100-continue can be expected here\n")
    if refused is not None:
        refused.headers.update(PLAIN)
        refused.force_close()
    return refused
