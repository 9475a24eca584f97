"""The ledger on disk: one LMDB environment, written in one transaction a block behind a write-ahead log.

Tables: `meta` (format, genesis, height, app hash), `state`, `tree` and `lists` (see `ledger.store`), `blocks`
(u64be height → signed block), `txs` and `receipts` (u64be height ‖ u32be index → signed transaction,
receipt), `events` (u64be height → events), `index` (SHA-256 digest of a block, a signed transaction or an
unsigned one → where it is), `journal` (account ‖ u64be height → what changed its balance and stake in that
block), `proofs` and `lights` (see `proof_rows`, `light_rows`). Values are opaque here.

LMDB runs with `metasync=False`: power loss may undo its last transaction, which the log then replays.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.engine import format as ledger_format
from ledger.engine.block_rows import put_block, put_tip
from ledger.engine.environment import MAP_SIZE_BYTES, Users, open_environment, translated
from ledger.engine.errors import CorruptStore, EngineStopped, StoreError
from ledger.engine.format import TABLES
from ledger.engine.light_rows import LightRows
from ledger.engine.new_store import new_state
from ledger.engine.proof_rows import read_proofs, read_witness
from ledger.engine.pruned_rows import STUB_BYTES, Pruned, Pruning, prune_rows, put_pruned, read_pruned
from ledger.engine.row_keys import HEIGHT, MAX_HEIGHT, PLACE, journal_key, place_key
from ledger.engine.state_store import LmdbStore, Reading, check_rows, put_writes
from ledger.engine.stored import StoredBlock
from ledger.engine.wal import SEGMENT_BYTES, Fault, WalRecord, WriteAheadLog, no_fault, sync_folder

LOCK_FILE = "ledger.lock"
CLOSE_S = 5.0  # for reads under way to end


@dataclass(frozen=True, slots=True)
class Moment:
    """The state at one height; `items` are its keys and values in order, to be read once."""

    height: int
    app_hash: bytes
    items: Iterator[tuple[bytes, bytes]]
    store: LmdbStore


@dataclass(frozen=True, slots=True)
class Place:
    """Where an indexed node is: `kind` is b"B" (block), b"S" (signed) or b"T" (unsigned transaction)."""

    kind: bytes
    height: int
    index: int


class LedgerStorage(LightRows):
    """The open store of one ledger. One process, one instance: the folder is locked while it is open.

    Reads may come from any thread. A block is written by `log_block`, then `apply`, by one writer at a time:
    the first decides it, the second may be repeated, also by replaying the log after opening (`pending`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        map_size_bytes: int = MAP_SIZE_BYTES,
        fault: Fault = no_fault,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._folder = folder
        self._map_size_bytes = map_size_bytes
        self._fault = fault
        self._log = WriteAheadLog(folder / "wal", fault, segment_bytes)
        self._lock: int | None = None
        self._environment: Any = None
        self._users = Users()
        self._reading: Reading | None = None
        self._tables: dict[bytes, Any] = {}

    def open(self) -> None:
        """Opens database and log. Raises StoreError (in use, unreadable) or CorruptStore."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._take_lock()
            with translated("opening"):
                self._open_environment()
            self._check_format()
            self._log.open()
            self._check_log_reaches()
        except BaseException:
            self.close()
            raise

    def committed(self) -> LmdbStore:
        """The state after the last block, for the one application that this store has."""
        if self._reading is None:
            with translated("reading state"):
                self._reading = Reading(self._environment)
        return LmdbStore(self._reading, self._tables)

    def check_state(self) -> None:
        """Reads all of the state, as no opening does; raises CorruptStore unless it has its app hash."""
        with translated("reading state"), self._begin() as txn:
            root = check_rows(LmdbStore(Reading(self._environment, txn=txn), self._tables))
        if root != self.app_hash():
            raise CorruptStore("the ledger's state has another app hash than its block says")

    def close(self) -> None:
        """Makes everything durable and releases the folder; harmless twice."""
        self._end_reads()
        if self._environment is not None:
            try:
                self._sync()
            finally:
                self._close_environment()
        self._log.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def abandon(self) -> None:
        """Closes without syncing, as a crash would; for tests of recovery and after a failed write."""
        self._end_reads()
        self._close_environment()
        self.close()

    def _end_reads(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()

    # -- reading -------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The folder the ledger lives in."""
        return self._folder

    def genesis(self) -> bytes | None:
        """The genesis document, or None while the store is new."""
        return self._get(b"meta", b"genesis")

    def height(self) -> int:
        """The height of the last block in the database, 0 before the first."""
        value = self._get(b"meta", b"height")
        return 0 if value is None else int(HEIGHT.unpack(value)[0])

    def app_hash(self) -> bytes | None:
        """The app hash after the last block, None before `create`."""
        return self._get(b"meta", b"app_hash")

    def state_items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Every state item whose key starts with `prefix`, in order of key, as of one moment."""
        with translated("reading state"), self._begin() as txn, txn.cursor(self._tables[b"state"]) as cursor:
            found = cursor.set_range(prefix) if prefix else cursor.first()
            while found and cursor.key().startswith(prefix):
                yield bytes(cursor.key()), bytes(cursor.value())
                found = cursor.next()

    @contextmanager
    def moment(self) -> Iterator[Moment]:
        """The state after the last block, as long as the context lasts, whatever is written meanwhile."""
        with translated("reading state"), self._begin() as txn:
            meta = self._tables[b"meta"]
            height, app_hash = txn.get(b"height", db=meta), txn.get(b"app_hash", db=meta)
            with txn.cursor(self._tables[b"state"]) as cursor:
                store = LmdbStore(Reading(self._environment, txn=txn), self._tables)
                yield Moment(HEIGHT.unpack(height)[0], app_hash, cursor.iternext(), store)

    def block(self, height: int) -> bytes | None:
        """The signed block at `height`."""
        return self._get(b"blocks", HEIGHT.pack(height)) if 0 <= height < 1 << 63 else None

    def first_height(self) -> int:
        """The height of the lowest block whose header is here; that of the next one if there is none."""
        with translated("reading"), self._begin() as txn, txn.cursor(self._tables[b"blocks"]) as cursor:
            found = HEIGHT.unpack(cursor.key())[0] if cursor.first() else None
        return self.height() + 1 if found is None else int(found)

    def tx(self, height: int, index: int) -> bytes | None:
        """The signed transaction at a place; None if it is not there, or no longer."""
        row = self.tx_row(height, index)
        return None if row is not None and len(row) == STUB_BYTES else row

    def tx_row(self, height: int, index: int) -> bytes | None:
        """The same, or what stands for a proof that was pruned."""
        return self._get(b"txs", place_key(height, index))

    def receipt(self, height: int, index: int) -> bytes | None:
        """The receipt of the transaction at a place."""
        return self._get(b"receipts", place_key(height, index))

    def txs(self, height: int) -> list[bytes]:
        """The signed transactions of one block, in order, as far as they are kept."""
        rows: list[bytes] = []
        if not 0 <= height < 1 << 63:
            return rows
        prefix = HEIGHT.pack(height)
        with translated("reading"), self._begin() as txn, txn.cursor(self._tables[b"txs"]) as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key().startswith(prefix):
                if len(cursor.value()) != STUB_BYTES:
                    rows.append(cursor.value())
                found = cursor.next()
        return rows

    def pruned(self) -> Pruned:
        """Up to which heights transactions are no longer kept."""
        with translated("reading"), self._begin() as txn:
            return read_pruned(txn, self._tables)

    def events(self, height: int) -> bytes | None:
        """The events of one block."""
        return self._get(b"events", HEIGHT.pack(height)) if 0 <= height < 1 << 63 else None

    def journal(self, account: bytes, height: int) -> Iterator[tuple[int, bytes]]:
        """The account's journal, (height, row) with the newest block first, from `height` down."""
        with translated("reading"), self._begin() as txn, txn.cursor(self._tables[b"journal"]) as cursor:
            following = journal_key(account, min(height, MAX_HEIGHT) + 1)
            found = cursor.prev() if cursor.set_range(following) else cursor.last()
            while found and cursor.key().startswith(account):
                yield HEIGHT.unpack_from(cursor.key(), len(account))[0], cursor.value()
                found = cursor.prev()

    def proofs(self, subject: bytes, number: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """(number, place) of a subject's proofs that are kept, the newest first, from `number` down."""
        with translated("reading"), self._begin() as txn:
            yield from read_proofs(txn, self._tables, subject, number)

    def witness(self, height: int) -> bytes | None:
        """The state's proofs that are kept with a block's proofs of storage."""
        with translated("reading"), self._begin() as txn:
            return read_witness(txn, self._tables, height)

    def find(self, digest: bytes) -> Place | None:
        """Where the node with this SHA-256 digest is."""
        value = self._get(b"index", digest) if digest else None
        if value is None:
            return None
        height, index = PLACE.unpack_from(value, 1)
        return Place(value[:1], height, index)

    def pending(self) -> Iterator[WalRecord]:
        """The logged blocks above the database's height, oldest first: to be replayed after opening."""
        return self._log.records(self.height())

    # -- writing -------------------------------------------------------------------------------------------

    def create(self, genesis: bytes, items: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Writes the genesis state at height 0; returns its app hash. Raises StoreError."""
        with self._new_state(genesis, items) as (txn, app_hash):
            put_tip(txn, self._tables, 0, app_hash)
            self._fault("create.commit")
        self._sync()
        return app_hash

    def restore(
        self,
        genesis: bytes,
        items: Iterable[tuple[bytes, bytes]],
        height: int,
        block: bytes,
        block_digest: bytes,
        app_hash: bytes,
    ) -> None:
        """Writes the state after a block, and the block itself as if it and all before it had been pruned.

        All or nothing. Raises StoreError, CorruptStore if the items do not have this app hash.
        """
        with self._new_state(genesis, items) as (txn, root):
            if root != app_hash:
                raise CorruptStore(
                    f"the state has app hash {root.hex()}, block {height} says {app_hash.hex()}"
                )
            txn.put(HEIGHT.pack(height), block, db=self._tables[b"blocks"])
            txn.put(block_digest, b"B" + place_key(height, 0), db=self._tables[b"index"])
            put_pruned(txn, self._tables, Pruned(height, height))
            put_tip(txn, self._tables, height, app_hash)
            self._fault("create.commit")
        self._sync()

    @contextmanager
    def _new_state(self, genesis: bytes, items: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[Any, bytes]]:
        """A write transaction in which the empty store got these items, and their app hash."""
        if self.genesis() is not None:
            raise StoreError(f"{self._folder} already holds a ledger")
        with (
            translated("creating the ledger"),
            new_state(self._environment, self._tables, genesis, items) as made,
        ):
            yield made

    def end_transactions(self, timeout_s: float) -> None:
        """Before `replace`: lets only the application read, and waits for who does. Raises StoreError."""
        if not self._users.leave(timeout_s):
            raise StoreError(f"somebody still reads the ledger's database after {timeout_s:g} s")

    def replace(self, database: Path) -> None:
        """Puts another database file in the place of this one, all or nothing, and goes on with it.

        That file is durable and leaves where it was. After `end_transactions`; the application's reading
        ends here. Raises StoreError.
        """
        self._end_reads()
        with translated("putting a state in place"):
            self._close_environment()
            self._fault("replace.closed")
            database.replace(self._folder / "db" / "data.mdb")
            sync_folder(self._folder / "db")
            self._fault("replace.done")
            self._open_environment()
        self._check_format()

    def log_block(self, block: StoredBlock) -> None:
        """Appends the block to the write-ahead log; it is decided when this returns. Raises StoreError."""
        self._log.append(block.height, block.log_payload)

    def apply(self, block: StoredBlock, pruning: Pruning | None = None) -> None:
        """Writes a logged block into the database, all or nothing; may be repeated. Raises StoreError.

        What `pruning` says leaves with it.
        """
        if block.height != self.height() + 1:
            raise StoreError(f"block {block.height} does not follow block {self.height()}")
        with translated(f"writing block {block.height}"), self._begin(write=True) as txn:
            self._fault("db.begin")
            put_writes(txn, self._tables, block.writes)
            self._fault("db.state")
            put_block(txn, self._tables, block)
            if pruning is not None:
                prune_rows(txn, self._tables, pruning)
            self._fault("db.commit")
        self._fault("db.committed")
        if self._log.full:
            self._sync()
            self._log.rotate(block.height + 1)

    # -- inside --------------------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        path = self._folder / LOCK_FILE
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{self._folder} is in use by another process; stop that one first") from error

    def _open_environment(self) -> None:
        self._environment = open_environment(self._folder / "db", self._map_size_bytes, len(TABLES))
        self._tables = {name: self._environment.open_db(name) for name in TABLES}
        self._users = Users()

    def _close_environment(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            self._users.leave(CLOSE_S)
            environment.close()

    def _sync(self) -> None:
        with translated("syncing"):
            self._environment.sync(True)

    def _check_format(self) -> None:
        value = self._get(b"meta", b"format")
        if value is not None and value != ledger_format.mark():
            raise StoreError(
                f"{self._folder} has another format (0x{value.hex()}): use the release that wrote it, or "
                "move the folder away to begin a new ledger, without its deals and balances"
            )

    def _check_log_reaches(self) -> None:
        height = self.height()
        first = self._log.first_height
        if first is not None and first > height + 1:
            raise CorruptStore(
                f"the database ends at block {height} and the write-ahead log starts at {first}; "
                "restore the ledger from a backup"
            )
        if height > self.pruned().blocks and self.block(height) is None:
            raise CorruptStore(
                f"block {height} is missing from the database; restore the ledger from a backup"
            )

    @contextmanager
    def _begin(self, *, write: bool = False) -> Iterator[Any]:
        with self._users.counted():
            if self._environment is None:
                raise EngineStopped("the ledger's store is closed")
            with self._environment.begin(write=write) as txn:
                yield txn

    def _get(self, table: bytes, key: bytes) -> bytes | None:
        with translated("reading"), self._begin() as txn:
            value: bytes | None = txn.get(key, db=self._tables[table])
            return value
