"""Files, folders and archives into blocks: reads, hashes in two threads, builds the DAG, in a fixed order.

`Importer.blocks(…)` and `Importer.archive_blocks(…)` are lazy streams of blocks, children before parents,
for `put_many` to take from. A planner walks some way ahead and hands larger chunks to the threads; the
results are taken in the planner's order, so the same input gives the same CIDs and the same order of blocks
whatever the threads do. Memory is bounded by `WINDOW_BYTES` of chunks that are ahead, plus the names of the
folders that are open (for an archive: of all of it).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from cli.importing_steps import (
    Chunk,
    ChunkReader,
    EndFile,
    Enter,
    ImportOptions,
    Leave,
    Placed,
    Slot,
    Step,
    Symlink,
    ahead,
)  # fmt: skip
from cli.importing_walk import PathWalk
from cli.output import Meter, invalid
from merkledag.builder import FileTree, Leaf, Link, build_symlink
from merkledag.cid import CID
from merkledag.directory import DirectoryBuilder, DirEntry

if TYPE_CHECKING:
    from merkledag.block import Block

__all__ = ["Added", "ImportOptions", "Importer"]


class Added(NamedTuple):
    """One file, folder or symlink that is done. `size_bytes` counts file bytes, `tsize` the DAG's."""

    name: str
    cid: CID
    kind: str  # "file", "directory" or "symlink"
    size_bytes: int
    tsize: int


@dataclass(slots=True)
class _Folder:
    entries: DirectoryBuilder
    size_bytes: int = 0


class Importer:
    """One import. `on_added` hears of every finished entry but the roots, which are in `roots` afterwards.

    Roots are the arguments, or the folder around them where the options wrap. Raises CommandError: exit 3 for
    a path that is not there, 4 for what cannot be stored, 1 for a file that shrinks while it is read.
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
        self._reader = ChunkReader(options.profile)
        self._folders: list[_Folder] = []
        self.roots: list[Added] = []

    def blocks(self, paths: Sequence[str]) -> Generator[Block, None, None]:
        """Every block of every path (`-` is standard input), a block before the ones that link to it.

        Repeated blocks are not left out.
        """
        return self._build(PathWalk(self._options, self._reader, self._stdin).plan(paths))

    def archive_blocks(self, stream: BinaryIO, name: str) -> Generator[Block, None, None]:
        """The same for the folder, called `name`, that unpacking a tar archive would give."""
        from cli.importing_tar import Archive

        return self._build(Archive(self._options, self._reader, name).plan(stream))

    def _build(self, plan: Iterator[Step]) -> Generator[Block, None, None]:
        self._folders = [_Folder(DirectoryBuilder(self._profile))]
        tree = FileTree(self._profile)
        try:
            if self._options.wrap:
                self._folders.append(_Folder(DirectoryBuilder(self._profile)))
            for step in ahead(plan):
                if isinstance(step, Chunk):
                    leaf = step.leaf if isinstance(step.leaf, Leaf) else step.leaf.result()
                    self._meter.advance(step.size_bytes)
                    yield from tree.add(leaf)
                elif isinstance(step, EndFile):
                    link, blocks = tree.finish(step.meta.mode, step.meta.mtime)
                    yield from blocks
                    tree = FileTree(self._profile)
                    self._reader.close(step.handle)
                    if step.slot is None:
                        self._done(step.name, "file", link, link.size_bytes)
                    else:
                        step.slot.link = link
                else:
                    yield from self._entry(step)
            if self._options.wrap:
                yield from self._entry(Leave("", self._options.given()))
        except ValueError as error:
            raise invalid(str(error)) from None
        finally:
            self._reader.release()

    def _entry(self, step: Placed | Symlink | Enter | Leave) -> Iterator[Block]:
        if isinstance(step, Placed):
            link = _filled(step.slot)
            self._done(step.name, "file", link, link.size_bytes)
        elif isinstance(step, Symlink):
            link, block = build_symlink(self._profile, step.target, step.meta.mode, step.meta.mtime)
            yield block
            self._done(step.name, "symlink", link, 0)
        elif isinstance(step, Enter):
            self._folders.append(_Folder(DirectoryBuilder(self._profile)))
        else:
            folder = self._folders.pop()
            link = yield from folder.entries.finish(step.meta.mode, step.meta.mtime)
            self._done(step.name, "directory", link, folder.size_bytes)

    def _done(self, name: str, kind: str, link: Link, size_bytes: int) -> None:
        added = Added(name, link.cid, kind, size_bytes, link.tsize)
        parent = self._folders[-1]
        parent.size_bytes += size_bytes
        if len(self._folders) == 1:
            self.roots.append(added)
            return
        # What came from standard input has no name: in a folder its CID stands for one.
        parent.entries.add(DirEntry(name.rpartition("/")[2] or str(link.cid), link.cid, link.tsize))
        self._on_added(added)


def _filled(slot: Slot) -> Link:
    assert slot.link is not None, "a file is placed before it has ended"
    return slot.link
