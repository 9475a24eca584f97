"""Error responses: a page for people, one line for machines."""

from __future__ import annotations

from aiohttp import web

from gateway import errors, headers, pages, style
from gateway.errors import GatewayError
from merkledag.errors import (
    DecodeError,
    HashMismatch,
    InvalidCID,
    InvalidPath,
    LimitExceeded,
    MerkledagError,
    NoSuchLink,
    NotADirectory,
    NotAFile,
    PathError,
    UnsupportedCodec,
    UnsupportedHash,
)

_HINTS: dict[type[GatewayError], tuple[str, ...]] = {
    errors.BadRequest: (
        "An address looks like /ipfs/CID/path/to/file or /ipns/NAME/path.",
        "Check that the CID was copied whole: one wrong or missing letter makes it another one.",
    ),
    errors.ContentMissing: (
        "Try again later: whoever keeps this content may be offline at the moment.",
        "If you know someone who has it, ask them to keep their node running, or to have it stored.",
    ),
    errors.NotFound: ("Check the spelling of the path: capital and small letters differ.",),
    errors.NotAcceptable: ("Ask for ?format=raw to get the block as it is and convert it yourself.",),
    errors.RetrievalTimeout: (
        "Try again in a moment: the providers may be slow or have just gone offline.",
        "If you know someone who has the content, ask them to keep their node running.",
    ),
    errors.TooManyRequests: ("Wait a few seconds and try again.",),
    errors.NameUnresolved: (
        "Check the spelling of the name.",
        "Ask the publisher whether its record is still being published.",
    ),
    errors.ContentInvalid: (
        "The blocks can still be downloaded as they are with ?format=raw or ?format=car.",
    ),
}


def wants_html(request: web.BaseRequest) -> bool:
    """Browsers say that they take HTML; programs do not."""
    return "text/html" in request.headers.get("Accept", "")


def error_response(request: web.BaseRequest, error: GatewayError, path: str) -> web.Response:
    """`path` is what was asked for, as the client wrote it."""
    result = headers.base_headers()
    result["Cache-Control"] = headers.NO_STORE
    result.update(error.headers)
    if wants_html(request):
        result["Content-Type"] = "text/html; charset=utf-8"
        result["Content-Security-Policy"] = style.CONTENT_SECURITY_POLICY
        hints = next((hints for kind, hints in _HINTS.items() if isinstance(error, kind)), ())
        body = pages.error_page(error.status, error.title, error.message, path, hints).encode()
    else:
        result["Content-Type"] = "text/plain; charset=utf-8"
        line = " ".join(error.message.split())
        body = f"{error.status} {error.title}: {line}\n".encode("utf-8", "replace")
    return web.Response(status=error.status, body=body, headers=result)


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
    if isinstance(error, (DecodeError, HashMismatch, LimitExceeded)):
        return errors.ContentInvalid(message)
    return errors.ContentInvalid(message)
