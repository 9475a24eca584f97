"""The LMDB environment of a ledger: made as a whole, opened safely, its errors in the engine's words."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from ledger.engine.errors import CorruptStore, EngineStopped, StoreError
from ledger.engine.wal import sync_folder

MAP_SIZE_BYTES = 64 << 30
MAX_READERS = 512
# Whoever reads from a transaction in which an earlier read met damage is told that the transaction is bad.
_DAMAGE = (
    lmdb.BadTxnError,
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)


def explain(what: str, error: lmdb.Error | OSError) -> StoreError:
    """The error to raise instead; `what` says what was being done."""
    if isinstance(error, _DAMAGE):
        return CorruptStore(
            f"the ledger's database is damaged ({what}: {error}); restore it from a backup or, on CometBFT, "
            "begin again by state sync"
        )
    if isinstance(error, lmdb.MapFullError):
        return StoreError(
            f"the ledger's database is full ({what}); it holds {MAP_SIZE_BYTES >> 30} GiB at most"
        )
    # LMDB calls a write that was cut short an input/output error, as where the disk has just become full.
    full = "; maybe no space is left on the disk" if os.strerror(errno.EIO) in str(error) else ""
    return StoreError(f"the ledger's database cannot be used ({what}: {error}{full})")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """No LMDB or system error leaves the block under its own name."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise explain(what, error) from error


class Users:
    """Whoever is in a transaction of one environment, in any thread: closing it under them may crash."""

    def __init__(self) -> None:
        self._count = 0
        self._is_closed = False
        self._changed = threading.Condition()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Around a transaction; raises EngineStopped once `leave` was called."""
        with self._changed:
            if self._is_closed:
                raise EngineStopped("the ledger's store is closed, or about to be replaced; ask again")
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def leave(self, timeout_s: float) -> bool:
        """Lets nobody begin any more, and waits for who has; whether all have ended in time."""
        with self._changed:
            self._is_closed = True
            return self._changed.wait_for(lambda: not self._count, timeout_s)


def open_environment(path: Path, map_size_bytes: int, tables: int, *, sync: bool = True) -> Any:
    """The environment in a folder, made if it is not there. Raises lmdb.Error and OSError.

    Without `sync` it is durable after its owner's `sync` alone, and may be damaged by a crash before.
    """
    if not (path / "data.mdb").exists():
        _make(path, map_size_bytes, tables)
    environment = _open(path, map_size_bytes, tables, sync=sync)
    # Reading a mapped page behind the end of a cut file would kill the process (SIGBUS); a page of zeros
    # is an ordinary "corrupted". A sound file may lack pages that were allocated and never written.
    file = path / "data.mdb"
    needed_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if file.stat().st_size < needed_bytes:
        os.truncate(file, needed_bytes)
    return environment


def _make(path: Path, map_size_bytes: int, tables: int) -> None:
    """An empty database that is there as a whole: with half a first page it could never be opened."""
    made = path.with_name(f"{path.name}.new")
    for unfinished in (made, path):
        shutil.rmtree(unfinished, ignore_errors=True)
    made.mkdir(mode=0o700)
    environment = _open(made, map_size_bytes, tables)
    environment.sync(True)
    environment.close()
    (made / "lock.mdb").unlink()
    sync_folder(made)
    made.rename(path)
    sync_folder(path.parent)


def _open(path: Path, map_size_bytes: int, tables: int, *, sync: bool = True) -> Any:
    return lmdb.open(
        str(path),
        map_size=map_size_bytes,
        max_dbs=tables,
        max_readers=MAX_READERS,
        max_spare_txns=8,
        sync=sync,
        metasync=False,
        readahead=False,
        meminit=False,
        mode=0o600,
    )
