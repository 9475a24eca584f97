"""Spans of time as people write them: `48h`, `1h30m`, `1.5h`, `300s`, `90d`."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from cli.output import usage

_UNITS_NS: Final = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
    "h": 3600 * 10**9, "d": 86_400 * 10**9, "w": 7 * 86_400 * 10**9,
}  # fmt: skip
_PART: Final = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(ns|us|µs|μs|ms|s|m|h|d|w)")
MAX_NS: Final = 2**63 - 1


def nanoseconds(text: str, option: str) -> int:
    """The span that `text` is, in whole nanoseconds; exit 2, naming `option`, for anything else.

    The syntax is Go's, as in other IPFS programs, with days and weeks added; `0` needs no unit.
    """
    total = Fraction(0)
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            break
        total += Fraction(part[1] if part[1][0] != "." else "0" + part[1]) * _UNITS_NS[part[2]]
        position = part.end()
    if (position == 0 and text != "0") or (position < len(text) and text != "0") or total > MAX_NS:
        raise usage(f"{option} {text}: write a span of time such as 48h, 1h30m, 300s or 2d")
    return int(total)
