"""Etags, dates and file names in headers, without a gateway around them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.formats.conditional import (
    changed_after,
    last_modified,
    matches_any,
    matches_strongly,
    parse_date,
    range_still_valid,
)
from gateway.formats.disposition import disposition

NOVEMBER = 784_111_777


def test_etags() -> None:
    assert matches_any('"a", W/"b"', '"b"')
    assert matches_any("*", '"b"')
    assert not matches_any('"a"', '"b"')
    assert range_still_valid('"a"', '"a"')
    assert not range_still_valid('W/"a"', 'W/"a"')


def test_dispositions_are_safe_and_readable() -> None:
    assert disposition("inline", None) == "inline"
    assert (
        disposition("inline", "testтест.pdf")
        == "inline; filename=\"test____.pdf\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.pdf"
    )
    hostile = disposition("attachment", 'a"\r\nSet-Cookie: x=1\\../b')
    assert "\r" not in hostile
    assert hostile.count('"') == 2
    assert "/" not in hostile.partition("''")[2]
    # What cannot stand in quotes is exact in the other form.
    assert disposition("inline", 'say "hi".txt') == (
        "inline; filename=\"say _hi_.txt\"; filename*=UTF-8''say%20%22hi%22.txt"
    )
    assert (
        disposition("attachment", "\udcff.txt") == "attachment; filename=\"_.txt\"; filename*=UTF-8''%3F.txt"
    )
    assert len(disposition("inline", "é" * 100_000)) < 2500


@settings(max_examples=100)
@given(st.text(max_size=30))
def test_no_name_breaks_out_of_its_header(name: str) -> None:
    header = disposition("attachment", name)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') in (0, 2)


def test_etags_are_compared_weakly_and_strongly() -> None:
    assert matches_any('"x,y", "b"', '"b"')
    assert not matches_any('"x,"b","', '"c"')
    assert not matches_any('"a*"', '"b"')
    assert not matches_any("b", '"b"')
    assert matches_any('W/"b"', 'W/"b"')
    assert matches_strongly('"a", "b"', '"b"')
    assert matches_strongly("*", 'W/"b"')
    assert not matches_strongly('W/"b"', '"b"')
    assert not matches_strongly('"b"', 'W/"b"')


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", NOVEMBER),
        ("Sunday, 06-Nov-94 08:49:37 GMT", NOVEMBER),
        ("Sun Nov  6 08:49:37 1994", NOVEMBER),
        ("yesterday", None),
        ("", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999 08:49:37 GMT", None),
    ],
)
def test_dates_in_their_three_forms(text: str, seconds: int | None) -> None:
    assert parse_date(text) == seconds


@settings(max_examples=100)
@given(st.text(max_size=40))
def test_any_date_is_read_or_ignored(text: str) -> None:
    parse_date(text)


def test_last_modified_is_never_in_the_future() -> None:
    assert last_modified(NOVEMBER) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert last_modified(None) is None
    assert last_modified(0) is None
    assert last_modified(-5) is None
    assert last_modified(int(time.time()) + 1000) is None
    assert last_modified(10**15) is None


def test_dates_are_compared_to_the_second() -> None:
    date = last_modified(NOVEMBER) or ""
    assert changed_after(date, last_modified(NOVEMBER - 1) or "") is True
    assert changed_after(date, date) is False
    assert changed_after(date, "soon") is None


def test_if_range_takes_the_very_date() -> None:
    date = last_modified(NOVEMBER) or ""
    assert range_still_valid(date, '"a"', date)
    assert range_still_valid("Sunday, 06-Nov-94 08:49:37 GMT", '"a"', date)
    assert not range_still_valid(last_modified(NOVEMBER + 1) or "", '"a"', date)
    assert not range_still_valid(date, '"a"', None)
    assert not range_still_valid("rubbish", '"a"', date)
