"""`holdfast files`: a mutable tree of folders and files in the home, under one root CID (MFS)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag
from cli.output import emit, invalid, not_found, printable, raw, text, usage
from cli.streams import STDIO, base64_text

if TYPE_CHECKING:
    from merkledag.cid import CID
    from merkledag.steps import Buffer
    from storage_node.mfs import Mfs
    from storage_node.mfs_view import FileStat, Segments

app = new_app("A mutable tree of folders and files; paths begin with /.")

READ_BYTES = 1 << 20
IMMUTABLE = ("/ipfs/", "/ipns/", "ipfs://", "ipns://")

TreePath = Annotated[str, typer.Argument(metavar="PATH", help="A path in the tree, for example /docs/a.txt.")]
ParentsOption = Annotated[bool, typer.Option("-p", "--parents", help="Make the folders above it too.")]


@contextmanager
def opened(*, limited: bool = True) -> Iterator[tuple[Home, Mfs]]:
    """The tree of this home; `limited` as for `Home.open_store`."""
    from cli.profile_options import named_profile
    from cli.sources import content_source
    from storage_node.mfs import Mfs

    with Home.locate() as home:
        store, meta = home.open_store(limited=limited), home.open_meta()
        profile = named_profile(home.config.text("import.profile"))
        yield home, Mfs(store, meta, profile, content_source(home).get, time.time_ns)


def _parsed(path: str) -> Segments:
    from storage_node.mfs import parse

    return parse(path)


def _is_folder_path(path: str) -> bool:
    """Whether a path says itself that it is a folder."""
    return path.endswith(("/", "/.", "/.."))


@app.command("ls")
def ls(
    path: TreePath = "/",
    long: Annotated[bool, typer.Option("-l", "--long", help="Print CIDs and sizes too.")] = False,
    unsorted: Annotated[
        bool, typer.Option("-U", "--unsorted", help="In the order of the folder's blocks.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """List a folder of the tree."""
    from merkledag.folder import entries
    from merkledag.steps import iterate

    segments = _parsed(path)
    with opened() as (_, mfs):
        view = mfs.view()
        cid = view.find(segments)
        if view.is_folder(cid):
            found = ((entry.name, entry.cid) for entry in iterate(entries(cid), view.get))
            rows = found if unsorted else iter(sorted(found))
        else:
            rows = iter([(segments[-1], cid)])
        for name, child in rows:
            if not long and not json_output:
                text(printable(name))
                continue
            node = view.stat(child).node
            size = 0 if node.kind == "directory" else node.size_bytes
            if json_output:
                emit({"name": name, "cid": str(child), "kind": _kind(node.kind), "size_bytes": size})
            else:
                text(f"{printable(name)}{'/' if node.kind == 'directory' else ''}\t{child}\t{size}")


def _kind(kind: str) -> str:
    """A raw block is a file here."""
    return "file" if kind == "raw" else kind


@app.command("stat")
def stat(
    path: TreePath,
    hash_only: Annotated[bool, typer.Option("--hash", help="Print the CID alone.")] = False,
    size_only: Annotated[bool, typer.Option("--size", help="Print the size alone.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Say what a path of the tree (or an /ipfs/ path) is."""
    with opened() as (home, mfs):
        view = mfs.view()
        cid = _immutable(home, path) if path.startswith(IMMUTABLE) else view.find(_parsed(path))
        found = view.stat(cid)
    document = _document(found)
    if json_output:
        return emit(document)
    if hash_only or size_only:
        return text(str(document["cid" if hash_only else "size_bytes"]))
    lines = [
        document["cid"],
        f"Size: {document['size_bytes']}",
        f"CumulativeSize: {document['cumulative_bytes']}",
        f"ChildBlocks: {document['blocks']}",
        f"Type: {document['kind']}",
    ]
    if document["mode"] is not None:
        lines.append(f"Mode: {document['mode']}")
    if document["mtime"] is not None:
        lines.append(f"Mtime: {document['mtime']}")
    return text("\n".join(lines))


def _document(found: FileStat) -> dict[str, Any]:
    node = found.node
    return {
        "cid": str(node.cid),
        "kind": _kind(node.kind),
        "size_bytes": 0 if node.kind == "directory" else node.size_bytes,
        "cumulative_bytes": found.cumulative_bytes,
        "blocks": found.child_blocks,
        "mode": None if node.mode is None else f"{node.mode:04o}",
        "mtime": None if node.mtime is None else node.mtime.decimal,
    }


def _immutable(home: Home, path: str) -> CID:
    """The node at an /ipfs/ path, or one that a name resolves to."""
    from cli.arguments import path_argument
    from cli.sources import content_source, unixfs_node

    return unixfs_node(home, content_source(home), path_argument(path))


@app.command("cp")
def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="/ipfs/…, or a path in the tree.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Path in the tree; TARGET/ is a folder.")],
    parents: ParentsOption = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="Replace what is there.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Put a node into the tree, without copying a byte: only its CID is written."""
    name = source.rstrip("/").rpartition("/")[2]
    place = _parsed(target + name if _is_folder_path(target) else target)
    with opened() as (home, mfs):
        if source.startswith(IMMUTABLE):
            mfs.link(_immutable(home, source), place, parents=parents, force=force)
        elif not source.startswith("/"):
            raise usage(
                f"{source!r} is no path of the tree; a file of the disk comes in by `add`, as /ipfs/CID"
            )
        else:
            mfs.copy(_parsed(source), place, parents=parents, force=force)
        _report(mfs, place, json_output=json_output)


