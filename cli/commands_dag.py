"""`holdfast dag`: nodes of any codec, shown, taken, counted and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import commands_car
from cli.arguments import path_argument
from cli.commands_block import (
    HashOption,
    block_bytes,
    codec_number,
    require_block_size,
    store_block,
)
from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag, ProgressFlag
from cli.output import emit, flush, invalid, meter, not_found, printable, raw, size_text, text, usage
from cli.profile_options import hash_number
from cli.sources import content_source, resolve_path
from cli.streams import STDIO, base64_text, read_input
from merkledag import codecs
from merkledag.block import MAX_BLOCK_BYTES
from merkledag.cid import CID

if TYPE_CHECKING:
    from cli.sources import ContentSource
    from merkledag.diff import Change
    from merkledag.resolve import Resolved

app = new_app("Nodes of any codec: dag-json, dag-cbor, dag-pb, json, cbor, raw.")

IPLD = "/ipld/"  # paths of the data model: dag-pb has the fields Data and Links there
DagPath = Annotated[
    str,
    typer.Argument(metavar="PATH", help="/ipfs/…, /ipld/…, ipfs://… or a CID, with /sub/path."),
]
DagPaths = Annotated[list[str], typer.Argument(metavar="PATH…", help="/ipfs/…, /ipld/…, or CIDs.")]


def _located(home: Home, source: ContentSource, path: str) -> Resolved:
    """Where a path leads; as `resolve_path`, and through the fields of nodes for /ipld/ paths."""
    if not path.startswith(IPLD):
        return resolve_path(home, source, path_argument(path))
    from merkledag.resolve import resolve
    from merkledag.steps import run

    parsed = path_argument("/ipfs/" + path[len(IPLD) :])
    return run(resolve(parsed.cid, parsed.segments, by_name=False), source.get)


def _root(home: Home, source: ContentSource, path: str) -> CID:
    """The node that a path leads to; exit 3 where it ends inside one."""
    resolved = _located(home, source, path)
    if resolved.remainder:
        rest = "/".join(resolved.remainder)
        raise not_found(f"{path!r} ends inside {resolved.cid}, at {rest}: give the path of a whole node")
    return resolved.cid


@app.command("get")
def get(
    path: DagPath,
    output_codec: Annotated[
        str, typer.Option("--output-codec", help="dag-json, dag-cbor, dag-pb, json, cbor or raw.")
    ] = "dag-json",
    json_output: JsonFlag = False,
) -> None:
    """Print a node, or a value inside it, in the codec asked for."""
    from merkledag import resolve, values

    wanted = codec_number(output_codec)
    with Home.locate() as home:
        source = content_source(home)
        resolved = _located(home, source, path)
        block = bytes(block_bytes(source.get, resolved.cid))
    if wanted == resolved.cid.codec and not resolved.remainder:
        data = block
    else:
        value = values.decode(resolved.cid.codec, block)
        for segment in resolved.remainder:
            value = resolve.descend(resolved.cid, value, segment)
        data = _encoded(wanted, value, str(resolved.cid))
    if wanted in {codecs.DAG_JSON, codecs.JSON}:
        return raw(data if data is block else data + b"\n")
    if json_output:
        return emit({"cid": str(resolved.cid), "codec": codecs.name(wanted), "base64": base64_text(data)})
    return raw(data)


def _encoded(codec: int, value: Any, what: str) -> bytes:
    """A value in a codec; exit 4 where the codec cannot hold it."""
    from merkledag import values

    try:
        return values.encode(codec, value)
    except UnicodeError:
        raise invalid(
            f"{what} cannot be written as {codecs.name(codec)}: text in it is not Unicode"
        ) from None
    except ValueError as error:
        raise invalid(f"{what} cannot be written as {codecs.name(codec)}: {error}") from None


@app.command("put")
def put(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE…", help="Files, or - for stdin.")] = None,
    input_codec: Annotated[str, typer.Option("--input-codec", help="Codec of the input.")] = "dag-json",
    store_codec: Annotated[str, typer.Option("--store-codec", help="Codec of the block.")] = "dag-cbor",
    hash_name: HashOption = "sha2-256",
    pin: Annotated[bool, typer.Option("--pin/--no-pin", help="Pin it.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Store a node given as DAG-JSON (or in another codec) and print its CID."""
    source_codec, target_codec = codec_number(input_codec), codec_number(store_codec)
    hash_code = hash_number(hash_name)
    with Home.locate() as home:
        for file in files or [STDIO]:
            data = _converted(read_input(file, MAX_BLOCK_BYTES, "a block"), source_codec, target_codec, file)
            require_block_size(data, file)
            cid = CID.of(data, target_codec, hash_code)
            store_block(home, cid, data, pin=pin)
            if json_output:
                emit({"cid": str(cid), "size_bytes": len(data)})
            else:
                text(str(cid))


