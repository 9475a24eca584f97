"""What a planner hands to the importer: chunks that are being hashed, and where files and folders end.

A planner (`importing_walk` for files, `importing_tar` for archives) yields steps some way ahead of the
importer, which takes them in the same order, so that the result does not depend on the threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from cli.importing_ignore import BUT_HIDDEN, Selection
from cli.output import CommandError
from merkledag.builder import Leaf, make_leaf
from merkledag.chunker import FixedSize
from merkledag.unixfs import Mtime

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from merkledag.builder import Link
    from merkledag.profile import ImportProfile

HASH_THREADS: Final = 2
WINDOW_BYTES: Final = 24 << 20
WINDOW_STEPS: Final = 128
SMALL_BYTES: Final = 64 << 10  # below this, handing a chunk to a thread costs more than hashing it here
READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What to take from where; `profile` says how to build the DAG.

    `mode` and `mtime` are given to every entry in place of its own; symlinks have no mode.
    """

    profile: ImportProfile
    wrap: bool = False
    preserve_mode: bool = False
    preserve_mtime: bool = False
    mode: int | None = None
    mtime: Mtime | None = None
    empty_folders: bool = True
    follow_arguments: bool = False  # symlinks that are named
    follow_all: bool = False  # those, and symlinks in folders
    stdin_name: str = ""
    selection: Selection = BUT_HIDDEN

    @property
    def preserves(self) -> bool:
        """Whether an entry's own mode or time matters."""
        return self.preserve_mode or self.preserve_mtime

    def given(self, *, symlink: bool = False) -> Meta:
        """What an entry gets that has no mode and no time of its own."""
        return Meta(None if symlink else self.mode, self.mtime)

    def meta(self, mode: int, mtime: Mtime | None, *, symlink: bool = False) -> Meta:
        """What an entry of this mode and time gets. Mode 0 is none, as in kubo."""
        own = mode & 0o7777 if self.preserve_mode and self.mode is None and not symlink else 0
        given = self.given(symlink=symlink)
        return Meta(own or given.mode, mtime if self.preserve_mtime and self.mtime is None else given.mtime)


class Meta(NamedTuple):
    """The optional metadata of an entry."""

    mode: int | None = None
    mtime: Mtime | None = None


@dataclass(slots=True)
class Slot:
    """A place for a file that gets its name later; its link comes when its EndFile is taken."""

    link: Link | None = None


class Chunk(NamedTuple):
    """The next leaf of the file that is open."""

    leaf: Leaf | Future[Leaf]
    size_bytes: int


class EndFile(NamedTuple):
    """The file that is open ends; `handle` was read from. With a `slot` it does not become an entry yet."""

    name: str
    meta: Meta
    handle: int = -1
    slot: Slot | None = None


class Placed(NamedTuple):
    """A file that ended before becomes an entry."""

    name: str
    slot: Slot


class Symlink(NamedTuple):
    name: str
    target: str
    meta: Meta


@dataclass(frozen=True, slots=True)
class Enter:
    """What follows is in a folder, until its Leave."""


class Leave(NamedTuple):
    name: str
    meta: Meta


Step = Chunk | EndFile | Placed | Symlink | Enter | Leave


class ChunkReader:
    """Reads files and streams into chunks, which two threads hash; the planner's hands."""

    def __init__(self, profile: ImportProfile) -> None:
        self._profile = profile
        self._pool: ThreadPoolExecutor | None = None
        self._open: set[int] = set()

    def file(self, handle: int, size_bytes: int, path: str) -> Generator[Chunk, None, int]:
        """The chunks of a regular file; returns the handle if threads still read from it, else closes it."""
        chunker = self._profile.chunker
        self._open.add(handle)
        if not isinstance(chunker, FixedSize):
            yield from self.stream(_pieces(handle, size_bytes, path))
        elif min(size_bytes, chunker.max_bytes) > SMALL_BYTES:
            for offset in range(0, size_bytes, chunker.max_bytes):
                length = min(chunker.max_bytes, size_bytes - offset)
                yield Chunk(self._threads().submit(self._read_leaf, handle, length, offset, path), length)
            return handle
        else:
            for offset in range(0, max(1, size_bytes), chunker.max_bytes):
                length = min(chunker.max_bytes, size_bytes - offset)
                yield Chunk(self._read_leaf(handle, length, offset, path), length)
        self.close(handle)
        return -1

    def stream(self, pieces: Iterable[bytes]) -> Iterator[Chunk]:
        """The chunks of what comes in pieces."""
        for chunk in self._profile.chunker.split(pieces):
            size = len(chunk)
            if size <= SMALL_BYTES:
                yield Chunk(make_leaf(self._profile, chunk), size)
            else:
                yield Chunk(self._threads().submit(make_leaf, self._profile, chunk), size)

    def close(self, handle: int) -> None:
        """Closes a file whose chunks have all been taken."""
        if handle in self._open:
            self._open.remove(handle)
            os.close(handle)

    def release(self) -> None:
        """Ends the threads, then closes what they read from."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        for handle in list(self._open):
            self.close(handle)

    def _read_leaf(self, handle: int, length: int, offset: int, path: str) -> Leaf:
        return make_leaf(self._profile, _read_at(handle, length, offset, path))

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="hash")
        return self._pool


def _pieces(handle: int, size_bytes: int, path: str) -> Iterator[bytes]:
    for offset in range(0, size_bytes, READ_BYTES):
        yield _read_at(handle, min(READ_BYTES, size_bytes - offset), offset, path)


def _read_at(handle: int, length: int, offset: int, path: str) -> bytes:
    data = os.pread(handle, length, offset)
    while len(data) < length:
        more = os.pread(handle, length - len(data), offset + len(data))
        if not more:
            raise CommandError(f"{path} shrank while it was being added: add it again")
        data += more
    return data


def ahead(plan: Iterator[Step]) -> Iterator[Step]:
    """The plan's steps in order, with up to WINDOW_BYTES of chunks planned (so being hashed) ahead."""
    window: deque[Step] = deque()
    size_bytes = 0
    for step in plan:
        window.append(step)
        size_bytes += step.size_bytes if isinstance(step, Chunk) else 0
        while size_bytes > WINDOW_BYTES or len(window) > WINDOW_STEPS:
            first = window.popleft()
            size_bytes -= first.size_bytes if isinstance(first, Chunk) else 0
            yield first
    yield from window
