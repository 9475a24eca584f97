"""`run/daemon.lock`: whoever holds it alone collects, evicts, compacts, repairs and saves.

A server takes it for one slice of work at a time and lets go early when somebody `is_wanted`: whoever waits
holds `daemon.waiting` shared meanwhile. The system drops both when a process dies.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storage_node.errors import LockHeld

MAX_PID_BYTES = 32
PATIENCE_S = 0.1  # `holder` takes the lock for a moment to look at it
PAUSE_S = 0.01


@contextmanager
def daemon_lock(
    path: Path,
    sleep: Callable[[float], None] = time.sleep,
    *,
    patience_s: float = PATIENCE_S,
    on_wait: Callable[[int | None], None] | None = None,
) -> Iterator[None]:
    """Hold the lock while the context lasts; the system drops it when the process dies.

    Waits up to `patience_s` for whoever has it, and tells `on_wait` its process ID if that takes more than a
    moment. Raises LockHeld with the holder's process ID.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(path, handle, sleep, patience_s, on_wait)
        _write_pid(handle, b"%d" % os.getpid())
        yield
        _write_pid(handle, b"")
    finally:
        os.close(handle)


def _acquire(
    path: Path,
    handle: int,
    sleep: Callable[[float], None],
    patience_s: float,
    on_wait: Callable[[int | None], None] | None,
) -> None:
    if _try(handle):
        return
    waiting = os.open(_waiting(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(waiting, fcntl.LOCK_SH)
        waited_s = 0.0
        while waited_s < patience_s:
            sleep(PAUSE_S)
            before_s, waited_s = waited_s, waited_s + PAUSE_S
            if _try(handle):
                return
            if on_wait is not None and before_s < PATIENCE_S <= waited_s:
                on_wait(_read_pid(handle))
    finally:
        os.close(waiting)
    pid = _read_pid(handle)
    who = "another process" if pid is None else f"process {pid}"
    raise LockHeld(f"{path}: {who} runs the maintenance of this store; ask it, or stop it first", pid)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_wanted(path: Path) -> bool:
    """Whether somebody waits for the lock: whoever holds it for work that can go on later lets go."""
    try:
        handle = os.open(_waiting(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try(handle)
    finally:
        os.close(handle)


def _waiting(path: Path) -> Path:
    return path.with_suffix(".waiting")


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


def _write_pid(handle: int, pid: bytes) -> None:
    """Always as many bytes, so that a full disk has room for them from the second time on."""
    with suppress(OSError):  # nobody learns who holds it, but it must be had to make room
        os.pwrite(handle, pid.ljust(MAX_PID_BYTES, b"\n"), 0)


def _read_pid(handle: int) -> int | None:
    text = os.pread(handle, MAX_PID_BYTES, 0).strip()
    return int(text) if text.isdigit() else None
