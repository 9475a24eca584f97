"""Error responses: a page for browsers, JSON for programs that ask for it, else one line of text."""

from __future__ import annotations

from aiohttp import web

from gateway import errors, headers
from gateway.errors import GatewayError
from gateway.pages import error as page_error
from gateway.pages import style
from merkledag.errors import (
    InvalidCID,
    InvalidPath,
    MerkledagError,
    NoSuchLink,
    NotADirectory,
    NotAFile,
    PathError,
    UnsupportedCodec,
    UnsupportedHash,
)


def wants_html(request: web.BaseRequest) -> bool:
    """Browsers say that they take HTML; programs do not."""
    return "text/html" in request.headers.get("Accept", "")


def wants_json(request: web.BaseRequest) -> bool:
    """Whether a program prefers its errors as documents."""
    return "application/json" in request.headers.get("Accept", "")


def error_response(request: web.BaseRequest, error: GatewayError, retry_after_s: int) -> web.Response:
    """The answer to a request that failed; `retry_after_s` is for errors that pass."""
    result = headers.base_headers()
    result["Cache-Control"] = headers.NO_STORE
    result.update(error.headers)
    if error.passes:
        result["Retry-After"] = str(retry_after_s)
    if isinstance(error, errors.NotCached):
        # A probe, which may be one of thousands: no payload (path gateway, only-if-cached).
        return web.Response(status=error.status, headers=result)
    if wants_html(request):
        result["Content-Type"] = "text/html; charset=utf-8"
        result["Content-Security-Policy"] = (
            style.WELCOME_SECURITY_POLICY
            if isinstance(error, errors.NotAnAddress)
            else style.CONTENT_SECURITY_POLICY
        )
        body = page_error.error_page(error, request.raw_path)
    elif wants_json(request):
        result["Content-Type"] = "application/json"
        body = page_error.error_json(error)
    else:
        result["Content-Type"] = "text/plain; charset=utf-8"
        body = page_error.error_line(error)
    return web.Response(status=error.status, body=body.encode("utf-8", "replace"), headers=result)


def translate(error: MerkledagError) -> GatewayError:
    """The refusal that an error of the content, or of the path into it, amounts to."""
    message = str(error)
    if isinstance(error, (InvalidCID, InvalidPath)):
        return errors.BadRequest(message)
    if isinstance(error, (NoSuchLink, NotADirectory)):
        return errors.NotFound(message)
    if isinstance(error, NotAFile):
        return errors.NotAcceptable(message)
    if isinstance(error, PathError):
        return errors.NotFound(message)
    if isinstance(error, (UnsupportedCodec, UnsupportedHash)):
        return errors.NotImplementedHere(message)
    return errors.ContentInvalid(message)
