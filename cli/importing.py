"""Files and folders into blocks: walks, reads, hashes in two threads, builds the DAG, in a fixed order.

`Importer.blocks(paths)` is one lazy stream of blocks, children before parents, for `put_many` to take from. A
planner walks the tree some way ahead and hands larger chunks to the threads; the results are taken in the
planner's order, so the same input gives the same CIDs and the same order of blocks whatever the threads do.
Memory is bounded by `WINDOW_BYTES` of chunks that are ahead, plus the names of the folders that are open.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from cli.output import CommandError, Meter, invalid
from merkledag.builder import FileTree, Leaf, build_symlink, make_leaf
from merkledag.cid import CID
from merkledag.directory import DirEntry, build_directory
from merkledag.unixfs import Mtime

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from merkledag.block import Block
    from merkledag.builder import Link
    from merkledag.profile import ImportProfile

HASH_THREADS: Final = 2
WINDOW_BYTES: Final = 24 << 20
WINDOW_STEPS: Final = 128
SMALL_FILE_BYTES: Final = 64 << 10  # below this, handing a chunk to a thread costs more than hashing it here
STDIN: Final = "-"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What to take from the file system; `profile` says how to build the DAG."""

    profile: ImportProfile
    hidden: bool = False
    wrap: bool = False
    preserve_mode: bool = False
    preserve_mtime: bool = False


@dataclass(frozen=True, slots=True)
class Added:
    """One file, folder or symlink that is done. `size_bytes` counts file bytes, `tsize` the DAG's."""

    name: str
    cid: CID
    kind: str  # "file", "directory" or "symlink"
    size_bytes: int
    tsize: int


@dataclass(frozen=True, slots=True)
class _Meta:
    mode: int | None = None
    mtime: Mtime | None = None


class _Found(NamedTuple):
    path: str
    name: str
    mode: int  # at least the file type


@dataclass(frozen=True, slots=True)
class _Chunk:
    leaf: Leaf | Future[Leaf]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _EndFile:
    name: str
    meta: _Meta
    handle: int = -1


@dataclass(frozen=True, slots=True)
class _Symlink:
    name: str
    target: str
    meta: _Meta


@dataclass(frozen=True, slots=True)
class _Enter:
    pass


@dataclass(frozen=True, slots=True)
class _Leave:
    name: str
    meta: _Meta


_Step = _Chunk | _EndFile | _Symlink | _Enter | _Leave


@dataclass(slots=True)
class _Folder:
    entries: list[DirEntry] = field(default_factory=list)
    size_bytes: int = 0


