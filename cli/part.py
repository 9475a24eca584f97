"""The hidden folder beside a target in which its content grows until it is whole."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from hashlib import sha256
from pathlib import Path
from typing import Final

from cli.output import NO_SPACE_ERRNOS, CommandError, ExitCode, invalid

PRIVATE: Final = 0o700
OWNER_WRITES: Final = 0o200
MAX_NAME_BYTES: Final = 255


class Part:
    """Made new, or taken up again: `resumed` says which. Only one process has it at a time.

    Its name depends on the target and on `key`, so the same command finds it again after any interruption.
    `content` is where the content goes. Nobody else can write into it: a folder that is not ours, or that
    others may write to, is refused.
    """

    def __init__(self, target: Path, key: str) -> None:
        digest = sha256(os.fsencode(target.name) + b"\0" + key.encode()).hexdigest()[:16]
        self.path = target.parent / f".holdfast-{digest}.part"
        self.content = self.path / "content"
        self.resumed = False
        self._lock = self._open()

    def _open(self) -> int:
        while True:
            try:
                self.path.mkdir(mode=PRIVATE)
                self.resumed = False
            except FileExistsError:
                self.resumed = True
            try:
                folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # its owner has just finished
            except OSError:
                raise CommandError(f"{self.path} is in the way: remove it") from None
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(folder)
                if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                    raise CommandError(f"{self.path} belongs to somebody else: remove it")
                if self._is_still(status):
                    return folder
            except BlockingIOError:
                os.close(folder)
                raise CommandError(f"another command writes this just now (into {self.path})") from None
            except BaseException:
                os.close(folder)
                raise
            os.close(folder)

    def _is_still(self, status: os.stat_result) -> bool:
        try:
            now = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino)

    def release(self) -> None:
        """Leaves everything where it is, for the next time."""
        os.close(self._lock)

    def discard(self) -> None:
        """Removes everything that is left in it."""
        try:
            remove_tree(self.path)
        finally:
            os.close(self._lock)


def remove_tree(path: Path) -> None:
    """Removes a folder of ours with all that is in it, whatever its modes are."""
    try:
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(PRIVATE)  # a folder may have been given a mode that forbids even its owner
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandError(f"{path} is left over and cannot be removed: {error.strerror}") from None


def put_in_place(new: Path, target: Path) -> None:
    """Renames `new` to `target`; folders are merged, files replaced. Never follows a symlink.

    Everything is compared first: raises CommandError (exit 4) where a folder would replace a file or a file
    a folder, before anything is moved.
    """
    _check(new, target)
    _move(new, target)


def check_length(target: Path) -> None:
    """Exit 4 for a name that is too long, which the file system would say when all is written."""
    if len(os.fsencode(target.name)) > MAX_NAME_BYTES:
        raise invalid(
            f"the name {target.name[:40]!r}… has more than {MAX_NAME_BYTES} bytes: choose one with -o"
        )


def full_disk(target: Path, error: OSError) -> CommandError | None:
    """Exit 6 for an error that says that the disk is full, else None."""
    if error.errno not in NO_SPACE_ERRNOS:
        return None
    return CommandError(f"{target}: {error.strerror}; what was written is removed again", ExitCode.NO_SPACE)


def refuse_special(path: Path) -> None:
    """Exit 4 for a device, pipe or socket: a superuser's `get` could otherwise replace /dev/null."""
    mode = os.lstat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise invalid(f"{path} is a device, pipe or socket: it is not replaced")


def _check(new: Path, target: Path) -> None:
    if not os.path.lexists(target):
        return
    refuse_special(target)
    new_is_folder, old_is_folder = (stat.S_ISDIR(os.lstat(path).st_mode) for path in (new, target))
    if new_is_folder != old_is_folder:
        kinds = ("folder", "file") if new_is_folder else ("file", "folder")
        raise invalid(f"{target}: a {kinds[0]} cannot replace what is there (a {kinds[1]}); remove it first")
    if new_is_folder:
        for child in os.listdir(new):  # noqa: PTH208 (names, not paths, are needed)
            _check(new / child, target / child)


def _move(new: Path, target: Path) -> None:
    mode = os.lstat(new).st_mode
    if not stat.S_ISDIR(mode):
        new.replace(target)
    elif os.path.lexists(target):
        new.chmod(PRIVATE)
        for child in sorted(os.listdir(new)):  # noqa: PTH208
            _move(new / child, target / child)
    elif mode & OWNER_WRITES:
        new.rename(target)
    else:  # a folder that forbids writing cannot be moved to another one
        new.chmod(PRIVATE)
        new.rename(target)
        target.chmod(stat.S_IMODE(mode))
