"""Plans the import of paths: walks folders in byte order of their names and opens what is in them."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from cli.importing_ignore import Scope
from cli.importing_steps import (
    READ_BYTES,
    ChunkReader,
    EndFile,
    Enter,
    ImportOptions,
    Leave,
    Meta,
    Step,
    Symlink,
)
from cli.output import CommandError, invalid
from cli.streams import STDIO
from merkledag.unixfs import Mtime


class _Found(NamedTuple):
    path: str
    name: str  # below the argument's, with it
    mode: int  # at least the file type
    identity: tuple[int, int] | None = None  # device and inode of a folder, where symlinks are followed


class PathWalk:
    """One walk over the arguments of an import."""

    def __init__(self, options: ImportOptions, reader: ChunkReader, stdin: BinaryIO | None = None) -> None:
        self._options = options
        self._reader = reader
        self._stdin = stdin
        self._selection = options.selection
        self._given = options.given()

    def plan(self, paths: Sequence[str]) -> Iterator[Step]:
        """The steps for all arguments.

        Raises OSError, and CommandError for what cannot be stored and for folders that contain themselves.
        """
        for path in paths:
            if path == STDIO:
                stream = self._stdin if self._stdin is not None else sys.stdin.buffer
                yield from self._plan_stream(stream, self._options.stdin_name)
            else:
                yield from self._plan_argument(path)

    def sizes(self, path: str) -> Iterator[int]:
        """The size of every file below an argument, without reading it."""
        stack: list[tuple[Scope | None, _Found]] = [(None, self._argument(path))]
        while stack:
            scope, item = stack.pop()
            if stat.S_ISDIR(item.mode):
                inner = self._enter(scope, item)
                stack += [(inner, child) for child in self._children(item, inner)]
            elif stat.S_ISREG(item.mode):
                yield (os.stat if self._options.follow_all else os.lstat)(item.path).st_size

    def _argument(self, path: str) -> _Found:
        follow = self._options.follow_arguments or self._options.follow_all
        if follow:
            path = os.path.realpath(path, strict=True)
        status = os.lstat(path)
        name = os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 (follows no symlink)
        return _Found(path, name, status.st_mode, (status.st_dev, status.st_ino))

    def _plan_argument(self, path: str) -> Iterator[Step]:
        """The steps for one path; an explicit stack, because folders nest deeper than Python recurses."""
        argument = self._argument(path)
        if stat.S_ISFIFO(argument.mode):
            with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 (a str of any path)
                yield from self._plan_stream(stream, argument.name)
            return
        stack: list[tuple[_Found, Scope, Iterator[_Found]]] = []
        item: _Found | None = argument
        while item is not None or stack:
            if item is None:
                folder, _, _ = stack.pop()
                yield Leave(folder.name, self._meta_of(folder))
            elif stat.S_ISDIR(item.mode):
                scope = self._enter(stack[-1][1] if stack else None, item)
                children = self._children(item, scope)
                if children or not stack or self._options.empty_folders:
                    self._refuse_cycle(item, stack)
                    yield Enter()
                    stack.append((item, scope, iter(children)))
            else:
                yield from self._plan_leaf(item)
            item = next(stack[-1][2], None) if stack else None

    def _enter(self, outer: Scope | None, folder: _Found) -> Scope:
        if outer is None:
            return self._selection.enter(Scope(), None, folder.path)
        return self._selection.enter(outer, folder.name.rpartition("/")[2], folder.path)

    def _refuse_cycle(self, item: _Found, stack: list[tuple[_Found, Scope, Iterator[_Found]]]) -> None:
        if item.identity is not None and any(item.identity == folder.identity for folder, _, _ in stack):
            raise invalid(
                f"{item.path} leads back to a folder that it is in: add it without following symlinks"
            )

    def _children(self, folder: _Found, scope: Scope) -> list[_Found]:
        with os.scandir(folder.path) as entries:
            chosen = [found for entry in entries if (found := self._chosen(entry, folder, scope)) is not None]
        chosen.sort(key=_by_bytes)
        return chosen

    def _chosen(self, entry: os.DirEntry[str], folder: _Found, scope: Scope) -> _Found | None:
        name = entry.name
        identity = None
        if self._options.follow_all and (entry.is_symlink() or entry.is_dir()):
            # A link is judged by what it leads to; one that leads nowhere is an error only if it is taken.
            try:
                status = entry.stat()
            except FileNotFoundError:
                if not self._selection.takes(scope, name, is_folder=False):
                    return None
                raise
            mode, identity = status.st_mode, (status.st_dev, status.st_ino)
        else:
            mode = _file_type(entry)
        if not self._selection.takes(scope, name, is_folder=stat.S_ISDIR(mode)):
            return None
        return _Found(entry.path, f"{folder.name}/{name}", mode, identity)

    def _plan_leaf(self, found: _Found) -> Iterator[Step]:
        if stat.S_ISREG(found.mode):
            yield from self._plan_file(found.path, found.name)
        elif stat.S_ISLNK(found.mode):
            target = os.readlink(found.path)  # noqa: PTH115 (a str of any path)
            yield Symlink(found.name, target, self._meta_of(found))
        else:
            raise invalid(
                f"{found.path} is a device, pipe or socket: only files, folders and symlinks are added"
            )

    def _plan_file(self, path: str, name: str) -> Iterator[Step]:
        stay = 0 if self._options.follow_all else os.O_NOFOLLOW
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | stay | os.O_NONBLOCK)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise CommandError(f"{path} changed while it was being added: add it again")
        except BaseException:
            os.close(handle)
            raise
        meta = self._meta(status)
        if status.st_size == 0:  # empty, or a file of /proc that does not know its length
            with os.fdopen(handle, "rb") as stream:
                yield from self._plan_stream(stream, name, meta)
            return
        held = yield from self._reader.file(handle, status.st_size, path)
        yield EndFile(name, meta, held)

    def _plan_stream(self, stream: BinaryIO, name: str, meta: Meta | None = None) -> Iterator[Step]:
        yield from self._reader.stream(iter(lambda: stream.read(READ_BYTES), b""))
        yield EndFile(name, self._given if meta is None else meta)

    def _meta_of(self, found: _Found) -> Meta:
        options = self._options
        if not options.preserves:
            return options.given(symlink=stat.S_ISLNK(found.mode))
        return self._meta((os.stat if options.follow_all else os.lstat)(found.path))

    def _meta(self, status: os.stat_result) -> Meta:
        if not self._options.preserves:
            return self._given
        mtime = Mtime.of_ns(status.st_mtime_ns)
        return self._options.meta(status.st_mode, mtime, symlink=stat.S_ISLNK(status.st_mode))


def total_bytes(options: ImportOptions, paths: Sequence[str]) -> int | None:
    """The sizes of all files that an import will read, for a progress line; None where it reads a stream."""
    if STDIO in paths:
        return None
    walk = PathWalk(options, ChunkReader(options.profile))
    total = 0
    for path in paths:
        try:
            total += sum(walk.sizes(path))
        except (OSError, CommandError):
            continue  # the import itself will report it
    return total


def _by_bytes(found: _Found) -> bytes:
    return os.fsencode(found.path)


def _file_type(entry: os.DirEntry[str]) -> int:
    """A mode with the file type alone, which listing a folder tells without a look at the file."""
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFLNK if entry.is_symlink() else 0
