"""What can go wrong while a request is answered: one class a cause, each with its HTTP status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.source import Provider
from merkledag.cid import CID

MAX_ASKED_SHOWN = 16
_WHOEVER_HAS_IT = "If you know someone who has it, ask them to keep their node running, or to have it stored."


class GatewayError(Exception):
    """Base of every refusal the gateway makes.

    `message` is one line for the client: it says what is wrong and, where there is one, what to do.
    Pages and JSON bodies show the rest: `cid` is the block that it failed at, `step` what was being done
    with it (`root block`, `segment 2 of 3`, …; "" = unknown), `asked` who was asked for it, MAX_ASKED_SHOWN
    at most, and `hints` what to try: those of the class, unless others are given. `passes` says that asking
    again later may help: the answer says when (Retry-After).
    """

    status = 500
    title = "The gateway failed"
    passes = False
    hints: tuple[str, ...] = ()

    def __init__(
        self,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        cid: CID | None = None,
        step: str = "",
        asked: Sequence[Provider] = (),
        hints: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})
        self.cid = cid
        self.step = step
        self.asked = tuple(asked[:MAX_ASKED_SHOWN])
        if hints is not None:
            self.hints = hints


class BadRequest(GatewayError):
    """The request itself is wrong: no valid CID, path, parameter or host."""

    status = 400
    title = "This address is not valid"
    hints = (
        "An address looks like /ipfs/CID/path/to/file or /ipns/NAME/path.",
        "Check that the CID was copied whole: one wrong or missing letter makes it another one.",
    )


class NotAnAddress(BadRequest):
    """What was typed into the field of the first page names no content. The page says so beside the field."""

    hints = (
        "Write a CID, a CID with a path behind it, a name, or an address with ipfs:// or ipns://.",
        "Check that the CID was copied whole: one wrong or missing letter makes it another one.",
    )

    def __init__(self, message: str, typed: str) -> None:
        super().__init__(message)
        self.typed = typed


class NotFound(GatewayError):
    """The path leads nowhere, or its content cannot be had here."""

    status = 404
    title = "Not found"
    hints: tuple[str, ...] = ("Check the spelling of the path: capital and small letters differ.",)


class ContentMissing(NotFound):
    """A block that the path needs is not here and nobody who has it was found."""

    title = "Nobody was found who has this content"
    hints = (
        "Try again later: whoever keeps this content may be offline at the moment.",
        _WHOEVER_HAS_IT,
    )


class MethodNotAllowed(GatewayError):
    """Only GET, HEAD and OPTIONS are served."""

    status = 405
    title = "Method not allowed"


class NotAcceptable(GatewayError):
    """The content cannot be given in the requested format (IPIP-0524: codecs are not converted)."""

    status = 406
    title = "Not available in this format"
    hints = ("Ask for ?format=raw to get the block as it is and convert it yourself.",)


class Gone(GatewayError):
    """The content is larger than this gateway gives: it says so for good, as others do (boxo)."""

    status = 410
    title = "Too large for this gateway"
    hints = ("Get it through a node of your own: it has no such limit.",)


class Denied(GatewayError):
    """A denylist names this content: 410, or 451 where the list says that the law demands it (RFC 7725)."""

    status = 410
    title = "Not served here"
    hints = ("Whoever runs this gateway decides what it serves. If you think that this is wrong, ask them.",)

    def __init__(self, message: str, headers: Mapping[str, str], *, list_name: str, legal: bool) -> None:
        super().__init__(message, headers)
        self.list_name = list_name
        if legal:
            self.status = 451
            self.title = "Not available for legal reasons"


class NotCached(GatewayError):
    """`Cache-Control: only-if-cached` was sent and the content is not here."""

    status = 412
    title = "Not cached here"


class PreconditionFailed(GatewayError):
    """If-Match or If-Unmodified-Since asks for another version than the one that is here."""

    status = 412
    title = "This is another version"


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
    passes = True
    hints = ("Wait a few seconds and try again.",)


class ContentInvalid(GatewayError):
    """The blocks arrived and match their CIDs, but do not decode or exceed a limit."""

    status = 500
    title = "This content is damaged or not supported"
    hints = ("The blocks can still be downloaded as they are with ?format=raw or ?format=car.",)


class NameUnresolved(GatewayError):
    """An IPNS name or DNSLink could not be resolved."""

    status = 500
    title = "This name could not be resolved"
    hints = (
        "Check the spelling of the name.",
        "Ask the publisher whether its record is still being published.",
    )


class NotImplementedHere(GatewayError):
    """The path leads inside a node, at something that is not a link."""

    status = 501
    title = "Not supported"


class ProvidersFailed(GatewayError):
    """A block is not here, and of those who may have it some gave no answer."""

    status = 502
    title = "Those who may have this content do not answer"
    passes = True
    hints = (
        "Try again in a moment: the providers may be overloaded or have just gone offline.",
        _WHOEVER_HAS_IT,
    )


class RetrievalTimeout(GatewayError):
    """A block did not arrive in time."""

    status = 504
    title = "The content did not arrive in time"
    passes = True
    hints = (
        "Try again in a moment: the providers may be slow or have just gone offline.",
        _WHOEVER_HAS_IT,
    )


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, in one line; its class where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")
