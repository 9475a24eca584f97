"""One LMDB file, opened once per process, that can be replaced by its compacted copy while others use it.

A file `NAME.N.mdb` is generation N. Compaction writes generation N+1 under N's write lock and then marks
N retired inside N; every transaction reads that mark first and moves on to the successor. The live
generation is the lowest one that is not retired: a copy that was never taken into use has a higher number.

Everything lies in LMDB's unnamed database, tables apart by the first byte of the key: opening a named
database needs the write lock (and py-lmdb waits for it with the GIL held), the unnamed one does not.

A process that is killed while its commit is synced leaves the commit on disk, but readers do not see it
before the next writer comes: whoever must not overlook it calls `settle` or reads by `read_settled`. The
newest meta page tells: its transaction is then younger than the one that readers get.

LMDB creates a file that it is told to open and does not find. So that nobody brings a retired generation
back as an empty one, openers share a lock (`NAME.lock`) and whoever unlinks a generation has it alone.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

import lmdb

from storage_node.blockstore.disk import fsync_folder, is_lack_of_room, sync_file
from storage_node.blockstore.lmdb_file import MAP_BYTES, PAGE_BYTES, fill_cut_tail, lock_file, open_file
from storage_node.errors import CorruptStore, StorageNodeError, StoreFailed, StoreFull

STATE = b"\0"  # first byte of the keys of small values about the file itself; tables use the other bytes
RETIRED = STATE + b"retired"
_TICK = STATE + b"tick"

_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)


Txn: TypeAlias = Any  # lmdb.Transaction; py-lmdb's types are not followed


class _Generation(NamedTuple):
    number: int
    path: Path
    raw: Any  # lmdb.Environment


class Environment:
    """Use `open_environment`; a second opening of the same file returns the same object.

    Never closed by hand: LMDB unmaps the file when the last reference goes, so that no view in another
    thread loses its memory.
    """

    def __init__(self, base: Path, create: bool) -> None:
        self.base = base
        self._moving = threading.Lock()
        self._now: _Generation | None = self._open_live(above=0, create=create)

    @property
    def path(self) -> Path:
        """The file of the live generation."""
        return self._generation().path

    def begin(self, write: bool = False, buffers: bool = True) -> Txn:
        """A transaction on the live generation; the caller aborts or commits it. Raises lmdb.Error.

        It gives keys and values as views of the file or, without `buffers`, as bytes: quicker for small ones.
        """
        while True:
            now = self._generation()
            try:
                raw = now.raw.begin(write=write, buffers=buffers)
            except lmdb.ReadersFullError:
                if now.raw.reader_check() == 0:
                    raise
                continue  # slots of killed processes were freed
            except lmdb.PanicError:
                # A commit could not write its last page: LMDB refuses this handle from now on.
                self._forget(now)
                del now  # or the file could not be opened anew
                continue
            if raw.get(RETIRED) is None:
                return raw
            raw.abort()
            self._move_on(now)

    def get(self, key: bytes) -> bytes | None:
        """The value of one key, None if it is not here, in a transaction of its own."""
        try:
            txn = self.begin(buffers=False)
            try:
                value: bytes | None = txn.get(key)
                return value
            finally:
                txn.abort()
        except lmdb.Error as error:
            raise self.translated(error) from error

    @contextmanager
    def read(self, buffers: bool = True) -> Iterator[Txn]:
        """A short read transaction; LMDB's errors come out as ours."""
        try:
            txn = self.begin(buffers=buffers)
            try:
                yield txn
            finally:
                txn.abort()
        except lmdb.Error as error:
            raise self.translated(error) from error

    @contextmanager
    def write(self) -> Iterator[Txn]:
        """A write transaction, durable when the context ends; nothing of it remains after an exception."""
        try:
            txn = self.begin(write=True)
            try:
                yield txn
            except BaseException:
                txn.abort()
                raise
            txn.commit()
        except lmdb.Error as error:
            raise self.translated(error) from error

    @contextmanager
    def read_settled(self) -> Iterator[Txn]:
        """As `read`, but of everything that is committed, whether its process lived to say so or not."""
        self.settle()
        with self.read() as txn:
            yield txn

    def settle(self) -> None:
        """Make the last commit of a process that was killed in it visible to readers.

        Costs two look-ups unless there is one, or a writer is in the middle of its commit: it is waited for.
        """
        try:
            if self._has_unseen_commit():
                self.begin(write=True).abort()  # LMDB recovers the lock, and with it the commit
        except lmdb.Error as error:
            raise self.translated(error) from error

    def _has_unseen_commit(self) -> bool:
        """Whether the newest meta page is of a transaction that readers do not see. Raises lmdb.Error."""
        txn = self.begin()
        try:
            return bool(self._generation().raw.info()["last_txnid"] != txn.id())
        finally:
            txn.abort()

    def translated(self, error: lmdb.Error) -> StorageNodeError:
        """Our error for one of LMDB's: lack of room, damage, or another failure; names the file."""
        path = self.path
        if isinstance(error, lmdb.MapFullError):
            return StoreFull(f"{path}: the file has reached {MAP_BYTES >> 40} TiB; free blocks first")
        if isinstance(error, lmdb.DiskError) or is_lack_of_room(str(error), path):
            return StoreFull(f"{path}: no room on the disk ({error}); nothing was lost, free some space")
        if isinstance(error, _DAMAGE):
            return CorruptStore(f"{path}: damaged ({error}); run `holdfast repo fsck --repair`")
        return StoreFailed(f"{path}: {error}")

    def file_bytes(self) -> int:
        """What the live file takes on disk."""
        return self.path.stat().st_size

    def reusable_bytes(self, txn: Txn) -> int:
        """Bytes inside the file that hold nothing and will be written before the file grows."""
        now = self._generation()
        stat = txn.stat(now.raw.open_db())
        used = 2 + stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]  # 2 are LMDB's own
        return int(max(0, now.raw.info()["last_pgno"] + 1 - used)) * PAGE_BYTES

    def release_dead_readers(self) -> int:
        """Free the reader slots of killed processes, which would keep deleted pages from being reused."""
        return int(self._generation().raw.reader_check())

    def compact(self) -> int:
        """Replace the file by a copy without free pages; returns the bytes the file shrank by.

        Writers wait meanwhile, readers do not. Other processes move to the copy at their next
        transaction, and the disk space of the old file comes back when the last one has. The copy is on
        the disk before the old file is marked; where anything fails, the old file stays in force and the
        copy goes. Raises StoreFull if the copy has no room.
        """
        self.remove_leftovers()  # a killed compaction's copy would take room beside this one
        try:
            with self.write() as txn:
                now = self._generation()
                before = now.path.stat().st_size
                target = self._file(now.number + 1)
                _copy(now, target)
                after = target.stat().st_size
                txn.put(RETIRED, b"%d" % (now.number + 1))
        except StorageNodeError:
            with suppress(StorageNodeError, OSError):
                self.remove_leftovers()
            raise
        self._move_on(now)
        self._remove_retired(below=now.number + 1)
        return before - after

    def remove_leftovers(self) -> None:
        """Unlink generations that are retired and copies that were never taken into use."""
        now = self._generation()
        if not self._leftovers(now):
            return
        for _ in range(2):
            with self.write() as txn:  # so that nobody compacts; nobody opens a copy of a file in force
                now = self._generation()
                if now.raw.info()["last_txnid"] < txn.id():
                    older = [self._file(number) for number in generations(self.base) if number < now.number]
                    for path in set(self._leftovers(now)).difference(older, map(lock_file, older)):
                        path.unlink(missing_ok=True)
                    break
                # A commit that failed is on the disk all the same, and would be taken for good when the
                # file is next opened. Had it marked this generation as retired, its successor must not go
                # before the mark does: this commit takes its place.
                txn.put(_TICK, b"")
        self._remove_retired(below=now.number)

    def _leftovers(self, now: _Generation) -> list[Path]:
        """Files beside the live one: older generations, copies not taken into use, unfinished copies."""
        mine = {now.path, lock_file(now.path)}
        return [path for path in self.base.parent.glob(f"{self.base.name}.*.mdb*") if path not in mine]

    # --- generations ---

    def _file(self, number: int) -> Path:
        return self.base.with_name(f"{self.base.name}.{number}.mdb")

    def _generation(self) -> _Generation:
        now = self._now
        if now is None:
            with self._moving:
                if self._now is None:
                    self._now = self._open_live(above=0, create=False)
                now = self._now
        return now

    def _forget(self, broken: _Generation) -> None:
        with self._moving:
            if self._now is broken:
                self._now = None  # the next transaction opens the file anew

    def _move_on(self, retired: _Generation) -> None:
        with self._moving:
            if self._now is retired:
                self._now = self._open_live(above=retired.number, create=False)

    def _open_live(self, above: int, create: bool) -> _Generation:
        with self._files_lock(fcntl.LOCK_SH):
            if create and (not generations(self.base) or _is_half_made(self._file(1))):
                self._file(1).unlink(missing_ok=True)
                self._file(1).touch(mode=0o600)
            # A generation that is retired while we look has its successor beside it already: list again.
            while numbers := [number for number in generations(self.base) if number > above]:
                for number in numbers:
                    if (opened := self._open_file(number, create)) is not None:
                        return opened
                    above = number
        raise CorruptStore(
            f"{self._file(above + 1)}: missing; restore a backup, or `holdfast repo fsck --repair`"
        )

    @contextmanager
    def _files_lock(self, how: int) -> Iterator[None]:
        """Keep the generations' files from going (shared) or being opened (exclusive) meanwhile."""
        with self.base.with_name(self.base.name + ".lock").open("ab") as file:
            fcntl.flock(file, how)
            yield

    def _open_file(self, number: int, create: bool) -> _Generation | None:
        """The generation in one file, None if it is retired."""
        path = self._file(number)
        if not create and path.stat().st_size == 0:
            raise CorruptStore(f"{path}: empty; restore a backup, or `holdfast repo fsck --repair`")
        try:
            raw = open_file(path, create)
        except (lmdb.Error, OSError) as error:
            if isinstance(error, _DAMAGE):
                raise CorruptStore(
                    f"{path}: not an intact store file ({error}); run `holdfast repo fsck --repair`"
                ) from error
            if isinstance(error, lmdb.DiskError) or is_lack_of_room(str(error), path):
                raise StoreFull(f"{path}: no room to open it ({error})") from error
            raise StoreFailed(f"{path}: cannot be opened ({error})") from error
        try:
            fill_cut_tail(raw, path)
            raw.reader_check()
            with raw.begin() as txn:
                retired = txn.get(RETIRED) is not None
        except lmdb.Error as error:
            raise CorruptStore(f"{path}: damaged ({error}); run `holdfast repo fsck --repair`") from error
        return None if retired else _Generation(number, path, raw)

    def _remove_retired(self, below: int) -> None:
        with self._files_lock(fcntl.LOCK_EX):
            for number in generations(self.base):
                if number < below:
                    self._file(number).unlink(missing_ok=True)
                    lock_file(self._file(number)).unlink(missing_ok=True)


