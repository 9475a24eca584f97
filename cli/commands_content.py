"""`holdfast get`, `cat`, `ls` and `stat`: files and folders by content."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.home import Home
from cli.options import JsonFlag, PathArgument, ProgressFlag
from cli.output import ExitCode, count_text, emit, flush, meter, note, printable, raw, size_text, text, usage

if TYPE_CHECKING:
    from cli.listing import Columns, Row
    from cli.reading import Reader
    from merkledag.cid import CID
    from merkledag.path import ContentPath
    from merkledag.steps import Buffer

METER_MIN_BYTES: Final = 8 << 20  # what is printed faster than anybody could read a progress line
FLUSH_EVERY_S: Final = 0.1
BASE64_BYTES: Final = 3 << 18  # encoded at once; a multiple of 3, so that the pieces join
PathsArgument = Annotated[
    list[str],
    typer.Argument(metavar="PATH…", help="/ipfs/…, ipfs://… or CIDs, with /sub/path.", show_default=False),
]


def get(
    path: PathArgument,
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write it; - is stdout.")] = "",
    archive: Annotated[bool, typer.Option("-a", "--archive", help="Write a TAR archive.")] = False,
    compress: Annotated[bool, typer.Option("-C", "--compress", help="Compress with gzip.")] = False,
    level: Annotated[int, typer.Option("-l", "--compression-level", help="1 to 9 (best).")] = 6,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files, merge folders.")] = False,
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> int:
    """Write content to files and folders, never outside the target, or into an archive."""
    from cli.arguments import path_argument
    from cli.exporting import safe_name
    from cli.getting import Form, get_content
    from cli.reading import content_reader
    from cli.sources import unixfs_node
    from cli.streams import STDIO, check_binary_stdout

    if not 1 <= level <= 9:
        raise usage("--compression-level must be between 1 and 9")
    if output == STDIO:
        check_binary_stdout("the archive", json_output=json_output)
    parsed = path_argument(path)
    name = safe_name((parsed.segments or (parsed.root,))[-1])
    form = Form(archive, level if compress else 0)
    with Home.locate() as home:
        reader = content_reader(home)
        cid = unixfs_node(home, reader, parsed)
        done, where = get_content(reader, cid, name, output or name, form, force=force, progress=progress)
    for entry, to in done.left_out:
        note(f"holdfast: left out the symlink {entry}: it leads out of the folder, to {to[:256]}")
    if json_output:
        emit(
            {
                "cid": str(cid),
                "path": where,
                "files": done.files,
                "folders": done.folders,
                "symlinks": done.symlinks,
                "size_bytes": done.size_bytes,
                "kept_bytes": done.kept_bytes,
                "left_out": [entry for entry, _ in done.left_out],
            }
        )
    elif where != STDIO:
        kept = f", {size_text(done.kept_bytes)} of them from before" if done.kept_bytes else ""
        text(f"wrote {where} ({size_text(done.size_bytes)} in {count_text(done.files, 'file')}{kept})")
    return ExitCode.INVALID if done.left_out else ExitCode.DONE


def cat(
    paths: PathsArgument,
    offset: Annotated[int, typer.Option("-o", "--offset", help="First byte to print.")] = 0,
    length: Annotated[int, typer.Option("-l", "--length", help="How many bytes; -1 is all.")] = -1,
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """Print files' bytes, one after the other; offset and length count over all of them."""
    from cli.arguments import path_argument
    from cli.reading import content_reader
    from cli.sources import unixfs_node

    if offset < 0 or length < -1:
        raise usage("--offset and --length cannot be negative")
    parsed = [path_argument(path) for path in paths]
    with Home.locate() as home:
        reader = content_reader(home)
        parts = _ranges(reader, [unixfs_node(home, reader, path) for path in parsed], offset, length)
        total = sum(end - start for _, start, end in parts)
        wanted = progress and total >= METER_MIN_BYTES and not sys.stdout.isatty()
        bar = meter("printed", total, wanted=wanted)
        try:
            for cid, start, end in parts:
                pieces = _file_bytes(reader, cid, start, end)
                if json_output:
                    _cat_json(cid, end - start, pieces)
                    continue
                for piece in pieces:
                    raw(piece)
                    bar.advance(len(piece))
        finally:
            bar.finish()


