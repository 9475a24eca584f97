"""UnixFS files, raw blocks and symbolic links as what they are (path gateway, deserialized responses)."""

from __future__ import annotations

import json

from aiohttp import web
from multidict import CIMultiDict

from gateway.content import Located, Node, known_stat
from gateway.errors import Gone, NotAcceptable, NotCached, NotImplementedHere
from gateway.exchange import Exchange, send_bytes, send_ranges
from gateway.formats import mime
from gateway.formats.conditional import field, last_modified
from gateway.formats.disposition import disposition
from gateway.formats.negotiation import Format
from gateway.passage import note_kind
from gateway.serving.body import Body

_SYMLINK_TYPE = "inode/symlink"


def unchanged_file(exchange: Exchange, located: Located) -> web.Response | None:
    """The 304 answer to who has the file already, known by its tag: the file need not be here for it."""
    if exchange.wanted.format is Format.JSON or "If-None-Match" not in exchange.request.headers:
        return None
    etag = f'"{located.node.cid_text}"'  # which only files are sent with
    if "If-Match" in exchange.request.headers or field(exchange.request.headers, "If-None-Match") == "*":
        return None
    if located.way is not None and exchange.asked.slash:  # a folder's index.html, which may be denied
        return None
    return exchange.not_modified(exchange.dated_headers(located, etag))


async def serve_file(
    exchange: Exchange, located: Located, *, name: str | None = None, status: int = 200, etag: str = ""
) -> web.StreamResponse:
    """The bytes of the file at `located`.

    `name` is its name for the content type, where the URL does not say it (index.html); `etag` likewise.
    """
    node = located.node
    wants_json = exchange.wanted.format is Format.JSON
    etag = etag or (f'"{node.cid_text}.json"' if wants_json else f'"{node.cid_text}"')
    headers = exchange.dated_headers(located, etag)
    # A page for an error (status) is sent whatever the client has.
    unchanged = exchange.not_modified(headers) if status == 200 else None
    if unchanged is not None:
        return unchanged
    facts = await known_stat(node, exchange.blocks)
    note_kind("file")
    _require_size(exchange, node, facts.size_bytes)
    if located.immutable and facts.mtime is not None:
        unchanged = _date(exchange, headers, facts.mtime.seconds)
        if unchanged is not None and status == 200:
            return unchanged
    target = facts.target if facts.kind == "symlink" else None
    file_name = exchange.file_name()
    if file_name is not None or "download" in exchange.asked.query:
        shown = exchange.disposition_kind("inline")
        headers["Content-Disposition"] = disposition(shown, file_name or _last(exchange))
    if target is not None:
        if wants_json:
            raise NotAcceptable(f"{node.cid} is a symbolic link; there is no JSON of it")
        headers["Content-Type"] = _SYMLINK_TYPE
        return send_bytes(exchange, headers, _link_bytes(target))
    headers["Content-Type"] = await _content_type(exchange, node, file_name or name or _last(exchange))
    if wants_json:
        await _require_json(exchange, node, headers["Content-Type"])
        headers["Content-Type"] = "application/json"
    size, cid = facts.size_bytes, node.cid

    async def read(start: int, end: int) -> bytes:
        return await exchange.blocks.read_range(cid, start, end)

    async def send(body: Body, start: int, end: int) -> None:
        await exchange.blocks.send_file(body, cid, start, end)

    return await send_ranges(exchange, headers, size, send, read, status)


def _require_size(exchange: Exchange, node: Node, size_bytes: int) -> None:
    """Raises Gone for a file that is too large, NotImplementedHere where only its ranges are not given."""
    settings = exchange.settings
    if size_bytes > settings.max_file_bytes:
        raise Gone(
            f"the file {node.cid} has {size_bytes} bytes; this gateway gives files of up to "
            f"{settings.max_file_bytes} bytes"
        )
    if size_bytes > settings.max_range_file_bytes and "Range" in exchange.request.headers:
        raise NotImplementedHere(
            f"the file {node.cid} has {size_bytes} bytes; this gateway gives parts of files of up to "
            f"{settings.max_range_file_bytes} bytes only"
        )


def _last(exchange: Exchange) -> str | None:
    return exchange.asked.segments[-1] if exchange.asked.segments else None


def _link_bytes(target: str | bytes) -> bytes:
    return target if isinstance(target, bytes) else target.encode("utf-8", "surrogateescape")


def _date(exchange: Exchange, headers: CIMultiDict[str], mtime_s: int) -> web.Response | None:
    """Adds the Last-Modified that the file itself says (UnixFS 1.5); the 304 answer if the client has it."""
    date = last_modified(mtime_s)
    if date is None:
        return None
    headers["Last-Modified"] = date
    return exchange.not_modified_since(headers)


async def _content_type(exchange: Exchange, node: Node, name: str | None) -> str:
    kind = mime.by_name(name) if name else None
    if kind is not None and not kind.startswith(mime.HTML):
        return kind
    known = node.sniffed if kind is None else node.html_type
    if known is not None:
        return known
    start = await _start(exchange, node)
    if start is None:
        return kind or mime.OCTETS
    if kind is None:
        node.sniffed = mime.by_content(start)
        return node.sniffed
    node.html_type = mime.html_type(start)
    return node.html_type


async def _start(exchange: Exchange, node: Node) -> bytes | None:
    """The first bytes; None where a later range is asked for and they are not here: these are not fetched."""
    wanted = exchange.request.headers.get("Range")
    if wanted is None or wanted.startswith("bytes=0-"):
        return await exchange.blocks.read_file(node.cid, 0, mime.SNIFF_BYTES)
    try:
        return await exchange.blocks.here_only().read_file(node.cid, 0, mime.SNIFF_BYTES)
    except NotCached:
        return None


async def _require_json(exchange: Exchange, node: Node, kind: str) -> None:
    """`format=json` gives a UnixFS file that is JSON; others are refused (IPIP-0524).

    Files too large to look at whole count as JSON by name or by their start.
    """
    facts = await known_stat(node, exchange.blocks)
    if facts.size_bytes > exchange.settings.json_check_bytes:
        is_json = "json" in kind
    else:
        if node.is_json is None:
            node.is_json = _is_json(await exchange.blocks.read_file(node.cid, 0, facts.size_bytes))
        is_json = node.is_json
    if not is_json:
        raise NotAcceptable(f"the file {node.cid} is not JSON; leave format=json away to get it as it is")


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> None:
    """NaN and the infinities, which Python reads and JSON has not."""
    raise ValueError(f"{name} is no JSON")
