"""Leases: small files by which an adder tells a collector in another process which blocks it relies on.

A lease must be seen by live processes only, so it is never synced: after a power cut every lease is dead.
It becomes visible whole (written aside, then renamed), so one that cannot be read is such a leftover.
"""

from __future__ import annotations

import json
import os
import secrets
from functools import lru_cache
from pathlib import Path

from storage_node.blockstore.disk import is_lack_of_room
from storage_node.errors import StoreFailed, StoreFull

MAX_LEASE_BYTES = 4096
PS_TIMEOUT_S = 10
_NOT_YET = 0  # epochs begin at 1
_HAS_PROC = Path("/proc/self/stat").exists()  # Linux; elsewhere `ps` answers


class LeaseBook:
    """The leases of all processes on one store, one file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    def take(self, epoch: int) -> Path:
        """Record that this process relies on blocks stamped `epoch` or later. Raises StoreFull."""
        pid = os.getpid()
        path = self._folder / f"{pid}-{secrets.token_hex(8)}"
        partial = path.with_suffix(".tmp")
        content = {"pid": pid, "start": process_start(pid), "epoch": epoch}
        try:
            partial.write_bytes(json.dumps(content).encode())
            partial.rename(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if is_lack_of_room(str(error), self._folder):
                raise StoreFull(f"{path}: no room on the disk; free some space") from error
            raise StoreFailed(f"{path}: {error}") from error
        return path

    def drop(self, lease: Path) -> None:
        """Give a lease back; it may be gone already."""
        lease.unlink(missing_ok=True)

    def oldest(self) -> int | None:
        """The lowest epoch of a live lease, None without one; removes what dead processes left."""
        epochs = []
        for path in self._folder.iterdir():
            epoch = _live_epoch(path)
            if epoch is None:
                path.unlink(missing_ok=True)  # names are random: nobody takes the same one again
            elif epoch != _NOT_YET:
                epochs.append(epoch)
        return min(epochs, default=None)

    def dead(self) -> list[Path]:
        """What dead processes left."""
        return [path for path in self._folder.iterdir() if _live_epoch(path) is None]


def _live_epoch(path: Path) -> int | None:
    """The epoch of a lease, _NOT_YET of one that is being written; None if it counts for nothing."""
    if path.suffix == ".tmp":
        pid_text = path.name.partition("-")[0]
        alive = pid_text.isdigit() and process_start(int(pid_text)) is not None
        return _NOT_YET if alive else None
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_LEASE_BYTES))
        pid, start, epoch = content["pid"], content["start"], content["epoch"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None  # dropped meanwhile, or left unfinished when the power went
    return epoch if type(pid) is int and type(epoch) is int and process_start(pid) == start else None


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
