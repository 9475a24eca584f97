"""Ledger time as people read it, and the moments that they write: UTC dates, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from cli.durations import nanoseconds
from cli.output import CommandError, usage
from merkledag.rfc3339 import SECOND_NS

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z?)?")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_text(time_s: int) -> str:
    """`2026-11-21T10:23:49Z`: seconds since 1970 as RFC 3339 in UTC."""
    try:
        return (EPOCH + timedelta(seconds=time_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return f"{time_s} s after 1970"


def parse_moment(text: str, option: str, now_s: int) -> int:
    """Seconds since 1970 of `2026-11-21`, `2026-11-21T10:23Z`, or `30d` (so long before `now_s`).

    Exit 2, naming `option`, for anything else. Dates are in UTC.
    """
    if _DATE.fullmatch(text):
        try:
            parsed = datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
        except ValueError:
            raise usage(f"{option} {text}: there is no such date") from None
        return int((parsed - EPOCH).total_seconds())
    try:
        return max(0, now_s - nanoseconds(text, option) // SECOND_NS)
    except CommandError:
        raise usage(f"{option} {text}: write a date, such as 2026-01-31, or how long ago, as 30d") from None
