"""Whether a file's pages are what they must be, told without LMDB; and which keys damaged ones may have held.

Every page that the newest transaction uses is looked at, but for the bytes of long values: numbers, bounds,
order and range of keys, depth, the number of entries, that no page is used twice or free at the same time.
Memory is bounded by bitmaps: six bits for every page of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from storage_node.blockstore.pages import (
    MAX_DEPTH,
    NO_PAGE,
    Big,
    Damage,
    KeyOrder,
    Leaf,
    MetaPage,
    PageFile,
    Tree,
    check_branch,
    check_leaf,
)

MAX_LISTED = 100  # damaged pages that are described; all are counted
LOOKS = 16  # at a file that others write to meanwhile

_COUNT = struct.Struct("=Q")
_FREE_AT_ONCE = 8192  # page numbers


class KeyRange(NamedTuple):
    """Keys from `first` on, before `end`; None is no end."""

    first: bytes
    end: bytes | None

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self.first <= key and (self.end is None or key < self.end)


EVERYTHING = KeyRange(b"", None)


class Bitmap:
    """A set of page numbers."""

    __slots__ = ("_bits",)

    def __init__(self, pages: int) -> None:
        self._bits = bytearray(pages // 8 + 1)

    def __contains__(self, page: int) -> bool:
        return page >> 3 < len(self._bits) and bool(self._bits[page >> 3] >> (page & 7) & 1)

    def add(self, page: int) -> None:
        self._bits[page >> 3] |= 1 << (page & 7)

    def __iter__(self) -> Iterator[int]:
        for at, byte in enumerate(self._bits):
            if byte:
                yield from (at * 8 + bit for bit in range(8) if byte >> bit & 1)


@dataclass(slots=True)
class Survey:
    """What a look at every page of a file found.

    `lost` are ranges of keys that the damage may have taken, in order; `leaves` the intact leaves that the
    newest transaction is known to use, `broken` the leaves that it uses and that are damaged, `used` all
    pages that it is known to use. If `is_certain`, pages that are neither used nor `free` hold what damage
    has cut off, as it was at last; otherwise they may hold anything.
    """

    meta: MetaPage | None
    used: Bitmap
    leaves: Bitmap
    free: Bitmap
    free_lists: list[tuple[int, bytes | Big]] = field(default_factory=list)  # by transaction
    broken: list[int] = field(default_factory=list)
    lost: list[KeyRange] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    damaged: int = 0
    entries: int = 0
    is_certain: bool = True
    knows_newest: bool = True

    def note(self, text: str) -> None:
        """Something is not as it must be."""
        self.damaged += 1
        if len(self.damage) < MAX_LISTED:
            self.damage.append(text)

    def lose(self, keys: KeyRange) -> None:
        """Keys, behind all that were lost before, that may have been in a damaged page."""
        if self.lost and self.lost[-1].end == keys.first:
            keys = KeyRange(self.lost.pop().first, keys.end)
        self.lost.append(keys)

    def may_have_lost(self, key: bytes) -> bool:
        """Whether a key is in a range that was lost."""
        low, high = 0, len(self.lost)
        while low < high:
            middle = (low + high) // 2
            if self.lost[middle].first <= key:
                low = middle + 1
            else:
                high = middle
        return low > 0 and key in self.lost[low - 1]

    def has_lost_of(self, keys: KeyRange) -> bool:
        """Whether some key of a range may have been lost."""
        return any(
            (keys.end is None or lost.first < keys.end) and (lost.end is None or keys.first < lost.end)
            for lost in self.lost
        )


def survey(file: PageFile) -> Survey:
    """Look at every page in use. Nobody may write to the file meanwhile, else see `survey_in_use`."""
    newest = file.newest
    found = Survey(newest, Bitmap(file.pages), Bitmap(file.pages), Bitmap(file.pages))
    if newest is None:
        found.note("pages 0 and 1: both are damaged")
    elif not file.has_both_metas:
        found.note(f"page {1 - newest.txn % 2}: damaged, so that the last transaction is not known")
    found.knows_newest = newest is not None and file.has_both_metas
    found.is_certain = found.knows_newest
    if newest is not None:
        _look_at_free(file, found, newest.free)
        _Walk(file, found, newest.main, bytes, found.leaves, found.lose).run()
        if found.entries != newest.main.entries and not found.lost:
            found.note(f"the tree has {found.entries} entries, {newest.main.entries} are counted")
            found.knows_newest = found.is_certain = False
    if not found.knows_newest:
        found.lost = [EVERYTHING]
    return found


def survey_in_use(file: PageFile) -> Survey:
    """As `survey`, of a file that others may write to: damage counts if no transaction came meanwhile."""
    for _ in range(LOOKS):
        file.refresh()
        found = survey(file)
        before = found.meta
        file.refresh()
        if not found.damaged or file.newest == before:
            break
    return found


def free_pages(file: PageFile, found: Survey) -> Iterator[int]:
    """Pages that no transaction uses, those first that were in use last."""
    for _, value in sorted(found.free_lists, key=lambda each: each[0], reverse=True):
        try:
            yield from _pages_of(file, value)
        except Damage:
            continue


# --- LMDB's own tree: which pages are free ---


def _look_at_free(file: PageFile, found: Survey, tree: Tree) -> None:
    lists: list[tuple[int, bytes | Big]] = []

    def lost(_: KeyRange) -> None:
        found.is_certain = False

    def take(entries: list[Leaf]) -> None:
        lists.extend((_integer(entry.key), entry.value) for entry in entries)

    _Walk(file, found, tree, _integer, Bitmap(0), lost, take).run()
    found.free_lists = lists
    for txn, value in lists:
        try:
            for page in _pages_of(file, value):
                if page in found.used or page in found.free:
                    raise Damage(f"name page {page}, which is in use or free already")
                if page >= file.pages:
                    continue  # LMDB need not have written it
                found.free.add(page)
        except Damage as damage:
            found.note(f"the pages freed by transaction {txn} {damage}")
            found.is_certain = False


def _pages_of(file: PageFile, value: bytes | Big) -> Iterator[int]:
    """The page numbers of one list. Raises Damage."""
    size = value.size if isinstance(value, Big) else len(value)
    at = 0

    def piece(length: int) -> bytes:
        if isinstance(value, Big):
            return file.value_part(value, at, length)
        return value[at : at + length]

    if size < _COUNT.size:
        raise Damage("are not readable")
    (count,) = _COUNT.unpack(piece(_COUNT.size))
    at = _COUNT.size
    if count > size // _COUNT.size - 1:
        raise Damage("are more than were listed")
    end = at + count * _COUNT.size
    while at < end:
        data = piece(min(_FREE_AT_ONCE * _COUNT.size, end - at))
        for (page,) in _COUNT.iter_unpack(data):
            if page < 2:
                raise Damage(f"name page {page}")
            yield page
        at += len(data)


def _integer(key: bytes) -> int:
    return int(_COUNT.unpack(key)[0]) if len(key) == _COUNT.size else -1


# --- a tree ---


@dataclass(slots=True)
class _Walk:
    """Goes through a tree from its root, in the order of keys."""

    file: PageFile
    found: Survey
    tree: Tree
    key_order: KeyOrder
    leaves: Bitmap
    lose: Callable[[KeyRange], None]
    take: Callable[[list[Leaf]], None] | None = None

    def run(self) -> None:
        """Look at every page below the root; what cannot be read is told to `lose`."""
        if self.tree.root == NO_PAGE:
            return
        if not 0 < self.tree.depth <= MAX_DEPTH:
            self.found.note(f"a tree of {self.tree.depth} levels")
            self.lose(EVERYTHING)
            return
        waiting = [(self.tree.root, 1, EVERYTHING)]
        while waiting:
            page, level, keys = waiting.pop()
            try:
                if level == self.tree.depth:
                    self._look_at_leaf(page, keys)
                else:
                    below = list(self._children(page, keys))
                    waiting += ((number, level + 1, part) for number, part in reversed(below))
            except Damage as damage:
                self.found.note(f"page {page} {damage}")
                self.lose(keys)
                if level == self.tree.depth and self.take is None and self._is_ours(page):
                    self.found.broken.append(page)

    def _is_ours(self, page: int) -> bool:
        return page < self.file.pages and page not in self.found.used and page not in self.found.free

    def _use(self, page: int) -> None:
        if page in self.found.used:
            raise Damage("is used twice")
        if page in self.found.free:
            raise Damage("is in use and free")
        assert self.found.meta is not None
        if page > self.found.meta.last_page:
            raise Damage("is behind the last one in use")

    def _children(self, page: int, keys: KeyRange) -> Iterator[tuple[int, KeyRange]]:
        self._use(page)
        children = check_branch(self.file.page(page), page, self.key_order)
        self._check_range((child.key for child in children[1:]), keys)
        self.found.used.add(page)
        firsts = [keys.first, *(child.key for child in children[1:])]
        ends = [*firsts[1:], keys.end]
        for child, first, end in zip(children, firsts, ends, strict=True):
            yield child.page, KeyRange(first, end)

    def _look_at_leaf(self, page: int, keys: KeyRange) -> None:
        self._use(page)
        entries = check_leaf(self.file.page(page), page, self.key_order)
        self._check_range((entry.key for entry in entries), keys)
        self.found.used.add(page)
        if self.take is not None:
            self.take(entries)
        else:
            self.leaves.add(page)
            self.found.entries += len(entries)
        for entry in entries:
            if isinstance(entry.value, Big):
                self._look_at_run(entry.value)

    def _check_range(self, found: Iterator[bytes], keys: KeyRange) -> None:
        order: Callable[[bytes], Any] = self.key_order
        first = order(keys.first) if keys.first else None
        end = order(keys.end) if keys.end is not None else None
        for key in found:
            ordered = order(key)
            if (first is not None and ordered < first) or (end is not None and ordered >= end):
                raise Damage("has keys that belong elsewhere")

    def _look_at_run(self, value: Big) -> None:
        """A long value: the bytes count however its first page is, but LMDB cannot free it then."""
        pages = self.file.run_pages(value.size)
        try:
            self._use(value.page)
            if self.file.run_at(value.page) != pages:
                raise Damage("begins a value of another length")
        except Damage as damage:
            self.found.note(f"page {value.page} {damage}")
        for page in range(value.page, min(value.page + pages, self.file.pages)):
            if page in self.found.used:
                break
            self.found.used.add(page)