def _ranges(reader: Reader, cids: list[CID], offset: int, length: int) -> list[tuple[CID, int, int]]:
    """(file, start, end) of what is to be printed; every path is checked before the first byte."""
    from merkledag.reader import read_file
    from merkledag.reader import stat as stat_node

    found: list[tuple[CID, int, int]] = []
    for cid in cids:
        facts = reader.run(stat_node(cid))
        if facts.kind not in ("file", "raw"):
            next(reader.iterate(read_file(cid)), None)  # raises NotAFile and says what it is
        start = min(offset, facts.size_bytes)
        end = facts.size_bytes if length < 0 else min(start + length, facts.size_bytes)
        offset -= start
        length -= end - start if length >= 0 else 0
        found.append((cid, start, end))
    return found


def _file_bytes(reader: Reader, cid: CID, start: int, end: int) -> Iterator[Buffer]:
    from merkledag.reader import read_file

    return iter(()) if start == end else reader.iterate(read_file(cid, start, end))


def _cat_json(cid: CID, size_bytes: int, pieces: Iterator[Buffer]) -> None:
    """The document of one file, written piece by piece: a file may be larger than memory."""
    from base64 import b64encode

    raw(b'{"cid":"%s","size_bytes":%d,"base64":"' % (str(cid).encode(), size_bytes))
    rest = b""
    for piece in pieces:
        for at in range(0, len(piece), BASE64_BYTES):
            data = rest + piece[at : at + BASE64_BYTES]
            whole = len(data) - len(data) % 3
            raw(b64encode(data[:whole]))
            rest = data[whole:]
    raw(b64encode(rest) + b'"}\n')


def ls(
    paths: PathsArgument,
    headers: Annotated[bool, typer.Option("-v", "--headers", help="Print the columns' names.")] = False,
    resolve: Annotated[
        bool, typer.Option("--resolve-type/--no-resolve-type", help="Look into entries for their types.")
    ] = True,
    size: Annotated[bool, typer.Option("--size/--no-size", help="Look into entries for their sizes.")] = True,
    stream: Annotated[bool, typer.Option("-s", "--stream", help="Never sort: print as found.")] = False,
    long: Annotated[bool, typer.Option("-l", "--long", help="Modes and times too.")] = False,
    human: Annotated[bool, typer.Option("-H", "--human", help="Sizes as 1.2 MB.")] = False,
    by_size: Annotated[bool, typer.Option("-S", "--sort-size", help="The largest first.")] = False,
    json_output: JsonFlag = False,
) -> int:
    """List folders: CID, size and name, sorted by name. Large folders (HAMT) are printed as they are read."""
    from cli.arguments import path_argument
    from cli.listing import Columns
    from cli.reading import content_reader
    from cli.sources import unixfs_node

    if by_size and (stream or not size):
        raise usage("--sort-size does not go with --stream or --no-size")
    columns = Columns(resolve, size, long, human)
    parsed = [path_argument(path) for path in paths]
    faults: list[str] = []
    with Home.locate() as home:
        reader = content_reader(home)
        for number, (path, where) in enumerate(zip(paths, parsed, strict=True)):
            cid = unixfs_node(home, reader, where)
            found = _listing(reader, cid, where, columns, stream=stream, by_size=by_size)
            if json_output:
                shown = (row.document() for row in _noting(found, faults))
                _emit_rows(shown if len(paths) == 1 else ({"path": path, **row} for row in shown))
                continue
            if len(paths) > 1:
                text(f"{chr(10) * (number > 0)}{printable(path)}:")
            if headers:
                text(columns.heading())
            for line in _flushing(row.line(columns) for row in _noting(found, faults)):
                text(line)
    for fault in faults:
        note(f"holdfast: {fault}")
    return ExitCode.INVALID if faults else ExitCode.DONE


