"""The state: a map from keys to bytes, with one overlay for the block and one for the transaction in it.

Records stay objects in the overlays and become bytes once a block. What is dropped leaves no trace.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from typing import TypeVar

from ledger import limits
from ledger.records import Record
from ledger.sorted_keys import SortedKeys

R = TypeVar("R", bound=Record)
Value = bytes | Record


class _Layer:
    """Changes on top of what is below: values, None where a key was deleted, and their keys in order."""

    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, Value | None] = {}
        self.keys: list[bytes] = []

    def set(self, key: bytes, value: Value | None) -> None:
        if key not in self.values:
            insort(self.keys, key)
        self.values[key] = value

    def start_at(self, key: bytes) -> Iterator[bytes]:
        return iter(self.keys[bisect_left(self.keys, key) :])


class State:
    """A committed map and at most two overlays, the block's and the transaction's.

    Reads see the topmost overlay; `committed` ones the map below. `begin` opens an overlay, `keep` merges the
    topmost into what is below it, `drop` forgets it; the block's is ended by `commit` or `drop`.
    """

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._base: dict[bytes, bytes] = dict(items)
        self._keys = SortedKeys(self._base)
        self._layers: list[_Layer] = []
        self._records: dict[bytes, Record] = {}

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

    def changes(self) -> dict[bytes, bytes | None]:
        """What the block's overlay changes, encoded, keys in order; values equal to the old ones left out."""
        assert len(self._layers) == 1
        changes: dict[bytes, bytes | None] = {}
        for key in self._layers[0].keys:
            value = self._layers[0].values[key]
            encoded = value.encode() if isinstance(value, Record) else value
            if encoded != self._base.get(key):
                changes[key] = encoded
        return changes

    def commit(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Ends the block: its `changes` become the map."""
        values = self._layers.pop().values
        assert not self._layers
        if len(self._records) > limits.MAX_REMEMBERED_RECORDS:
            self._records.clear()
        for key, encoded in changes.items():
            if encoded is None:
                del self._base[key]
                self._keys.discard(key)
                self._records.pop(key, None)
                continue
            if key not in self._base:
                self._keys.add(key)
            self._base[key] = encoded
            value = values[key]
            if isinstance(value, Record):
                self._records[key] = value

    def put(self, key: bytes, value: Value) -> None:
        """Sets a key."""
        self._layers[-1].set(key, value)

    def delete(self, key: bytes) -> None:
        """Deletes a key, which may be absent."""
        self._layers[-1].set(key, None)

    def _find(self, key: bytes) -> Value | None:
        for layer in reversed(self._layers):
            if key in layer.values:
                return layer.values[key]
        return self._base.get(key)

    def get(self, key: bytes) -> bytes | None:
        """The bytes at a key, None if there are none."""
        value = self._find(key)
        return value.encode() if isinstance(value, Record) else value

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
        raw = self._base.get(key)
        if raw is None:
            return None
        found = cls.decode(raw)
        if len(self._records) <= limits.MAX_REMEMBERED_RECORDS:
            self._records[key] = found
        return found

    def committed_bytes(self, key: bytes) -> bytes | None:
        """The bytes at a key as of the last committed block."""
        return self._base.get(key)

    def scan(self, prefix: bytes, *, committed: bool = False) -> Iterator[bytes]:
        """The keys with a prefix, in order. Nothing may be changed while the iterator is in use."""
        layers = [] if committed else self._layers
        sources = [self._keys.start_at(prefix), *(layer.start_at(prefix) for layer in layers)]
        last = None
        for key in merge(*sources) if layers else sources[0]:
            if not key.startswith(prefix):
                return
            if key != last and (not layers or self._find(key) is not None):
                yield key
            last = key

    def first(self, prefix: bytes) -> bytes | None:
        """The first key with a prefix."""
        return next(self.scan(prefix), None)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every committed key and its bytes, in order."""
        for key in self._keys.start_at(b""):
            yield key, self._base[key]
