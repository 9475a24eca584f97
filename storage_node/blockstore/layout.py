"""The folder of a store: its format file, which says what the other files are, and their creation."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage_node.blockstore.disk import fsync_folder, sync_file, write_durably
from storage_node.blockstore.environment import Environment, open_environment
from storage_node.errors import CorruptStore

FORMAT_FILE = "format.json"
MAX_FORMAT_BYTES = 64 * 1024
FORMAT_VERSION = 1
MAX_SHARDS = 64

_OURS = re.compile(
    r"(format\.json\.tmp|init\.lock|quota\.lock|leases|[a-z]+-[0-9]{2}\.lock|[a-z]+(-[0-9]{2})?\.[0-9]+\.mdb(-lock|\.tmp)?)"
)


def open_folder(folder: Path, kind: str, file: str, shards: int) -> list[Environment]:
    """The environments of the store in `folder`, made first if the folder is new.

    `kind` is what the format file calls this store, `file` the start of its files' names, `shards` how
    many a new store gets (an existing one keeps its number). Raises CorruptStore naming the file that
    is foreign, damaged or too new.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    count = _read_format(folder, kind)
    if count is None:
        with _creation_lock(folder):
            count = _read_format(folder, kind)
            if count is None:
                _refuse_foreign(folder)
                opened = [_open(folder, file, number, True) for number in range(shards)]
                for environment in opened:
                    sync_file(environment.path)  # LMDB does not sync what it writes into a new file
                fsync_folder(folder)
                content = {"format": kind, "version": FORMAT_VERSION, "shards": shards}
                write_durably(folder / FORMAT_FILE, json.dumps(content).encode() + b"\n")
                return opened
    return [_open(folder, file, number, False) for number in range(count)]


def _open(folder: Path, file: str, number: int, create: bool) -> Environment:
    return open_environment(folder / f"{file}-{number:02d}", create)


def _read_format(folder: Path, kind: str) -> int | None:
    """The number of shards; None where there is no format file yet."""
    path = folder / FORMAT_FILE
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FORMAT_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        content = json.loads(text)
        found, version, shards = content["format"], content["version"], content["shards"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStore(f"{path}: not a format file of Holdfast; restore it from a backup") from error
    if found != kind:
        raise CorruptStore(f"{path}: describes {found!r}, not {kind!r}; choose another folder")
    if type(version) is not int or version > FORMAT_VERSION:
        raise CorruptStore(
            f"{path}: version {version}, this program knows {FORMAT_VERSION}; upgrade Holdfast"
        )
    if version < 1 or type(shards) is not int or not 1 <= shards <= MAX_SHARDS:
        raise CorruptStore(
            f"{path}: version {version!r} with {shards!r} shards is impossible; restore a backup"
        )
    return shards


def _refuse_foreign(folder: Path) -> None:
    for entry in sorted(folder.iterdir()):
        if not _OURS.fullmatch(entry.name):
            raise CorruptStore(f"{entry}: not a file of a Holdfast store; choose an empty folder")


@contextmanager
def _creation_lock(folder: Path) -> Iterator[None]:
    """Two processes that make the same store do it one after the other."""
    with (folder / "init.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
