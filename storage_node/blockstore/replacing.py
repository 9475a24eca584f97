"""Damaged files of a store: which there are, told without LMDB, and putting new ones in their places.

The new file becomes the next generation under its name, durably, before the damaged one is renamed to
`NAME.N.damaged` and so out of force: whenever that is interrupted, it is done again from the beginning.
Nobody may have the file open meanwhile, for LMDB's processes go by the file and not by its name. Openers
share `NAME.lock`, which is held alone; who has it open already holds a lock on LMDB's own lock file.
"""

from __future__ import annotations

import fcntl
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import lmdb

from storage_node.blockstore.disk import free_bytes, fsync_folder, is_lack_of_room, sync_file
from storage_node.blockstore.environment import RETIRED, STATE, generations, is_open_here
from storage_node.blockstore.page_survey import Survey, survey, survey_in_use
from storage_node.blockstore.pages import Damage, PageFile, lookup
from storage_node.blockstore.salvage import Writer
from storage_node.errors import FileInUse, StoreFailed, StoreFull

SALVAGED: Final = STATE + b"salvaged"  # in a new file: the number of the one that it was made of
SCRATCH_BYTES: Final = 16 * 1024 * 1024  # more than a salvage takes beside the new file, for most
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileDamage:
    """A file that LMDB cannot be trusted with. `reasons` name the first pages, of `pages` in all."""

    base: Path
    file: str
    reasons: tuple[str, ...]
    pages: int


@dataclass(frozen=True, slots=True)
class Replaced:
    """Which file took whose place; `aside` is the damaged one, None if there was none."""

    file: str
    aside: Path | None


def find_damage(base: Path) -> FileDamage | None:
    """What is wrong with the pages of the live file `base.N.mdb`; others may use it meanwhile."""
    path = live_file(base)
    if path is None:
        return FileDamage(base, f"{base.name}.1.mdb", ("the file is missing",), 0)
    with PageFile(path) as file:
        found = survey_in_use(file)
    if found.damaged:
        return FileDamage(base, path.name, tuple(found.damage), found.damaged)
    for number in generations(base):
        if number < _number(base, path) and _is_retired(_file(base, number)) is None:
            why = f"it cannot be read that {path.name} took its place"
            return FileDamage(base, _file(base, number).name, (why,), 1)
    return None


def replace_file(base: Path, fill: Callable[[PageFile, Survey, Writer, Writer], T]) -> tuple[Replaced, T]:
    """Let `fill` make a new file (the first writer; the second is scratch) out of the live one.

    Raises FileInUse if somebody has the file open, StoreFull, StoreFailed; then the file stays in force.
    """
    with _alone(base), ExitStack() as held:
        old = live_file(base)
        before = 0 if old is None else _number(base, old)
        new, scratch = _file(base, before + 1), _file(base, before + 2)
        partial, scratch = (path.with_name(path.name + ".tmp") for path in (new, scratch))
        source = held.enter_context(_source(old, scratch))
        found = survey(source)
        _demand(base.parent, source)
        try:
            result = _fill(fill, source, found, partial, scratch, before)
            sync_file(partial)
            partial.rename(new)
            fsync_folder(base.parent)
            aside = None
            for number in generations(base):  # all, or one of them would be taken for the one in force
                if number <= before:
                    aside = _put_aside(_file(base, number))
        except (OSError, lmdb.Error) as error:
            if is_lack_of_room(str(error), base.parent):
                raise StoreFull(f"{partial}: no room for what is salvaged ({error})") from error
            raise StoreFailed(f"{partial}: {error}") from error
        finally:
            for path in (partial, scratch):
                path.unlink(missing_ok=True)
    return Replaced(new.name, aside), result


def live_file(base: Path) -> Path | None:
    """The file of the generation in force, as far as that can be told from damaged ones; None without any.

    Where it cannot be read whether one is retired, a later one that was written to since it was made is the
    one in force.
    """
    numbers = generations(base)
    for index, number in enumerate(numbers):
        retired = _is_retired(_file(base, number))
        if retired is False or (
            retired is None
            and not any(_took_over(_file(base, later), number) for later in numbers[index + 1 :])
        ):
            return _file(base, number)
    return None


def _is_retired(path: Path) -> bool | None:
    """Whether a file says that a later one took its place; None if that cannot be read."""
    with PageFile(path) as file:
        try:
            return None if file.newest is None else lookup(file, file.newest.main, RETIRED) is not None
        except Damage:
            return None


def _took_over(path: Path, earlier: int) -> bool:
    """Whether a file is in force rather than `earlier`: a copy begins with transaction 1, so this was used.

    One that was made of `earlier` by a salvage, which was killed before it put that aside, is not.
    """
    with PageFile(path) as file:
        try:
            newest = file.newest
            made_of = None if newest is None else lookup(file, newest.main, SALVAGED)
        except Damage:
            return False
        return newest is not None and newest.txn > 1 and made_of != b"%d" % earlier


def _file(base: Path, number: int) -> Path:
    return base.with_name(f"{base.name}.{number}.mdb")


def _number(base: Path, path: Path) -> int:
    return int(path.name[len(base.name) + 1 : -len(".mdb")])


@contextmanager
def _source(old: Path | None, empty: Path) -> Iterator[PageFile]:
    """The damaged file, or one without anything in it."""
    if old is None:
        empty.write_bytes(b"")
    with PageFile(old or empty) as file:
        yield file


def _demand(folder: Path, source: PageFile) -> None:
    needed = source.pages * source.page_bytes + SCRATCH_BYTES
    free = free_bytes(folder)
    if free < needed:
        raise StoreFull(
            f"{source.path}: its salvage needs {needed} bytes of disk, {free} are free: free some space"
        )


def _fill(
    fill: Callable[[PageFile, Survey, Writer, Writer], T],
    source: PageFile,
    found: Survey,
    partial: Path,
    scratch_path: Path,
    number: int,
) -> T:
    fresh = Writer(partial)
    try:
        scratch = Writer(scratch_path)
        try:
            result = fill(source, found, fresh, scratch)
        finally:
            scratch.give_up()
        fresh.put(SALVAGED, b"%d" % number)
        fresh.finish()
    except BaseException:
        fresh.give_up()
        raise
    return result


def _put_aside(old: Path) -> Path:
    aside = old.with_suffix(".damaged")
    old.rename(aside)
    old.with_name(old.name + "-lock").unlink(missing_ok=True)
    fsync_folder(old.parent)
    return aside


@contextmanager
def _alone(base: Path) -> Iterator[None]:
    """Nobody has a generation open, and nobody opens one meanwhile. Raises FileInUse."""
    base.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as held:
        lock = held.enter_context(base.with_name(base.name + ".lock").open("ab"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        gc.collect()  # what an error has left open here
        if is_open_here(base):
            # Looking at LMDB's lock file, and closing it, would give up this process's own lock on it.
            raise FileInUse(f"{base}: still open in this process; try again")
        for path in sorted(base.parent.glob(f"{base.name}.*.mdb-lock")):
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            held.callback(os.close, handle)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
            except OSError as error:
                raise FileInUse(
                    f"{base}: another process has it open: stop the servers of this home "
                    "(`holdfast up`, `node run`, `gateway`), then repair"
                ) from error
        yield
