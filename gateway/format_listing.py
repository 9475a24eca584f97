"""UnixFS folders: their index.html, or a page that lists them while it is read (path gateway)."""

from __future__ import annotations

from collections import deque
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
from merkledag.reader import Entry, entries, lookup

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
    await rows.begin()
    response = web.StreamResponse(headers=headers)
    body = Body(exchange.request, response, exchange.settings)
    await body.begin()
    try:
        await body.write(pages.listing_start(exchange.asked, node.cid).encode())
        while part := await rows.next():
            await body.write(pages.listing_rows(exchange.asked, part).encode())
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
    """The folder's entries in parts: sorted if they are not too many, else as they are read and sent.

    Entries of a HAMT come in the order of hashes, which is of no use to people.
    """

    def __init__(self, exchange: Exchange, cid: CID) -> None:
        self._entries = exchange.blocks.iterate(entries(cid))
        self._limit = exchange.settings.max_listing_entries
        self._sorted = exchange.settings.sorted_listing_entries
        self._read: deque[Entry] = deque()
        self._ended = False
        self.count = 0

    @property
    def complete(self) -> bool:
        """Whether every entry was given."""
        return self._ended and not self._read

    async def begin(self) -> None:
        """Reads the first entries."""
        await self._fill(self._sorted)
        if self._ended:
            self._read = deque(sorted(self._read, key=_for_people))

    async def next(self) -> list[Entry]:
        """The next part; empty at the end."""
        await self._fill(_ROWS_AT_ONCE)
        part = [self._read.popleft() for _ in range(min(_ROWS_AT_ONCE, len(self._read)))]
        self.count += len(part)
        return part

    async def _fill(self, wanted: int) -> None:
        while len(self._read) < wanted and not self._ended and self.count + len(self._read) < self._limit:
            entry = await anext(self._entries, None)
            if entry is None:
                self._ended = True
            else:
                self._read.append(entry)

    async def close(self) -> None:
        """Ends the reading."""
        await self._entries.aclose()


def _for_people(entry: Entry) -> tuple[str, str]:
    return entry.name.casefold(), entry.name
