"""The rows of a database that begins with a whole state: at genesis, or after a block that others made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ledger.engine import format as ledger_format
from ledger.engine.state_store import LmdbStore, Reading, put_writes
from ledger.ingest import fill


@contextmanager
def new_state(
    environment: Any, tables: Mapping[bytes, Any], genesis: bytes, items: Iterable[tuple[bytes, bytes]]
) -> Iterator[tuple[Any, bytes]]:
    """A write transaction in which empty tables got these items, and their app hash. Raises lmdb.Error."""
    with environment.begin(write=True) as txn:
        store = LmdbStore(Reading(environment, txn=txn), tables)
        app_hash = fill(store, items, lambda writes: put_writes(txn, tables, writes))
        put_genesis(txn, tables, genesis)
        yield txn, app_hash


def put_genesis(txn: Any, tables: Mapping[bytes, Any], genesis: bytes) -> None:
    """Marks the format of the database, and whose chain it holds."""
    txn.put(b"format", ledger_format.mark(), db=tables[b"meta"])
    txn.put(b"genesis", genesis, db=tables[b"meta"])
