"""Content into files and folders, written nowhere but inside the target.

Names from content are checked, every file and folder is made anew (never opened through something that
exists), and symlinks are made last and only when they stay inside the target. All of it goes into a temporary
sibling that is renamed in the end, so an interrupted `get` leaves either nothing or everything under the
target's name.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.output import CommandError, Meter, invalid, printable
from merkledag.codecs import RAW
from merkledag.reader import NodeStat, entries, read_file
from merkledag.reader import stat as stat_node
from merkledag.steps import Buffer, iterate, run

if TYPE_CHECKING:
    from cli.sources import ContentSource
    from merkledag.cid import CID
    from merkledag.reader import Entry

MAX_FOLDER_DEPTH: Final = 256
MAX_NAME_BYTES: Final = 255
PERMISSION_BITS: Final = 0o777  # never setuid, setgid or sticky from somebody else's data


@dataclass(slots=True)
class Exported:
    """What a `get` wrote, and the paths that it left out (symlinks that lead outside, with their targets)."""

    files: int = 0
    folders: int = 0
    symlinks: int = 0
    size_bytes: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


def export(source: ContentSource, cid: CID, target: Path, *, force: bool, meter: Meter) -> Exported:
    """Writes the file or folder `cid` to `target`.

    Without `force`, anything that is there already is an error (exit 4). With it, a file replaces a file or
    symlink, and a folder is merged into a folder. Raises CommandError (exit 4) for unsafe or double names,
    for what is no file or folder, and for a folder in a file's place; not-found errors of the source pass
    through.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 (must not follow a symlink)
    if target.name == "":
        raise invalid(f"{target} cannot be replaced: name a new file or folder with -o")
    _check_target(target, force)
    node = _stat(source, cid)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".holdfast-{secrets.token_hex(8)}.part"
    writer = _Writer(source, temporary, meter)
    try:
        writer.write(cid, node)
        _move(temporary, target)
    finally:
        _remove(temporary)
    return writer.done


class _Writer:
    """Writes one tree under a path that does not exist yet."""

    def __init__(self, source: ContentSource, root: Path, meter: Meter) -> None:
        self._source = source
        self._root = root
        self._meter = meter
        self._umask = _umask()
        self._symlinks: list[tuple[Path, str, NodeStat]] = []
        self._folders: list[tuple[Path, NodeStat]] = []
        self.done = Exported()

    def write(self, cid: CID, node: NodeStat) -> None:
        """The whole tree: files and folders first, then symlinks, then the folders' modes and times."""
        self._one(cid, node, self._root)
        if node.kind == "directory":
            self._walk(cid)
        for path, target, link in self._symlinks:
            self._make_symlink(path, target, link)
        for path, folder in reversed(self._folders):
            mode = PERMISSION_BITS & ~self._umask if folder.mode is None else folder.mode & PERMISSION_BITS
            path.chmod(mode)
            _set_mtime(path, folder)

    def _walk(self, root: CID) -> None:
        """Depth first with an explicit stack; the depth is bounded before anything is written."""
        stack: list[tuple[Path, Iterator[Entry]]] = [(self._root, self._list(root))]
        while stack:
            folder, listing = stack[-1]
            entry = next(listing, None)
            if entry is None:
                stack.pop()
                continue
            name, cid = entry.name, entry.cid
            path = folder / safe_name(name)
            node = _stat(self._source, cid)
            self._one(cid, node, path)
            if node.kind == "directory":
                if len(stack) >= MAX_FOLDER_DEPTH:
                    raise invalid(
                        f"folders are nested more than {MAX_FOLDER_DEPTH} deep: {cid} was not written"
                    )
                stack.append((path, self._list(cid)))

    def _list(self, cid: CID) -> Iterator[Entry]:
        return iterate(entries(cid), self._source.get)

    def _one(self, cid: CID, node: NodeStat, path: Path) -> None:
        shown = printable(str(path.relative_to(self._root)))
        try:
            if node.kind == "directory":
                path.mkdir(mode=0o700)
                self._folders.append((path, node))
                self.done.folders += 1
            elif node.kind in {"file", "raw"}:
                self._file(cid, node, path)
            elif node.kind == "symlink":
                self._later(path, node)
            else:
                raise invalid(f"{cid} is neither a file nor a folder: use `dag get` or `block get`")
        except FileExistsError:
            raise invalid(f"{shown}: two entries of one folder have this name; nothing was written") from None

    def _file(self, cid: CID, node: NodeStat, path: Path) -> None:
        mode = 0o666 if node.mode is None else node.mode & PERMISSION_BITS
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            parts: Iterator[Buffer] = iterate(read_file(cid), self._source.get)
            for part in parts:
                _write_all(file.write, part)
                self.done.size_bytes += len(part)
                self._meter.advance(len(part))
            os.fchmod(file.fileno(), mode & ~self._umask if node.mode is None else mode)
        _set_mtime(path, node)
        self.done.files += 1

    def _later(self, path: Path, node: NodeStat) -> None:
        target = node.target or ""
        if path == self._root:
            raise invalid(f"this is a symlink to {printable(target)!r}: get the folder that it is in")
        self._symlinks.append((path, target, node))

    def _make_symlink(self, path: Path, target: str, node: NodeStat) -> None:
        depth = len(path.relative_to(self._root).parts) - 1
        if not stays_inside(target, depth):
            self.done.left_out.append((str(path.relative_to(self._root)), target))
            return
        try:
            path.symlink_to(target)
        except FileExistsError:
            raise invalid(f"{printable(path.name)}: two entries of one folder have this name") from None
        _set_mtime(path, node)
        self.done.symlinks += 1


