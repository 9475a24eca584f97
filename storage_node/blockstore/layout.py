"""The folder of a store: its format file, which says what the other files are, and their creation."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from storage_node.blockstore.disk import fsync_folder, is_lack_of_room, sync_file, write_durably
from storage_node.blockstore.environment import Environment, open_environment
from storage_node.errors import CorruptStore, StoreFailed, StoreFull

FORMAT_FILE = "format.json"
MAX_FORMAT_BYTES = 64 * 1024
MAX_SHARDS = 64

_OURS = re.compile(
    r"((format\.json|ballast)\.tmp|ballast|(init|quota)\.lock|leases|[a-z]+-[0-9]{2}\.lock"
    r"|[a-z]+(-[0-9]{2})?\.[0-9]+\.(mdb(-lock|\.tmp)?|damaged))"
)

Migration = Callable[[Environment], None]  # brings one file to the next version; may be begun anew


class _Format(NamedTuple):
    """What a format file says; `migrating_from` is the version that some files may still have."""

    version: int
    shards: int
    migrating_from: int | None = None

    def is_older(self, version: int) -> bool:
        """Whether some file may be of an older version than this."""
        return self.version < version or self.migrating_from is not None


def open_folder(
    folder: Path, kind: str, file: str, shards: int, migrations: Sequence[Migration] = ()
) -> list[Environment]:
    """The environments of the store in `folder`, made first if the folder is new.

    `kind` is what the format file calls this store, `file` the start of its files' names, `shards` how
    many a new store gets (an existing one keeps its number). Of `migrations` the first brings version 1 to
    2, and so on: the present version follows from their number, and an older store is brought to it.
    Raises CorruptStore naming the file that is foreign, damaged or too new.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    version = 1 + len(migrations)
    found = _read_format(folder, kind, version)
    if found is None or found.is_older(version):
        with _creation_lock(folder):
            found = _read_format(folder, kind, version)  # another process may have done it meanwhile
            if found is None:
                return _make(folder, kind, file, _Format(version, shards))
            if found.is_older(version):
                _migrate(folder, kind, file, found, migrations)
    _refuse_more_shards(folder, file, found.shards)
    return [_open(folder, file, number, False) for number in range(found.shards)]


def _refuse_more_shards(folder: Path, file: str, shards: int) -> None:
    """A format file that names too few would make blocks seem to be missing."""
    beyond = folder / f"{file}-{shards:02d}.lock"  # made when the shard is first opened
    if beyond.exists():
        path = folder / FORMAT_FILE
        raise CorruptStore(f"{path}: {shards} shards, but there is {beyond.name}; restore it from a backup")


def _make(folder: Path, kind: str, file: str, made: _Format) -> list[Environment]:
    """A new store; the format file is written last, so that a creation that was killed is done again."""
    _refuse_foreign(folder)
    opened = [_open(folder, file, number, True) for number in range(made.shards)]
    for environment in opened:
        sync_file(environment.path)  # LMDB does not sync what it writes into a new file
    fsync_folder(folder)
    _write_format(folder, kind, made)
    with suppress(PermissionError):  # a folder of somebody else's that we may not list
        fsync_folder(folder.parent)
    return opened


def _migrate(folder: Path, kind: str, file: str, found: _Format, migrations: Sequence[Migration]) -> None:
    """Bring every file to the present version.

    The format file says so first, so that older programs refuse the store from then on, and that it is
    under way: whoever opens a store whose migration was killed goes on with it.
    """
    first = found.version if found.migrating_from is None else found.migrating_from
    present = _Format(1 + len(migrations), found.shards)
    _write_format(folder, kind, present._replace(migrating_from=first))
    for number in range(found.shards):
        environment = _open(folder, file, number, False)
        for migration in migrations[first - 1 :]:
            migration(environment)
    _write_format(folder, kind, present)


def _write_format(folder: Path, kind: str, content: _Format) -> None:
    fields: dict[str, str | int] = {"format": kind, "version": content.version, "shards": content.shards}
    if content.migrating_from is not None:
        fields["migrating_from"] = content.migrating_from
    try:
        write_durably(folder / FORMAT_FILE, json.dumps(fields).encode() + b"\n")
    except OSError as error:
        if is_lack_of_room(str(error), folder):
            raise StoreFull(f"{folder / FORMAT_FILE}: no room on the disk; free some space") from error
        raise StoreFailed(f"{folder / FORMAT_FILE}: {error}") from error


def _open(folder: Path, file: str, number: int, create: bool) -> Environment:
    return open_environment(folder / f"{file}-{number:02d}", create)


def _read_format(folder: Path, kind: str, known: int) -> _Format | None:
    """What the format file says; None where there is none yet."""
    path = folder / FORMAT_FILE
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FORMAT_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        content = json.loads(text)
        found, version, shards = content["format"], content["version"], content["shards"]
        migrating_from = content.get("migrating_from")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptStore(f"{path}: not a format file of Holdfast; restore it from a backup") from error
    if found != kind:
        raise CorruptStore(f"{path}: describes {found!r}, not {kind!r}; choose another folder")
    if type(version) is not int or version > known:
        raise CorruptStore(f"{path}: version {version}, this program knows {known}; upgrade Holdfast")
    possible = version >= 1 and type(shards) is int and 1 <= shards <= MAX_SHARDS
    if migrating_from is not None:
        possible = possible and type(migrating_from) is int and 1 <= migrating_from < version
    if not possible:
        raise CorruptStore(
            f"{path}: version {version!r} with {shards!r} shards is impossible; restore a backup"
        )
    return _Format(version, shards, migrating_from)


def bases(folder: Path, kind: str, file: str, known: int) -> list[Path]:
    """What the names of a store's files begin with, none before it is made. Raises CorruptStore."""
    found = _read_format(folder, kind, known)
    return [folder / f"{file}-{number:02d}" for number in range(0 if found is None else found.shards)]


def is_ours(name: str) -> bool:
    """Whether a file in a store's folder can be one of its own."""
    return name == FORMAT_FILE or _OURS.fullmatch(name) is not None


def _refuse_foreign(folder: Path) -> None:
    for entry in sorted(folder.iterdir()):
        if not is_ours(entry.name):
            raise CorruptStore(f"{entry}: not a file of a Holdfast store; choose an empty folder")


@contextmanager
def _creation_lock(folder: Path) -> Iterator[None]:
    """Two processes that make the same store do it one after the other."""
    with (folder / "init.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
