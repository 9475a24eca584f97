"""Nothing that somebody else wrote steers the terminal that it is shown on."""

from __future__ import annotations

import pytest

from cli.output import note, report, text
from storage_node.errors import WorkersLost
from storage_node.kzg_rows import LOST

HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202egnp.exe \r\x08\x7f \udcff"


def test_no_line_of_a_result_carries_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    text(f"says      {HOSTILE}")
    text("one\ttwo\nthree")
    note(HOSTILE)
    found = capsys.readouterr()
    assert found.out.splitlines()[-2:] == ["one\ttwo", "three"]
    for line in (*found.out.replace("\t", "").splitlines(), *found.err.splitlines()):
        assert line.isprintable(), ascii(line)


def test_what_can_be_shown_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text("grün — 日本 ✓")
    assert capsys.readouterr().out == "grün — 日本 ✓\n"


def test_a_killed_process_is_told_as_the_environments_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """It says nothing of the data, for which 4 stands."""
    assert report(WorkersLost(LOST)) == 1
    assert "try again with more memory free" in capsys.readouterr().err
