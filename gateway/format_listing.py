"""UnixFS folders: their index.html, or a page that lists them while it is read (path gateway)."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web
from multidict import CIMultiDict

from gateway import pages, style
from gateway.body import Body
from gateway.content import Located, Node
from gateway.exchange import Exchange
from gateway.format_file import serve_file
from merkledag.cid import CID
from merkledag.errors import NoSuchLink
from merkledag.reader import entries, lookup

INDEX = "index.html"
_ROWS_AT_ONCE = 200


async def serve_directory(exchange: Exchange, located: Located) -> web.StreamResponse:
    """Redirects to the slash, then index.html if there is one, else the listing."""
    asked = exchange.asked
    if not asked.slash:
        return _with_slash(exchange, located)
    index = await _index(exchange, located.node)
    if index is not None:
        found = replace(located, node=index)
        return await serve_file(exchange, found, name=INDEX, etag=f'"{located.node.cid_text}"')
    return await _serve_listing(exchange, located)


async def _index(exchange: Exchange, node: Node) -> Node | None:
    if not node.index_known:
        try:
            entry = await exchange.blocks.run(lookup(node.cid, INDEX))
            node.index = Node(entry.cid, node.roots)
        except NoSuchLink:
            node.index = None
        node.index_known = True
    return node.index


def _with_slash(exchange: Exchange, located: Located) -> web.Response:
    """Relative links and service workers need the slash (path gateway, Location)."""
    asked = exchange.asked
    query = f"?{asked.query_string}" if asked.query_string else ""
    headers = exchange.headers(located, f'"{located.node.cid_text}"', located.cache_control)
    del headers["Etag"]
    headers["Location"] = f"{asked.url_path}/{query}"
    return web.Response(status=301, headers=headers)


async def _serve_listing(exchange: Exchange, located: Located) -> web.StreamResponse:
    node = located.node
    etag = f'"DirIndex-{style.VERSION}_CID-{node.cid_text}"'
    headers = exchange.headers(located, etag, located.generated_cache_control)
    not_modified = exchange.not_modified(etag, headers)
    if not_modified is not None:
        return not_modified
    html_headers(headers)
    if exchange.head:
        return web.Response(headers=headers)
    # The first rows are read before the status is sent, so that a missing folder is an error page.
    rows = _Rows(exchange, node.cid)
    first = await rows.next()
    response = web.StreamResponse(headers=headers)
    body = Body(exchange.request, response, exchange.settings)
    await body.begin()
    try:
        await body.write(pages.listing_start(exchange.asked, node.cid).encode())
        part: list[tuple[str, CID, int | None]] | None = first
        while part:
            await body.write(pages.listing_rows(exchange.asked, part).encode())
            part = await rows.next()
        await body.write(pages.listing_end(rows.count, complete=rows.complete).encode())
        await body.end()
    except BaseException:
        body.abort()
        raise
    finally:
        await rows.close()
    return response


def html_headers(headers: CIMultiDict[str]) -> None:
    """Makes `headers` those of one of our own pages."""
    headers["Content-Type"] = "text/html; charset=utf-8"
    headers["Content-Security-Policy"] = style.CONTENT_SECURITY_POLICY


class _Rows:
    """The folder's entries in parts, read only as fast as they are sent."""

    def __init__(self, exchange: Exchange, cid: CID) -> None:
        self._entries = exchange.blocks.iterate(entries(cid))
        self._limit = exchange.settings.max_listing_entries
        self.count = 0
        self.complete = False

    async def next(self) -> list[tuple[str, CID, int | None]]:
        """The next part; empty at the end."""
        part: list[tuple[str, CID, int | None]] = []
        while len(part) < _ROWS_AT_ONCE and self.count < self._limit and not self.complete:
            entry = await anext(self._entries, None)
            if entry is None:
                self.complete = True
            else:
                part.append((entry.name, entry.cid, entry.tsize))
                self.count += 1
        return part

    async def close(self) -> None:
        """Ends the reading."""
        await self._entries.aclose()
