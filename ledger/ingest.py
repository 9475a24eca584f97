"""A store made from state items alone: at genesis, from a snapshot, from an export."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from ledger import index
from ledger.state_tree import StateTree
from ledger.store import MemoryStore, Store, Writes

BATCH_ITEMS = 4096


class Filling:
    """Puts items into an empty store, as they come; each key comes once.

    `write` keeps each step where the store will read it (`store.commit` in memory).
    """

    def __init__(self, store: Store, write: Callable[[Writes], None]) -> None:
        self._tree = StateTree(store.tree)
        self._write = write

    def add(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Puts more of them in, in bounded steps."""
        rest = iter(items)
        while batch := dict(islice(rest, BATCH_ITEMS)):
            staged = self._tree.stage(batch)
            self._write(Writes(batch, staged.rows, index.changes(batch, lambda _key: None)))
            self._tree.commit(staged)

    @property
    def app_hash(self) -> bytes:
        """That of all that has come so far."""
        return self._tree.root


def fill(store: Store, items: Iterable[tuple[bytes, bytes]], write: Callable[[Writes], None]) -> bytes:
    """Puts all items into an empty store (see `Filling`); returns the app hash."""
    filling = Filling(store, write)
    filling.add(items)
    return filling.app_hash


def memory_store(items: Iterable[tuple[bytes, bytes]]) -> MemoryStore:
    """A store in memory that holds the items."""
    store = MemoryStore()
    fill(store, items, store.commit)
    return store
