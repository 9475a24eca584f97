"""Moments as text (RFC 3339) and as nanoseconds since 1970, exactly and without a clock."""

from __future__ import annotations

import re

from merkledag.errors import DecodeError

SECOND_NS = 1_000_000_000
_DAY_S = 86_400
_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)


def parse(text: str) -> int:
    """Nanoseconds since 1970 of `2006-01-02T15:04:05.999999999Z` or with an offset; raises DecodeError.

    Letters are upper case, the fraction has up to nine digits, and there are no leap seconds.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise DecodeError(f"{text[:40]!r} is no date and time of RFC 3339")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, offset_hour, offset_minute = match.groups()[6:]
    offset_s = 0
    if sign:
        offset_s = int(offset_hour) * 3600 + int(offset_minute) * 60
        if int(offset_hour) > 23 or int(offset_minute) > 59:
            raise DecodeError(f"{text!r} has an offset of more than a day")
    if not 1 <= month <= 12 or not 1 <= day <= _days_in_month(year, month):
        raise DecodeError(f"{text!r} is a day that no calendar has")
    if hour > 23 or minute > 59 or second > 59:
        raise DecodeError(f"{text!r} is a time that no clock shows")
    whole_s = _day_number(year, month, day) * _DAY_S + hour * 3600 + minute * 60 + second
    whole_s += offset_s if sign == "-" else -offset_s
    return whole_s * SECOND_NS + int((fraction or "").ljust(9, "0"))


def format_ns(moment_ns: int) -> str:
    """The moment in UTC, its fraction as short as possible; ValueError outside of the years 0 to 9999."""
    whole_s, fraction = divmod(moment_ns, SECOND_NS)
    days, rest = divmod(whole_s, _DAY_S)
    year, month, day = _date(days)
    if not 0 <= year <= 9999:
        raise ValueError(f"the year {year} cannot be written in four digits")
    tail = f".{fraction:09d}".rstrip("0") if fraction else ""
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{year:04d}-{month:02d}-{day:02d}T{clock}{tail}Z"


def _days_in_month(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def _day_number(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01. Years are counted from March, so that a leap day is a year's last one."""
    year -= month <= 2
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + day_of_year - 719_468


def _date(days: int) -> tuple[int, int, int]:
    """The inverse of `_day_number`."""
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * march_month + 2) // 5 + 1
    month = march_month + 3 if march_month < 10 else march_month - 9
    return era * 400 + year_of_era + (month <= 2), month, day
