"""Spans of time in options."""

from __future__ import annotations

import pytest

from cli.durations import MAX_NS, duration_text, nanoseconds, roughly, seconds
from cli.output import CommandError, ExitCode


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("0", 0),
        ("1ns", 1),
        ("1.5h", 5_400 * 10**9),
        ("1h30m", 5_400 * 10**9),
        (".5ms", 500_000),
        ("2d", 172_800 * 10**9),
        ("1y1w", 372 * 86_400 * 10**9),
        (f"{MAX_NS}ns", MAX_NS),
    ],
)
def test_spans(text: str, expected_ns: int) -> None:
    assert nanoseconds(text, "--ttl") == expected_ns


@pytest.mark.parametrize(
    "text", ["", "1", "h", "-1s", "1 h", "1h30", "00", "1e3s", "293y", f"{MAX_NS + 1}ns", "²s"]
)
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(CommandError, match="--ttl") as caught:
        nanoseconds(text, "--ttl")
    assert caught.value.code is ExitCode.USAGE


def test_whole_seconds() -> None:
    assert seconds("1.5m", "--for") == 90
    for text in ("0", "0s", "999ms", "1s1ns"):
        with pytest.raises(CommandError, match="whole seconds"):
            seconds(text, "--for")


def test_durations_for_people() -> None:
    assert [duration_text(span_s) for span_s in (0, 4, 120, 7200, 86_400, 2_592_000)] == [
        "0 s",
        "4 s",
        "2 min",
        "2 h",
        "1 day",
        "30 days",
    ]


def test_durations_for_people_leave_out_what_is_small() -> None:
    spans = (0, 90, 125, 7300, 90_000, 200_000)
    assert [roughly(span_s) for span_s in spans] == ["0 s", "90 s", "2 min", "2 h", "25 h", "2 days"]
