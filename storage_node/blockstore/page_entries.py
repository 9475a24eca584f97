"""What the pages of a damaged file hold, in the order in which it is to be trusted."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from storage_node.blockstore.page_survey import Survey, free_pages
from storage_node.blockstore.pages import Damage, Leaf, PageFile, check_leaf, intact_entries, is_leaf


class Trust(enum.IntEnum):
    """Where an entry was found; the lower, the better."""

    NOW = 0  # in an intact leaf of the newest transaction
    CUT_OFF = 1  # in an intact leaf that this transaction uses, below a damaged branch
    BROKEN = 2  # in a leaf that is damaged itself
    OLD = 3  # in a page that is free, or not known to be in use: as it was at some time


def entries(file: PageFile, found: Survey, trust: Trust) -> Iterator[Leaf]:
    """The entries of one kind of pages, whatever their keys; those of OLD ones the last used first.

    An entry may come several times. If the newest transaction is not known for sure, nothing is CUT_OFF.
    """
    if trust is Trust.NOW:
        for page in found.leaves:
            yield from _strictly(file, page)
    elif trust is Trust.CUT_OFF:
        for page in _hidden(file, found) if found.is_certain else ():
            yield from _strictly(file, page)
    elif trust is Trust.BROKEN:
        for page in found.broken:
            yield from _leniently(file, page)
        for page in _hidden(file, found) if found.is_certain else ():
            if not _is_intact(file, page):
                yield from _leniently(file, page)
    elif found.is_certain:
        for page in free_pages(file, found):
            if page not in found.used:
                yield from _strictly(file, page)
    else:
        for page in range(2, file.pages):
            if page not in found.used:
                yield from _leniently(file, page) if _looks_like_leaf(file, page) else ()


def worth_reading(file: PageFile, found: Survey) -> tuple[Trust, ...]:
    """Where keys are to be looked for: nowhere else than in intact pages if these have all that there was."""
    if found.is_certain and found.meta is not None:
        cut_off = sum(1 for _ in entries(file, found, Trust.CUT_OFF)) if found.lost else 0
        if found.entries + cut_off == found.meta.main.entries:
            return Trust.NOW, Trust.CUT_OFF
    return tuple(Trust)


def _hidden(file: PageFile, found: Survey) -> Iterator[int]:
    """Leaves, damaged or not, that are in use and below a damaged branch; values of several pages are not."""
    page = 2
    while page < file.pages:
        assert found.meta is not None
        if page > found.meta.last_page:
            return
        if page in found.used or page in found.free:
            page += 1
            continue
        try:
            page += file.run_at(page)
            continue
        except Damage:
            pass
        if _looks_like_leaf(file, page):
            yield page
        page += 1


def _looks_like_leaf(file: PageFile, page: int) -> bool:
    try:
        return is_leaf(file.page(page), page)
    except Damage:
        return False


def _is_intact(file: PageFile, page: int) -> bool:
    try:
        check_leaf(file.page(page), page)
    except Damage:
        return False
    return True


def _strictly(file: PageFile, page: int) -> list[Leaf]:
    try:
        found = check_leaf(file.page(page), page)
    except Damage:
        return []
    return [] if _is_free_list(found) else found


def _leniently(file: PageFile, page: int) -> list[Leaf]:
    try:
        found = list(intact_entries(file.page(page)))
    except Damage:
        return []
    return [] if _is_free_list(found) else found


def _is_free_list(found: list[Leaf]) -> bool:
    """Whether a leaf is, or was, one of LMDB's tree of free pages: transactions and lists of pages."""
    return all(len(each.key) == 8 for each in found) and not any(
        isinstance(each.value, bytes) and len(each.value) % 8 for each in found
    )
