"""`run/daemon.lock`: whoever holds it alone collects, compacts, scrubs, evicts and migrates."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from storage_node.errors import LockHeld

MAX_PID_BYTES = 32
TRIES = 10  # `holder` takes the lock for a moment to look at it
PAUSE_S = 0.01


@contextmanager
def daemon_lock(path: Path, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Hold the lock while the context lasts; the system drops it when the process dies.

    Raises LockHeld with the holder's process ID.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for attempt in range(TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt + 1 == TRIES:
                    pid = _read_pid(handle)
                    who = "another process" if pid is None else f"process {pid}"
                    raise LockHeld(
                        f"{path}: {who} runs the maintenance of this store; ask it, or stop it first", pid
                    ) from None
                sleep(PAUSE_S)
        os.ftruncate(handle, 0)
        os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def holder(path: Path) -> int | None:
    """The process that holds the lock, None if nobody does. Raises LockHeld if its ID is not known yet."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        pid = _read_pid(handle)
        if pid is None:
            raise LockHeld(f"{path}: held by a process that is just starting or ending", None) from None
        return pid
    finally:
        os.close(handle)


def _read_pid(handle: int) -> int | None:
    text = os.pread(handle, MAX_PID_BYTES, 0).strip()
    return int(text) if text.isdigit() else None
