"""Steers `shim.c`: compiles it, says which system calls are struck and how, and cuts the power.

A process that was started with `Faults.environment()` has the library loaded. Nothing is struck before
`arm`; `struck` says how often something was, and a test that asserts it cannot pass for want of a fault.
"""

from __future__ import annotations

import enum
import errno
import mmap
import os
import random
import shutil
import struct
import subprocess
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("shim.c")
COMPILE_TIMEOUT_S = 60
SECTOR_BYTES = 512

_CONTROL = struct.Struct("=iiiiqqqq256s")
_SEEN = struct.Struct("=qq")
_SEEN_AT = 32
_RECORD = struct.Struct("=c3xIqqqq")


class Call(enum.IntFlag):
    """Which system calls are struck."""

    WRITE = 1
    SYNC = 2
    TRUNCATE = 4
    MAP = 8
    RENAME = 16
    UNLINK = 32


CHANGES = Call.WRITE | Call.SYNC | Call.TRUNCATE | Call.RENAME | Call.UNLINK


class Action(enum.IntEnum):
    """What happens to a struck call: the process ends, half of it is done, or it fails."""

    KILL = -1  # before the call
    TEAR = -2  # after the first half of a write
    KILL_AFTER = -3
    SHORTEN = -4  # half of a write is done and said to be done
    ENOSPC = errno.ENOSPC
    EDQUOT = errno.EDQUOT
    EIO = errno.EIO
    ENOMEM = errno.ENOMEM


def compiler() -> str | None:
    """What compiles the library, None where there is no C compiler or no Linux."""
    if not Path("/proc/self/fd").is_dir():
        return None
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


class Faults:
    """One control file in `folder`; every process started with its environment obeys it."""

    def __init__(self, folder: Path, *, undo: bool = False) -> None:
        self._file = folder / "faults"
        if not self._file.exists():
            self._file.write_bytes(bytes(_CONTROL.size))
        with self._file.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CONTROL.size)
        self.undo = folder / "undo.log" if undo else None
        if undo:
            self._boot()

    def environment(self) -> dict[str, str]:
        """What a child's environment needs on top."""
        made = self._file.with_name("shim.so")
        if not made.exists():
            program = compiler()
            assert program is not None, "no C compiler: skip before coming here"
            command = [program, "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", str(made)]
            subprocess.run([*command, str(SOURCE)], check=True, timeout=COMPILE_TIMEOUT_S)
        more = {"LD_PRELOAD": str(made), "HOLDFAST_FAULTS": str(self._file)}
        return more if self.undo is None else more | {"HOLDFAST_FAULTS_UNDO": str(self.undo)}

    def arm(self, action: Action, calls: Call, path: Path | str, *, after: int = 0, times: int = 0) -> None:
        """From the next call on: strike the calls on files whose path holds `path`, behind the first `after`.

        `times` 0 strikes all of them, until `disarm`. The counts begin at 0.
        """
        self.disarm()
        text = str(path).encode()
        self._map[:] = _CONTROL.pack(1, calls, action, 0, after, times, 0, 0, text)

    def count(self, calls: Call, path: Path | str) -> None:
        """Only count the calls in `seen`."""
        self.arm(Action.EIO, calls, path, after=1 << 60)

    def _boot(self) -> None:
        """From now on the machine has another boot ID."""
        assert self.undo is not None
        self.undo.with_name("undo.log.boot").write_text(f"{uuid.uuid4()}\n")

    def keep(self) -> None:
        """What was written so far is on the disk, as far as power cuts go."""
        if self.undo is not None:
            self.undo.write_bytes(b"")

    def disarm(self) -> None:
        """Let everything work again; the counts stay."""
        self._map[:4] = bytes(4)

    @property
    def seen(self) -> int:
        """How many calls were looked at since `arm`."""
        return int(_SEEN.unpack_from(self._map, _SEEN_AT)[0])

    @property
    def struck(self) -> int:
        """How many calls were struck since `arm`."""
        return int(_SEEN.unpack_from(self._map, _SEEN_AT)[1])

    def cut_power(self, chance: random.Random) -> int:
        """Leave of what was written and not yet synced what a power cut may leave; returns sectors lost.

        Every sector that was written since its file's last sync gets what it holds now or one of the
        contents that it had since, by chance and each for itself; so does the file's length. The log begins
        anew, and the machine has booted. Nobody may have the files open.
        """
        assert self.undo is not None
        before: dict[str, dict[int, list[bytes]]] = defaultdict(lambda: defaultdict(list))
        lengths: dict[str, list[int]] = defaultdict(list)
        for record in _records(self.undo):
            if record.synced:
                before.pop(record.path, None)
                lengths.pop(record.path, None)
                continue
            lengths[record.path].append(record.file_bytes)
            first = record.offset // SECTOR_BYTES
            for sector in range(first, (record.offset + record.new_bytes - 1) // SECTOR_BYTES + 1):
                start = max(record.offset, sector * SECTOR_BYTES)
                end = min(record.offset + record.new_bytes, (sector + 1) * SECTOR_BYTES)
                old = record.old[start - record.offset : end - record.offset].ljust(end - start, b"\0")
                before[record.path][sector].append(start.to_bytes(8, "big") + old)
        self.undo.write_bytes(b"")
        self._boot()
        lost = 0
        for path, sectors in before.items():
            if Path(path).exists():  # renamed and unlinked files keep what they have
                lost += _lose(Path(path), sectors, lengths[path], chance)
        return lost


class _Record(NamedTuple):
    synced: bool
    path: str
    offset: int
    file_bytes: int
    new_bytes: int
    old: bytes


def _records(log: Path) -> Iterator[_Record]:
    data = log.read_bytes() if log.exists() else b""
    at = 0
    while at + _RECORD.size <= len(data):
        kind, path_bytes, offset, old_bytes, file_bytes, new_bytes = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        path = os.fsdecode(data[at : at + path_bytes])
        old = data[at + path_bytes : at + path_bytes + old_bytes]
        at += path_bytes + old_bytes
        yield _Record(kind == b"S", path, offset, file_bytes, new_bytes, old)


def _lose(path: Path, sectors: dict[int, list[bytes]], lengths: list[int], chance: random.Random) -> int:
    lost = 0
    now_bytes = path.stat().st_size
    with path.open("r+b") as file:
        for versions in sectors.values():
            pick = chance.randrange(len(versions) + 1)
            if pick == len(versions):
                continue  # what was written last has reached the disk
            lost += 1
            for version in reversed(versions[pick:]):
                file.seek(int.from_bytes(version[:8], "big"))
                file.write(version[8:])
    shortest = min([*lengths, now_bytes])
    if shortest < now_bytes and chance.random() < 0.5:
        os.truncate(path, chance.randrange(shortest, now_bytes))
    return lost
