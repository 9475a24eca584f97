"""`holdfast get`, `cat`, `ls` and `stat`: files and folders by content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.home import Home
from cli.options import JsonFlag, PathArgument
from cli.output import emit, exit_code, invalid, meter, note, printable, raw, size_text, text, usage

if TYPE_CHECKING:
    from cli.sources import ContentSource
    from merkledag.reader import Entry, NodeStat
    from merkledag.steps import Buffer


def get(
    path: PathArgument,
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write it.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files, merge folders.")] = False,
    json_output: JsonFlag = False,
) -> int:
    """Write content to files and folders, never outside the target."""
    from cli.arguments import path_argument
    from cli.exporting import export, safe_name
    from cli.sources import content_source, unixfs_node

    parsed = path_argument(path)
    target = Path(output or safe_name((parsed.segments or (parsed.root,))[-1]))
    with Home.locate() as home:
        source = content_source(home)
        bar = meter("wrote", None)
        try:
            done = export(source, unixfs_node(source, parsed), target, force=force, meter=bar)
        finally:
            bar.finish()
    for where, to in done.left_out:
        note(f"holdfast: left out the symlink {where}: it leads out of the folder, to {to}")
    if json_output:
        emit(
            {
                "path": str(target),
                "files": done.files,
                "folders": done.folders,
                "symlinks": done.symlinks,
                "size_bytes": done.size_bytes,
                "left_out": [where for where, _ in done.left_out],
            }
        )
    else:
        text(f"wrote {target} ({size_text(done.size_bytes)} in {done.files} files)")
    return int(exit_code(invalid(""))) if done.left_out else 0


def cat(
    path: PathArgument,
    offset: Annotated[int, typer.Option("--offset", help="First byte to print.")] = 0,
    length: Annotated[int, typer.Option("--length", help="How many bytes; -1 is all.")] = -1,
    json_output: JsonFlag = False,
) -> None:
    """Print a file's bytes."""
    from cli.arguments import path_argument
    from cli.sources import content_source, unixfs_node
    from merkledag.reader import read_file
    from merkledag.steps import iterate

    if offset < 0 or length < -1:
        raise usage("--offset and --length cannot be negative")
    parsed = path_argument(path)
    with Home.locate() as home:
        source = content_source(home)
        cid = unixfs_node(source, parsed)
        end = None if length < 0 else offset + length
        walk: Iterator[Buffer] = iterate(read_file(cid, offset, end), source.get)
        if not json_output:
            for part in walk:
                raw(part)
            return
        _cat_json(str(cid), b"".join(bytes(part) for part in walk))


def _cat_json(cid: str, data: bytes) -> None:
    from base64 import b64encode

    emit({"cid": cid, "size_bytes": len(data), "base64": b64encode(data).decode()})


def ls(
    path: PathArgument,
    size: Annotated[bool, typer.Option("--size/--no-size", help="Look into each entry.")] = True,
    json_output: JsonFlag = False,
) -> None:
    """List a folder in its own order: CID, size and name, one entry a line as it is found."""
    from cli.arguments import path_argument
    from cli.sources import content_source, unixfs_node
    from merkledag.reader import entries
    from merkledag.reader import stat as stat_node
    from merkledag.steps import iterate, run

    parsed = path_argument(path)
    with Home.locate() as home:
        source = content_source(home)
        cid = unixfs_node(source, parsed)
        node = run(stat_node(cid), source.get)
        if node.kind != "directory":
            name = parsed.segments[-1] if parsed.segments else ""
            return _print_entry(name, str(cid), node.kind, node.size_bytes, json_output)
        for entry in iterate(entries(cid), source.get):
            kind, size_bytes = _look(source, entry) if size else (None, None)
            _print_entry(entry.name, str(entry.cid), kind, size_bytes, json_output)
    return None


def _look(source: ContentSource, entry: Entry) -> tuple[str | None, int | None]:
    """Kind and size of a folder's entry; None for both when its block is not here."""
    from merkledag.codecs import RAW
    from merkledag.reader import stat as stat_node
    from merkledag.steps import run

    if entry.cid.codec == RAW and entry.tsize is not None:
        return "raw", entry.tsize
    try:
        node = run(stat_node(entry.cid), source.get)
    except LookupError:
        return None, None
    return node.kind, node.size_bytes


def _print_entry(name: str, cid: str, kind: str | None, size_bytes: int | None, json_output: bool) -> None:
    if json_output:
        emit({"name": name, "cid": cid, "kind": kind, "size_bytes": size_bytes})
    else:
        shown = "-" if size_bytes is None or kind == "directory" else str(size_bytes)
        text(f"{cid} {shown} {printable(name)}{'/' if kind == 'directory' else ''}".rstrip())


def stat(path: PathArgument, json_output: JsonFlag = False) -> None:
    """Say what a path is and how large."""
    from cli.arguments import path_argument
    from cli.sources import content_source, unixfs_node
    from merkledag.reader import stat as stat_node
    from merkledag.steps import run

    parsed = path_argument(path)
    with Home.locate() as home:
        source = content_source(home)
        document = _stat_document(run(stat_node(unixfs_node(source, parsed)), source.get))
    if json_output:
        return emit(document)
    for field, value in document.items():
        if value is not None:
            text(f"{field}: {printable(str(value))}")
    return None


def _stat_document(node: NodeStat) -> dict[str, Any]:
    return {
        "cid": str(node.cid),
        "kind": node.kind,
        "size_bytes": node.size_bytes,
        "block_bytes": node.block_bytes,
        "children": node.child_count,
        "mode": None if node.mode is None else f"{node.mode:04o}",
        "mtime": None if node.mtime is None else f"{node.mtime[0]}.{node.mtime[1]:09d}",
        "target": node.target,
    }
