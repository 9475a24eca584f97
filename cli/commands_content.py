"""`holdfast add`, `get`, `cat`, `ls` and `stat`: files and folders by content."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.home import Home
from cli.options import JsonFlag, PathArgument
from cli.output import emit, exit_code, invalid, meter, note, printable, raw, size_text, text, usage

if TYPE_CHECKING:
    from cli.importing import Added, ImportOptions
    from cli.sources import ContentSource
    from merkledag.reader import Entry, NodeStat
    from merkledag.steps import Buffer

Paths = Annotated[list[str], typer.Argument(metavar="PATH…", help="Files, folders, or - for stdin.")]


def add(
    paths: Paths,
    quieter: Annotated[bool, typer.Option("-Q", "--quieter", help="Print the root CID alone.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print CIDs alone.")] = False,
    only_hash: Annotated[bool, typer.Option("-n", "--only-hash", help="Hash only; store nothing.")] = False,
    wrap: Annotated[bool, typer.Option("-w", "--wrap", help="Put everything into one folder.")] = False,
    hidden: Annotated[bool, typer.Option("--hidden", "-H", help="Take hidden files of folders too.")] = False,
    pin: Annotated[bool, typer.Option("--pin/--no-pin", help="Keep it from being collected.")] = True,
    name: Annotated[str, typer.Option("--name", help="Name of the pin.")] = "",
    profile: Annotated[
        str | None, typer.Option("--profile", help="unixfs-v1-2025 or unixfs-v0-2015.")
    ] = None,
    cid_version: Annotated[int | None, typer.Option("--cid-version", help="0 or 1.")] = None,
    chunker: Annotated[str | None, typer.Option("--chunker", "-s", help="size-N, N in bytes.")] = None,
    raw_leaves: Annotated[
        bool | None, typer.Option("--raw-leaves/--no-raw-leaves", help="File chunks as raw blocks.")
    ] = None,
    layout: Annotated[str | None, typer.Option("--layout", help="balanced.")] = None,
    max_links: Annotated[
        int | None, typer.Option("--max-links", help="Links a file's node has at most.")
    ] = None,
    hash_name: Annotated[str | None, typer.Option("--hash", help="sha2-256, sha2-512 or blake3.")] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Keep small blocks inside CIDs.")] = False,
    inline_limit: Annotated[int | None, typer.Option("--inline-limit", help="Largest such block.")] = None,
    preserve_mode: Annotated[bool, typer.Option("--preserve-mode", help="Store permissions.")] = False,
    preserve_mtime: Annotated[
        bool, typer.Option("--preserve-mtime", help="Store modification times.")
    ] = False,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", hidden=True)] = True,
    json_output: JsonFlag = False,
) -> None:
    """Import files, folders or standard input (-), durably, and pin them."""
    from cli.importing import ImportOptions
    from cli.profile_options import import_profile

    if paths.count("-") > 1:
        raise usage("standard input (-) can be added only once")
    home = Home.locate()
    options = ImportOptions(
        import_profile(
            home.config.text("import.profile", profile),
            cid_version=cid_version,
            chunker=chunker,
            raw_leaves=raw_leaves,
            layout=layout,
            max_links=max_links,
            hash_name=hash_name,
            inline=inline,
            inline_limit=inline_limit,
            metadata=preserve_mode or preserve_mtime,
        ),
        hidden=hidden,
        wrap=wrap,
        preserve_mode=preserve_mode,
        preserve_mtime=preserve_mtime,
    )
    printer = _AddPrinter(json_output=json_output, quiet=quiet or quieter, roots_only=quieter)
    _import(home, options, paths, printer, pin_name=name if pin else None, only_hash=only_hash)


def _import(
    home: Home,
    options: ImportOptions,
    paths: list[str],
    printer: _AddPrinter,
    *,
    pin_name: str | None,
    only_hash: bool,
) -> None:
    from cli.adding import store_pinned
    from cli.importing import Importer, total_bytes

    for path in paths:
        if path != "-":
            Path(path).lstat()  # a missing path is found before anything is stored
    total = total_bytes(paths, hidden=options.hidden) if sys.stderr.isatty() else None
    bar = meter("hashed" if only_hash else "added", total)
    importer = Importer(options, on_added=printer.entry, meter=bar)
    try:
        if only_hash:
            for _ in importer.blocks(paths):
                pass
        else:
            with home:
                store_pinned(home, importer, paths, pin_name=pin_name)
    finally:
        bar.finish()
    printer.finish(importer.roots)


class _AddPrinter:
    """Prints entries as they are done, and the roots behind what they stand for: stored and pinned."""

    def __init__(self, *, json_output: bool, quiet: bool, roots_only: bool) -> None:
        self._json = json_output
        self._quiet = quiet
        self._roots_only = roots_only

    def entry(self, added: Added) -> None:
        if not self._roots_only and "/" in added.name:
            self._print(added)

    def finish(self, roots: list[Added]) -> None:
        for root in roots[-1:] if self._roots_only else roots:
            self._print(root)

    def _print(self, added: Added) -> None:
        if self._json:
            emit(
                {
                    "name": added.name,
                    "cid": str(added.cid),
                    "kind": added.kind,
                    "size_bytes": added.size_bytes,
                    "tsize": added.tsize,
                }
            )
        elif self._quiet:
            text(str(added.cid))
        else:
            text(f"added {added.cid} {printable(added.name)}".rstrip())


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
