"""A folder's README as HTML: Markdown without raw HTML, its links kept inside the content."""

from __future__ import annotations

import asyncio
import posixpath
import re
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from gateway.addresses.request import encode_segment
from gateway.pages.frame import visible

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# Names, the first of them that a folder has counts.
NAMES = ("README.md", "readme.md", "Readme.md", "README.markdown", "README.txt", "readme.txt", "README")
MAX_BYTES = 128 * 1024
# Markdown is parsed for at most about 0.3 s: what has more of these is shown as it is written.
_MAX_BRACKETS = 4_000
_MAX_MARKS = 16_000
_MAX_LINES = 6_000
_MAX_CELLS = 20_000  # lines by the pipes of the line that has most
_MARKS = "[*_~`<!|&\\#"
_MAX_NESTING = 20
_LINK_SCHEMES = frozenset({"http", "https", "mailto", "ipfs", "ipns", "magnet"})
_SLUG_DROPS = re.compile(r"[^\w\- ]+")
_ANCHOR = "readme-"  # so that no heading takes an id of the page's own


# One at a time: threads take the interpreter from each other, and from the one that serves.
_RENDERING = ThreadPoolExecutor(max_workers=1, thread_name_prefix="readme")


async def rendered(data: bytes, name: str, base: str, segments: tuple[str, ...]) -> str:
    """As `render`, in a thread, after those that were asked for before."""
    return await asyncio.get_running_loop().run_in_executor(_RENDERING, render, data, name, base, segments)


@lru_cache(maxsize=32)
def render(data: bytes, name: str, base: str, segments: tuple[str, ...]) -> str:
    """The HTML of a README called `name`.

    `base` is the URL path of the content's root, `segments` the folder below it: relative links are resolved
    there and may not leave the root. Markdown that is too intricate is shown as it is written.
    """
    lines = data.decode("utf-8", "replace").removeprefix("\ufeff").splitlines()
    source = "\n".join(visible(line.expandtabs(4)) for line in lines)
    if name.lower().endswith((".md", ".markdown")):
        rendered = _markdown(source, base, segments)
        if rendered is not None:
            return f'<div class="md">{rendered}</div>'
    return f"<pre>{escape(source)}</pre>"


def _markdown(source: str, base: str, segments: tuple[str, ...]) -> str | None:
    if _is_intricate(source):
        return None
    parser = _parser()
    tokens = parser.parse(source)
    slugs: dict[str, int] = {}
    for at, token in enumerate(tokens):
        if token.type in ("heading_open", "heading_close"):
            # The page has a first heading, and the README's name is the second.
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
            if token.type == "heading_open":
                token.attrSet("id", _ANCHOR + _slug(tokens[at + 1].content, slugs))
        if token.children:
            token.children = _inline(token.children, base, segments)
    return str(parser.renderer.render(tokens, parser.options, {}))


def _is_intricate(source: str) -> bool:
    lines = source.splitlines()
    return (
        len(lines) > _MAX_LINES
        or source.count("[") > _MAX_BRACKETS
        or sum(map(source.count, _MARKS)) > _MAX_MARKS
        or len(lines) * max((line.count("|") for line in lines), default=0) > _MAX_CELLS
    )


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # 40 ms, for the first README only

    options = {"html": False, "maxNesting": _MAX_NESTING}
    return MarkdownIt("commonmark", options).enable(["table", "strikethrough"])


def _inline(tokens: list[Token], base: str, segments: tuple[str, ...]) -> list[Token]:
    for token in tokens:
        if token.type == "link_open":
            href = str(token.attrGet("href") or "")
            token.attrSet("href", resolve_link(href, base, segments) or "#")
            if urlsplit(href).scheme:
                token.attrSet("rel", "noreferrer noopener nofollow")
        elif token.type == "image":
            source = str(token.attrGet("src") or "")
            inside = None if urlsplit(source).scheme or source.startswith("//") else source
            target = None if inside is None else resolve_link(inside, base, segments)
            if target is None:
                # A picture from elsewhere would tell that server who reads this.
                token.type, token.tag = "text", ""
                token.content = f"[{token.content or 'image'}]"
                token.children = None
            else:
                token.attrSet("src", target)
                token.attrSet("loading", "lazy")
    return tokens


def resolve_link(href: str, base: str, segments: tuple[str, ...]) -> str | None:
    """Where a link of a README leads, as an address; None for what must not be linked."""
    try:
        parts = urlsplit(href)
    except ValueError:
        return None
    if parts.scheme:
        return href if parts.scheme in _LINK_SCHEMES else None
    if href.startswith(("//", "\\", "/\\")):
        return None
    if not parts.path:
        return (
            f"#{_ANCHOR}{parts.fragment.casefold()}"
            if parts.fragment and not parts.query
            else f"?{parts.query}"
        )
    path = unquote_to_bytes(parts.path.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
    # Above the root there is nothing of this content: `..` stops there.
    joined = posixpath.normpath(posixpath.join("/", *segments, "x", "..", path))
    names = [encode_segment(name) for name in joined.split("/") if name]
    slash = "/" if path.endswith("/") and names else ""
    tail = (f"?{parts.query}" if parts.query else "") + (f"#{parts.fragment}" if parts.fragment else "")
    return f"{base}/{'/'.join(names)}{slash}{tail}"


def _slug(title: str, seen: dict[str, int]) -> str:
    """The anchor of a heading, made as code forges make it, so that tables of contents work."""
    slug = _SLUG_DROPS.sub("", title.casefold()).strip().replace(" ", "-")
    number = seen.get(slug, 0)
    seen[slug] = number + 1
    return f"{slug}-{number}" if number else slug