def _stat(source: ContentSource, cid: CID) -> NodeStat:
    """What a node is; a raw block is a file whatever is in it, so it need not be read twice."""
    return NodeStat(cid, "raw", 0, 0) if cid.codec == RAW else run(stat_node(cid), source.get)


def safe_name(name: str) -> str:
    """`name` if it can be one file's name and nothing else; CommandError (exit 4) otherwise."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name or (os.sep != "/" and os.sep in name):
        raise invalid(f"{printable(name)!r} is not a safe file name: nothing was written")
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise invalid(f"the name {printable(name[:40])!r}… has more than {MAX_NAME_BYTES} bytes")
    return name


def stays_inside(target: str, depth: int) -> bool:
    """Whether a symlink `depth` folders below the root cannot lead out of it.

    Only leading `..` are followed, and those go up real folders; a `..` behind a name might go up from
    wherever another symlink leads, so it is refused. What the remaining names lead through are folders or
    symlinks of the same kind, so by induction all of them stay inside.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    return ups <= depth and ".." not in parts[ups:]


def _check_target(target: Path, force: bool) -> None:
    if not os.path.lexists(target):
        return
    if not force:
        raise invalid(f"{target} exists: choose another name with -o, or overwrite it with --force")


def _move(new: Path, target: Path) -> None:
    """Renames `new` to `target`, merging folders; never follows a symlink."""
    if not os.path.lexists(target):
        new.rename(target)
        return
    new_is_folder, old_is_folder = (stat.S_ISDIR(os.lstat(p).st_mode) for p in (new, target))
    if new_is_folder != old_is_folder:
        kinds = ("folder", "file") if new_is_folder else ("file", "folder")
        raise invalid(f"{target}: a {kinds[0]} cannot replace what is there (a {kinds[1]}); remove it first")
    if not new_is_folder:
        new.replace(target)
        return
    for child in sorted(new.iterdir()):
        _move(child, target / child.name)


def _remove(path: Path) -> None:
    """Removes what is left of a temporary file or folder."""
    try:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            for folder, _, _ in os.walk(path):
                Path(folder).chmod(0o700)  # a folder may have been given a mode that forbids even its owner
            shutil.rmtree(path)
    except OSError as error:
        raise CommandError(f"{path} is left over and cannot be removed: {error.strerror}") from None


def _write_all(write: Callable[[memoryview], int | None], data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[write(view) or 0 :]


def _set_mtime(path: Path, node: NodeStat) -> None:
    if node.mtime is None:
        return
    seconds, nanoseconds = node.mtime
    when_ns = seconds * 10**9 + nanoseconds
    try:
        os.utime(path, ns=(when_ns, when_ns), follow_symlinks=False)
    except (OverflowError, NotImplementedError, OSError):
        return  # a time that this file system cannot hold is no reason to withhold the content


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
