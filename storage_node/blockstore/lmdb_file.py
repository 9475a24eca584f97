"""Opening one LMDB file so that no page of it, nor of its lock file, is SIGBUS when it is touched."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import lmdb

from storage_node.blockstore.disk import allocate

MAP_BYTES = 1 << 40  # address space only; never resized while open (a live view would be SIGBUS)
MAX_READERS = 4096
LOCK_FILE_BYTES = 64 * MAX_READERS + 128  # as large as LMDB makes it on Linux
SPARE_TRANSACTIONS = 16
PAGE_BYTES = 4096
REOPEN_PAUSES_S = (0.001, 0.01, 0.1, 1.0)


def lock_file(path: Path) -> Path:
    """Where LMDB keeps the locks and readers of a file."""
    return path.with_name(path.name + "-lock")


def open_file(path: Path, create: bool) -> Any:
    """The lmdb.Environment of one file. Raises lmdb.Error, and OSError for want of room.

    py-lmdb knows open files by inode and forgets one a moment after it is closed. Within that moment a new
    file may have got the inode of a retired generation that another thread has just let go: try again.
    A handle that broke may live on in the frames of the error that it ended with: those let go of it first.
    """
    allocate(lock_file(path), LOCK_FILE_BYTES)
    for pause_s in (*REOPEN_PAUSES_S, None):
        try:
            return lmdb.open(
                os.fsencode(path), subdir=False, map_size=MAP_BYTES, max_readers=MAX_READERS,
                max_spare_txns=SPARE_TRANSACTIONS, create=create, mode=0o600,
            )  # fmt: skip
        except lmdb.Error as error:
            if pause_s is None or "already open" not in str(error):
                raise
            _let_go(error)
        gc.collect()
        time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _let_go(error: BaseException | None) -> None:
    """Empty the ended frames of an error and of those that are being handled meanwhile."""
    import traceback  # 10 ms, and only where a disk has failed

    while error is not None:
        traceback.clear_frames(error.__traceback__)
        _let_go(error.__cause__)
        error = error.__context__


def fill_cut_tail(raw: Any, path: Path) -> None:
    """Make a file that was cut short as long as LMDB believes it is.

    Reading a mapped page behind the end of the file kills the process (SIGBUS); a page of zeros is an
    error that verification finds. LMDB itself may leave its last pages unwritten, so a short file is no
    proof of damage.
    """
    expected = (raw.info()["last_pgno"] + 1) * PAGE_BYTES
    if path.stat().st_size >= expected:
        return
    with raw.begin(write=True):  # nobody else grows the file meanwhile
        expected = (raw.info()["last_pgno"] + 1) * PAGE_BYTES
        if path.stat().st_size < expected:
            os.truncate(path, expected)
