"""The HTML of a folder's page: facts, filter, table or pictures, ways to the other pages, README."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from gateway.addresses.request import ContentRequest, encode_segment
from gateway.formats import mime
from gateway.pages.frame import (
    KIND_LABELS,
    Links,
    copy_button,
    human_size,
    icon,
    key_help,
    kind_icon,
    mode_text,
    page_end,
    page_start,
    short_cid,
    text,
    time_tag,
)
from gateway.pages.listing import Facts, Item, Page
from gateway.pages.listing_query import ALL, MAX_FILTER_CHARS, ListingQuery, Sort
from merkledag.cid import CID
from merkledag.hamt import HASH_BITS
from merkledag.reader import NodeStat

# Pictures up to these sizes are shown as they are; the browser loads those that come into view.
THUMBNAIL_BYTES = 256 * 1024  # in the list
PICTURE_BYTES = 8 * 1024 * 1024  # in the grid
_PICTURES = frozenset(
    f"image/{kind}" for kind in ("apng", "avif", "bmp", "gif", "jpeg", "png", "svg+xml", "webp", "x-icon")
)
_SIGNS = {key: kind_icon(key) for key in KIND_LABELS}
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch  # names that are the same in HTML and in URLs
_LAZILY = 'loading="lazy" decoding="async"'
_JUMPS = 10

_KEYS = (
    ("j k ↓ ↑", "next and previous entry"),
    ("Enter", "open it"),
    ("c", "copy its CID"),
    ("/", "filter by name"),
    ("Esc", "leave the filter"),
    ("u Backspace", "folder above"),
    ("n p", "next and previous page"),
    ("g", "list or pictures"),
    ("i", "inspect the entry's node, or the folder's"),
)


class ListingPage:
    """Makes the parts of one folder's page, each of them HTML, in the order of the methods."""

    def __init__(self, asked: ContentRequest, cid: CID, facts: NodeStat, query: ListingQuery) -> None:
        self._asked = asked
        self._cid = cid
        self._facts = facts
        self._query = query
        self._links = Links(asked)
        self._base = escape(asked.url_path)
        self._has_times = self._has_modes = False

    def start(self, page: Page) -> str:
        """Up to the first entry."""
        asked, query = self._asked, self._query
        self._has_times = any(item.facts is not None and item.facts.mtime is not None for item in page.items)
        self._has_modes = any(item.facts is not None and item.facts.mode is not None for item in page.items)
        if asked.segments:
            name = asked.segments[-1]
        else:
            name = short_cid(asked.root) if asked.namespace == "ipfs" else asked.root
        parts = [
            page_start(f"Index of {asked.content_path}", f"Index of {name}", self._links.breadcrumbs()),
            self._facts_html(page),
            self._actions(),
            self._bar(page),
            self._notes(page),
        ]
        empty = not page.items and not page.streamed
        parts.append('<div class="card">')
        if query.grid and not empty:
            parts.append('<ul class="grid">')
        else:
            parts.append(self._head())
        if page.exact is not None:
            parts.append(self.rows([page.exact]))
        return "".join(parts)

    def rows(self, items: Iterable[Item]) -> str:
        """Entries."""
        make = self._tile if self._query.grid else self._row
        return "".join(map(make, items))

    def end_of_entries(self, page: Page) -> str:
        """What follows the last entry: what to do where there is none, and ways to the other pages."""
        nothing = not page.items and not page.streamed and page.exact is None
        end = "</ul>" if self._query.grid and (page.items or page.streamed) else "</tbody></table>"
        if nothing:
            end += f'<p class="empty">{self._nothing(page)}</p>'
        return f"{end}</div>{self._pager(page)}"

    def end(self, note: str = "") -> str:
        """The end of the page; `note` is text."""
        lines = [f"<p>{escape(note)}</p>"] if note else []
        looked = "" if self._has_times or self._has_modes else " Sizes are those of the stored blocks."
        lines.append(f"<p>Times are in UTC.{looked} Served by Holdfast.</p>" if self._has_times else
                     f"<p>{looked} Served by Holdfast.</p>")  # fmt: skip
        return page_end("".join(lines) + key_help(*_KEYS))

    def _facts_html(self, page: Page) -> str:
        cid, facts = str(self._cid), self._facts
        if page.all_entries is not None:
            count = f"<b>{page.all_entries:,} {'entry' if page.all_entries == 1 else 'entries'}</b>"
        elif page.estimate is not None:
            count = f"<span>about <b>{rounded(page.estimate):,} entries</b></span>"
        else:
            count = "<b>a large folder</b>"
        items = [
            count,
            f'<span title="What the links declare"><b>{human_size(facts.size_bytes)}</b> in all</span>',
            f'<code title="{cid}" translate="no">{short_cid(cid)}</code>'
            + copy_button(cid, "Copy the CID of this folder"),
        ]
        if page.pages > 1:
            items.append(f"page {page.page:,} of {page.pages:,}")
        if facts.mtime is not None:
            items.append(f"modified {time_tag(facts.mtime)}")
        if facts.mode is not None:
            items.append(f'<span class="mono">{mode_text(facts.mode, "d")}</span>')
        return f'<ul class="facts">{"".join(f"<li>{item}</li>" for item in items)}</ul>'

    def _actions(self) -> str:
        here = f"{self._base}/"
        downloads = (
            ("tar", "TAR", "as TAR"),
            ("car", "CAR", "all blocks as CAR"),
            ("raw", "Raw block", "the block"),
        )
        links = "".join(
            f'<a class="btn" href="{here}?format={format_}" title="Download {what}">{icon("s")}{label}</a>'
            for format_, label, what in downloads
        )
        inspect = f'<a class="btn" data-key="i" href="{here}?inspect=node">{icon("n")}Inspect</a>'
        return f'<div class="acts">{links}{inspect}</div>'

    def _bar(self, page: Page) -> str:
        query = self._query
        hidden = "".join(
            f'<input type="hidden" name="{key}" value="{escape(value)}">'
            for key, value in query.fields()
            if key not in ("filter", "page", "after")
        )
        clear = f'<a class="btn" href="{query.url(filter="")}">Clear</a>' if query.filter else ""
        form = (
            f'<form class="find" role="search" method="get" action="{self._base}/">{hidden}'
            f'<input type="search" name="filter" data-find value="{escape(query.filter)}" '
            f'maxlength="{MAX_FILTER_CHARS}" aria-label="Filter by name" placeholder="Filter, or *.jpg" '
            'autocomplete="off" spellcheck="false"><button class="btn">Filter</button>'
            f"{clear}</form>"
        )
        sort = self._sort_links() if query.grid else ""
        return f'<div class="bar">{form}{sort}{_choice(query)}</div>'

    def _sort_links(self) -> str:
        parts = []
        for sort, label in ((Sort.NAME, "Name"), (Sort.TYPE, "Type"), (Sort.SIZE, "Size")):
            if sort is self._query.sort:
                current, mark = ' aria-current="true"', self._arrow()
            else:
                current = mark = ""
            parts.append(f'<a href="{self._query.sorted_by(sort)}"{current}>{label}{mark}</a>')
        return f'<div class="seg" role="group" aria-label="Sort by">{"".join(parts)}</div>'

    def _notes(self, page: Page) -> str:
        notes = []
        if page.total is not None and self._query.filter:
            notes.append(f"{page.total:,} of {page.all_entries:,} names match.")
        if not page.ordered and page.streamed:
            notes.append(
                "This folder is too large to be sorted: its entries come in the order they are stored in."
            )
        elif not page.ordered and page.total is not None:
            notes.append(
                "This folder is too large to be sorted: its entries are in the order they are stored in."
            )
        elif page.exact is not None:
            notes.append("This is the entry of exactly that name.")
        elif not page.ordered and self._query.filter:
            notes.append(
                f"Looked at {page.scanned:,} of about {rounded(page.estimate or 0):,} names, "
                f"{'and found' if page.items else 'but found'} {len(page.items):,}. "
                + ("Go on with the next stretch, below." if page.ends is not None else "That was all.")
            )
        elif page.hasty:
            notes.append(
                "This folder is still being fetched. These are the entries that came in time, sorted among "
                "themselves; load the page again for more."
            )
        elif not page.ordered:
            notes.append(
                "This folder is too large to be sorted as a whole: each page is a stretch of it, sorted in "
                "itself. A name typed whole into the filter is found at once."
            )
        return "".join(f'<p class="note">{note}</p>' for note in notes)

    def _head(self) -> str:
        query = self._query

        def column(css: str, sort: Sort, label: str) -> str:
            current = sort is query.sort
            state = f' aria-sort="{"descending" if query.descending else "ascending"}"' if current else ""
            mark = self._arrow() if current else ""
            link = f'<a href="{query.sorted_by(sort)}">{label}{mark}</a>'
            return f'<th scope="col" class="{css}"{state}>{link}</th>'

        kind = '<span class="vh">Sort by type</span><span aria-hidden="true" title="Sort by type">Type</span>'
        head = (
            column("k", Sort.TYPE, kind)
            + column("n", Sort.NAME, "Name")
            + (column("m", Sort.MODIFIED, "Modified") if self._has_times else "")
            + ('<th scope="col" class="p">Mode</th>' if self._has_modes else "")
            + '<th scope="col" class="c">CID</th>'
            + column("s", Sort.SIZE, "Size")
        )
        up = ""
        if self._asked.segments:
            extra = '<td class="m"></td>' * self._has_times + '<td class="p"></td>' * self._has_modes
            up = (
                f'<tr><td class="k">{icon("u")}</td>'
                f'<td class="n" data-key="u"><a href="{self._base}/..">..</a></td>'
                f'{extra}<td class="c"></td><td class="s"></td></tr>'
            )
        return (
            f'<table class="list"><caption class="vh">Entries of this folder</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{up}"
        )

    def _arrow(self) -> str:
        return f' <span aria-hidden="true">{"↓" if self._query.descending else "↑"}</span>'

    def _address(self, name: str, cid: str) -> tuple[str, str]:
        """Where an entry's name leads (by CID if no path can name it), and the name encoded; both escaped."""
        encoded = name if _PLAIN(name) else escape(encode_segment(name))
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            return f"{escape(self._links.host)}/ipfs/{cid}", encoded
        return f"{self._base}/{encoded}", encoded

    def _row(self, item: Item) -> str:
        name, cid, _ = item.entry
        facts, size, kind = item.facts, item.size_bytes, item.icon
        cid_text = str(cid)
        href, encoded = self._address(name, cid_text)
        if kind == "i" and size is not None and size <= THUMBNAIL_BYTES and is_picture(name):
            sign = f'<img class="th" src="{href}" alt="Image" {_LAZILY} width="28" height="28">'
        else:
            sign = _SIGNS[kind]
        more = self._facts_of(facts, kind) if self._has_times or self._has_modes else ""
        target = ""
        if facts is not None and facts.target is not None:
            target = f' <span class="soft">→ <bdi>{text(facts.target)}</bdi></span>'
        return (
            f'<tr><td class="k">{sign}</td>'
            f'<td class="n"><bdi><a href="{href}">{_shown(name)}</a></bdi>{target}</td>{more}'
            f'<td class="c">{self._links.by_cid(cid_text, encoded)}{short_cid(cid_text)}</a>'
            f'{copy_button(cid_text)}</td><td class="s">{"" if size is None else human_size(size)}</td></tr>'
        )

    def _facts_of(self, facts: Facts | None, kind: str) -> str:
        """The cells of modification time and mode, where the page has them."""
        mtime = None if facts is None else facts.mtime
        mode = None if facts is None else facts.mode
        cells = f'<td class="m">{"" if mtime is None else time_tag(mtime)}</td>' if self._has_times else ""
        if self._has_modes:
            first = kind if kind in ("d", "l") else "-"
            cells += f'<td class="p">{"" if mode is None else mode_text(mode, first)}</td>'
        return cells

    def _tile(self, item: Item) -> str:
        name, cid = item.entry.name, str(item.entry.cid)
        size, kind = item.size_bytes, item.icon
        href, _ = self._address(name, cid)
        if kind == "i" and (size is None or size <= PICTURE_BYTES) and is_picture(name):
            sign = f'<img src="{href}" alt="" {_LAZILY} width="320" height="240">'
        else:
            sign = _SIGNS[kind]
        return (
            f'<li class="tile"><a href="{href}"><span class="pic">{sign}</span>'
            f'<span class="cap"><bdi>{_shown(name)}</bdi></span></a>'
            f'<span class="sub">{"" if size is None else human_size(size)}{copy_button(cid)}</span></li>'
        )

    def _nothing(self, page: Page) -> str:
        if page.begins:
            return (
                "No name in this stretch matches."
                if self._query.filter
                else "Nothing comes behind this place."
            )
        if not self._query.filter:
            return "This folder is empty."
        if page.ends is not None:
            return "No name in this stretch matches."
        show_all = f'<a href="{self._query.url(filter="")}">Show all</a>'
        return f"No name matches <b><bdi>{text(self._query.filter)}</bdi></b>. {show_all}"

    def _pager(self, page: Page) -> str:
        query, parts = self._query, []
        if page.total is not None and page.pages > 1:
            for number in _pages_near(page.page, page.pages):
                if number is None:
                    parts.append("<span>…</span>")
                elif number == page.page:
                    parts.append(f'<b aria-current="page">{number:,}</b>')
                else:
                    parts.append(f'<a href="{query.url(page=number)}">{number:,}</a>')
            before = f'<a class="btn" data-key="p" href="{query.url(page=page.page - 1)}">← Previous</a>'
            after = f'<a class="btn" data-key="n" href="{query.url(page=page.page + 1)}">Next →</a>'
            numbers = f'<div class="seg">{"".join(parts)}</div>'
            per = len(page.items)
            inner = (
                (before if page.page > 1 else "")
                + numbers
                + (after if page.page < page.pages else "")
                + f'<span class="sp">{per:,} on this page</span>'
                + (f'<a href="{query.url(per=ALL)}">All on one page</a>' if page.ordered else "")
            )
            return f'<nav class="pager" aria-label="Pages">{inner}</nav>'
        if page.ordered or page.streamed or page.total is not None:
            return ""
        return self._stretches(page)

    def _stretches(self, page: Page) -> str:
        """The way on through a large HAMT, and jumps to any part of it."""
        query, whole = self._query, 1 << HASH_BITS
        here = page.begins * _JUMPS // whole
        jumps = []
        for tenth in range(_JUMPS):
            href = query.url(after=None if tenth == 0 else tenth * whole // _JUMPS - 1)
            label = f"{tenth * 100 // _JUMPS} %"
            jumps.append(f"<b>{label}</b>" if tenth == here else f'<a href="{href}">{label}</a>')
        onward = ""
        if page.ends is not None:
            word = (
                "Look for others" if page.exact is not None else "Go on looking" if query.filter else "Next"
            )
            href = query.url(after=page.ends)
            onward = f'<a class="btn main" data-key="n" rel="next" href="{href}">{word} →</a>'
        first = "" if query.after is None else f'<a class="btn" href="{query.url(after=None)}">← Start</a>'
        return (
            f'<nav class="pager" aria-label="Parts of the folder">{first}{onward}'
            f'<span class="sp">Jump to</span><div class="seg">{"".join(jumps)}</div></nav>'
        )


def _shown(name: str) -> str:
    return name if _PLAIN(name) else text(name) or "(no name)"


def _choice(query: ListingQuery) -> str:
    """List or pictures."""
    other = query.url(grid=not query.grid)
    link = f'<a data-key="g" href="{other}">{"List" if query.grid else "Pictures"}</a>'
    current = f'<b aria-current="true">{"Pictures" if query.grid else "List"}</b>'
    parts = link + current if query.grid else current + link
    return f'<div class="seg" role="group" aria-label="View">{parts}</div>'


def _pages_near(page: int, pages: int) -> list[int | None]:
    """The first, the last and the pages around this one; None where some are left out."""
    shown = sorted({1, pages, *range(max(1, page - 2), min(pages, page + 2) + 1)})
    result: list[int | None] = []
    for number in shown:
        if result and result[-1] is not None and number > result[-1] + 1:
            result.append(None)
        result.append(number)
    return result


def rounded(number: int) -> int:
    """An estimate with two digits that mean something."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return int(round(number / unit) * unit)


def is_picture(name: str) -> bool:
    """Whether browsers show a file of this name in `<img>`."""
    return mime.by_name(name) in _PICTURES
