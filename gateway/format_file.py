"""UnixFS files, raw blocks and symbolic links as what they are (path gateway, deserialized responses)."""

from __future__ import annotations

import json

from aiohttp import web

from gateway import mime
from gateway.body import Body
from gateway.content import Located, Node, known_stat
from gateway.disposition import disposition
from gateway.errors import NotAcceptable
from gateway.exchange import Exchange, send_bytes, send_ranges
from gateway.negotiation import Format
from merkledag.cid import CID

_ONE_WRITE_BYTES = 64 * 1024  # smaller files go out with their headers
_SYMLINK_TYPE = "inode/symlink"


async def serve_file(
    exchange: Exchange, located: Located, *, name: str | None = None, status: int = 200, etag: str = ""
) -> web.StreamResponse:
    """The bytes of the file at `located`.

    `name` is its name for the content type, where the URL does not say it (index.html); `etag` likewise.
    """
    node = located.node
    etag = etag or f'"{node.cid_text}"'
    headers = exchange.headers(located, etag, located.cache_control)
    not_modified = exchange.not_modified(etag, headers)
    if not_modified is not None:
        return not_modified
    facts = await known_stat(node, exchange.blocks)
    target = facts.target if facts.kind == "symlink" else None
    file_name = exchange.file_name()
    if target is not None:
        headers["Content-Type"] = _SYMLINK_TYPE
        return send_bytes(exchange, headers, _link_bytes(target))
    headers["Content-Type"] = await _content_type(exchange, node, file_name or name or _last(exchange))
    if exchange.wanted.format is Format.JSON:
        await _require_json(exchange, node, headers["Content-Type"])
        headers["Content-Type"] = "application/json"
    kind = exchange.disposition_kind("inline")
    if file_name is not None or kind == "attachment":
        headers["Content-Disposition"] = disposition(kind, file_name or _last(exchange))
    size, cid = facts.size_bytes, node.cid
    if size <= _ONE_WRITE_BYTES and status == 200 and "Range" not in exchange.request.headers:
        headers["Accept-Ranges"] = "bytes"
        if not exchange.head:
            return send_bytes(exchange, headers, await exchange.blocks.read_file(cid, 0, size))

    async def send(body: Body, start: int, end: int) -> None:
        await exchange.blocks.send_file(body, cid, start, end)

    return await send_ranges(exchange, headers, size, send, status)


def _last(exchange: Exchange) -> str | None:
    return exchange.asked.segments[-1] if exchange.asked.segments else None


def _link_bytes(target: str | bytes) -> bytes:
    return target if isinstance(target, bytes) else target.encode("utf-8", "surrogateescape")


async def _content_type(exchange: Exchange, node: Node, name: str | None) -> str:
    kind = mime.by_name(name) if name else None
    if kind is not None:
        return kind
    if node.sniffed is None:
        node.sniffed = mime.by_content(await exchange.blocks.read_file(node.cid, 0, mime.SNIFF_BYTES))
    return node.sniffed


async def _require_json(exchange: Exchange, node: Node, kind: str) -> None:
    """`format=json` gives a UnixFS file that is JSON; others are refused (IPIP-0524).

    Files too large to look at whole count as JSON by name or by their start.
    """
    facts = await known_stat(node, exchange.blocks)
    if facts.size_bytes > exchange.settings.json_check_bytes:
        if "json" in kind:
            return
    else:
        try:
            json.loads(await exchange.blocks.read_file(node.cid, 0, facts.size_bytes))
            return
        except (ValueError, RecursionError):
            pass
    raise NotAcceptable(f"{_name(node.cid)} is not JSON; leave format=json away to get it as it is")


def _name(cid: CID) -> str:
    return f"the file {cid}"
