"""How a folder is to be listed: the query of its page, read leniently and written back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import translate
from urllib.parse import quote

ALL = 0  # `per` of one endless page
MAX_FILTER_CHARS = 256
HASH_CHARS = 16  # of a position in a HAMT, in hexadecimal
_MAX_PAGE = 1_000_000_000
_DIGITS = re.compile("([0-9]+)")
_MAX_DIGITS = 18
_ACCENTS = re.compile("[\u0300-\u036f]")


class Sort(Enum):
    """What a folder is sorted by; the value is its name in `?sort=`."""

    NAME = "name"
    SIZE = "size"
    TYPE = "type"
    MODIFIED = "modified"


# Large and new first: what people look for when they sort so.
_DESCENDS = (Sort.SIZE, Sort.MODIFIED)


@dataclass(frozen=True, slots=True)
class ListingQuery:
    """What of a folder is shown, and how.

    `per` is the number of entries a page, None for the gateway's own, `ALL` for one page. `after` is a
    position in a HAMT: the hash of the name after which the page begins; None = from the start.
    """

    sort: Sort = Sort.NAME
    descending: bool = False
    filter: str = ""
    page: int = 1
    per: int | None = None
    after: int | None = None
    grid: bool = False
    listed: bool = False  # list the folder although it has an index.html

    def url(self, **changes: object) -> str:
        """The same listing but for `changes`, as a relative address, escaped for HTML.

        Another order or filter begins at the first page again.
        """
        if changes.keys() & {"sort", "descending", "filter", "per"}:
            changes = {"page": 1, "after": None, **changes}
        return "?" + replace(self, **changes).query().replace("&", "&amp;")  # type: ignore[arg-type]

    def query(self) -> str:
        """As a query string in one form: nothing that is the default, so that equal pages have one name."""
        return "&".join(f"{key}={quote(value, safe='*')}" for key, value in self.fields())

    def fields(self) -> list[tuple[str, str]]:
        """The parameters that differ from the default."""
        fields = []
        if self.listed:
            fields.append(("inspect", "list"))
        if self.sort is not Sort.NAME or self.descending:
            fields.append(("sort", self.sort.value))
            fields.append(("order", "desc" if self.descending else "asc"))
        if self.filter:
            fields.append(("filter", self.filter))
        if self.grid:
            fields.append(("view", "grid"))
        if self.per is not None:
            fields.append(("per", "all" if self.per == ALL else str(self.per)))
        if self.page > 1:
            fields.append(("page", str(self.page)))
        if self.after is not None:
            fields.append(("after", f"{self.after:0{HASH_CHARS}x}"))
        return fields

    def sorted_by(self, sort: Sort) -> str:
        """The address that sorts by `sort`, or turns the order round if that is the order already."""
        descending = not self.descending if sort is self.sort else sort in _DESCENDS
        return self.url(sort=sort, descending=descending)


def read_listing_query(query: Mapping[str, str], max_per: int) -> ListingQuery:
    """Parameters that make no sense count as absent: an address typed by hand still shows the folder."""
    sort = next((each for each in Sort if each.value == query.get("sort")), Sort.NAME)
    order = query.get("order")
    descending = order == "desc" if order in ("asc", "desc") else sort in _DESCENDS
    per = ALL if query.get("per") == "all" else positive_number(query.get("per"), max_per)
    after = query.get("after", "")
    position = int(after, 16) if re.fullmatch(rf"[0-9a-f]{{{HASH_CHARS}}}", after) else None
    return ListingQuery(
        sort=sort,
        descending=descending,
        filter=query.get("filter", "")[:MAX_FILTER_CHARS].encode("utf-8", "replace").decode(),
        page=positive_number(query.get("page"), _MAX_PAGE) or 1,
        per=per,
        after=position,
        grid=query.get("view") == "grid",
        listed=query.get("inspect") == "list",
    )


def positive_number(text: str | None, most: int) -> int | None:
    """A positive number of at most `most`; None for anything else."""
    if not text or not text.isascii() or not text.isdecimal() or len(text) > len(str(_MAX_PAGE)):
        return None
    return min(int(text), most) or None


def matcher(filter_: str) -> Callable[[str], bool]:
    """Whether a name passes: a part of it in any case, or the whole of it for patterns with `*` or `?`."""
    wanted = _folded(filter_)
    if "*" in wanted or "?" in wanted:
        # Of a pattern only `*` and `?` have a meaning: names hold brackets more often than people mean sets.
        pattern = re.compile(translate(wanted.replace("[", "[[]")), re.DOTALL)
        return lambda name: pattern.match(_folded(name)) is not None
    return lambda name: wanted in _folded(name)


def _folded(name: str) -> str:
    """Names that look the same are the same, however their accents are written."""
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _plain_letters(name: str) -> str:
    """Without accents, however they are written: `é` beside `e`."""
    return name if name.isascii() else _ACCENTS.sub("", unicodedata.normalize("NFD", name))


def natural(name: str) -> tuple[object, ...]:
    """A key that sorts names as people do: case and accents count for nothing, `file2` is before `file10`."""
    parts: list[object] = list(_DIGITS.split(_plain_letters(name.casefold())))
    for at in range(1, len(parts), 2):
        digits = str(parts[at])
        parts[at] = int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS
    return (*parts, name)
