"""What is noted about a request while it is answered, for the counts and the access log."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gateway.serving.body import Body

Kind = Literal["file", "listing", "raw", "car", "tar", "codec", "record", "page"]


class Passage:
    """One request on its way through."""

    __slots__ = ("body", "kind", "told")

    def __init__(self) -> None:
        self.kind: Kind = "file"
        self.body: Body | None = None  # of the response, if it is streamed and its headers went out
        self.told: tuple[int, str, int] = (0, "", 0)  # status, kind and bytes of body, once it is answered


# That of the request which the current task answers.
_CURRENT: ContextVar[Passage | None] = ContextVar("holdfast_passage", default=None)


def begin_passage() -> Passage:
    """The current task answers another request."""
    passage = Passage()
    _CURRENT.set(passage)
    return passage


def note_kind(kind: Kind) -> None:
    """What is served, if it goes well; files need not be noted."""
    passage = _CURRENT.get()
    if passage is not None:
        passage.kind = kind


def note_body(body: Body) -> None:
    """The headers of a streamed response go out."""
    passage = _CURRENT.get()
    if passage is not None:
        passage.body = body
