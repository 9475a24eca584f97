"""The ledger on disk: one LMDB environment, written in one transaction a block behind a write-ahead log.

Tables: `meta` (format, genesis, height, app hash), `state` (key → value of the
authenticated map), `blocks` (u64be height → signed block), `txs` and `receipts` (u64be height ‖ u32be index →
signed transaction, receipt), `events` (u64be height → events), `index` (SHA-256 digest of a block, a signed
transaction or an unsigned one → where it is), `journal` (account ‖ u64be height → what changed its balance
and stake in that block). Values are opaque here; the engine gives them their shape.

LMDB runs with `metasync=False`: power loss may undo its last transaction, which the log then replays.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from ledger.engine.errors import CorruptStore, EngineStopped, StoreError
from ledger.engine.wal import SEGMENT_BYTES, Fault, WalRecord, WriteAheadLog, no_fault, sync_folder

FORMAT = 1
MAP_SIZE_BYTES = 64 << 30
MAX_READERS = 512
TABLES = (b"meta", b"state", b"blocks", b"txs", b"receipts", b"events", b"index", b"journal")
LOCK_FILE = "ledger.lock"

_HEIGHT = struct.Struct(">Q")
_MAX_HEIGHT = (1 << 63) - 1
_PLACE = struct.Struct(">QI")
PLACE_BYTES = _PLACE.size


@dataclass(frozen=True, slots=True)
class StoredTx:
    """One transaction of a block: signed bytes, digests of its signed and unsigned CIDs, receipt bytes."""

    raw: bytes
    signed_digest: bytes
    unsigned_digest: bytes
    receipt: bytes


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """Everything one block changes on disk."""

    height: int
    block: bytes
    block_digest: bytes
    txs: Sequence[StoredTx]
    events: bytes
    journal: Mapping[bytes, bytes]
    state: Mapping[bytes, bytes | None]
    app_hash: bytes
    log_payload: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where an indexed node is: `kind` is b"B" (block), b"S" (signed) or b"T" (unsigned transaction)."""

    kind: bytes
    height: int
    index: int


def journal_key(account: bytes, height: int) -> bytes:
    """The key of an account's journal of one block."""
    return account + _HEIGHT.pack(height)


def place_key(height: int, index: int) -> bytes:
    """The key of a transaction and its receipt."""
    return _PLACE.pack(height, index)


def read_place(key: bytes) -> tuple[int, int]:
    """(height, index) of a key that `place_key` made."""
    height, index = _PLACE.unpack(key)
    return height, index


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """No LMDB or system error leaves this module under its own name."""
    try:
        yield
    except (
        lmdb.CorruptedError,
        lmdb.InvalidError,
        lmdb.PageNotFoundError,
        lmdb.VersionMismatchError,
    ) as error:
        raise CorruptStore(
            f"the ledger's database is damaged ({what}: {error}); restore it from a backup"
        ) from error
    except lmdb.MapFullError as error:
        raise StoreError(
            f"the ledger's database is full ({what}); it holds {MAP_SIZE_BYTES >> 30} GiB at most"
        ) from error
    except (lmdb.Error, OSError) as error:
        raise StoreError(f"the ledger's database cannot be used ({what}: {error})") from error


