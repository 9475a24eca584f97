"""Answers to requests that are too long to be read, with the status that says so (RFC 9110, RFC 6585)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import http_exceptions, web
from aiohttp.web_protocol import RequestHandler

_LINE_EXTRA_BYTES = 64  # of a request line, beside the address
_TOO_MANY_HEADERS = "Too many headers"


def line_limit(max_url_bytes: int) -> int:
    """The parser's limit on the request line; odd, so that its errors tell it from that on header lines."""
    return (max_url_bytes + _LINE_EXTRA_BYTES) | 1


def field_limit(max_header_bytes: int) -> int:
    """The parser's limit on a header line; even."""
    return max_header_bytes & ~1


class _Telling(RequestHandler):
    """aiohttp's connection, which answers 400 to all that its parser refuses."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        found = _status(exc)
        if found is not None:
            status, message = found, f"{found.value} {found.phrase}\n"
        return super().handle_error(request, status, exc, message)


def telling(connection: RequestHandler) -> RequestHandler:
    """The connection, which says from now on what was too long."""
    connection.__class__ = _Telling
    return connection


def _status(exc: BaseException | None) -> HTTPStatus | None:
    if isinstance(exc, http_exceptions.LineTooLong):
        limit = exc.args[1]
        is_address = isinstance(limit, int) and limit & 1
        return HTTPStatus.REQUEST_URI_TOO_LONG if is_address else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if isinstance(exc, http_exceptions.BadHttpMessage) and _TOO_MANY_HEADERS in str(exc):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return None
