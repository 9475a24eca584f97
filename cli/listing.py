"""What `holdfast ls` shows of a folder: rows with kinds, sizes and metadata, sorted or as they are found."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cli.output import printable
from merkledag.codecs import RAW
from merkledag.errors import MerkledagError
from merkledag.reader import Entry, NodeStat, entries
from merkledag.reader import stat as stat_node

if TYPE_CHECKING:
    from cli.reading import Reader
    from merkledag.cid import CID
    from merkledag.unixfs import Mtime

AHEAD: Final = 16  # entries that are looked into in advance
MAX_SEEN: Final = 256  # nodes that need not be looked into again
SIX_MONTHS_S: Final = 183 * 86_400
DAY_S: Final = 86_400
_SI_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_TYPES: Final = {"directory": "d", "symlink": "l"}


class Columns(NamedTuple):
    """Which columns a listing has; `resolve` looks into entries for their kinds."""

    resolve: bool = True
    size: bool = True
    long: bool = False
    human: bool = False

    @property
    def looks(self) -> bool:
        """Whether entries have to be looked into."""
        return self.resolve or self.size or self.long

    def heading(self) -> str:
        """The names of the columns."""
        names = (
            "Mode" if self.long else "",
            "Hash",
            "Size" if self.size else "",
            "ModTime" if self.long else "",
        )
        return " ".join([name for name in names if name] + ["Name"])


class Row(NamedTuple):
    """One entry; `stat` is None where it was not looked into or its block is not here.

    `fault` says what is wrong with a block that is here.
    """

    name: str
    cid: CID
    stat: NodeStat | None
    fault: str = ""

    @property
    def size_bytes(self) -> int:
        """Content of a file, for sorting; folders count as 0."""
        return 0 if self.stat is None or self.stat.kind == "directory" else self.stat.size_bytes

    def document(self) -> dict[str, Any]:
        """The row for machines."""
        facts = self.stat
        return {
            "name": self.name,
            "cid": str(self.cid),
            "kind": None if facts is None else facts.kind,
            "size_bytes": None if facts is None else facts.size_bytes,
            "mode": None if facts is None or facts.mode is None else f"{facts.mode:04o}",
            "mtime": None if facts is None or facts.mtime is None else facts.mtime.decimal,
            "target": None if facts is None else facts.target,
        }

    def line(self, columns: Columns) -> str:
        """The row for people: mode, CID, size, time and name, as far as they are asked for."""
        facts = self.stat
        is_folder = facts is not None and facts.kind == "directory"
        parts = [str(self.cid)]
        if columns.long:
            parts.insert(0, f"{'-' if facts is None else mode_letters(facts):10}")
        if columns.size:
            size = "-" if facts is None or is_folder else str(facts.size_bytes)
            parts.append(si_text(facts.size_bytes) if columns.human and facts and not is_folder else size)
        if columns.long:
            when = None if facts is None else facts.mtime
            parts.append(f"{'-' if when is None else short_time(when):12}")
        return " ".join([*parts, printable(self.name) + ("/" if is_folder else "")]).rstrip()


def rows(reader: Reader, cid: CID, columns: Columns) -> Iterator[Row]:
    """The entries of a folder in its own order; those of a HAMT come as its shards are read."""
    listing: Iterator[Entry] = reader.iterate(entries(cid))
    if not columns.looks:
        for entry in listing:
            yield Row(entry.name, entry.cid, None)
        return
    waiting: deque[Entry] = deque()
    seen: dict[CID, tuple[NodeStat | None, str]] = {}  # a folder may hold one large node many times
    for entry in listing:
        reader.announce((entry.cid,))
        waiting.append(entry)
        if len(waiting) > AHEAD:
            yield _row(reader, waiting.popleft(), seen)
    for entry in waiting:
        yield _row(reader, entry, seen)


def _row(reader: Reader, entry: Entry, seen: dict[CID, tuple[NodeStat | None, str]]) -> Row:
    """A row with what the entry's root block says; a raw block's size is what the folder declares."""
    name, cid, tsize = entry
    if cid.codec == RAW and tsize is not None:
        return Row(name, cid, NodeStat(cid, "raw", tsize, tsize))
    found = seen.get(cid)
    if found is None:
        if len(seen) >= MAX_SEEN:
            seen.clear()
        found = seen[cid] = _look(reader, cid)
    return Row(name, cid, *found)


def _look(reader: Reader, cid: CID) -> tuple[NodeStat | None, str]:
    try:
        return reader.run(stat_node(cid)), ""
    except LookupError:
        return None, ""
    except MerkledagError as error:
        return None, str(error)


def in_order(found: Iterable[Row], *, by_size: bool) -> list[Row]:
    """Sorted by name (bytes, as in kubo), or by size with the largest first."""
    by_name = sorted(found, key=lambda row: row.name.encode("utf-8", "surrogateescape"))
    return sorted(by_name, key=lambda row: -row.size_bytes) if by_size else by_name


def mode_letters(facts: NodeStat) -> str:
    """`-rw-r--r--`; `-` for a node that has no mode."""
    mode = facts.mode
    if mode is None:
        return "-"
    letters = [letter if mode >> 8 - at & 1 else "-" for at, letter in enumerate("rwxrwxrwx")]
    for bit, at, with_x, without in ((0o4000, 2, "s", "S"), (0o2000, 5, "s", "S"), (0o1000, 8, "t", "T")):
        if mode & bit:
            letters[at] = with_x if letters[at] == "x" else without
    return _TYPES.get(facts.kind, "-") + "".join(letters)


def short_time(when: Mtime, now_s: float | None = None) -> str:
    """`Jan 02 15:04` within the last six months, else `Jan 02  2006`; UTC."""
    now_s = time.time() if now_s is None else now_s
    try:
        moment = time.gmtime(when.seconds)
    except (OverflowError, ValueError, OSError):
        return when.decimal
    day = f"{_MONTHS[moment.tm_mon - 1]} {moment.tm_mday:02d}"
    if now_s - SIX_MONTHS_S < when.seconds < now_s + DAY_S:
        return f"{day} {moment.tm_hour:02d}:{moment.tm_min:02d}"
    return f"{day}  {moment.tm_year}"


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def si_text(size_bytes: int) -> str:
    """`1.2 MB`: a size for people in decimal units, as kubo's `ls --human` has it."""
    unit = 0
    size = float(size_bytes)
    while size >= 1000 and unit < len(_SI_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.1f} {_SI_UNITS[unit]}" if 0 < size < 10 and unit else f"{size:.0f} {_SI_UNITS[unit]}"
