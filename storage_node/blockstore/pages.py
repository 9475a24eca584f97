"""LMDB's files read page by page and without LMDB: no length in them is trusted, so damage only makes errors.

The layout is that of LMDB 0.9 on 64-bit machines (`mdb.c`: MDB_page, MDB_meta, MDB_db, MDB_node), in the
machine's byte order. Page 0 and 1 are meta pages; transaction N writes page N mod 2. Every other page of a
tree begins with its own number and its kind: a branch has keys and page numbers, a leaf keys and values.
A value too long for a leaf lies in a run of overflow pages, of which only the first has a header.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from merkledag.block import MAX_BLOCK_BYTES

HEADER_BYTES = 16
NO_PAGE = (1 << 64) - 1
MIN_PAGE_BYTES, DEFAULT_PAGE_BYTES, MAX_PAGE_BYTES = 512, 4096, 1 << 16
MAX_KEY_BYTES = 511
MAX_DEPTH = 32

_HEADER = struct.Struct("=QHHHH")  # number, padding, kind, end of the pointers, begin of the nodes
_OVERFLOW = struct.Struct("=QHHI")  # number, padding, kind, pages of the run
_NODE = struct.Struct("=HHHH")  # low and high half of the size, flags, length of the key
_NUMBER = struct.Struct("=Q")
_META = struct.Struct("=IIQQ")  # magic, version, map address, map size
_TREE = struct.Struct("=IHHQQQQQ")  # padding, flags, depth; branch, leaf and overflow pages; entries, root
_META_END = struct.Struct("=QQ")  # last page in use, transaction

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW_KIND, _META_KIND = 0x01, 0x02, 0x04, 0x08
_BIG = 0x01  # flag of a node whose value lies in overflow pages
_META_SIZE = HEADER_BYTES + _META.size + 2 * _TREE.size + _META_END.size


KeyOrder = Callable[[bytes], Any]  # what keys are compared by


class Damage(Exception):
    """A page is not what it must be; the message says how."""


class Tree(NamedTuple):
    """What a meta page says of a tree; `root` is NO_PAGE for an empty one."""

    depth: int
    entries: int
    root: int


class MetaPage(NamedTuple):
    """A readable meta page. `free` is LMDB's own tree of free pages, `main` ours."""

    page_bytes: int
    free: Tree
    main: Tree
    last_page: int
    txn: int


class Big(NamedTuple):
    """Where a value lies that is too long for a leaf."""

    page: int
    size: int


class Leaf(NamedTuple):
    """An entry of a leaf."""

    key: bytes
    value: bytes | Big


class Child(NamedTuple):
    """An entry of a branch: all keys below `page` are at least `key` (the first child's says nothing)."""

    key: bytes
    page: int