def _report(mfs: Mfs, path: Segments, *, json_output: bool) -> None:
    """With --json, what is at a path now and the new root."""
    if json_output:
        from storage_node.mfs_view import text as path_text

        view = mfs.view()
        emit({"path": path_text(path), "cid": str(view.find(path)), "root": str(view.root)})


@app.command("mv")
def mv(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A path in the tree.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A new path, or a folder to move it into.")],
    json_output: JsonFlag = False,
) -> None:
    """Move or rename within the tree; a file at the target is replaced, a folder takes it in."""
    with opened() as (_, mfs):
        mfs.move(_parsed(source), _parsed(target), into=_is_folder_path(target))
        if json_output:
            emit({"root": str(mfs.view().root)})


@app.command("rm")
def rm(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Paths in the tree.")],
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Folders too.")] = False,
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Folders too; what is not there is no error.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Remove files and folders from the tree; their blocks stay until they are collected."""
    from merkledag.errors import NoSuchLink, NotADirectory

    parsed = [_parsed(path) for path in paths]
    with opened(limited=False) as (home, mfs):  # a full store could not be emptied otherwise
        for path in parsed:
            try:
                home.freeing(partial(mfs.remove, path, recursive=recursive or force))
            except (NoSuchLink, NotADirectory):
                if not force:
                    raise
        if json_output:
            emit({"root": str(mfs.view().root)})


@app.command("mkdir")
def mkdir(path: TreePath, parents: ParentsOption = False, json_output: JsonFlag = False) -> None:
    """Make a folder in the tree."""
    segments = _parsed(path)
    with opened() as (_, mfs):
        mfs.mkdir(segments, parents=parents)
        _report(mfs, segments, json_output=json_output)


def _check_range(offset: int, count: int | None) -> None:
    if offset < 0 or (count is not None and count < 0):
        raise usage("--offset and --count are not negative")


@app.command("read")
def read(
    path: TreePath,
    offset: Annotated[int, typer.Option("-o", "--offset", help="First byte.")] = 0,
    count: Annotated[int | None, typer.Option("-n", "--count", help="How many bytes at most.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """Print a file of the tree."""
    from merkledag.reader import read_file
    from merkledag.steps import iterate

    _check_range(offset, count)
    segments = _parsed(path)
    with opened() as (_, mfs):
        view = mfs.view()
        cid = view.find(segments)
        size = view.stat(cid).node.size_bytes
        if offset > size and not view.is_folder(cid):
            raise usage(f"--offset {offset} is behind the end of the file ({size} bytes)")
        pieces: Iterator[Buffer] = iterate(
            read_file(cid, offset, None if count is None else offset + count), view.get
        )
        if not json_output:
            for piece in pieces:
                raw(piece)
            return
        data = b"".join(pieces)
        emit({"cid": str(cid), "offset": offset, "size_bytes": len(data), "base64": base64_text(data)})


@app.command("write")
def write(
    path: TreePath,
    data: Annotated[
        str, typer.Argument(metavar="[DATA]", help="A file with the data, or - for stdin.")
    ] = STDIO,
    offset: Annotated[int, typer.Option("-o", "--offset", help="Where to begin; zeros fill a gap.")] = 0,
    create: Annotated[bool, typer.Option("-e", "--create", help="Make the file if it is not there.")] = False,
    parents: ParentsOption = False,
    truncate: Annotated[bool, typer.Option("-t", "--truncate", help="Empty the file before.")] = False,
    count: Annotated[int | None, typer.Option("-n", "--count", help="How many bytes at most.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """Write into a file of the tree; what is not touched is neither read nor written again."""
    _check_range(offset, count)
    segments = _parsed(path)
    if not segments or _is_folder_path(path):
        raise usage(f"{path!r} is no path of a file")
    if data != STDIO:
        if Path(data).is_dir():
            raise invalid(f"{data} is a folder")
        if not Path(data).exists():
            raise not_found(f"{data}: no such file")
    with opened() as (_, mfs):
        mfs.write(
            segments, _pieces(data, count), offset=offset, create=create, parents=parents, truncate=truncate
        )
        _report(mfs, segments, json_output=json_output)


def _pieces(file: str, count: int | None) -> Iterator[Buffer]:
    """The bytes of a file or of stdin, at most `count`."""
    with nullcontext(sys.stdin.buffer) if file == STDIO else Path(file).open("rb") as stream:
        while count is None or count > 0:
            piece = stream.read(READ_BYTES if count is None else min(count, READ_BYTES))
            if not piece:
                return
            count = None if count is None else count - len(piece)
            yield piece


@app.command("flush")
def flush(path: TreePath = "/", json_output: JsonFlag = False) -> None:
    """Print the CID of a path. (Every change is on disk when its command returns.)"""
    with opened() as (_, mfs):
        cid = mfs.view().find(_parsed(path))
    if json_output:
        return emit({"cid": str(cid)})
    return text(str(cid))
