"""Validators and the conditional headers (RFC 9110, sections 8.8 and 13): Etags and dates."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime

from multidict import CIMultiDictProxy

# What a list of entity tags consists of; an opaque tag may have commas inside.
_ETAG = re.compile(r'(W/)?("[^"\x00-\x20\x7f]*")')


def field(headers: CIMultiDictProxy[str], name: str) -> str | None:
    """A field that is a list, which may come in several lines; None if it is not there."""
    first = headers.get(name)
    if first is None:
        return None
    values = headers.getall(name)
    return first if len(values) == 1 else ", ".join(values)


def only_if_cached(headers: CIMultiDictProxy[str]) -> bool:
    """Whether the client wants nothing fetched (RFC 9111, section 5.2.1.7)."""
    directives = field(headers, "Cache-Control")
    if directives is None:
        return False
    return any(each.strip().lower() == "only-if-cached" for each in directives.split(","))


def matches_any(if_none_match: str, etag: str) -> bool:
    """Whether `If-None-Match` names `etag` (weak comparison) or is `*`."""
    if if_none_match.strip() == "*":
        return True
    wanted = etag.removeprefix("W/")
    return any(opaque == wanted for _, opaque in _etags(if_none_match))


def matches_strongly(if_match: str, etag: str) -> bool:
    """Whether `If-Match` names `etag` (strong comparison: weak tags equal nothing) or is `*`."""
    if if_match.strip() == "*":
        return True
    return any(not weak and opaque == etag for weak, opaque in _etags(if_match))


def range_still_valid(if_range: str, etag: str, last_modified: str | None = None) -> bool:
    """Whether a Range may be served under `If-Range` (strong comparison, of the tag or of the very date)."""
    condition = if_range.strip()
    if condition.startswith(('"', "W/")):
        return condition == etag and not etag.startswith("W/")
    if last_modified is None:
        return False
    date_s = parse_date(condition)
    return date_s is not None and date_s == parse_date(last_modified)


def last_modified(seconds: int | None) -> str | None:
    """The Last-Modified value of a time in seconds since 1970; None for none, and for one yet to come."""
    if seconds is None or not 0 < seconds <= time.time():
        return None
    return formatdate(seconds, usegmt=True)


def changed_after(last_modified: str, date: str) -> bool | None:
    """Whether something of that Last-Modified changed after `date`; None if `date` is none."""
    date_s, changed_s = parse_date(date), parse_date(last_modified)
    return None if date_s is None or changed_s is None else changed_s > date_s


def parse_date(text: str) -> int | None:
    """An HTTP date in any of its three forms, in seconds since 1970; None if it is none."""
    try:
        moment = parsedate_to_datetime(text)
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _etags(text: str) -> Iterator[tuple[str, str]]:
    """Weakness (`W/` or nothing) and opaque tag of each in the list."""
    for found in _ETAG.finditer(text):
        yield found[1] or "", found[2]
