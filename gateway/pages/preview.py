"""Values and bytes as lines of HTML: IPLD data as an indented tree with links, and hexadecimal dumps."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from itertools import islice
from typing import Any

from gateway.addresses.request import encode_segment
from gateway.pages.frame import Links, visible
from merkledag.cid import CID

MAX_DEPTH = 64
LINES_A_PAGE = 1_000
DUMPED_BYTES = 4_096  # on one page
_SHOWN_BYTES = 96  # of a byte string
_SHOWN_CHARS = 4_096  # of a string
_ROW_BYTES = 16

# What is still to be written: the label and value of each item, what ends the container, and its address.
_Frame = tuple[Iterator[tuple[str, str, Any]], str, str | None]


def value_page(value: Any, links: Links, here: str | None, page: int) -> tuple[str, bool]:
    """One page of a value as HTML lines, and whether there are more.

    Links lead to the pages of their nodes. Keys lead to what is behind them under `here`, an escaped URL
    path; with None they lead nowhere.
    """
    start = (page - 1) * LINES_A_PAGE
    shown = list(islice(value_lines(value, links, here), start, start + LINES_A_PAGE + 1))
    return "\n".join(shown[:LINES_A_PAGE]), len(shown) > LINES_A_PAGE


def value_lines(value: Any, links: Links, here: str | None) -> Iterator[str]:
    """The lines of a value, made one by one."""
    stack: list[_Frame] = []
    label, comma = "", ""
    at: str | None = here
    while True:
        indent = "  " * len(stack)
        items = _items(value, at) if type(value) in (dict, list) and value else None
        if items is None:
            line = f"{indent}{label}{_leaf(value, links)}"
        elif len(stack) >= MAX_DEPTH:
            line = f"{indent}{label}…"
        else:
            begin, end = ("{", "}") if type(value) is dict else ("[", "]")
            yield f"{indent}{label}{begin}"
            stack.append((items, end, at))
            line = None
        while True:
            if not stack:
                if line is not None:
                    yield line
                return
            following = next(stack[-1][0], None)
            if line is not None:
                comma = "" if following is None else ","
                yield line + comma
                line = None
            if following is not None:
                label, at, value = following
                break
            _, end, _ = stack.pop()
            line = "  " * len(stack) + end


def _items(value: dict[str, Any] | list[Any], at: str | None) -> Iterator[tuple[str, Any, Any]]:
    pairs = value.items() if type(value) is dict else enumerate(value)
    for key, item in pairs:
        name = str(key)
        # No path leads through a name that is empty or a step of its own.
        below = (
            None
            if at is None or name in ("", ".", "..") or "/" in name
            else f"{at}/{escape(encode_segment(name))}"
        )
        shown = escape(visible(json.dumps(name, ensure_ascii=False))) if type(value) is dict else name
        if below is not None:
            shown = f'<a class="q" href="{below}?inspect=node">{shown}</a>'
        yield (f"{shown}: " if type(value) is dict or at is not None else ""), below, item


def _leaf(value: Any, links: Links) -> str:
    if isinstance(value, CID):
        return f'<a href="{links.inspect(str(value))}">{value}</a>'
    if isinstance(value, bytes):
        start = b64encode(value[:_SHOWN_BYTES]).decode().rstrip("=")
        return (
            f'<span class="t">bytes({len(value):,})</span> {start}{"…" if len(value) > _SHOWN_BYTES else ""}'
        )
    if isinstance(value, str):
        cut = f' <span class="t">… {len(value):,} characters</span>' if len(value) > _SHOWN_CHARS else ""
        return escape(visible(json.dumps(value[:_SHOWN_CHARS], ensure_ascii=False))) + cut
    return escape(json.dumps(value))


def dump_page(data: bytes, page: int) -> str:
    """The bytes of one page: where they lie, in hexadecimal, and as ASCII where they are."""
    first = (page - 1) * DUMPED_BYTES
    rows = []
    for start in range(first, min(first + DUMPED_BYTES, len(data)), _ROW_BYTES):
        row = data[start : start + _ROW_BYTES]
        plain = "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in row)
        rows.append(
            f'<span class="o">{start:08x}</span>  {row[:8].hex(" "):<23}  {row[8:].hex(" "):<23}  '
            f'<span class="t">{escape(plain)}</span>'
        )
    return "\n".join(rows)