def _copy(now: _Generation, target: Path) -> None:
    """Bring a compacted copy of a file to the disk under its name. Raises StoreFull, StoreFailed."""
    partial = target.with_name(target.name + ".tmp")
    try:
        now.raw.copy(os.fsencode(partial), compact=True)
        sync_file(partial)
        partial.rename(target)
        fsync_folder(target.parent)
    except (lmdb.Error, OSError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, lmdb.DiskError) or is_lack_of_room(str(error), now.path):
            raise StoreFull(f"{partial}: no room for a compacted copy ({error})") from error
        raise StoreFailed(f"{partial}: no compacted copy ({error})") from error


def generations(base: Path) -> list[int]:
    """The generation numbers of the files beside `base`, ascending."""
    pattern = re.compile(re.escape(base.name) + r"\.([1-9][0-9]{0,9})\.mdb")
    found = (pattern.fullmatch(entry.name) for entry in base.parent.iterdir())
    return sorted(int(match[1]) for match in found if match)


def _is_half_made(path: Path) -> bool:
    """Whether a file that was being made when the power went holds LMDB's first two pages at most."""
    return path.exists() and path.stat().st_size <= 2 * PAGE_BYTES


_open_environments: WeakValueDictionary[tuple[int, str], Environment] = WeakValueDictionary()
_opening = threading.Lock()


def open_environment(base: Path, create: bool = False) -> Environment:
    """The environment of the files `base.N.mdb`, shared with whoever has it open in this process.

    Raises CorruptStore, StoreFull or StoreFailed, naming the file.
    """
    key = (os.getpid(), str(base.parent.resolve() / base.name))
    with _opening:
        environment = _open_environments.get(key)
        if environment is None:
            with suppress(FileExistsError):
                base.parent.mkdir(mode=0o700, parents=True)
            environment = _open_environments[key] = Environment(base, create)
        return environment


def is_open_here(base: Path) -> bool:
    """Whether this process has the files `base.N.mdb` open."""
    return (os.getpid(), str(base.parent.resolve() / base.name)) in _open_environments
