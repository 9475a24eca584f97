"""Layouts: in which order the leaves of a file become the children of its nodes.

A layout takes links to leaves one after the other, calls `write` for each node that is full, which returns
the link to that node, and holds the links of the nodes that are still open, one path from the root.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

DEPTH_REPEAT = 4  # subtrees of each depth below a trickle node

T = TypeVar("T")


class Balanced(Generic[T]):
    """All leaves at one depth, at most `max_links` children a node.

    A node is closed when it is full and one more child arrives, so that a file of exactly one full node has
    no needless root above it.
    """

    def __init__(self, max_links: int, write: Callable[[list[T]], T]) -> None:
        self._max_links = max_links
        self._write = write
        self._levels: list[list[T]] = [[]]

    def append(self, leaf: T) -> None:
        """The next leaf."""
        self._push(0, leaf)

    def close(self) -> list[T]:
        """Writes all nodes but the root, and returns its children."""
        level = 0
        while level < len(self._levels) - 1:  # pushing may add a level on top
            self._push(level + 1, self._closed(level))
            level += 1
        return self._levels[level]

    def _push(self, level: int, link: T) -> None:
        if level == len(self._levels):
            self._levels.append([])
        if len(self._levels[level]) == self._max_links:
            self._push(level + 1, self._closed(level))
        self._levels[level].append(link)

    def _closed(self, level: int) -> T:
        row = self._levels[level]
        self._levels[level] = []
        return self._write(row)


class _Open(Generic[T]):
    """A trickle node that is not full: `depth` bounds its subtrees, None for the root."""

    __slots__ = ("depth", "links")

    def __init__(self, depth: int | None) -> None:
        self.depth = depth
        self.links: list[T] = []


class Trickle(Generic[T]):
    """Every node has up to `max_links` leaves of its own, then four subtrees of depth 1, four of depth 2, …

    A subtree of depth 1 has leaves only, one of depth n has subtrees of less than n, the root has no bound.
    The first bytes of a file are right below its root.
    """

    def __init__(self, max_links: int, write: Callable[[list[T]], T]) -> None:
        self._max_links = max_links
        self._write = write
        self._path: list[_Open[T]] = [_Open(None)]

    def append(self, leaf: T) -> None:
        """The next leaf."""
        while len((node := self._path[-1]).links) >= self._max_links:
            depth = (len(node.links) - self._max_links) // DEPTH_REPEAT + 1
            if node.depth is None or depth < node.depth:
                self._path.append(_Open(depth))
            else:
                self._close_last()
        node.links.append(leaf)

    def close(self) -> list[T]:
        """Writes all nodes but the root, and returns its children."""
        while len(self._path) > 1:
            self._close_last()
        return self._path[0].links

    def _close_last(self) -> None:
        link = self._write(self._path.pop().links)
        self._path[-1].links.append(link)
