"""Content into files and folders, written nowhere but inside the target.

Names from content are checked, every file and folder is made anew (never opened through something that
exists), and symlinks are made last and only when they stay inside the target. All of it goes into a hidden
folder beside the target (`cli.part`) and is renamed in the end, so an interrupted `get` leaves either nothing
or everything under the target's name. What was interrupted is taken up again: a leaf whose bytes are there
already, and still make the block of its CID, is neither fetched nor written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.output import CommandError, ExitCode, Meter, invalid, note, printable, size_text
from cli.part import MAX_NAME_BYTES, Part, check_length, full_disk, put_in_place, refuse_special
from merkledag.block import MAX_BLOCK_BYTES
from merkledag.filenode import is_leaf
from merkledag.reader import NodeStat, read_file
from merkledag.reader import stat as stat_node
from merkledag.steps import Buffer
from merkledag.tree import TreeItem, stays_inside, walk_tree

if TYPE_CHECKING:
    from cli.reading import Reader
    from merkledag.cid import CID

MAX_TARGET_BYTES: Final = 4_095  # of a symlink
PERMISSION_BITS: Final = 0o777  # never setuid, setgid or sticky from somebody else's data
KEEP_BYTES: Final = 1 << 20  # what an interrupted `get` must have written to be worth keeping


@dataclass(slots=True)
class Exported:
    """What a `get` wrote, and the paths that it left out (symlinks that lead outside, with their targets).

    `kept_bytes` of `size_bytes` were there already, from an interrupted `get`.
    """

    files: int = 0
    folders: int = 0
    symlinks: int = 0
    size_bytes: int = 0
    kept_bytes: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


def export(reader: Reader, cid: CID, target: Path, *, force: bool, meter: Meter) -> Exported:
    """Writes the file or folder `cid` to `target`.

    Without `force`, anything that is there already is an error (exit 4). With it, a file replaces a file or
    symlink, and a folder is merged into a folder. Raises CommandError (exit 4) for unsafe or double names,
    for what is no file or folder, and for a folder in a file's place; exit 6 when the disk is full;
    not-found errors of the source pass through.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 (must not follow a symlink)
    if target.name == "":
        raise invalid(f"{target} cannot be replaced: name a new file or folder with -o")
    refuse_existing(target, force)
    node = reader.run(stat_node(cid))
    check_root(cid, node)
    make_folder_of(target)
    if node.kind in {"file", "raw"}:
        check_room(target, node.size_bytes)
    part = Part(target, str(cid))
    writer = _Writer(reader, part, meter)
    try:
        writer.write(cid)
        put_in_place(part.content, target)
    except BaseException as error:
        _give_up(part, writer.done, error)
        raise (full_disk(target, error) if isinstance(error, OSError) else None) or error from None
    part.discard()
    return writer.done


def refuse_existing(target: Path, force: bool) -> None:
    """Exit 4 for a target that exists, unless `force`; for what is no file, link or folder even then."""
    check_length(target)
    if not os.path.lexists(target):
        return
    if not force:
        raise invalid(f"{target} exists: choose another name with -o, or overwrite it with --force")
    refuse_special(target)