class LedgerStorage:
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
        self._tables: dict[bytes, Any] = {}

    def open(self) -> None:
        """Opens database and log. Raises StoreError (in use, unreadable) or CorruptStore."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._take_lock()
            with _translated("opening"):
                self._open_environment()
            self._check_format()
            self._log.open()
            self._check_log_reaches()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Makes everything durable and releases the folder; harmless twice."""
        if self._environment is not None:
            environment, self._environment = self._environment, None
            try:
                with _translated("syncing"):
                    environment.sync(True)
            finally:
                environment.close()
        self._log.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def abandon(self) -> None:
        """Closes without syncing, as a crash would; for tests of recovery and after a failed write."""
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.close()
        self.close()

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
        return 0 if value is None else int(_HEIGHT.unpack(value)[0])

    def app_hash(self) -> bytes | None:
        """The app hash after the last block, None before `create`."""
        return self._get(b"meta", b"app_hash")

    def state_items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Every state item whose key starts with `prefix`, in order of key, as of one moment."""
        with _translated("reading state"), self._begin() as txn, txn.cursor(self._tables[b"state"]) as cursor:
            found = cursor.set_range(prefix) if prefix else cursor.first()
            while found and cursor.key().startswith(prefix):
                yield bytes(cursor.key()), bytes(cursor.value())
                found = cursor.next()

    def block(self, height: int) -> bytes | None:
        """The signed block at `height`."""
        return self._get(b"blocks", _HEIGHT.pack(height)) if 0 <= height < 1 << 63 else None

    def tx(self, height: int, index: int) -> bytes | None:
        """The signed transaction at a place."""
        return self._get(b"txs", place_key(height, index))

    def receipt(self, height: int, index: int) -> bytes | None:
        """The receipt of the transaction at a place."""
        return self._get(b"receipts", place_key(height, index))

    def txs(self, height: int) -> list[bytes]:
        """The signed transactions of one block, in order."""
        rows: list[bytes] = []
        if not 0 <= height < 1 << 63:
            return rows
        prefix = _HEIGHT.pack(height)
        with _translated("reading"), self._begin() as txn, txn.cursor(self._tables[b"txs"]) as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key().startswith(prefix):
                rows.append(cursor.value())
                found = cursor.next()
        return rows

    def events(self, height: int) -> bytes | None:
        """The events of one block."""
        return self._get(b"events", _HEIGHT.pack(height)) if 0 <= height < 1 << 63 else None

    def journal(self, account: bytes, height: int) -> Iterator[tuple[int, bytes]]:
        """The account's journal, (height, row) with the newest block first, from `height` down."""
        with _translated("reading"), self._begin() as txn, txn.cursor(self._tables[b"journal"]) as cursor:
            following = journal_key(account, min(height, _MAX_HEIGHT) + 1)
            found = cursor.prev() if cursor.set_range(following) else cursor.last()
            while found and cursor.key().startswith(account):
                yield _HEIGHT.unpack_from(cursor.key(), len(account))[0], cursor.value()
                found = cursor.prev()

    def find(self, digest: bytes) -> Place | None:
        """Where the node with this SHA-256 digest is."""
        value = self._get(b"index", digest) if digest else None
        if value is None:
            return None
        height, index = _PLACE.unpack_from(value, 1)
        return Place(value[:1], height, index)

    def pending(self) -> Iterator[WalRecord]:
        """The logged blocks above the database's height, oldest first: to be replayed after opening."""
        return self._log.records(self.height())

    # -- writing -------------------------------------------------------------------------------------------

    def create(self, genesis: bytes, state: Mapping[bytes, bytes | None], app_hash: bytes) -> None:
        """Writes the genesis state at height 0. Raises StoreError."""
        if self.genesis() is not None:
            raise StoreError(f"{self._folder} already holds a ledger")
        with _translated("creating the ledger"), self._begin(write=True) as txn:
            self._put_state(txn, state)
            meta = self._tables[b"meta"]
            txn.put(b"format", struct.pack(">I", FORMAT), db=meta)
            txn.put(b"genesis", genesis, db=meta)
            txn.put(b"height", _HEIGHT.pack(0), db=meta)
            txn.put(b"app_hash", app_hash, db=meta)
            self._fault("create.commit")
        with _translated("syncing"):
            self._environment.sync(True)

    def log_block(self, block: StoredBlock) -> None:
        """Appends the block to the write-ahead log; it is decided when this returns. Raises StoreError."""
        self._log.append(block.height, block.log_payload)

    def apply(self, block: StoredBlock) -> None:
        """Writes a logged block into the database, all or nothing; may be repeated. Raises StoreError."""
        if block.height != self.height() + 1:
            raise StoreError(f"block {block.height} does not follow block {self.height()}")
        with _translated(f"writing block {block.height}"), self._begin(write=True) as txn:
            self._fault("db.begin")
            self._put_state(txn, block.state)
            self._fault("db.state")
            self._put_block(txn, block)
            self._fault("db.commit")
        self._fault("db.committed")
        if self._log.full:
            with _translated("syncing"):
                self._environment.sync(True)
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
        path = self._folder / "db"
        if not (path / "data.mdb").exists():
            self._make_environment(path)
        self._environment = self._lmdb(path)
        # Reading a mapped page behind the end of a cut file would kill the process (SIGBUS); a page of zeros
        # is an ordinary "corrupted". A sound file may lack pages that were allocated and never written.
        file = path / "data.mdb"
        needed_bytes = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        if file.stat().st_size < needed_bytes:
            os.truncate(file, needed_bytes)
        self._tables = {name: self._environment.open_db(name) for name in TABLES}

    def _make_environment(self, path: Path) -> None:
        """An empty database that is there as a whole: with half a first page it could never be opened."""
        made = path.with_name(f"{path.name}.new")
        for unfinished in (made, path):
            shutil.rmtree(unfinished, ignore_errors=True)
        made.mkdir(mode=0o700)
        environment = self._lmdb(made)
        environment.sync(True)
        environment.close()
        (made / "lock.mdb").unlink()
        sync_folder(made)
        made.rename(path)
        sync_folder(path.parent)

    def _lmdb(self, path: Path) -> Any:
        return lmdb.open(
            str(path),
            map_size=self._map_size_bytes,
            max_dbs=len(TABLES),
            max_readers=MAX_READERS,
            max_spare_txns=8,
            metasync=False,
            readahead=False,
            meminit=False,
            mode=0o600,
        )

    def _check_format(self) -> None:
        value = self._get(b"meta", b"format")
        if value is not None and value != struct.pack(">I", FORMAT):
            raise StoreError(
                f"{self._folder} has another format (0x{value.hex()}); use the release that wrote it"
            )

    def _check_log_reaches(self) -> None:
        height = self.height()
        first = self._log.first_height
        if first is not None and first > height + 1:
            raise CorruptStore(
                f"the database ends at block {height} and the write-ahead log starts at {first}; "
                "restore the ledger from a backup"
            )
        if height and self.block(height) is None:
            raise CorruptStore(
                f"block {height} is missing from the database; restore the ledger from a backup"
            )

    def _begin(self, *, write: bool = False) -> Any:
        if self._environment is None:
            raise EngineStopped("the ledger's store is closed")
        return self._environment.begin(write=write)

    def _get(self, table: bytes, key: bytes) -> bytes | None:
        with _translated("reading"), self._begin() as txn:
            value: bytes | None = txn.get(key, db=self._tables[table])
            return value

    def _put_state(self, txn: Any, items: Mapping[bytes, bytes | None]) -> None:
        table = self._tables[b"state"]
        for key in sorted(items):
            value = items[key]
            if value is None:
                txn.delete(key, db=table)
            else:
                txn.put(key, value, db=table)

    def _put_block(self, txn: Any, block: StoredBlock) -> None:
        height = _HEIGHT.pack(block.height)
        index = [(block.block_digest, b"B" + place_key(block.height, 0))]
        txn.put(height, block.block, db=self._tables[b"blocks"], append=True)
        for number, tx in enumerate(block.txs):
            key = place_key(block.height, number)
            txn.put(key, tx.raw, db=self._tables[b"txs"], append=True)
            txn.put(key, tx.receipt, db=self._tables[b"receipts"], append=True)
            index.append((tx.signed_digest, b"S" + key))
            index.append((tx.unsigned_digest, b"T" + key))
        for digest, place in sorted(index):
            txn.put(digest, place, db=self._tables[b"index"])
        txn.put(height, block.events, db=self._tables[b"events"], append=True)
        for account, row in sorted(block.journal.items()):
            txn.put(journal_key(account, block.height), row, db=self._tables[b"journal"])
        meta = self._tables[b"meta"]
        txn.put(b"height", height, db=meta)
        txn.put(b"app_hash", block.app_hash, db=meta)