class PageFile:
    """One file, open for reading; close it, or use it as a context manager. Raises OSError at opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.page_bytes = DEFAULT_PAGE_BYTES
        self.pages = 0
        self.metas: list[MetaPage | None] = []
        self.refresh()

    def __enter__(self) -> PageFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        os.close(self._handle)

    def refresh(self) -> None:
        """Look at the length and the meta pages again."""
        self.page_bytes = self._page_size()
        self.pages = os.fstat(self._handle).st_size // self.page_bytes
        self.metas = [self._meta(number, self.page_bytes) for number in (0, 1)]

    @property
    def newest(self) -> MetaPage | None:
        """The meta page of the last transaction, None if neither is readable."""
        return max((each for each in self.metas if each is not None), key=lambda each: each.txn, default=None)

    @property
    def has_both_metas(self) -> bool:
        """Whether the newest transaction is known for sure: both meta pages are of transactions in a row."""
        first, second = self.metas
        return first is not None and second is not None and abs(first.txn - second.txn) <= 1

    def read(self, at: int, size: int) -> bytes:
        """Bytes of the file. Raises Damage for what the disk does not give, or is not there."""
        try:
            data = os.pread(self._handle, size, at)
        except (OSError, OverflowError) as error:
            raise Damage(f"cannot be read ({error})") from error
        if len(data) != size:
            raise Damage("is behind the end of the file")
        return data

    def page(self, number: int) -> bytes:
        """A page, whatever is in it. Raises Damage."""
        if not 0 <= number < self.pages:
            raise Damage("is behind the end of the file")
        return self.read(number * self.page_bytes, self.page_bytes)

    def big_value(self, value: Big) -> bytes:
        """The bytes of a long value, at most as many as a block has. Raises Damage."""
        if value.size > MAX_BLOCK_BYTES:
            raise Damage(f"a value of {value.size} bytes")
        if not 1 < value.page < self.pages:
            raise Damage("is behind the end of the file")
        return self.read(value.page * self.page_bytes + HEADER_BYTES, value.size)

    def value_part(self, value: Big, at: int, size: int) -> bytes:
        """A piece of a long value, of whatever length. Raises Damage."""
        if not 1 < value.page < self.pages:
            raise Damage("is behind the end of the file")
        return self.read(value.page * self.page_bytes + HEADER_BYTES + at, size)

    def run_pages(self, size: int) -> int:
        """How many overflow pages a value of `size` bytes takes."""
        return (HEADER_BYTES - 1 + size) // self.page_bytes + 1

    def run_at(self, number: int) -> int:
        """The length in pages of the run of overflow pages that begins here. Raises Damage if none does."""
        if not 1 < number < self.pages:
            raise Damage("is behind the end of the file")
        said, _, kind, pages = _OVERFLOW.unpack(self.read(number * self.page_bytes, _OVERFLOW.size))
        if said != number or kind != _OVERFLOW_KIND or not 0 < pages <= self.pages - number:
            raise Damage("is no overflow page")
        return int(pages)

    # --- meta pages ---

    def _page_size(self) -> int:
        """As a meta page says it; the second one lies where the size says that it does."""
        first = self._meta(0, None)
        if first is not None:
            return first.page_bytes
        size = MIN_PAGE_BYTES
        while size <= MAX_PAGE_BYTES:
            if self._meta(1, size) is not None:
                return size
            size *= 2
        return DEFAULT_PAGE_BYTES

    def _meta(self, number: int, page_bytes: int | None) -> MetaPage | None:
        try:
            page = self.read(number * (page_bytes or 0), _META_SIZE)
        except Damage:
            return None
        said, _, kind, _, _ = _HEADER.unpack_from(page)
        magic, version, _, _ = _META.unpack_from(page, HEADER_BYTES)
        trees = [_TREE.unpack_from(page, HEADER_BYTES + _META.size + which * _TREE.size) for which in (0, 1)]
        last_page, txn = _META_END.unpack_from(page, _META_SIZE - _META_END.size)
        found = MetaPage(
            trees[0][0],
            Tree(trees[0][2], *trees[0][6:]),
            Tree(trees[1][2], *trees[1][6:]),
            last_page,
            txn,
        )
        size = found.page_bytes
        possible = size & (size - 1) == 0 and MIN_PAGE_BYTES <= size <= MAX_PAGE_BYTES
        if (said, kind, magic, version) != (number, _META_KIND, _MAGIC, _VERSION) or not possible:
            return None
        if page_bytes not in (None, size) or (txn and txn & 1 != number) or last_page < 1:
            return None
        return found


def check_leaf(page: bytes, number: int, key_order: KeyOrder = bytes) -> list[Leaf]:
    """The entries of a leaf. Raises Damage if anything in it is not as it must be."""
    return [_leaf(page, at) for at in _checked_nodes(page, number, _LEAF, key_order)]


def check_branch(page: bytes, number: int, key_order: KeyOrder = bytes) -> list[Child]:
    """The entries of a branch, at least one. Raises Damage as `check_leaf`."""
    children = [_child(page, at) for at in _checked_nodes(page, number, _BRANCH, key_order)]
    if not children:
        raise Damage("is an empty branch")
    return children


def is_leaf(page: bytes, number: int) -> bool:
    """Whether a page says of itself that it is a leaf, and the one that lies here."""
    said, _, kind, _, _ = _HEADER.unpack_from(page)
    return bool(said == number and kind == _LEAF)


def intact_entries(page: bytes) -> Iterator[Leaf]:
    """Those entries of a damaged leaf that lie inside it; what they say may be damaged too.

    Found by the pointers at its begin, and, should those be damaged, from its end: there is no gap between
    entries, and the last one ends with the page.
    """
    _, _, _, lower, _ = _HEADER.unpack_from(page)
    count = max(0, min(lower, len(page)) - HEADER_BYTES) // 2
    pointed = struct.unpack_from(f"={count}H", page, HEADER_BYTES)
    for at in dict.fromkeys((*pointed, *_chained(page))):
        try:
            yield _leaf(page, at)
        except Damage:
            continue


def _chained(page: bytes) -> list[int]:
    """Where entries begin of which each ends where another one begins, and the last one with the page."""
    begins: dict[int, int] = {}
    for at in range(len(page) - _NODE.size & ~1, HEADER_BYTES - 1, -2):
        try:
            _, size = _extent(page, at, _LEAF)
        except Damage:
            continue
        behind = at + size + (size & 1)
        if behind == len(page) or behind in begins:
            begins[at] = behind
    found: list[int] = []
    at = min(begins, default=len(page))
    while at < len(page):
        found.append(at)
        at = begins.get(at, len(page))
    return found


def _checked_nodes(page: bytes, number: int, wanted: int, key_order: KeyOrder) -> list[int]:
    """Where the nodes of a page are, in the order of their keys, which is checked."""
    said, _, kind, lower, upper = _HEADER.unpack_from(page)
    if said != number:
        raise Damage(f"says that it is page {said}")
    if kind != wanted:
        raise Damage(f"is of kind {kind}, not {wanted}")
    if not HEADER_BYTES <= lower <= upper <= len(page) or lower & 1:
        raise Damage("has impossible bounds")
    count = (lower - HEADER_BYTES) // 2
    places = list(struct.unpack_from(f"={count}H", page, HEADER_BYTES))
    taken = 0
    last: Any = None
    for index, at in enumerate(places):
        if at < upper:
            raise Damage("has an entry outside of it")
        key, size = _extent(page, at, wanted)
        taken += size + (size & 1)
        if not index and wanted == _BRANCH:
            continue
        ordered = key_order(key)
        if last is not None and ordered <= last:
            raise Damage("has keys out of order")
        last = ordered
    if taken != len(page) - upper:
        raise Damage("has entries that overlap, or gaps")
    return places


def _extent(page: bytes, at: int, kind: int) -> tuple[bytes, int]:
    """Key and length of the node at an offset. Raises Damage."""
    if at + _NODE.size > len(page):
        raise Damage("has an entry outside of it")
    low, high, flags, key_size = _NODE.unpack_from(page, at)
    size = _NODE.size + key_size
    if kind == _LEAF:
        size += _NUMBER.size if flags & _BIG else low | high << 16
        if flags & ~_BIG or not 0 < key_size <= MAX_KEY_BYTES:
            raise Damage("has an impossible entry")
    if key_size > MAX_KEY_BYTES or at + size > len(page):
        raise Damage("has an entry outside of it")
    begin = at + _NODE.size
    return page[begin : begin + key_size], size


def _leaf(page: bytes, at: int) -> Leaf:
    if not HEADER_BYTES <= at <= len(page) - _NODE.size:
        raise Damage("has an entry outside of it")
    low, high, flags, key_size = _NODE.unpack_from(page, at)
    size = low | high << 16
    begin = at + _NODE.size + key_size
    end = begin + (_NUMBER.size if flags & _BIG else size)
    if not 0 < key_size <= MAX_KEY_BYTES or flags & ~_BIG or end > len(page):
        raise Damage("has an impossible entry")
    key = page[at + _NODE.size : begin]
    if flags & _BIG:
        return Leaf(key, Big(_NUMBER.unpack_from(page, begin)[0], size))
    return Leaf(key, page[begin:end])


def _child(page: bytes, at: int) -> Child:
    low, high, flags, key_size = _NODE.unpack_from(page, at)
    return Child(page[at + _NODE.size : at + _NODE.size + key_size], low | high << 16 | flags << 32)


def lookup(file: PageFile, tree: Tree, key: bytes) -> bytes | Big | None:
    """The value of a key, None if the tree has none. Raises Damage if that cannot be told."""
    page = tree.root
    if page == NO_PAGE:
        return None
    for _ in range(min(tree.depth, MAX_DEPTH) - 1):
        children = check_branch(file.page(page), page)
        page = [each.page for index, each in enumerate(children) if not index or each.key <= key][-1]
    entries = check_leaf(file.page(page), page)
    return next((entry.value for entry in entries if entry.key == key), None)
