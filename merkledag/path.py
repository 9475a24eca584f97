"""Content paths: `/ipfs/…`, `/ipns/…`, their URI forms, and bare CIDs (IPFS path and URI specs)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import unquote_to_bytes

from merkledag.cid import CID
from merkledag.errors import InvalidCID, InvalidPath

MAX_PATH_CHARS = 16_384
MAX_SEGMENTS = 1_024

Namespace = Literal["ipfs", "ipns"]


@dataclass(frozen=True, slots=True)
class ContentPath:
    """A parsed path. `root` is the text of a CID (ipfs) or of a name (ipns); segments are decoded names."""

    namespace: Namespace
    root: str
    segments: tuple[str, ...] = ()

    @property
    def cid(self) -> CID:
        """The root as a CID; raises InvalidCID (never for a parsed ipfs path)."""
        return CID.parse(self.root)

    def __str__(self) -> str:
        return "/".join(("", self.namespace, self.root, *self.segments))


def parse_path(text: str) -> ContentPath:
    """Parses `/ipfs/CID/…`, `/ipns/NAME/…`, `ipfs://CID/…`, `ipns://NAME/…` or `CID[/…]`; raises InvalidPath.

    Only URIs are percent-decoded, after cutting off `?query` and `#fragment`. Empty segments and `.` vanish,
    `..` removes the segment before it and may not leave the root.
    """
    if len(text) > MAX_PATH_CHARS:
        raise InvalidPath(f"path of {len(text)} characters; at most {MAX_PATH_CHARS}")
    scheme = text[:7].lower()
    is_uri = scheme in ("ipfs://", "ipns://")
    if is_uri:
        parts = [scheme[:4], *text[7:].partition("#")[0].partition("?")[0].split("/")]
    elif text.startswith(("/ipfs/", "/ipns/")):
        parts = text[1:].split("/")
    elif text.startswith("/"):
        raise InvalidPath(f"{_short(text)} is not a content path: one begins with /ipfs/, /ipns/ or a CID")
    else:
        parts = ["ipfs", *text.split("/")]
    namespace, root = parts[0], parts[1]
    if len(parts) - 2 > MAX_SEGMENTS:
        raise InvalidPath(f"path of {len(parts) - 2} segments; at most {MAX_SEGMENTS}")
    if namespace == "ipfs":
        try:
            CID.parse(root)
        except InvalidCID as error:
            raise InvalidPath(
                f"{_short(text)} is not a content path, as no CID begins it: {error}"
            ) from error
    elif not root or root in (".", "..") or not root.isprintable() or any(c in root for c in " %\\"):
        raise InvalidPath(f"{_short(text)} holds no IPNS name")
    return ContentPath(cast("Namespace", namespace), root, _segments(text, parts[2:], is_uri))


def _segments(text: str, parts: list[str], is_uri: bool) -> tuple[str, ...]:
    kept: list[str] = []
    for part in parts:
        segment = _unquoted(part) if is_uri else part
        if "\0" in segment or (is_uri and "/" in segment):
            raise InvalidPath(f"{_short(text)}: a segment holds NUL or an encoded slash")
        if segment == "..":
            if not kept:
                raise InvalidPath(f"{_short(text)} leaves its root by '..'")
            kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    return tuple(kept)


def _unquoted(part: str) -> str:
    raw = unquote_to_bytes(part.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")