class Importer:
    """One import. `on_added` hears of every finished entry, `roots` holds the finished arguments afterwards.

    Raises CommandError: exit 3 for a path that is not there, 4 for what cannot be stored, 1 for a file that
    shrinks while it is read.
    """

    def __init__(
        self,
        options: ImportOptions,
        *,
        on_added: Callable[[Added], None],
        meter: Meter,
        stdin: BinaryIO | None = None,
    ) -> None:
        self._options = options
        self._profile = options.profile
        self._on_added = on_added
        self._meter = meter
        self._stdin = stdin
        self._pool: ThreadPoolExecutor | None = None
        self._open: set[int] = set()
        self._folders: list[_Folder] = []
        self.roots: list[Added] = []

    def blocks(self, paths: Sequence[str]) -> Generator[Block, None, None]:
        """Every block of every path, a block before the ones that link to it.

        Repeated blocks are not left out.
        """
        self._folders = [_Folder()]
        tree = FileTree(self._profile)
        leaves = 0
        held: list[Block] = []  # the first leaf's, because a file of one leaf with metadata does without it
        try:
            for step in _ahead(self._plan(paths)):
                if isinstance(step, _Chunk):
                    leaf = step.leaf if isinstance(step.leaf, Leaf) else step.leaf.result()
                    self._meter.advance(step.size_bytes)
                    yield from held
                    held = tree.add(leaf)
                    leaves += 1
                elif isinstance(step, _EndFile):
                    link, blocks = tree.finish(step.meta.mode, step.meta.mtime)
                    if leaves > 1 or not blocks:
                        yield from held
                    yield from blocks
                    tree, held, leaves = FileTree(self._profile), [], 0
                    self._close(step.handle)
                    self._done(step.name, "file", link, link.size_bytes)
                else:
                    yield from self._other(step)
            if self._options.wrap:
                yield from self._wrap(self._folders.pop())
        except ValueError as error:
            raise invalid(str(error)) from None
        finally:
            self._release()

    def _other(self, step: _Symlink | _Enter | _Leave) -> Iterator[Block]:
        if isinstance(step, _Symlink):
            link, block = build_symlink(self._profile, step.target, mtime=step.meta.mtime)
            yield block
            self._done(step.name, "symlink", link, 0)
        elif isinstance(step, _Enter):
            self._folders.append(_Folder())
        else:
            yield from self._directory(self._folders.pop(), step)

    def _directory(self, folder: _Folder, step: _Leave) -> Iterator[Block]:
        link, blocks = build_directory(self._profile, folder.entries, step.meta.mode, step.meta.mtime)
        yield from blocks
        self._done(step.name, "directory", link, folder.size_bytes)

    def _wrap(self, top: _Folder) -> Iterator[Block]:
        """One folder around all arguments, which is then the only root."""
        self._folders.append(_Folder())
        self.roots.clear()
        yield from self._directory(top, _Leave("", _Meta()))

    def _done(self, name: str, kind: str, link: Link, size_bytes: int) -> None:
        added = Added(name, link.cid, kind, size_bytes, link.tsize)
        parent = self._folders[-1]
        # What came from standard input has no name: in a folder its CID stands for one.
        parent.entries.append(DirEntry(name.rpartition("/")[2] or str(link.cid), link.cid, link.tsize))
        parent.size_bytes += size_bytes
        if len(self._folders) == 1:
            self.roots.append(added)
        self._on_added(added)

    # --- planning: the walk, some way ahead ---

    def _plan(self, paths: Sequence[str]) -> Iterator[_Step]:
        for path in paths:
            if path == STDIN:
                yield from self._plan_stdin()
                continue
            name = os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 (follows no symlink)
            yield from self._plan_path(path, name)

    def _plan_path(self, path: str, name: str) -> Iterator[_Step]:
        """The steps for one path; an explicit stack, because folders nest deeper than Python recurses."""
        stack: list[Iterator[_Found]] = [iter([_Found(path, name, os.lstat(path).st_mode)])]
        leaves: list[_Leave] = []
        while stack:
            item = next(stack[-1], None)
            if item is None:
                stack.pop()
                if leaves:
                    yield leaves.pop()
                continue
            if stat.S_ISDIR(item.mode):
                yield _Enter()
                leaves.append(_Leave(item.name, self._meta_of(item.path)))
                stack.append(self._children(item))
            else:
                yield from self._plan_leaf(item)

    def _children(self, folder: _Found) -> Iterator[_Found]:
        hidden = self._options.hidden
        with os.scandir(folder.path) as entries:
            chosen = [(e.name, _file_type(e)) for e in entries if hidden or not e.name.startswith(".")]
        chosen.sort(key=_by_bytes)
        return (_Found(f"{folder.path}/{name}", f"{folder.name}/{name}", mode) for name, mode in chosen)

    def _plan_leaf(self, found: _Found) -> Iterator[_Step]:
        path = found.path
        if stat.S_ISREG(found.mode):
            yield from self._plan_file(path, found.name)
        elif stat.S_ISLNK(found.mode):
            target = os.readlink(path)  # noqa: PTH115 (a str of any path)
            yield _Symlink(found.name, target, self._meta_of(path))
        else:
            raise invalid(f"{path} is a device, pipe or socket: only files, folders and symlinks are added")

    def _plan_file(self, path: str, name: str) -> Iterator[_Step]:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        self._open.add(handle)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise CommandError(f"{path} changed while it was being added: add it again")
        size, chunk_bytes = status.st_size, self._profile.chunk_bytes
        meta = self._meta(status)
        if size == 0:  # empty, or a file of /proc that does not know its length
            with os.fdopen(os.dup(handle), "rb") as stream:
                yield from self._plan_stream(stream)
        elif size <= SMALL_FILE_BYTES and size <= chunk_bytes:
            yield _Chunk(make_leaf(self._profile, _read_at(handle, size, 0, path)), size)
            self._close(handle)
            handle = -1
        else:
            for offset in range(0, size, chunk_bytes):
                length = min(chunk_bytes, size - offset)
                yield _Chunk(self._threads().submit(self._read_leaf, handle, length, offset, path), length)
        yield _EndFile(name, meta, handle)

    def _plan_stream(self, stream: BinaryIO) -> Iterator[_Step]:
        size_bytes = 0
        while (chunk := stream.read(self._profile.chunk_bytes)) or not size_bytes:
            size_bytes += len(chunk) or 1  # an empty file has one empty chunk
            if len(chunk) <= SMALL_FILE_BYTES:
                yield _Chunk(make_leaf(self._profile, chunk), len(chunk))
            else:
                yield _Chunk(self._threads().submit(make_leaf, self._profile, chunk), len(chunk))

    def _plan_stdin(self) -> Iterator[_Step]:
        yield from self._plan_stream(self._stdin if self._stdin is not None else sys.stdin.buffer)
        yield _EndFile("", _Meta())

    def _meta_of(self, path: str) -> _Meta:
        options = self._options
        wanted = options.preserve_mode or options.preserve_mtime
        return self._meta(os.lstat(path)) if wanted else _Meta()

    def _meta(self, status: os.stat_result) -> _Meta:
        options = self._options
        return _Meta(
            stat.S_IMODE(status.st_mode) if options.preserve_mode else None,
            Mtime(*divmod(status.st_mtime_ns, 10**9)) if options.preserve_mtime else None,
        )

    # --- threads and open files ---

    def _read_leaf(self, handle: int, length: int, offset: int, path: str) -> Leaf:
        return make_leaf(self._profile, _read_at(handle, length, offset, path))

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="hash")
        return self._pool

    def _close(self, handle: int) -> None:
        if handle in self._open:
            self._open.remove(handle)
            os.close(handle)

    def _release(self) -> None:
        """Ends the threads, then closes what they read from."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        for handle in list(self._open):
            self._close(handle)


def _ahead(plan: Iterator[_Step]) -> Iterator[_Step]:
    """The plan's steps in order, with up to WINDOW_BYTES of chunks planned (so being hashed) ahead."""
    window: deque[_Step] = deque()
    size_bytes = 0
    for step in plan:
        window.append(step)
        size_bytes += step.size_bytes if isinstance(step, _Chunk) else 0
        while size_bytes > WINDOW_BYTES or len(window) > WINDOW_STEPS:
            first = window.popleft()
            size_bytes -= first.size_bytes if isinstance(first, _Chunk) else 0
            yield first
    yield from window


def _by_bytes(item: tuple[str, int]) -> bytes:
    return os.fsencode(item[0])


def _file_type(entry: os.DirEntry[str]) -> int:
    """A mode with the file type alone, which listing a folder tells without a look at the file."""
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFLNK if entry.is_symlink() else 0


def _read_at(handle: int, length: int, offset: int, path: str) -> bytes:
    data = os.pread(handle, length, offset)
    while len(data) < length:
        more = os.pread(handle, length - len(data), offset + len(data))
        if not more:
            raise CommandError(f"{path} shrank while it was being added: add it again")
        data += more
    return data


def total_bytes(paths: Sequence[str], *, hidden: bool) -> int | None:
    """The sizes of all files below the paths, for a progress line.

    None where standard input is among them.
    """
    if STDIN in paths:
        return None
    total = 0
    stack = list(paths)
    while stack:
        path = stack.pop()
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                with os.scandir(path) as entries:
                    stack += [e.path for e in entries if hidden or not e.name.startswith(".")]
            elif stat.S_ISREG(status.st_mode):
                total += status.st_size
        except OSError:
            continue  # the import itself will report it
    return total
