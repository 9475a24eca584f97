"""One line of a .gitignore as a regular expression (gitignore(5), wildmatch with WM_PATHNAME)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_CLASSES: Final = {
    "alpha": "A-Za-z", "digit": "0-9", "alnum": "A-Za-z0-9", "upper": "A-Z", "lower": "a-z",
    "xdigit": "0-9A-Fa-f",
    "space": r"\t-\r ", "blank": r"\t ", "punct": r"!-/:-@\[-`{-~", "cntrl": r"\x00-\x1f\x7f",
    "print": " -~", "graph": "!-~",
}  # fmt: skip


class Rule(NamedTuple):
    """A rule: what it matches is left out, or with `!` taken again."""

    left_out: bool
    folders_only: bool
    by_name: bool  # `pattern` is for the last part of the path alone
    pattern: re.Pattern[str]


def parse_rule(line: str) -> Rule | None:
    """The rule on a line; None for an empty line, a comment, and what never matches anything."""
    text = _without_trailing_spaces(line)
    if not text or text.startswith("#"):
        return None
    left_out = not text.startswith("!")
    if not left_out:
        text = text[1:]
    folders_only = text.endswith("/")
    if folders_only:
        text = text[:-1]
    by_name = "/" not in text
    text = text.removeprefix("/")
    expression = _translated(text)
    if not text or expression is None:
        return None
    return Rule(left_out, folders_only, by_name, re.compile(expression, re.DOTALL))


def _without_trailing_spaces(line: str) -> str:
    text = line.rstrip("\r\n")
    end = len(text)
    while end and text[end - 1] == " ":
        if (end - 1 - len(text[: end - 1].rstrip("\\"))) % 2:  # the space is escaped
            break
        end -= 1
    return text[:end]


def _translated(text: str) -> str | None:
    """The expression for a pattern; None for a class or an escape that does not end."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == "*":
            stars = len(text) - at - len(text[at:].lstrip("*"))
            part, at = _stars(text, at, at + stars)
        elif text[at] == "?":
            part, at = "[^/]", at + 1
        elif text[at] == "[":
            found = _class(text, at + 1)
            if found is None:
                return None
            part, at = found
        elif text[at] == "\\":
            if at + 1 == len(text):
                return None
            part, at = re.escape(text[at + 1]), at + 2
        else:
            part, at = re.escape(text[at]), at + 1
        parts.append(part)
    return "".join(parts)


def _stars(text: str, start: int, end: int) -> tuple[str, int]:
    """The expression for a run of `*`, and where the pattern goes on; `**` between slashes is special."""
    bounded = (start == 0 or text[start - 1] == "/") and (end == len(text) or text[end] == "/")
    if end - start != 2 or not bounded:
        return "[^/]*", end
    if end == len(text):
        return (".+" if start else ".*"), end
    return "(?:.*/)?", end + 1


def _class(text: str, at: int) -> tuple[str, int] | None:
    """The expression for a `[…]` whose inside begins at `at`, and where the pattern goes on."""
    negated = text[at : at + 1] in ("!", "^")
    at += negated
    inside = ""
    first = True
    while first or text[at : at + 1] != "]":
        first = False
        if at >= len(text):
            return None
        if text.startswith("[:", at):
            name, closed, _ = text[at + 2 :].partition(":]")
            if not closed or name not in _CLASSES:
                return None
            inside += _CLASSES[name]
            at += len(name) + 4
            continue
        found = _character(text, at)
        if found is None:
            return None
        low, at = found
        high = low
        if text[at : at + 1] == "-" and text[at + 1 : at + 2] not in ("", "]"):
            found = _character(text, at + 1)
            if found is None:
                return None
            high, at = found
        inside += re.escape(low) if high <= low else f"{re.escape(low)}-{re.escape(high)}"
    return f"(?!/)[{'^' if negated else ''}{inside}]", at + 1


def _character(text: str, at: int) -> tuple[str, int] | None:
    """A character inside a class, perhaps escaped, and where the text goes on."""
    at += text[at : at + 1] == "\\"
    return (text[at], at + 1) if at < len(text) else None
