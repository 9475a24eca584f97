"""The committed state as it lies in LMDB: `ledger.store.Store` over one read transaction after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import lmdb

from ledger.engine.environment import explain, translated
from ledger.engine.errors import EngineStopped, damaged_state
from ledger.errors import CorruptState
from ledger.limits import MAX_KEY_BYTES
from ledger.state_tree import StateTree
from ledger.store import Changes, Writes

STATE, TREE, LISTS = b"state", b"tree", b"lists"
FIRST_KEYS = 4
MOST_KEYS = 256


class Reading:
    """A transaction that rows are read through; `renew` moves it to what was written last."""

    def __init__(self, environment: Any, *, txn: Any = None) -> None:
        self._environment = environment
        self.txn = environment.begin() if txn is None else txn

    def renew(self) -> None:
        """Reads are of the newest block from now on."""
        with translated("reading state"):
            self.close()
            self.txn = self._environment.begin()

    def close(self) -> None:
        """No reads any more."""
        txn, self.txn = self.txn, None
        if txn is not None:
            txn.abort()


class LmdbRows:
    """`ledger.store.Rows` of one table."""

    __slots__ = ("_db", "_reading")

    def __init__(self, reading: Reading, db: Any) -> None:
        self._reading = reading
        self._db = db

    def get(self, key: bytes) -> bytes | None:
        """See `Rows`. Raises StoreError."""
        if not 0 < len(key) <= MAX_KEY_BYTES:
            return None
        try:
            value: bytes | None = self._txn().get(key, None, self._db)
        except lmdb.Error as error:
            raise explain("reading state", error) from error
        return value

    def scan(self, start: bytes) -> Iterator[bytes]:
        """See `Rows`. Raises StoreError."""
        count = FIRST_KEYS
        while True:
            keys = self._keys(start, count)
            yield from keys
            if len(keys) < count:
                return
            start = keys[-1] + b"\x00"
            count = min(4 * count, MOST_KEYS)

    def _keys(self, start: bytes, count: int) -> list[bytes]:
        """The next few keys: no cursor is left open while whoever scans does something else."""
        cut = start[:MAX_KEY_BYTES]
        with translated("reading state"), self._txn().cursor(self._db) as cursor:
            found = cursor.set_range(cut) if cut else cursor.first()
            if found and cursor.key() < start:
                found = cursor.next()
            return list(islice(cursor.iternext(keys=True, values=False), count)) if found else []

    def _txn(self) -> Any:
        txn = self._reading.txn
        if txn is None:
            raise EngineStopped("the ledger's store is closed")
        return txn


class LmdbStore:
    """`ledger.store.Store` over a database: of the last block that was written before `commit` was called."""

    def __init__(self, reading: Reading, tables: Mapping[bytes, Any]) -> None:
        self._reading = reading
        self.state = LmdbRows(reading, tables[STATE])
        self.tree = LmdbRows(reading, tables[TREE])
        self.index = LmdbRows(reading, tables[LISTS])

    def commit(self, writes: Writes) -> None:
        """See `Store`: whoever made the block has written it with `put_writes`."""
        self._reading.renew()


def check_rows(store: LmdbStore) -> bytes:
    """The app hash of all of a store's state; raises CorruptStore if the rows of its tree do not show it."""
    tree = StateTree(store.tree)
    try:
        tree.check(store.state)
    except CorruptState as error:
        raise damaged_state(error) from error
    return tree.root


def put_rows(txn: Any, db: Any, changes: Changes) -> None:
    """Sets and deletes rows of a table in a write transaction."""
    for key in sorted(changes):
        value = changes[key]
        if value is None:
            txn.delete(key, db=db)
        else:
            txn.put(key, value, db=db)


def put_writes(txn: Any, tables: Mapping[bytes, Any], writes: Writes) -> None:
    """Writes what a block changes, in a write transaction."""
    put_rows(txn, tables[STATE], writes.state)
    put_rows(txn, tables[TREE], writes.tree)
    put_rows(txn, tables[LISTS], writes.index)
