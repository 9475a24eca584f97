"""Leases: small files by which an adder tells a collector in another process which blocks it relies on.

A lease under which cached blocks are put says since when: what was used since then is not evicted either.
A lease must be seen by live processes only, so it is never synced: after a power cut every lease is dead.
It becomes visible whole (written aside, then renamed), so one that cannot be read is such a leftover.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from storage_node.blockstore.disk import is_lack_of_room
from storage_node.errors import StoreFailed, StoreFull

MAX_LEASE_BYTES = 4096
PS_TIMEOUT_S = 10
_NOT_YET = 0  # epochs begin at 1
_HAS_PROC = Path("/proc/self/stat").exists()  # Linux; elsewhere `ps` answers


class _Content(NamedTuple):
    """What a lease says: blocks stamped `epoch` or later stay, and cached ones used from `cached_s` on."""

    epoch: int
    cached_s: int | None = None


@dataclass(slots=True, eq=False)
class _Held:
    """A lease of this process."""

    path: Path
    content: _Content


_held: ContextVar[tuple[_Held, ...]] = ContextVar("leases of this thread or task", default=())


class LeaseBook:
    """The leases of all processes on one store, one file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def hold(self, epoch: int) -> Iterator[None]:
        """Say that this thread or task relies on blocks stamped `epoch` or later. Raises StoreFull."""
        lease = _Held(self._folder / f"{os.getpid()}-{secrets.token_hex(8)}", _Content(epoch))
        _write(lease.path, lease.content)
        _held.set((*_held.get(), lease))
        try:
            yield
        finally:
            _held.set(tuple(each for each in _held.get() if each is not lease))
            lease.path.unlink(missing_ok=True)

    def cover_cache(self, now_s: int) -> None:
        """Keep cached blocks that are used from now on, under leases of this thread or task, from eviction.

        Raises StoreFull.
        """
        for lease in _held.get():
            if lease.content.cached_s is None and lease.path.parent == self._folder and lease.path.exists():
                content = lease.content._replace(cached_s=now_s)
                _write(lease.path, content)
                lease.content = content

    def oldest(self) -> int | None:
        """The lowest epoch of a live lease, None without one; removes what dead processes left."""
        epochs = []
        for path in self._folder.iterdir():
            content = _live(path)
            if content is None:
                path.unlink(missing_ok=True)  # names are random: nobody takes the same one again
            elif content.epoch != _NOT_YET:
                epochs.append(content.epoch)
        return min(epochs, default=None)

    def cached_since(self) -> int | None:
        """Since when cached blocks that were used are not to be evicted, None if all may be."""
        contents = [content for path in self._folder.iterdir() if (content := _live(path)) is not None]
        return min((each.cached_s for each in contents if each.cached_s is not None), default=None)

    def dead(self) -> list[Path]:
        """What dead processes left."""
        return [path for path in self._folder.iterdir() if _live(path) is None]


def _write(path: Path, content: _Content) -> None:
    partial = path.with_suffix(".tmp")
    pid = os.getpid()
    fields = {"pid": pid, "start": process_start(pid), **content._asdict()}
    try:
        partial.write_bytes(json.dumps(fields).encode())
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if is_lack_of_room(str(error), path.parent):
            raise StoreFull(f"{path}: no room on the disk; free some space") from error
        raise StoreFailed(f"{path}: {error}") from error


def _live(path: Path) -> _Content | None:
    """What a lease says, _NOT_YET of one that is being written; None if it counts for nothing."""
    if path.suffix == ".tmp":
        pid_text = path.name.partition("-")[0]
        alive = pid_text.isdigit() and process_start(int(pid_text)) is not None
        return _Content(_NOT_YET) if alive else None
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_LEASE_BYTES))
        pid, start, epoch = content["pid"], content["start"], content["epoch"]
        cached_s = content.get("cached_s")
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # dropped meanwhile, or left unfinished when the power went
    if type(pid) is not int or type(epoch) is not int or process_start(pid) != start:
        return None
    return _Content(epoch, cached_s if type(cached_s) is int else None)


def process_start(pid: int) -> str | None:
    """What tells this process from an earlier or later one with the same ID; None if it is not running.

    A killed process that its parent has not yet reaped counts as not running.
    """
    if _HAS_PROC:
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may hold anything
        state, start_ticks = fields[0], fields[19]
        return None if state in b"ZX" else f"{_boot_id()}:{int(start_ticks)}"
    import subprocess  # 10 ms to import, and only where there is no /proc

    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PS_TIMEOUT_S, check=False)
    state_text, _, started = done.stdout.strip().partition(" ")
    return None if not state_text or state_text.startswith("Z") else started.strip()


@lru_cache(maxsize=1)
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