def _converted(data: bytes, source: int, target: int, what: str) -> bytes:
    """`data` in the target's codec, checked; exit 4 for bad data, 2 for codecs whose values are not known."""
    from merkledag import values

    for codec in {source, target} - values.CODECS:
        if source == target:
            return data
        raise usage(f"{codecs.name(codec)} converts into no other codec: use it for input and store alike")
    values.check(source, data)
    return _encoded(target, values.decode(source, data), what)


@app.command("resolve")
def resolve(path: DagPath, json_output: JsonFlag = False) -> None:
    """Print the CID that a path leads to, and what of the path is left inside that node."""
    with Home.locate() as home:
        resolved = _located(home, content_source(home), path)
    rest = "/".join(resolved.remainder)
    if json_output:
        return emit({"cid": str(resolved.cid), "remainder": rest})
    return text(f"{resolved.cid}/{rest}" if rest else str(resolved.cid))


@app.command("stat")
def stat(
    paths: DagPaths,
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """Walk whole DAGs: distinct blocks and bytes of each, and what they share."""
    from merkledag.steps import iterate
    from merkledag.traverse import walk_dag
    from storage_node.fingerprints import FingerprintSet

    every = FingerprintSet()
    blocks = total = 0  # of all roots, each block once
    rows: list[tuple[CID, int, int]] = []
    bar = meter("walked", None, wanted=progress)
    try:
        with Home.locate() as home:
            source = content_source(home)
            for root in [_root(home, source, path) for path in paths]:
                seen = FingerprintSet()  # a block may have several CIDs
                size_bytes = 0
                for block in iterate(walk_dag(root, is_new=FingerprintSet().add), source.get):
                    size = len(block.data)
                    bar.advance(size)
                    if seen.add(block.cid.multihash):
                        size_bytes += size
                        if every.add(block.cid.multihash):
                            blocks, total = blocks + 1, total + size
                rows.append((root, len(seen), size_bytes))
    finally:
        bar.finish()
    _print_stat(rows, blocks, total, json_output=json_output)


def _print_stat(rows: list[tuple[CID, int, int]], blocks: int, total: int, *, json_output: bool) -> None:
    """`total` counts each of the `blocks` once; what several roots hold is shared as often as it repeats."""
    redundant = sum(size for _, _, size in rows)
    ratio = redundant / total if total else 1.0
    if json_output:
        roots = [{"cid": str(cid), "blocks": count, "size_bytes": size} for cid, count, size in rows]
        return emit(
            {
                **(roots[0] if len(roots) == 1 else {}),
                "roots": roots,
                "unique_blocks": blocks,
                "total_size_bytes": total,
                "shared_size_bytes": redundant - total,
                "ratio": ratio,
            }
        )
    width = max(len(str(cid)) for cid, _, _ in rows)
    text(f"{'CID':<{width}}\t{'Blocks':<15}\tSize")
    for cid, count, size in rows:
        text(f"{cid!s:<{width}}\t{count:<15}\t{size}")
    text("\nSummary")
    text(f"Total Size: {total} ({size_text(total)})")
    text(f"Unique Blocks: {blocks}")
    text(f"Shared Size: {redundant - total} ({size_text(redundant - total)})")
    return text(f"Ratio: {ratio:f}")


_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Path or CID of the first tree.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Path or CID of the second one.")],
    json_output: JsonFlag = False,
) -> None:
    """Print what differs from folder A to folder B: + added, - removed, ~ changed, with CIDs and paths."""
    from merkledag.diff import diff as diff_trees
    from merkledag.steps import iterate

    with Home.locate() as home:
        source = content_source(home)
        roots = [_root(home, source, path) for path in (before, after)]
        for count, change in enumerate(iterate(diff_trees(*roots), source.get)):
            _print_change(change, json_output=json_output)
            if count == 0:
                flush()


def _print_change(change: Change, *, json_output: bool) -> None:
    path = "/".join(change.path)
    if json_output:
        return emit(
            {
                "change": str(change.kind),
                "path": path,
                "before": None if change.before is None else str(change.before),
                "after": None if change.after is None else str(change.after),
            }
        )
    cids = " ".join(str(cid) for cid in (change.before, change.after) if cid is not None)
    quoted = printable(path).replace('"', '\\"')
    return text(f'{_SIGNS[change.kind]} {cids} "{quoted}"')


# Archives are a matter of `car`; these names are where kubo has them.
app.command("export")(commands_car.export)
app.command("import")(commands_car.import_)
