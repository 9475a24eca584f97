"""The page about one node, `?inspect=node`: any codec, and paths into values; browsers get it of dag-cbor."""

from __future__ import annotations

import hashlib
from functools import reduce
from typing import Any

from aiohttp import web

from gateway.content import Located
from gateway.exchange import Exchange, send_bytes
from gateway.formats.folder import html_headers
from gateway.formats.negotiation import Format
from gateway.pages import style
from gateway.pages.listing_query import positive_number
from gateway.pages.node import NodePage
from merkledag import codecs, dag_pb, unixfs, values
from merkledag.cid import CID
from merkledag.errors import DecodeError, MerkledagError
from merkledag.resolve import descend
from merkledag.steps import Want

_MAX_PAGE = 1_000_000


def wants_node(exchange: Exchange) -> bool:
    """Whether the page about the node is asked for, rather than the content."""
    page = exchange.wanted.format in (Format.DEFAULT, Format.HTML)
    return page and exchange.asked.query.get("inspect") == "node"


async def serve_node(exchange: Exchange, located: Located, *, tag: str = "Node") -> web.StreamResponse:
    """`tag` begins the Etag. Raises NoSuchLink for a path into the node that leads nowhere."""
    node, remainder = located.node, located.node.remainder
    number = positive_number(exchange.asked.query.get("page"), _MAX_PAGE) or 1
    variant = hashlib.sha256(
        f"{number} {'/'.join(remainder)}".encode("utf-8", "surrogateescape")
    ).hexdigest()[:8]
    etag = f'"{tag}-{style.VERSION}{variant}_CID-{node.cid_text}"'
    headers = exchange.headers(located, etag, located.generated_cache_control)
    headers["Vary"] = "Accept"
    not_modified = exchange.not_modified(headers)
    if not_modified is not None:
        return not_modified
    html_headers(headers)
    data = await exchange.blocks.get(Want(node.cid))
    page = NodePage(exchange.asked, node.cid, number, remainder)
    await exchange.work.go_on()
    _describe(page, node.cid, data, remainder, exchange.settings.max_preview_bytes)
    await exchange.work.go_on()
    return send_bytes(exchange, headers, page.html().encode())


def _describe(page: NodePage, cid: CID, data: bytes, remainder: tuple[str, ...], max_bytes: int) -> None:
    if cid.codec == codecs.DAG_PB:
        page.cid(len(data))
        _describe_dag_pb(page, data)
        return
    value = None
    problem = ""
    if cid.codec in values.CODECS and cid.codec != codecs.RAW:
        if len(data) > max_bytes:
            problem = f"Its value is not shown: the block has more than {max_bytes:,} bytes."
        else:
            try:
                value = (values.decode(cid.codec, data),)
            except (MerkledagError, ValueError, RecursionError) as error:
                problem = f"This is not what its codec says: {error}"
    if remainder:
        value = (_inside(cid, data, remainder),)
    if value is not None:
        page.value(value[0])
    page.cid(len(data))
    if value is None:
        if problem:
            page.problem(problem)
        page.bytes("Bytes", data)


def _inside(cid: CID, data: bytes, remainder: tuple[str, ...]) -> Any:
    value: Any = values.decode(cid.codec, data)
    return reduce(lambda inner, segment: descend(cid, inner, segment), remainder, value)


def _describe_dag_pb(page: NodePage, data: bytes) -> None:
    try:
        node = dag_pb.decode(data)
    except DecodeError as error:
        page.problem(f"This is not what its codec says: {error}")
        page.bytes("Bytes", data)
        return
    message = None
    if node.data is not None:
        try:
            message = unixfs.decode(node.data)
        except DecodeError:
            message = None
    if message is not None:
        page.unixfs(message, len(node.links))
    page.links(node.links)
    held = (
        node.data
        if message is None
        else message.data
        if message.kind in (unixfs.Kind.FILE, unixfs.Kind.RAW)
        else b""
    )
    page.bytes("Data", held or b"")
