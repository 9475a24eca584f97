"""What can go wrong while a request is answered: one class a cause, each with its HTTP status."""

from __future__ import annotations

from collections.abc import Mapping


class GatewayError(Exception):
    """Base of every refusal the gateway makes.

    `message` is one line for the client: it says what is wrong and, where there is one, what to do.
    """

    status = 500
    title = "The gateway failed"

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})


class BadRequest(GatewayError):
    """The request itself is wrong: no valid CID, path, parameter or host."""

    status = 400
    title = "This address is not valid"


class NotFound(GatewayError):
    """The path leads nowhere, or its content cannot be had here."""

    status = 404
    title = "Not found"


class ContentMissing(NotFound):
    """A block that the path needs is not here and nobody who has it was found."""

    title = "Nobody was found who has this content"


class MethodNotAllowed(GatewayError):
    """Only GET, HEAD and OPTIONS are served."""

    status = 405
    title = "Method not allowed"


class NotAcceptable(GatewayError):
    """The content cannot be given in the requested format (IPIP-0524: codecs are not converted)."""

    status = 406
    title = "Not available in this format"


class NotCached(GatewayError):
    """`Cache-Control: only-if-cached` was sent and the content is not here."""

    status = 412
    title = "Not cached here"


class UriTooLong(GatewayError):
    """The path or query is longer than the limit."""

    status = 414
    title = "This address is too long"


class RangeNotSatisfiable(GatewayError):
    """No requested byte range lies within the content."""

    status = 416
    title = "Range not satisfiable"

    def __init__(self, message: str, size_bytes: int) -> None:
        super().__init__(message, {"Content-Range": f"bytes */{size_bytes}"})


class TooManyRequests(GatewayError):
    """The limit of concurrent requests is reached."""

    status = 429
    title = "Too many requests"


class ContentInvalid(GatewayError):
    """The blocks arrived and match their CIDs, but do not decode or exceed a limit."""

    status = 500
    title = "This content is damaged or not supported"


class NameUnresolved(GatewayError):
    """An IPNS name or DNSLink could not be resolved."""

    status = 500
    title = "This name could not be resolved"


class NotImplementedHere(GatewayError):
    """The path leads inside a node, at something that is not a link."""

    status = 501
    title = "Not supported"


class RetrievalTimeout(GatewayError):
    """A block did not arrive in time."""

    status = 504
    title = "The content did not arrive in time"
