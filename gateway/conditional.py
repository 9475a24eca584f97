"""Etags and the conditional headers (RFC 9110, section 13)."""

from __future__ import annotations

_MAX_ETAGS = 64


def matches_any(if_none_match: str, etag: str) -> bool:
    """Whether `If-None-Match` names `etag` (weak comparison) or is `*`."""
    if if_none_match.strip() == "*":
        return True
    wanted = _opaque(etag)
    return any(_opaque(item) == wanted for item in if_none_match.split(",", _MAX_ETAGS)[:_MAX_ETAGS])


def range_still_valid(if_range: str, etag: str) -> bool:
    """Whether a Range may be served under `If-Range` (strong comparison; a date never matches)."""
    return not etag.startswith("W/") and if_range.strip() == etag


def _opaque(etag: str) -> str:
    return etag.strip().removeprefix("W/")
