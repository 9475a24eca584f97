"""Amounts as people write them: decimal HOLD, exact to the base unit (10⁻⁹). Never a float.

What is printed can be read again: thousands are set apart by `_`, which no country takes for a decimal mark.
"""

from __future__ import annotations

import re
from typing import Final

from cli.output import usage

DECIMALS: Final = 9
HOLD: Final = 10**DECIMALS
MAX_UNITS: Final = 2**63 - 1
MAX_CHARS: Final = 64
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_AMOUNT = re.compile(rf"({_DIGITS})(?:\.([0-9]{{1,{DECIMALS}}}))?\s*(?:hold)?", re.IGNORECASE)
_UNITS = re.compile(rf"({_DIGITS})\s*units?", re.IGNORECASE)
_IN_UNITS = re.compile(r"\b([0-9]{1,19}) units\b")
_SIZE = re.compile(r"([0-9]{1,15})\s*(?:([kmgt])i?b?|b)?", re.IGNORECASE)


def parse_amount(text: str) -> int:
    """`1.5`, `1_000.5 HOLD` or `1_500 units` in base units; exit 2 for anything else."""
    wanted = text.strip()
    if len(wanted) > MAX_CHARS:
        raise usage(f"an amount has at most {MAX_CHARS} characters")
    if match := _UNITS.fullmatch(wanted):
        units = int(match[1])
    elif match := _AMOUNT.fullmatch(wanted):
        units = int(match[1]) * HOLD + int((match[2] or "").ljust(DECIMALS, "0"))
    elif "," in wanted:
        raise usage(f"{text!r} is no amount: the decimal mark is a point, thousands may be set apart by _")
    else:
        raise usage(f"{text!r} is no amount: write HOLD with at most 9 decimals, such as 1.5, or `250 units`")
    if units > MAX_UNITS:
        raise usage(f"{text!r} is more than there can be")
    return units


def amount_text(units: int) -> str:
    """`1_234.5 HOLD`: base units for people, exact, without trailing zeros."""
    whole, rest = divmod(abs(units), HOLD)
    decimals = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{'-' if units < 0 else ''}{whole:_}{decimals} HOLD"


def in_hold(line: str) -> str:
    """A line with amounts in base units (`12 units`), as the ledger writes them, in HOLD."""
    return _IN_UNITS.sub(lambda found: amount_text(int(found[1])), line)


def decimal_text(units: int) -> str:
    """`-1234.500000000`: HOLD with all nine decimals and nothing else, for spreadsheets."""
    whole, rest = divmod(abs(units), HOLD)
    return f"{'-' if units < 0 else ''}{whole}.{rest:09d}"


def parse_size(text: str) -> int:
    """`500G`, `10 GiB`, `1000000` in bytes; K, M, G and T are powers of 1024. Exit 2 for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise usage(f"{text!r} is no size: write bytes, or a number with K, M, G or T, such as 500G")
    power = " kmgt".index(match[2].lower()) if match[2] else 0
    size_bytes: int = int(match[1]) * 1024**power
    return size_bytes
