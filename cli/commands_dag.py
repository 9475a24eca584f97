"""`holdfast dag`: nodes of any codec, shown and taken as DAG-JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import path_argument
from cli.commands_block import HashOption, codec_number, hash_number, read_input, store_block
from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag, PathArgument
from cli.output import emit, invalid, not_found, raw, size_text, text, usage
from cli.sources import content_source, resolve_path
from merkledag import codecs, dag_json
from merkledag.block import MAX_BLOCK_BYTES
from merkledag.cid import CID

if TYPE_CHECKING:
    from merkledag.steps import Buffer

app = new_app("Nodes: dag-json, dag-cbor, dag-pb and raw.")


def node_value(cid: CID, block: Buffer) -> Any:
    """A block as the value that DAG-JSON can show; exit 4 for codecs without one."""
    codec = cid.codec
    if codec == codecs.RAW:
        return bytes(block)
    if codec == codecs.DAG_CBOR:
        from merkledag import dag_cbor

        return dag_cbor.decode_lenient(block)
    if codec in {codecs.DAG_JSON, codecs.JSON}:
        return dag_json.decode(bytes(block))
    if codec == codecs.DAG_PB:
        return _dag_pb_value(block)
    raise invalid(f"{cid} has codec {codecs.name(codec)}, which has no DAG-JSON form: use `block get`")


def _dag_pb_value(block: Buffer) -> dict[str, Any]:
    from merkledag import dag_pb

    node = dag_pb.decode(block)
    links = []
    for cid, name, tsize in node.links:
        link: dict[str, Any] = {"Hash": cid}
        if name is not None:
            link["Name"] = name
        if tsize is not None:
            link["Tsize"] = tsize
        links.append(link)
    return {"Links": links} if node.data is None else {"Data": node.data, "Links": links}


def _descend(value: Any, segments: tuple[str, ...]) -> Any:
    for segment in segments:
        if isinstance(value, dict) and segment in value:
            value = value[segment]
        elif isinstance(value, list) and segment.isdecimal() and int(segment) < len(value):
            value = value[int(segment)]
        else:
            raise not_found(f"there is no {segment!r} inside this node")
    return value


@app.command("get")
def get(
    path: PathArgument,
    output_codec: Annotated[
        str, typer.Option("--output-codec", help="dag-json, or the block's own codec for its bytes.")
    ] = "dag-json",
    json_output: JsonFlag = False,
) -> None:
    """Print a node, or a value inside it, as DAG-JSON."""
    wanted = codec_number(output_codec)
    with Home.locate() as home:
        source = content_source(home)
        resolved = resolve_path(source, path_argument(path))
        block = _block(source.get, resolved.cid)
    if wanted != codecs.DAG_JSON or (resolved.cid.codec == wanted and not resolved.remainder):
        if wanted != resolved.cid.codec or resolved.remainder:
            have = codecs.name(resolved.cid.codec)
            raise usage(f"this node is {have}: --output-codec is dag-json, or {have} for a whole node")
        return raw(block)
    value = _descend(node_value(resolved.cid, block), tuple(resolved.remainder))
    try:
        return text(dag_json.encode(value))
    except ValueError as error:
        raise invalid(f"{resolved.cid}: {error}") from None


def _block(get_block: Any, cid: CID) -> Buffer:
    from merkledag.steps import inline

    data = inline(cid)
    return get_block(cid) if data is None else data


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
    source_codec, target_codec, hash_code = (
        codec_number(input_codec),
        codec_number(store_codec),
        hash_number(hash_name),
    )
    with Home.locate() as home:
        for file in files or ["-"]:
            data = _converted(read_input(file, MAX_BLOCK_BYTES, "a block"), source_codec, target_codec)
            cid = CID.of(data, target_codec, hash_code)
            store_block(home, cid, data, pin=pin)
            if json_output:
                emit({"cid": str(cid), "size_bytes": len(data)})
            else:
                text(str(cid))


def _converted(data: bytes, source: int, target: int) -> bytes:
    """`data` in the target's codec, checked; exit 2 for a pair that cannot be converted, 4 for bad data."""
    cid = CID.of(data, source)
    if source == target:
        if source == codecs.DAG_CBOR:
            from merkledag import dag_cbor

            dag_cbor.decode(data)
        elif source == codecs.DAG_JSON:
            return dag_json.encode(dag_json.decode(data)).encode()
        elif source == codecs.DAG_PB:
            codecs.links(cid, data)
        return data
    known = {codecs.DAG_JSON, codecs.DAG_CBOR}
    if source not in known or target not in known:
        raise usage(
            f"{codecs.name(source)} cannot be stored as {codecs.name(target)}: "
            "only dag-json and dag-cbor convert into each other"
        )
    try:
        value = node_value(cid, data)
        if target == codecs.DAG_JSON:
            return dag_json.encode(value).encode()
        from merkledag import dag_cbor

        return dag_cbor.encode(value)
    except ValueError as error:
        raise invalid(str(error)) from None


@app.command("resolve")
def resolve(path: PathArgument, json_output: JsonFlag = False) -> None:
    """Print the CID that a path leads to, and what of the path is left inside that node."""
    with Home.locate() as home:
        resolved = resolve_path(content_source(home), path_argument(path))
    rest = "/".join(resolved.remainder)
    if json_output:
        return emit({"cid": str(resolved.cid), "remainder": rest})
    return text(f"{resolved.cid}/{rest}" if rest else str(resolved.cid))


@app.command("stat")
def stat(path: PathArgument, json_output: JsonFlag = False) -> None:
    """Walk a whole DAG and count its distinct blocks and their bytes."""
    from merkledag.steps import iterate
    from merkledag.traverse import walk_dag

    with Home.locate() as home:
        source = content_source(home)
        root = resolve_path(source, path_argument(path)).cid
        blocks = size_bytes = 0
        for block in iterate(walk_dag(root), source.get):
            blocks += 1
            size_bytes += len(block.data)
    if json_output:
        return emit({"cid": str(root), "blocks": blocks, "size_bytes": size_bytes})
    return text(f"{root} {blocks} blocks, {size_bytes} bytes ({size_text(size_bytes)})")
