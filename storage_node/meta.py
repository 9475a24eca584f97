"""The meta store: small durable records (pins, proof rows, roots and names) in one LMDB file, in tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from storage_node.blockstore.environment import STATE, Txn
from storage_node.blockstore.layout import open_folder

FORMAT = "holdfast-meta"
FILE = "meta"
MAX_KEY_BYTES = 500  # LMDB's limit is 511
ITEMS_PER_TRANSACTION = 512


class Table(Enum):
    """The tables by the first byte of their keys: a number is never given away twice."""

    PINS = b"\x01"  # binary CIDv1 → pin
    PIN_NAMES = b"\x02"  # name ‖ 0 ‖ binary CIDv1 → nothing
    COMMITMENTS = b"\x03"  # end of a multihash → proof row (commitments.py)
    RECORDS = b"\x04"  # any name → any bytes: folders' roots, name records, a daemon's notes
    PIN_JOBS = b"\x05"  # u64be number → pin job (pin_jobs.py)
    PIN_MOVES = b"\x06"  # binary CIDv1 → nothing: roots to which pins moved lately (pins.py)
    PIN_EDGES = b"\x07"  # child ‖ parent, digests → nothing; derived (pin_index.py)
    PIN_NODES = b"\x08"  # digest of a node whose DAG is in PIN_EDGES → binary CIDv1; derived
    PIN_QUEUE = b"\x09"  # binary CIDv1 of a pin that is not in PIN_EDGES yet → nothing; derived
    KZG_COMMITMENTS = b"\x0a"  # end of a multihash → commitments to the block's blobs (kzg_commitments.py)


class Meta:
    """Tables of bytes. Raises StoreFull, CorruptStore and StoreFailed."""

    def __init__(self, folder: Path) -> None:
        (self._environment,) = open_folder(folder, FORMAT, FILE, 1)

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value of a key, None if there is none."""
        return self._environment.get(table.value + key)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Set one value, durably."""
        with self.write() as write:
            write.put(table, key, value)

    def delete(self, table: Table, key: bytes) -> bool:
        """Remove one key, durably; False if it was not there."""
        with self.write() as write:
            return write.delete(table, key)

    def items(
        self, table: Table, prefix: bytes = b"", after: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys with `prefix` behind `after`, ascending, with their values; no snapshot."""
        while True:
            page: list[tuple[bytes, bytes]] = []
            with self._environment.read() as txn:
                page = _page(txn, table.value + prefix, None if after is None else table.value + after)
            yield from page
            if len(page) < ITEMS_PER_TRANSACTION:
                return
            after = page[-1][0]

    @contextmanager
    def write(self) -> Iterator[MetaWrite]:
        """Several changes in one durable transaction; none of them remains after an exception."""
        with self._environment.write() as txn:
            yield MetaWrite(txn)

    @contextmanager
    def snapshot(self) -> Iterator[Iterator[tuple[bytes, bytes]]]:
        """Every table as it is at one moment: keys, ascending, with their table's byte, and values.

        Others write meanwhile; leave the context soon, for it keeps what they replace from being reused.
        """
        with self._environment.read() as txn, txn.cursor() as cursor:
            yield _everything(cursor)

    def load(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Put pairs of a `snapshot` back, in one durable transaction. Raises ValueError for no such key."""
        with self._environment.write() as txn:
            for key, value in items:
                if not 1 < len(key) <= MAX_KEY_BYTES + 1 or key[:1] == STATE:
                    raise ValueError("not a key of a table")
                txn.put(key, value)

    def settle(self) -> None:
        """Make what a killed process committed visible, before something is freed that nothing refers to."""
        self._environment.settle()

    def compact(self) -> int:
        """Shrink the file to what it holds; returns the bytes given back."""
        return self._environment.compact()


class MetaWrite:
    """Changes within one write transaction, which sees them itself."""

    def __init__(self, txn: Txn) -> None:
        self._txn = txn

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value as this transaction has it."""
        value = self._txn.get(table.value + key)
        return None if value is None else bytes(value)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Set a value. Raises ValueError if the key is longer than MAX_KEY_BYTES."""
        if not 0 < len(key) <= MAX_KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes; 1 to {MAX_KEY_BYTES} are possible")
        self._txn.put(table.value + key, value)

    def delete(self, table: Table, key: bytes) -> bool:
        """Remove a key; False if it was not there."""
        return bool(self._txn.delete(table.value + key))

    def items(self, table: Table, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """As `Meta.items`, in pages, of what this transaction has; changes behind a page are seen."""
        after: bytes | None = None
        while page := _page(self._txn, table.value + prefix, None if after is None else table.value + after):
            yield from page
            after = page[-1][0]


def _everything(cursor: Any) -> Iterator[tuple[bytes, bytes]]:
    """All pairs of all tables; not what says something of the file itself."""
    there = cursor.set_range(bytes((STATE[0] + 1,)))
    while there:
        yield bytes(cursor.key()), bytes(cursor.value())
        there = cursor.next()


def _page(txn: Txn, prefix: bytes, after: bytes | None) -> list[tuple[bytes, bytes]]:
    """Up to ITEMS_PER_TRANSACTION items behind `after`, their keys without the table's byte."""
    page: list[tuple[bytes, bytes]] = []
    with txn.cursor() as cursor:
        there = cursor.set_range(prefix if after is None else max(prefix, after))
        if there and after is not None and bytes(cursor.key()) == after:
            there = cursor.next()
        while there and cursor.key()[: len(prefix)] == prefix and len(page) < ITEMS_PER_TRANSACTION:
            page.append((bytes(cursor.key()[1:]), bytes(cursor.value())))
            there = cursor.next()
    return page
