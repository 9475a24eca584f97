"""A set of byte strings in order: chunks of sorted lists, so that adding one is cheap at a million."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

CHUNK = 512


class SortedKeys:
    """Distinct keys, kept sorted. Adding, dropping and finding cost O(√n) moves of pointers at worst."""

    __slots__ = ("_chunks", "_firsts")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        ordered = sorted(keys)
        self._chunks = [ordered[i : i + CHUNK] for i in range(0, len(ordered), CHUNK)]
        self._firsts = [chunk[0] for chunk in self._chunks]

    def add(self, key: bytes) -> None:
        """Adds a key that is not there."""
        if not self._chunks:
            self._chunks, self._firsts = [[key]], [key]
            return
        at = max(0, bisect_right(self._firsts, key) - 1)
        chunk = self._chunks[at]
        insort(chunk, key)
        if len(chunk) > 2 * CHUNK:
            self._chunks.insert(at + 1, chunk[CHUNK:])
            self._firsts.insert(at + 1, chunk[CHUNK])
            del chunk[CHUNK:]
        self._firsts[at] = chunk[0]

    def discard(self, key: bytes) -> None:
        """Drops a key, if it is there."""
        at = max(0, bisect_right(self._firsts, key) - 1)
        if not self._chunks:
            return
        chunk = self._chunks[at]
        index = bisect_left(chunk, key)
        if index == len(chunk) or chunk[index] != key:
            return
        del chunk[index]
        if chunk:
            self._firsts[at] = chunk[0]
        else:
            del self._chunks[at], self._firsts[at]

    def start_at(self, key: bytes) -> Iterator[bytes]:
        """The keys from `key` on, in order; not to be used any more after a change."""
        at = max(0, bisect_right(self._firsts, key) - 1)
        if at < len(self._chunks):
            chunk = self._chunks[at]
            yield from chunk[bisect_left(chunk, key) :]
            for chunk in self._chunks[at + 1 :]:
                yield from chunk
