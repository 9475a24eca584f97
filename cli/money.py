"""Amounts as people write them: decimal HOLD, exact to the base unit (10⁻⁹). Never a float."""

from __future__ import annotations

import re
from typing import Final

from cli.output import usage

DECIMALS: Final = 9
HOLD: Final = 10**DECIMALS
MAX_UNITS: Final = 2**63 - 1
_AMOUNT = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?\s*(?:hold)?", re.IGNORECASE)
_UNITS = re.compile(r"(\d{1,19})\s*units?", re.IGNORECASE)
_DURATION = re.compile(r"(\d{1,6})\s*(s|m|h|d|w|y)", re.IGNORECASE)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_SIZE = re.compile(r"(\d{1,15})\s*(?:([kmgt])i?b?|b)?", re.IGNORECASE)


def parse_amount(text: str) -> int:
    """`1.5`, `1.5 HOLD` or `1500000000 units` in base units; exit 2 for anything else."""
    if match := _UNITS.fullmatch(text.strip()):
        units = int(match[1])
    elif match := _AMOUNT.fullmatch(text.strip()):
        units = int(match[1]) * HOLD + int((match[2] or "").ljust(DECIMALS, "0"))
    else:
        raise usage(f"{text!r} is no amount: write HOLD with at most 9 decimals, such as 1.5, or `250 units`")
    if units > MAX_UNITS:
        raise usage(f"{text!r} is more than there can be")
    return units


def amount_text(units: int) -> str:
    """`1.5 HOLD`: base units for people, exact, without trailing zeros."""
    whole, rest = divmod(abs(units), HOLD)
    decimals = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{'-' if units < 0 else ''}{whole:,}{decimals} HOLD"


def parse_duration(text: str) -> int:
    """`30d`, `12h`, `90s` (also m, w, y) in seconds; exit 2 for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise usage(f"{text!r} is no duration: write a number with s, m, h, d, w or y, such as 30d")
    return int(match[1]) * _SECONDS[match[2].lower()]


def duration_text(seconds: int) -> str:
    """`30 days`, `4 s`: a duration for people, in its largest whole unit."""
    for name, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {name}"
    return f"{seconds} s"


def parse_size(text: str) -> int:
    """`500G`, `10 GiB`, `1000000` in bytes; K, M, G and T are powers of 1024. Exit 2 for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise usage(f"{text!r} is no size: write bytes, or a number with K, M, G or T, such as 500G")
    power = " kmgt".index(match[2].lower()) if match[2] else 0
    size_bytes: int = int(match[1]) * 1024**power
    return size_bytes
