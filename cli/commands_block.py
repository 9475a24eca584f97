"""`holdfast block`: single blocks by CID."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.arguments import cid_argument
from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag
from cli.output import CommandError, emit, invalid, not_found, raw, text, usage
from cli.profile_options import HASHES, hash_number
from cli.streams import STDIO, base64_text, read_input
from merkledag import codecs
from merkledag.block import MAX_BLOCK_BYTES
from merkledag.cid import CID

if TYPE_CHECKING:
    from collections.abc import Callable

    from merkledag.steps import Buffer
    from storage_node.blockstore.interface import Freed

app = new_app("Single blocks, as bytes.")

CidArgument = Annotated[str, typer.Argument(metavar="CID", help="The block's CID.")]
CodecOption = Annotated[
    str, typer.Option("--cid-codec", "--codec", help="Codec of the CID, for example raw.")
]
HashOption = Annotated[str, typer.Option("--mhtype", "--hash", help=", ".join(HASHES))]


def codec_number(name: str) -> int:
    """The number of a codec's name, or a number itself; exit 2 otherwise."""
    for number, known in codecs.NAMES.items():
        if name == known:
            return number
    try:
        number = int(name, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise usage(f"{name!r} is no codec: choose one of {', '.join(sorted(codecs.NAMES.values()))}")
    return number


def block_bytes(get_block: Callable[[CID], Buffer], cid: CID) -> Buffer:
    """The block of `cid`: the CID itself for an identity CID, else what `get_block` returns."""
    from merkledag.steps import inline

    data = inline(cid)
    return get_block(cid) if data is None else data


def require_block_size(data: bytes, what: str) -> None:
    """Exit 4 for a block that no store takes."""
    if len(data) > MAX_BLOCK_BYTES:
        raise invalid(f"{what}: a block of {len(data)} bytes; at most {MAX_BLOCK_BYTES}")


def store_block(home: Home, cid: CID, data: bytes, *, pin: bool, name: str = "") -> None:
    """Stores one block, and pins it when asked; exit 3 if something that it links to is not here then."""
    from cli.pinned import require_complete

    store = home.open_store()
    with store.lease():
        store.put_many([(cid.multihash, data)])
        if pin:
            require_complete(home, cid, recursive=True)
            home.open_pins().add(cid, recursive=True, name=name)


@app.command("put")
def put(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE…", help="Files, or - for stdin.")] = None,
    codec: CodecOption = "raw",
    hash_name: HashOption = "sha2-256",
    pin: Annotated[bool, typer.Option("--pin/--no-pin", help="Pin it.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Store a file's bytes as one block and print its CID."""
    codec_code, hash_code = codec_number(codec), hash_number(hash_name)
    with Home.locate() as home:
        for file in files or [STDIO]:
            data = read_input(file, MAX_BLOCK_BYTES, "a block")
            cid = CID.of(data, codec_code, hash_code)
            if codec_code in {codecs.DAG_PB, codecs.DAG_CBOR}:
                codecs.links(cid, data)  # refuses bytes that are not what the codec says
            store_block(home, cid, data, pin=pin)
            if json_output:
                emit({"cid": str(cid), "size_bytes": len(data)})
            else:
                text(str(cid))


@app.command("get")
def get(cid: CidArgument, json_output: JsonFlag = False) -> None:
    """Print a block's bytes."""
    from cli.sources import content_source

    parsed = cid_argument(cid)
    with Home.locate() as home:
        block = block_bytes(content_source(home).get, parsed)
    if json_output:
        return emit({"cid": str(parsed), "size_bytes": len(block), "base64": base64_text(block)})
    return raw(block)


@app.command("stat")
def stat(cid: CidArgument, json_output: JsonFlag = False) -> None:
    """Print a block's size without reading it."""
    from merkledag.steps import inline

    parsed = cid_argument(cid)
    with Home.locate() as home:
        data = inline(parsed)
        size = home.open_store().size(parsed.multihash) if data is None else len(data)
    if size is None:
        raise not_found(f"block {parsed} is not in the local store")
    if json_output:
        return emit({"cid": str(parsed), "size_bytes": size})
    return text(f"cid: {parsed}\nsize_bytes: {size}")


@app.command("rm")
def rm(
    cids: Annotated[list[str], typer.Argument(metavar="CID…", help="The blocks' CIDs.")],
    force: Annotated[bool, typer.Option("-f", "--force", help="Absent blocks are no error.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Delete blocks that no pin needs."""
    parsed = [cid_argument(cid) for cid in cids]
    with Home.locate() as home:
        store = home.open_store()
        absent = [cid for cid in parsed if not store.has(cid.multihash)]
        if absent and not force:
            raise not_found(f"block {absent[0]} is not in the local store (-f ignores that)")
        present = [cid for cid in parsed if cid not in absent]
        freed = home.freeing(lambda: _freed(home, present))
        if json_output:
            emit({"removed": [str(cid) for cid in present], "freed_bytes": freed.bytes})
            return
        for cid in present:
            text(f"removed {cid}")


def _freed(home: Home, cids: list[CID]) -> Freed:
    """Deletes blocks that nothing needs, as a collection would: what a running command relies on stays."""
    store = home.open_store()
    limit = store.begin_collection()
    home.open_meta().settle()
    _refuse_pinned(home, cids)
    freed = store.free_many([cid.multihash for cid in cids], limit)
    for cid in cids:
        if cid.multihash not in freed.multihashes and store.has(cid.multihash):
            raise CommandError(f"block {cid} may be needed by a command that is running: try again later")
    return freed


def _refuse_pinned(home: Home, cids: list[CID]) -> None:
    from cli.pinned import held_for_others, in_mutable_tree, needed_by

    for cid, pin in needed_by(home, cids):
        raise invalid(f"block {cid} is needed by the pin of {pin.cid}: `holdfast pin rm {pin.cid}` first")
    for cid in in_mutable_tree(home, cids):
        raise invalid(f"block {cid} is part of the mutable tree (`holdfast files`)")
    held = held_for_others(home)
    for cid in cids:
        if cid.multihash in held:
            raise invalid(f"block {cid} belongs to a piece that this home's storage node is paid to keep")
