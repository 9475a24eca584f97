"""Content-Disposition: whether to show or to save, and under which name (RFC 6266, RFC 8187)."""

from __future__ import annotations

from urllib.parse import quote

_MAX_NAME_CHARS = 255


def disposition(kind: str, filename: str | None) -> str:
    """`kind` is `inline` or `attachment`. A name that is not plain ASCII is given twice, for old readers."""
    if not filename:
        return kind
    name = filename[:_MAX_NAME_CHARS]
    plain = "".join(_plain(char) for char in name)
    header = f'{kind}; filename="{plain}"'
    if plain != name:
        exact = "".join(_harmless(char) for char in name)
        encoded = quote(exact.encode("utf-8", "replace"), safe="!#$&+-.^_`|~")
        header += f"; filename*=UTF-8''{encoded}"
    return header


def _plain(char: str) -> str:
    """Header-safe ASCII: no quote, backslash, path separator or control character."""
    if not "\x20" <= char < "\x7f" or char in '"\\/':
        return "_"
    return char


def _harmless(char: str) -> str:
    """Any character but those that would lead elsewhere: path separators and controls."""
    return "_" if char in "\\/" or char < "\x20" or "\x7f" <= char < "\xa0" else char
