"""The folder of backups: its format and lock, and its parts, which are files named by what they hold.

docs/backup.md says what lies where and in which order it is written.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from storage_node.blockstore.disk import NO_ROOM_ERRNOS, fsync_folder
from storage_node.errors import BackupRefused, DamagedBackup, LockHeld, SnapshotNotFound, StoreFull

FORMAT = "holdfast-backup"
VERSION = 1
FORMAT_FILE = "format.json"
LOCK_FILE = "lock"
MAX_FORMAT_BYTES = 4096
MAX_PART_BYTES = 4 * 1024 * 1024
PART_NAME = re.compile(r"[0-9a-f]{64}")
UNFINISHED = ".part"  # suffix of a file that is being written, or that a killed backup left


class Part(NamedTuple):
    """A file of at most MAX_PART_BYTES that is named by its SHA-256, in hex."""

    sha256: str
    size_bytes: int


class BackupFolder:
    """Paths and files of one folder of backups. Use `open_folder` or `make_folder`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packs = path / "packs"  # blocks
        self.parts = path / "parts"  # records, settings, rows of pieces
        self.keys = path / "keys"  # parts of key files: the only secrets here
        self.snapshots = path / "snapshots"

    def folders(self) -> tuple[Path, ...]:
        """Every folder in it."""
        return self.packs, self.parts, self.keys, self.snapshots

    @contextmanager
    def lock(self, *, alone: bool) -> Iterator[None]:
        """Hold the folder while the context lasts: `alone` to write, with other readers to read.

        Raises LockHeld at once if that is not possible.
        """
        path = self.path / LOCK_FILE
        missing = 0 if path.exists() else os.O_CREAT  # a copy may lack it: it is empty
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | missing, 0o600)
        try:
            try:
                fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockHeld(
                    f"{self.path}: another backup, restore or verification uses this folder; wait for it",
                    None,
                ) from None
            yield
        finally:
            os.close(handle)

    def remove_unfinished(self) -> None:
        """Remove what a killed backup was writing; hold the lock alone."""
        for folder in self.folders():
            for path in folder.glob(f"*{UNFINISHED}"):
                path.unlink()

    def save_part(self, data: bytes, *, secret: bool = False) -> Part:
        """Write a part, unless it is there whole. `settle` makes its name durable. Raises StoreFull."""
        part = Part(hashlib.sha256(data).hexdigest(), len(data))
        path = self._path(part, secret)
        try:
            if path.read_bytes() == data:
                return part
        except OSError:
            pass  # absent or unreadable: it is written anew
        write_new(path, [data])
        return part

    def load_part(self, part: Part, *, secret: bool = False) -> bytes:
        """The bytes of a part. Raises DamagedBackup naming the file."""
        path = self._path(part, secret)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_PART_BYTES + 1)
        except FileNotFoundError:
            raise DamagedBackup(f"{path} is missing") from None
        except OSError as error:
            raise DamagedBackup(f"{path} cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise DamagedBackup(f"{path} is damaged: it is not what its name says")
        return data

    def settle(self) -> None:
        """Make the names of everything written so far survive a power cut."""
        for folder in self.folders():
            fsync_folder(folder)

    def _path(self, part: Part, secret: bool) -> Path:
        return (self.keys if secret else self.parts) / part.sha256


def make_folder(path: Path) -> BackupFolder:
    """The folder of backups at `path`, made first if it is absent or empty; its parent must be there.

    Raises BackupRefused for a folder with other things, SnapshotNotFound without its parent, LockHeld and
    StoreFull.
    """
    if not path.parent.is_dir():
        raise SnapshotNotFound(f"{path.parent}: there is no such folder to make a backup in")
    if os.path.lexists(path) and not path.is_dir():
        raise BackupRefused(f"{path} is not a folder: choose another name for the backup")
    folder = BackupFolder(path)
    if not (path / FORMAT_FILE).exists():
        _refuse_others(folder)
        with writing(path):
            path.mkdir(mode=0o700, exist_ok=True)
            for each in folder.folders():
                each.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _write_format(folder)
    return open_folder(path)


def _refuse_others(folder: BackupFolder) -> None:
    """Refuse what is not the beginning of a folder of backups, without a walk: it may be a whole disk."""
    path = folder.path
    ours = {path / FORMAT_FILE, path / (FORMAT_FILE + UNFINISHED), path / LOCK_FILE, *folder.folders()}
    for place in (path, *folder.folders()):
        for strange in sorted({*place.iterdir()} - ours) if place.is_dir() else ():
            raise BackupRefused(
                f"{path} holds other things ({strange.relative_to(path)}): choose a new or empty folder"
            )


def _write_format(folder: BackupFolder) -> None:
    """The last step of making a folder: what is killed before it is done again."""
    with folder.lock(alone=True):  # or LockHeld: another backup makes the folder, or has it already
        file = folder.path / FORMAT_FILE
        if not file.exists():
            write_new(file, [json.dumps({"format": FORMAT, "version": VERSION}).encode(), b"\n"])
            fsync_folder(folder.path)


def open_folder(path: Path) -> BackupFolder:
    """The folder of backups at `path`. Raises SnapshotNotFound if it is none, DamagedBackup."""
    file = path / FORMAT_FILE
    try:
        with file.open("rb") as opened:
            document = json.loads(opened.read(MAX_FORMAT_BYTES))
        kind, version = document["format"], document["version"]
    except (FileNotFoundError, NotADirectoryError):
        raise SnapshotNotFound(f"{path} is no folder of backups: {FORMAT_FILE} is not there") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedBackup(
            f'{file} is damaged: write {{"format": "{FORMAT}", "version": {VERSION}}} into it'
        ) from None
    if kind != FORMAT:
        raise BackupRefused(f"{file} describes {kind!r}, not a folder of backups")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise BackupRefused(f"{file}: version {version!r}, this program knows {VERSION}: upgrade Holdfast")
    folder = BackupFolder(path)
    for each in folder.folders():
        if not each.is_dir():
            raise DamagedBackup(f"{each} is missing: bring it back, or make it empty and run --verify")
    return folder


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk (or quota, or limit of a file's size) comes out as StoreFull naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM_ERRNOS:
            raise
        raise StoreFull(
            f"{path}: no room on the disk ({error.strerror}); make room and do the same again, "
            "it goes on where it was"
        ) from error


def write_new(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file (0600) out of its pieces, whole, replacing an older one.

    Its bytes are durable then, its name when its folder is synced. Raises StoreFull, and what `pieces`
    raises: nothing is left of the new file then.
    """
    partial = path.with_name(path.name + UNFINISHED)
    with writing(path.parent):
        try:
            handle = os.open(
                partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(handle, "wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def parts_of_file(path: Path) -> Iterator[bytes]:
    """The bytes of a file in pieces that fit a part."""
    with path.open("rb") as file:
        while piece := file.read(MAX_PART_BYTES):
            yield piece
