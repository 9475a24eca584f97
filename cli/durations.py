"""Spans of time as people write and read them: `48h`, `1h30m`, `1.5h`, `300s`, `90d`."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from cli.output import usage
from merkledag.rfc3339 import SECOND_NS

_UNITS_NS: Final = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
    "h": 3600 * 10**9, "d": 86_400 * 10**9, "w": 7 * 86_400 * 10**9,
    "y": 365 * 86_400 * 10**9,
}  # fmt: skip
_PART: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h|d|w|y)")
MAX_NS: Final = 2**63 - 1


def nanoseconds(text: str, option: str) -> int:
    """The span that `text` is, in whole nanoseconds; exit 2, naming `option`, for anything else.

    The syntax is Go's, as in other IPFS programs, with days, weeks and years (of 365 days) added; `0` needs
    no unit. At most 2⁶³ − 1, which is 292 years.
    """
    total = Fraction(0)
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            break
        total += Fraction(part[1] if part[1][0] != "." else "0" + part[1]) * _UNITS_NS[part[2]]
        position = part.end()
    if text != "0" and not 0 < position == len(text):
        raise usage(f"{option} {text}: write a span of time such as 48h, 1h30m, 300s or 2d")
    if total > MAX_NS:
        raise usage(f"{option} {text}: that is over 292 years")
    return int(total)


def seconds(text: str, option: str) -> int:
    """As `nanoseconds`, but in whole seconds, at least one."""
    found, rest = divmod(nanoseconds(text, option), SECOND_NS)
    if rest or not found:
        raise usage(f"{option} {text}: whole seconds, at least one, such as 30d")
    return found


def duration_text(span_s: int) -> str:
    """`30 days`, `4 s`: a duration for people, in its largest whole unit."""
    for name, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if span_s and span_s % size == 0:
            return "1 day" if span_s == 86_400 else f"{span_s // size} {name}"
    return f"{span_s} s"


def roughly(span_s: int) -> str:
    """As `duration_text`, without what does not matter beside the rest: two and more of a unit are whole."""
    for size_s in (86_400, 3600, 60):
        if span_s >= 2 * size_s:
            return duration_text(span_s - span_s % size_s)
    return duration_text(span_s)
