"""Lists by pages: a bounded part at a time, and a cursor to go on from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from ledger import limits
from ledger.state import State

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, in order. `next` is the cursor (`after`) of the following page, None at the end.

    A page looks at a bounded number of rows: with several conditions it may be short, even empty, and `next`
    still tell where to go on.
    """

    items: tuple[T, ...]
    next: bytes | None


def page_of(subjects: Iterable[bytes], show: Callable[[bytes], T | None], limit: int) -> Page[T]:
    """The first `limit` of the subjects that `show` shows."""
    items: list[T] = []
    last = None
    for examined, subject in enumerate(subjects):
        if len(items) >= limit or examined >= limits.MAX_ROWS_PER_PAGE:
            return Page(tuple(items), last)
        last = subject
        item = show(subject)
        if item is not None:
            items.append(item)
    return Page(tuple(items), None)


def every(page: Callable[[bytes], Page[T]]) -> Iterator[T]:
    """What is on all pages."""
    after: bytes | None = b""
    while after is not None:
        found = page(after)
        yield from found.items
        after = found.next


def subjects(state: State, prefix: bytes, after: bytes) -> Iterator[bytes]:
    """What follows the prefix in the committed keys that have it, from behind `after` on."""
    start = prefix + after + b"\x00" if after else prefix
    return (key[len(prefix) :] for key in state.committed_scan(prefix, start))