def _listing(
    reader: Reader, cid: CID, path: ContentPath, columns: Columns, *, stream: bool, by_size: bool
) -> Iterator[Row]:
    """The rows of a folder, or the one of a file; sorted unless that would hold back a HAMT."""
    from cli.listing import Row, in_order, rows
    from merkledag.reader import stat as stat_node

    node = reader.run(stat_node(cid))
    if node.kind != "directory":
        yield Row(path.segments[-1] if path.segments else "", cid, node)
        return
    found = rows(reader, cid, columns)
    is_hamt = node.child_count is None
    yield from found if stream or (is_hamt and not by_size) else in_order(found, by_size=by_size)


def _noting(found: Iterator[Row], faults: list[str]) -> Iterator[Row]:
    """The same rows; what is wrong with some of them is added to `faults`, as far as anybody will read."""
    for row in found:
        if row.fault and len(faults) < 20:
            faults.append(f"{row.name}: {row.fault}")
        yield row


def _flushing(lines: Iterator[Any]) -> Iterator[Any]:
    """The same lines; what was printed is sent on its way now and then, the first line at once."""
    flushed_s = 0.0
    for line in lines:
        yield line
        if time.monotonic() - flushed_s > FLUSH_EVERY_S:
            flush()
            flushed_s = time.monotonic()


def _emit_rows(documents: Iterator[dict[str, Any]]) -> None:
    for document in _flushing(documents):
        emit(document)


def stat(
    path: PathArgument,
    with_local: Annotated[
        bool, typer.Option("--with-local", help="Walk the DAG and count what is in the local store.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Say what a path is and how large."""
    from cli.arguments import path_argument
    from cli.reading import content_reader
    from cli.sources import unixfs_node

    parsed = path_argument(path)
    with Home.locate() as home:
        reader = content_reader(home)
        cid = unixfs_node(home, reader, parsed)
        document = _stat_document(reader, cid)
        if with_local:
            document |= _local_document(home, cid)
    if json_output:
        return emit(document)
    for field, value in document.items():
        if value is not None:
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            text(f"{field}: {printable(shown)}")
    return None


def _stat_document(reader: Reader, cid: CID) -> dict[str, Any]:
    from merkledag import codecs, dag_pb
    from merkledag.errors import MerkledagError
    from merkledag.reader import stat as stat_node

    node = reader.run(stat_node(cid))
    block = reader.get(cid)
    cumulative: int | None = None
    try:
        links: int | None = len(codecs.links(cid, bytes(block)))
    except MerkledagError:  # an unknown codec, or not what the codec says
        links = None
    if cid.codec == codecs.DAG_PB:
        cumulative = len(block) + dag_pb.decode(block).below_bytes
    elif links == 0:
        cumulative = len(block)
    return {
        "cid": str(node.cid),
        "kind": node.kind,
        "size_bytes": node.size_bytes,
        "block_bytes": node.block_bytes,
        "cumulative_bytes": cumulative,
        "links": links,
        "children": node.child_count,
        "mode": None if node.mode is None else f"{node.mode:04o}",
        "mtime": None if node.mtime is None else node.mtime.decimal,
        "target": node.target,
    }


def _local_document(home: Home, cid: CID) -> dict[str, Any]:
    """How much of a DAG is here, each block counted once."""
    from cli.sources import local_source
    from merkledag.steps import iterate
    from merkledag.traverse import walk_dag
    from storage_node.fingerprints import FingerprintSet

    store = home.open_store()
    source = local_source(home)
    missing = blocks = size_bytes = 0

    def absent(node: CID) -> bool:
        nonlocal missing
        gone = not node.is_identity and not store.has(node.multihash)
        missing += gone
        return gone

    for block in iterate(walk_dag(cid, skip=absent, is_new=FingerprintSet().add), source.get):
        blocks += 1
        size_bytes += len(block.data)
    return {"local": missing == 0, "local_blocks": blocks, "local_bytes": size_bytes}