def make_folder_of(target: Path) -> None:
    """Makes the folder that `target` is to be in; exit 4 where something else is in the way."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise invalid(f"{error.filename} is no folder, so nothing can be written into it") from None


def check_room(target: Path, size_bytes: int) -> None:
    """Exit 6 if `size_bytes` cannot fit on the disk of `target` (whose folder exists)."""
    try:
        room = os.statvfs(target.parent)
    except OSError:
        return
    if size_bytes > room.f_bavail * room.f_frsize:
        free = size_text(room.f_bavail * room.f_frsize)
        raise CommandError(
            f"{target}: {size_text(size_bytes)} do not fit into the {free} that are free", ExitCode.NO_SPACE
        )


def check_root(cid: CID, node: NodeStat) -> None:
    """Exit 4 for what cannot be got by itself: a symlink, or a node that is no UnixFS."""
    if node.kind == "symlink":
        raise invalid(f"this is a symlink to {printable(node.target or '')!r}: get the folder that it is in")
    if node.kind == "other":
        raise invalid(f"{cid} is neither a file nor a folder: use `dag get` or `block get`")


def _give_up(part: Part, done: Exported, error: BaseException) -> None:
    """Keeps what an interruption or a silent network cut off; anything else would only fail again."""
    passing = isinstance(error, (KeyboardInterrupt, TimeoutError, ConnectionError))
    if passing and done.size_bytes >= KEEP_BYTES:
        part.release()
        note(
            f"holdfast: kept {size_text(done.size_bytes)} in {part.path}: the same command goes on from there"
        )
    else:
        part.discard()


class _Writer:
    """Writes one tree into a part."""

    def __init__(self, reader: Reader, part: Part, meter: Meter) -> None:
        self._reader = reader
        self._root = part.content
        self._meter = meter
        self._umask = _umask()
        self._symlinks: list[tuple[Path, NodeStat]] = []
        self._folders: list[tuple[Path, NodeStat]] = []
        # Device and inode of what this run made or took up again; needed where things were there before.
        self._ours: set[tuple[int, int]] | None = set() if part.resumed else None
        self.done = Exported()

    def write(self, cid: CID) -> None:
        """The whole tree: files and folders first, then symlinks, then the folders' modes and times."""
        for item in self._reader.iterate(walk_tree(cid, sized=False)):
            path = (
                self._root.joinpath(*item.names[:-1], safe_name(item.names[-1])) if item.names else self._root
            )
            self._one(item, path)
        for path, link in self._symlinks:
            self._make_symlink(path, link)
        for path, folder in reversed(self._folders):
            if folder.mode is not None:
                path.chmod(folder.mode & PERMISSION_BITS)
            _set_mtime(path, folder)

    def _one(self, item: TreeItem, path: Path) -> None:
        node = item.stat
        try:
            if node.kind == "directory":
                self._folder(path)
                if node.mode is not None or node.mtime is not None:
                    self._folders.append((path, node))
                self.done.folders += 1
            elif node.kind in {"file", "raw"}:
                self._reader.announce(item.ahead)
                self._file(item.cid, node, path)
            elif node.kind == "symlink":
                self._symlinks.append((path, node))
            else:
                check_root(item.cid, node)
        except FileExistsError:
            raise self._twice(path) from None

    def _twice(self, path: Path) -> CommandError:
        shown = printable(str(path.relative_to(self._root)))
        return invalid(f"{shown}: two entries of one folder have this name; nothing was written")

    def _folder(self, path: Path) -> None:
        try:
            path.mkdir()
        except FileExistsError:
            if not self._take_up(path, stat.S_IFDIR):
                raise
            path.chmod(0o777 & ~self._umask)
        else:
            self._remember(path)

    def _file(self, cid: CID, node: NodeStat, path: Path) -> None:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        had_bytes = 0
        try:
            number = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            if not self._take_up(path, stat.S_IFREG):
                raise
            path.chmod(0o666 & ~self._umask)
            number = os.open(path, flags)
            had_bytes = os.fstat(number).st_size
        else:
            self._remember(path)
        try:
            self._fill(number, cid, had_bytes)
            if node.mode is not None:
                os.fchmod(number, node.mode & PERMISSION_BITS)
        finally:
            os.close(number)
        _set_mtime(path, node)
        self.done.files += 1

    def _fill(self, number: int, cid: CID, had_bytes: int) -> None:
        """Writes a file's bytes; those of leaves that are in its first `had_bytes` already stay."""
        kept: Buffer | None = None

        def known(leaf: CID, start: int, size: int | None) -> Buffer | None:
            nonlocal kept
            length = had_bytes - start if size is None else size
            kept = None
            if 0 < length <= min(MAX_BLOCK_BYTES, had_bytes - start):
                data = os.pread(number, length, start)
                kept = data if len(data) == length and is_leaf(leaf, data) else None
            return kept

        position = 0
        parts: Iterator[Buffer] = self._reader.iterate(read_file(cid, known=known if had_bytes else None))
        for part in parts:
            if part is kept:
                self.done.kept_bytes += len(part)
            else:
                _write_all(number, part, position)
            position += len(part)
            self.done.size_bytes += len(part)
            self._meter.advance(len(part))
        if had_bytes > position:
            os.ftruncate(number, position)

    def _take_up(self, path: Path, kind: int) -> bool:
        """Whether what is at `path` was left by an interrupted run: of this kind and not met before."""
        if self._ours is None:
            return False
        status = os.lstat(path)
        identity = (status.st_dev, status.st_ino)
        if identity in self._ours or stat.S_IFMT(status.st_mode) != kind:
            return False
        self._ours.add(identity)
        return True

    def _remember(self, path: Path) -> None:
        if self._ours is not None:
            status = os.lstat(path)
            self._ours.add((status.st_dev, status.st_ino))

    def _make_symlink(self, path: Path, node: NodeStat) -> None:
        names = path.relative_to(self._root).parts
        target = node.target or ""
        if not may_link(target, len(names) - 1):
            self.done.left_out.append(("/".join(names), target))
            return
        try:
            path.symlink_to(target)
        except FileExistsError:
            if self._ours is None or not path.is_symlink() or str(path.readlink()) != target:
                raise self._twice(path) from None
        _set_mtime(path, node)
        self.done.symlinks += 1


def safe_name(name: str) -> str:
    """`name` if it can be one file's name and nothing else; CommandError (exit 4) otherwise."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name or (os.sep != "/" and os.sep in name):
        raise invalid(f"{printable(name)!r} is not a safe file name: nothing was written")
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise invalid(f"the name {printable(name[:40])!r}… has more than {MAX_NAME_BYTES} bytes")
    return name


def may_link(target: str, depth: int) -> bool:
    """Whether a symlink `depth` folders below the root may be made: it stays inside and is not too long."""
    return stays_inside(target, depth) and len(os.fsencode(target)) <= MAX_TARGET_BYTES


def _write_all(number: int, data: bytes | memoryview, position: int) -> None:
    view = memoryview(data)
    while view:
        wrote = os.pwrite(number, view, position)
        view, position = view[wrote:], position + wrote


def _set_mtime(path: Path, node: NodeStat) -> None:
    if node.mtime is None:
        return
    try:
        os.utime(path, ns=(node.mtime.total_ns,) * 2, follow_symlinks=False)
    except (OverflowError, NotImplementedError, OSError):
        return  # a time that this file system cannot hold is no reason to withhold the content


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
