"""A store made from state items alone: at genesis, from a snapshot, from an export."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from ledger import index
from ledger.state_tree import StateTree
from ledger.store import MemoryStore, Store, Writes

BATCH_ITEMS = 4096


def fill(store: Store, items: Iterable[tuple[bytes, bytes]], write: Callable[[Writes], None]) -> bytes:
    """Puts items into an empty store, in bounded steps; returns the app hash.

    `write` keeps each step where the store will read it (`store.commit` in memory); keys come once each.
    """
    tree = StateTree(store.tree)
    rest = iter(items)
    while batch := dict(islice(rest, BATCH_ITEMS)):
        staged = tree.stage(batch)
        write(Writes(batch, staged.rows, index.changes(batch, lambda _key: None)))
        tree.commit(staged)
    return tree.root


def memory_store(items: Iterable[tuple[bytes, bytes]]) -> MemoryStore:
    """A store in memory that holds the items."""
    store = MemoryStore()
    fill(store, items, store.commit)
    return store
