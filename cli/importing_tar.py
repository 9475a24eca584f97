"""Plans the import of a tar archive: the folder that unpacking it would give, without unpacking it.

The archive is read once, from front to end. Its files are hashed as they come; the folders, which an archive
may mention in any order or not at all, are built at its end, from names and links held in memory.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import IO, Any, BinaryIO, Final

from cli.importing_ignore import Scope
from cli.importing_steps import (
    READ_BYTES,
    ChunkReader,
    EndFile,
    Enter,
    ImportOptions,
    Leave,
    Meta,
    Placed,
    Slot,
    Step,
    Symlink,
)  # fmt: skip
from cli.output import invalid
from merkledag.unixfs import Mtime

MAX_HEADER_BYTES: Final = 1 << 20  # of names and pax records before one entry
MAX_DEPTH: Final = 1_024
BUFFER_BYTES: Final = 64 << 10  # `tarfile` copies what is left of it at every read
_LONG_HEADERS: Final = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class _Entry(tarfile.TarInfo):
    """A header; unlike `tarfile`'s own, one that is damaged is an error and not the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Entry:
        try:
            entry = super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None
        if entry.type in _LONG_HEADERS and entry.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {entry.size} bytes; at most {MAX_HEADER_BYTES}")
        return entry


@dataclass(slots=True)
class _File:
    slot: Slot


@dataclass(slots=True)
class _Link:
    target: str
    meta: Meta


@dataclass(slots=True)
class _Folder:
    meta: Meta
    entries: dict[str, _File | _Link | _Folder] = field(default_factory=dict)


class Archive:
    """One import of one archive. `name` is what its folder is called."""

    def __init__(self, options: ImportOptions, reader: ChunkReader, name: str) -> None:
        self._options = options
        self._reader = reader
        self._name = name
        self._selection = options.selection
        self._root = _Folder(options.given())

    def plan(self, stream: BinaryIO) -> Iterator[Step]:
        """The steps for the whole archive, plain or compressed (gzip, bzip2, xz).

        Raises CommandError (exit 4) for what is no tar archive or ends early, for names that lead out of the
        folder, links that lead nowhere, and entries that are no files, folders or links.
        """
        with (
            _as_invalid(),
            tarfile.open(fileobj=stream, mode="r|*", bufsize=BUFFER_BYTES, tarinfo=_Entry) as tar,
        ):
            tar.errorlevel = 2
            for entry in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # or it would remember every header
                yield from self._plan_entry(tar, entry)
        yield from self._plan_folders()

    def _plan_entry(self, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[Step]:
        parts = _parts(entry.name)
        if not parts:
            if not entry.isdir():
                raise invalid(f"an entry of the archive has no name: {entry.name!r}")
            self._root.meta = self._meta(entry)
            return
        folder = self._folder_of(parts[:-1], entry.name)
        if folder is None or not self._takes(parts, is_folder=entry.isdir()):
            return
        name = parts[-1]
        old = folder.entries.get(name)
        if isinstance(old, _Folder) != entry.isdir() and old is not None:
            raise invalid(f"{entry.name!r} is in the archive as a folder and as something else")
        if entry.isdir():
            if isinstance(old, _Folder):
                old.meta = self._meta(entry)
            else:
                folder.entries[name] = _Folder(self._meta(entry))
        elif entry.issym():
            folder.entries[name] = _Link(entry.linkname, self._meta(entry, symlink=True))
        elif entry.islnk():
            folder.entries[name] = self._linked(entry)
        elif entry.isreg():
            slot = Slot()
            content = tar.extractfile(entry)
            assert content is not None
            yield from self._reader.stream(_pieces(content, entry))
            yield EndFile(entry.name, self._meta(entry), slot=slot)
            folder.entries[name] = _File(slot)
        else:
            raise invalid(
                f"{entry.name!r} in the archive is a device or pipe: only files, folders and links are added"
            )

    def _takes(self, parts: list[str], *, is_folder: bool) -> bool:
        scope = Scope("/".join(parts[:-1]))
        return self._selection.takes(scope, parts[-1], is_folder=is_folder)

    def _folder_of(self, parts: list[str], whole: str) -> _Folder | None:
        """The folder at a path, made if it is new; None inside a folder that is left out."""
        folder = self._root
        for count, name in enumerate(parts, 1):
            if not self._takes(parts[:count], is_folder=True):
                return None
            found = folder.entries.setdefault(name, _Folder(self._options.given()))
            if not isinstance(found, _Folder):
                raise invalid(f"{whole!r} in the archive leads through something that is no folder")
            folder = found
        return folder

    def _linked(self, entry: tarfile.TarInfo) -> _File | _Link:
        """What a hard link is: the same file again."""
        found: _File | _Link | _Folder | None = self._root
        for name in _parts(entry.linkname):
            found = found.entries.get(name) if isinstance(found, _Folder) else None
        if not isinstance(found, (_File, _Link)):
            raise invalid(
                f"{entry.name!r} in the archive is a link to {entry.linkname!r}, which is not before it"
            )
        return found

    def _plan_folders(self) -> Iterator[Step]:
        """Folders and what is in them, in the order that `add` would find them; the stack is explicit."""
        yield Enter()
        stack = [(self._name, self._root, iter(sorted(self._root.entries, key=_bytes_of)))]
        while stack:
            path, folder, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                yield Leave(path, folder.meta)
                continue
            entry, below = folder.entries[name], f"{path}/{name}" if path else name
            if isinstance(entry, _File):
                yield Placed(below, entry.slot)
            elif isinstance(entry, _Link):
                yield Symlink(below, entry.target, entry.meta)
            elif entry.entries or self._options.empty_folders:
                yield Enter()
                stack.append((below, entry, iter(sorted(entry.entries, key=_bytes_of))))

    def _meta(self, entry: tarfile.TarInfo, *, symlink: bool = False) -> Meta:
        return self._options.meta(entry.mode, _mtime(entry), symlink=symlink)


def _parts(path: str) -> list[str]:
    """The names in a path, without those that stay where they are; exit 4 if the path leads out."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise invalid(f"{path!r} in the archive leads out of its folder: refused")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if len(parts) > MAX_DEPTH:
        raise invalid(f"{path[:80]!r}… in the archive is nested over {MAX_DEPTH} folders deep")
    return parts


def _mtime(entry: tarfile.TarInfo) -> Mtime:
    """The time with all its digits: `tarfile` gives a float."""
    try:
        exact = Decimal(str(entry.pax_headers.get("mtime", entry.mtime)))
        return Mtime.of_ns(int(exact * 10**9))
    except (InvalidOperation, ValueError, OverflowError):
        raise invalid(f"{entry.name!r} in the archive has no lawful modification time") from None


def _pieces(content: IO[bytes], entry: tarfile.TarInfo) -> Iterator[bytes]:
    left = entry.size
    while left:
        piece = content.read(min(READ_BYTES, left))
        if not piece:
            raise invalid(f"the archive ends inside {entry.name!r}")
        left -= len(piece)
        yield piece


def _bytes_of(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


@contextmanager
def _as_invalid() -> Iterator[None]:
    import zlib

    problems: tuple[Any, ...] = (tarfile.TarError, EOFError, zlib.error)
    try:
        yield
    except problems as error:
        raise invalid(f"not a whole tar archive: {error}") from None
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage so
            raise invalid(f"not a whole tar archive: {error}") from None
        raise


SUFFIXES: Final = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")


def folder_name(path: str) -> str:
    """What the folder of the archive at `path` is called: the file's name without `.tar` and the like."""
    name = path.rpartition("/")[2]
    found = max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: -len(found)] if found and len(name) > len(found) else name
