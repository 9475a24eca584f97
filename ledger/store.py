"""Where the committed state is read from: three ordered tables, the same for every engine.

`state` has the ledger's keys and values, `tree` the rows of its Merkle tree (`state_tree`), `index` those
that lists are answered from (`index`). The last two follow from the first. A block changes all three at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from ledger.sorted_keys import SortedKeys

Changes = Mapping[bytes, bytes | None]


class Rows(Protocol):
    """One table as of the last committed block."""

    def get(self, key: bytes) -> bytes | None:
        """The value at a key, None if there is none."""

    def scan(self, start: bytes) -> Iterator[bytes]:
        """The keys from `start` on, in order; not to be used any more after a commit."""


@dataclass(frozen=True, slots=True)
class Writes:
    """What a block changes in each table: new values by key, None where a row goes."""

    state: Changes
    tree: Changes
    index: Changes

    def over(self, read: Callable[[bytes], bytes | None]) -> Callable[[bytes], bytes | None]:
        """Reads the state as it will be, given what reads it as it is."""
        return lambda key: self.state[key] if key in self.state else read(key)


class Store(Protocol):
    """The three tables. Reads are of one committed block, whatever is being written meanwhile."""

    @property
    def state(self) -> Rows:
        """Keys and values of the ledger."""

    @property
    def tree(self) -> Rows:
        """Rows of the Merkle tree."""

    @property
    def index(self) -> Rows:
        """Rows for lists."""

    def commit(self, writes: Writes) -> None:
        """From now on reads see these writes; a store on disk has written them by then."""


class MemoryRows:
    """`Rows` in memory."""

    __slots__ = ("_keys", "_values")

    def __init__(self, items: Changes | None = None) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys = SortedKeys()
        self.apply(items or {})

    def get(self, key: bytes) -> bytes | None:
        """See `Rows`."""
        return self._values.get(key)

    def scan(self, start: bytes) -> Iterator[bytes]:
        """See `Rows`."""
        return self._keys.start_at(start)

    def apply(self, changes: Changes) -> None:
        """Sets and deletes rows."""
        for key, value in changes.items():
            if value is None:
                if self._values.pop(key, None) is not None:
                    self._keys.discard(key)
                continue
            if key not in self._values:
                self._keys.add(key)
            self._values[key] = value


class MemoryStore:
    """`Store` in memory: for tests, simulations and chains that are run again."""

    __slots__ = ("index", "state", "tree")

    def __init__(self, writes: Writes | None = None) -> None:
        self.state = MemoryRows()
        self.tree = MemoryRows()
        self.index = MemoryRows()
        if writes is not None:
            self.commit(writes)

    def commit(self, writes: Writes) -> None:
        """See `Store`."""
        self.state.apply(writes.state)
        self.tree.apply(writes.tree)
        self.index.apply(writes.index)
