"""The state: a map from keys to bytes, with one overlay for the block and one for the transaction in it.

Records stay objects in the overlays and become bytes once a block. What is dropped leaves no trace.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from heapq import merge
from typing import TypeVar

from ledger import limits
from ledger.cache import RecentCache
from ledger.records import Record
from ledger.store import Changes, Rows

R = TypeVar("R", bound=Record)
Value = bytes | Record
Check = Callable[[bytes, bytes | None], object]
# Sorting so few late keys in one by one is cheaper than sorting all anew.
FEW_LATE_KEYS = 16


class _Layer:
    """Changes on top of what is below: values, None where a key was deleted. Keys are sorted late."""

    __slots__ = ("_late", "_ordered", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, Value | None] = {}
        self._ordered: list[bytes] = []
        self._late: list[bytes] = []

    def set(self, key: bytes, value: Value | None) -> None:
        if key not in self.values:
            self._late.append(key)
        self.values[key] = value

    def ordered(self) -> list[bytes]:
        """The keys in order."""
        if len(self._late) <= FEW_LATE_KEYS:
            for key in self._late:
                insort(self._ordered, key)
        else:
            self._ordered.extend(self._late)
            self._ordered.sort()
        self._late.clear()
        return self._ordered

    def start_at(self, prefix: bytes) -> Iterator[bytes]:
        keys = self.ordered()
        at = bisect_left(keys, prefix)
        while at < len(keys) and keys[at].startswith(prefix):
            yield keys[at]
            at += 1


class State:
    """The rows of the last committed block and at most two overlays, the block's and the transaction's.

    Reads see the topmost overlay; `committed` ones the rows below. `begin` opens an overlay, `keep` merges
    the topmost into what is below it, `drop` forgets it; the block's is ended by `commit` or `drop`.
    """

    def __init__(self, rows: Rows, check: Check = lambda key, value: None) -> None:
        """`check` is told what was read at a key (None: nothing); it raises CorruptState if that is wrong."""
        self._rows = rows
        self._check = check
        self._layers: list[_Layer] = []
        self._records: RecentCache[bytes, Record] = RecentCache(limits.MAX_REMEMBERED_RECORDS // 2)

    def as_committed(self) -> State:
        """The rows of the last committed block, to read records from while a block is being made on them."""
        below = State(self._rows, self._check)
        below._records = self._records
        return below

    def begin(self) -> None:
        """Opens an overlay."""
        assert len(self._layers) < 2, "a block and a transaction in it are all the overlays there are"
        self._layers.append(_Layer())

    def keep(self) -> None:
        """Merges the transaction's overlay into the block's."""
        top = self._layers.pop()
        below = self._layers[-1]
        for key, value in top.values.items():
            below.set(key, value)

    def drop(self) -> None:
        """Forgets the topmost overlay."""
        self._layers.pop()

    def touched(self, prefix: bytes) -> list[bytes]:
        """The keys with a prefix that the block has set or deleted so far, in order."""
        assert len(self._layers) == 1
        return list(self._layers[0].start_at(prefix))

    def changes(self) -> dict[bytes, bytes | None]:
        """What the block's overlay changes, encoded, keys in order; values equal to the old ones left out."""
        assert len(self._layers) == 1
        changes: dict[bytes, bytes | None] = {}
        layer, old = self._layers[0], self._rows.get
        for key in layer.ordered():
            value = layer.values[key]
            encoded = value.encode() if isinstance(value, Record) else value
            if encoded != old(key):
                changes[key] = encoded
        return changes

    def commit(self, changes: Changes) -> None:
        """Ends the block, whose `changes` the rows have from now on."""
        values = self._layers.pop().values
        assert not self._layers
        for key in changes:
            value = values[key]
            if isinstance(value, Record):
                self._records.put(key, value)
            else:
                self._records.forget(key)

    def put(self, key: bytes, value: Value) -> None:
        """Sets a key."""
        self._layers[-1].set(key, value)

    def delete(self, key: bytes) -> None:
        """Deletes a key, which may be absent."""
        self._layers[-1].set(key, None)

    def get(self, key: bytes) -> bytes | None:
        """The bytes at a key, None if there are none."""
        for layer in reversed(self._layers):
            if key in layer.values:
                value = layer.values[key]
                return value.encode() if isinstance(value, Record) else value
        return self.committed_bytes(key)

    def record(self, key: bytes, cls: type[R]) -> R | None:
        """The record at a key, None if there is none."""
        for layer in reversed(self._layers):
            if key in layer.values:
                value = layer.values[key]
                if value is None or isinstance(value, cls):
                    return value
                assert isinstance(value, bytes), f"{key!r} holds a {type(value).__name__}"
                return cls.decode(value)
        return self.committed(key, cls)

    def committed(self, key: bytes, cls: type[R]) -> R | None:
        """The record at a key as of the last committed block."""
        known = self._records.get(key)
        if isinstance(known, cls):
            return known
        raw = self.committed_bytes(key)
        if raw is None:
            return None
        found = cls.decode(raw)
        self._records.put(key, found)
        return found

    def committed_bytes(self, key: bytes) -> bytes | None:
        """The bytes at a key as of the last committed block; raises CorruptState where they are not."""
        found = self._rows.get(key)
        self._check(key, found)
        return found

    def committed_scan(self, prefix: bytes, start: bytes = b"") -> Iterator[bytes]:
        """The keys with a prefix, from `start` on, as of the last committed block, in order."""
        for key in self._rows.scan(max(prefix, start)):
            if not key.startswith(prefix):
                return
            yield key

    def scan(self, prefix: bytes) -> Iterator[bytes]:
        """The keys with a prefix, in order. Nothing may be changed while the iterator is in use."""
        above = [layer.start_at(prefix) for layer in self._layers]
        last = None
        for key in merge(self.committed_scan(prefix), *above):
            if key != last and self._is_present(key):
                yield key
            last = key

    def _is_present(self, key: bytes) -> bool:
        """Whether a key that some overlay or the rows have is there, seen from the top."""
        for layer in reversed(self._layers):
            if key in layer.values:
                return layer.values[key] is not None
        return True

    def first(self, prefix: bytes) -> bytes | None:
        """The first key with a prefix."""
        return next(self.scan(prefix), None)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every committed key and its bytes, in order."""
        for key in self._rows.scan(b""):
            value = self._rows.get(key)
            assert value is not None, "rows have a value at each of their keys"
            yield key, value
