"""Content into one stream: a TAR of a tree, or a file's bytes, either of them compressed if asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cli.exporting import Exported, may_link, safe_name
from cli.output import Meter, invalid, printable
from merkledag import tar
from merkledag.reader import read_file
from merkledag.steps import Buffer
from merkledag.tree import TreeItem, walk_tree

if TYPE_CHECKING:
    from cli.reading import Reader
    from merkledag.cid import CID

Write = Callable[[Buffer], object]


def write_file(reader: Reader, cid: CID, write: Write, meter: Meter) -> Exported:
    """A file's bytes. Raises what `merkledag.reader.read_file` raises."""
    done = Exported(files=1)
    parts: Iterator[Buffer] = reader.iterate(read_file(cid))
    for part in parts:
        write(part)
        done.size_bytes += len(part)
        meter.advance(len(part))
    return done


def write_tar(reader: Reader, cid: CID, top: str, write: Write, meter: Meter) -> Exported:
    """A TAR archive of the tree `cid`, all in one entry called `top`.

    Nodes without a time get that of 1970, so equal content gives equal bytes. Symlinks that lead out are left
    out. Raises CommandError (exit 4) for unsafe names and for what is no file, folder or symlink.
    """
    done = Exported()
    for item in reader.iterate(walk_tree(cid)):
        if item.names:
            safe_name(item.names[-1])
        name = "/".join((top, *item.names))
        header = _header(item, name, done)
        if header is not None:
            write(header)
        if item.stat.kind in {"file", "raw"}:
            _content(reader, item, write, meter, done)
    write(tar.END)
    return done


def _header(item: TreeItem, name: str, done: Exported) -> bytes | None:
    """An entry's header; None for a symlink that is left out."""
    facts = item.stat
    if facts.kind == "directory":
        done.folders += 1
        return tar.header(name, tar.Member.FOLDER, mode=facts.mode, mtime=facts.mtime)
    if facts.kind == "symlink":
        target = facts.target or ""
        if not may_link(target, len(item.names) - 1):
            done.left_out.append(("/".join(item.names), target))
            return None
        done.symlinks += 1
        return tar.header(name, tar.Member.SYMLINK, mtime=facts.mtime, target=target)
    if facts.kind == "other":
        raise invalid(f"{printable(name)}: {item.cid} is neither a file nor a folder")
    done.files += 1
    return tar.header(name, tar.Member.FILE, facts.size_bytes, mode=facts.mode, mtime=facts.mtime)


def _content(reader: Reader, item: TreeItem, write: Write, meter: Meter, done: Exported) -> None:
    size_bytes = 0
    reader.announce(item.ahead)
    parts: Iterator[Buffer] = reader.iterate(read_file(item.cid))
    for part in parts:
        write(part)
        size_bytes += len(part)
        meter.advance(len(part))
    if size_bytes != item.stat.size_bytes:
        raise invalid(f"{item.cid}: has {size_bytes} bytes, and says it has {item.stat.size_bytes}")
    write(tar.padding(size_bytes))
    done.size_bytes += size_bytes
