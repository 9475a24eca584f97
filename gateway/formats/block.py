"""Blocks as they are: `format=raw`, and nodes in the codec of their CID (dag-json, dag-cbor, json, cbor)."""

from __future__ import annotations

from aiohttp import web
from multidict import CIMultiDict

from gateway.content import Located
from gateway.errors import NotAcceptable, NotImplementedHere
from gateway.exchange import Exchange, send_ranges
from gateway.formats.disposition import disposition
from gateway.formats.negotiation import MEDIA_TYPES, Format
from gateway.formats.node import serve_node
from gateway.serving.body import Body
from merkledag.cid import CID
from merkledag.codecs import CBOR, DAG_CBOR, DAG_JSON, JSON, name

# What a node of each codec is when no format is asked for.
NATIVE: dict[int, Format] = {
    DAG_JSON: Format.DAG_JSON,
    DAG_CBOR: Format.DAG_CBOR,
    JSON: Format.JSON,
    CBOR: Format.CBOR,
}
# Which codecs each format can be given for: its own, and plain JSON or CBOR for their DAG-… kin.
_CODECS: dict[Format, tuple[int, ...]] = {
    Format.DAG_JSON: (DAG_JSON,),
    Format.DAG_CBOR: (DAG_CBOR,),
    Format.JSON: (JSON, DAG_JSON),
    Format.CBOR: (CBOR, DAG_CBOR),
}
_ENDING = {Format.DAG_JSON: "json", Format.JSON: "json", Format.DAG_CBOR: "cbor", Format.CBOR: "cbor"}


async def serve_raw(exchange: Exchange, located: Located) -> web.StreamResponse:
    """The block itself, for clients that verify it (trustless gateway)."""
    require_whole(located)
    cid = located.node.cid
    etag = f'"{located.node.cid_text}.raw"'
    headers = exchange.dated_headers(located, etag)
    headers["Content-Type"] = MEDIA_TYPES[Format.RAW]
    name_ = exchange.file_name() or f"{located.node.cid_text}.bin"
    headers["Content-Disposition"] = disposition("attachment", name_)
    not_modified = exchange.not_modified(headers)
    return await _send(exchange, headers, cid) if not_modified is None else not_modified


async def serve_codec(exchange: Exchange, located: Located) -> web.StreamResponse:
    """A node as its codec's media type; raises NotAcceptable for any other (IPIP-0524)."""
    node = located.node
    cid = node.cid
    format_ = exchange.wanted.format
    saved = exchange.disposition_kind("inline") == "attachment"
    has_page = format_ in (Format.DEFAULT, Format.HTML) and cid.codec in (DAG_JSON, DAG_CBOR)
    if has_page and exchange.wanted.html and not saved:
        require_whole(located)
        return await serve_node(exchange, located, tag="DagIndex")
    if format_ in (Format.DEFAULT, Format.HTML):
        format_ = NATIVE[cid.codec]
    if cid.codec not in _CODECS[format_]:
        raise NotAcceptable(
            f"{cid} is {name(cid.codec)} and is not converted to {format_.value}; "
            "get the block with format=raw and convert it yourself"
        )
    require_whole(located)
    etag = f'"{node.cid_text}.{format_.value}"'
    headers = exchange.dated_headers(located, etag)
    headers["Content-Type"] = MEDIA_TYPES[format_]
    if has_page:
        headers["Vary"] = "Accept"
    ending = _ENDING[format_]
    kind = "inline" if ending == "json" and not saved else "attachment"
    headers["Content-Disposition"] = disposition(kind, exchange.file_name() or f"{node.cid_text}.{ending}")
    not_modified = exchange.not_modified(headers)
    return await _send(exchange, headers, cid) if not_modified is None else not_modified


def require_whole(located: Located) -> None:
    """Raises NotImplementedHere for a path that ends inside a node."""
    rest = located.node.remainder
    if rest:
        raise NotImplementedHere(
            f"{'/'.join(rest)!r} is a value inside {located.node.cid}, not a link; get the whole node"
        )


async def _send(exchange: Exchange, headers: CIMultiDict[str], cid: CID) -> web.StreamResponse:
    size, data = await exchange.blocks.open_block(cid)

    async def read(start: int, end: int) -> bytes:
        return await exchange.blocks.read_part(cid, data, start, end)

    async def send(body: Body, start: int, end: int) -> None:
        await exchange.blocks.send_block(body, cid, data, start, end)

    return await send_ranges(exchange, headers, size, send, read)
