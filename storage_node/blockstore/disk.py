"""What we ask of the file system: room, durable renames, and telling a full disk from a broken one."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress
from pathlib import Path

BLOCK_BYTES = 512  # unit of st_blocks
NEARLY_FULL_BYTES = 64 * 1024 * 1024

NO_ROOM_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_NO_ROOM = tuple(map(os.strerror, NO_ROOM_ERRNOS))
_IO_ERROR = os.strerror(errno.EIO)


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the file system of `folder`."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def is_lack_of_room(message: str, path: Path) -> bool:
    """Whether an error text of LMDB for `path` means a full disk, quota or file size limit.

    LMDB reports a write that stopped half-way as an I/O error, which is what the first write onto a
    full disk looks like; so an I/O error counts where there is indeed hardly any room.
    """
    if any(text in message for text in _NO_ROOM):
        return True
    if _IO_ERROR not in message:
        return False
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and path.stat().st_size + NEARLY_FULL_BYTES > limit:
        return True
    return free_bytes(path.parent) < NEARLY_FULL_BYTES


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    sync_file(folder)


def allocate(path: Path, size_bytes: int) -> None:
    """Give a file all its pages, before it is mapped: writing to one that finds no room is SIGBUS.

    What is in it stays. Raises OSError. Does nothing where the system cannot (macOS), and opens no file that
    has its pages: closing it would drop the locks that this process holds on it.
    """
    with suppress(FileNotFoundError):
        there = path.stat()
        if min(there.st_size, there.st_blocks * BLOCK_BYTES) >= size_bytes:
            return
    if hasattr(os, "posix_fallocate"):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, size_bytes)
        finally:
            os.close(handle)


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file so that after a crash it is there whole or not at all."""
    partial = path.with_name(path.name + ".tmp")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    fsync_folder(path.parent)
