"""UnixFS folders: their index.html, or a page that lists them (path gateway)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

from aiohttp import web
from multidict import CIMultiDict

from gateway.content import Located, Node, known_stat
from gateway.errors import GatewayError, NotCached
from gateway.exchange import Exchange, send_stream
from gateway.formats.file import serve_file
from gateway.pages import readme, style
from gateway.pages.folder import ListingPage
from gateway.pages.frame import text
from gateway.pages.listing import FolderReader, Item, Page
from gateway.pages.listing_query import ListingQuery, read_listing_query
from gateway.serving.body import Body
from merkledag.errors import MerkledagError, NoSuchLink
from merkledag.reader import Entry, lookup

INDEX = "index.html"
_README_PATIENCE_S = 5.0
_ROWS_A_PART = 10  # which take up to 2 ms
_NO_CACHE = "no-cache"
_SOON = "public, max-age=300"


async def serve_directory(exchange: Exchange, located: Located) -> web.StreamResponse:
    """Redirects to the slash, then index.html if there is one, else the listing."""
    asked = exchange.asked
    # `go get` takes a redirect for another repository (boxo does the same).
    if not asked.slash and asked.query.get("go-get") != "1":
        return _with_slash(exchange, located)
    query = read_listing_query(asked.query, exchange.settings.sorted_listing_entries)
    index = None if query.listed else await _index(exchange, located.node)
    if index is not None:
        _require(located, INDEX)
        found = replace(located, node=index)
        return await serve_file(exchange, found, name=INDEX, etag=f'"{located.node.cid_text}"')
    return await _serve_listing(exchange, located, query)


def _require(located: Located, entry: str) -> None:
    """Raises Denied where a denylist names the path of an entry."""
    refused = None if located.way is None else located.way.refused(entry)
    if refused is not None:
        raise refused


def _served(located: Located, note: Entry | None) -> Entry | None:
    """The entry, unless a denylist names its path."""
    return None if note is None or (located.way is not None and located.way.refused(note.name)) else note


async def _index(exchange: Exchange, node: Node) -> Node | None:
    if not node.index_known:
        try:
            entry = await exchange.blocks.run(lookup(node.cid, INDEX))
            node.index = Node(entry.cid, node.above, node.last)
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


async def _serve_listing(exchange: Exchange, located: Located, query: ListingQuery) -> web.StreamResponse:
    node, blocks = located.node, exchange.blocks
    facts = await known_stat(node, blocks)
    shows_note = _shows_readme(query)
    note = _served(located, await _find_readme(exchange, node)) if shows_note else None
    # A page that lacks its README for now has another name than the one that will have it.
    variant = f"{query.query()} {'' if note is None else note.cid} {_is_here(exchange, note)}"
    etag = f'"DirIndex-{style.VERSION}{_short(variant)}_CID-{node.cid_text}"'
    headers = exchange.headers(located, etag, located.generated_cache_control)
    not_modified = exchange.not_modified(headers)
    if not_modified is not None:
        return not_modified
    html_headers(headers)
    if not _is_here(exchange, note):
        headers["Cache-Control"] = _NO_CACHE
    if exchange.head:
        return web.Response(headers=headers)
    # The entries are read before the status is sent, so that a missing folder is an error page.
    reader = FolderReader(
        blocks, node.cid, is_hamt=facts.child_count is None, query=query, settings=exchange.settings,
        work=exchange.work,
    )  # fmt: skip
    page = await reader.page()
    if page.hasty:
        headers["Cache-Control"] = _NO_CACHE
        del headers["Etag"]
    if page.lacking:
        if located.immutable and _is_here(exchange, note):
            headers["Cache-Control"] = _SOON
        del headers["Etag"]
    if note is None and shows_note and page.ordered:
        note = _served(located, _readme_among(page))
    html = ListingPage(exchange.asked, node.cid, facts, query)

    async def write(body: Body) -> None:
        await _write(body, exchange, html, page, reader, note)

    return await send_stream(exchange, headers, write)


def _shows_readme(query: ListingQuery) -> bool:
    return not query.filter and query.page == 1 and query.after is None


def _short(variant: str) -> str:
    """What tells pages of one folder apart, as a part of an Etag."""
    return hashlib.sha256(variant.encode()).hexdigest()[:8]


async def _write(
    body: Body, exchange: Exchange, html: ListingPage, page: Page, reader: FolderReader, note: Entry | None
) -> None:
    await exchange.work.go_on()
    await body.write(html.start(page).encode())
    count = len(page.items)
    limit = exchange.settings.max_listing_entries
    if page.streamed:
        async with aclosing(reader.stream(limit)) as batches:
            async for batch in batches:
                count += len(batch)
                await _write_rows(body, exchange, html, batch)
    else:
        await _write_rows(body, exchange, html, page.items)
    await body.write(html.end_of_entries(page).encode())
    if note is not None:
        await body.write((await _readme(exchange, note)).encode())
    full = page.streamed and count >= limit
    end = html.end(f"The first {count:,} entries. Download the folder to see the rest." if full else "")
    await body.write(end.encode())


async def _write_rows(body: Body, exchange: Exchange, html: ListingPage, items: Sequence[Item]) -> None:
    for at in range(
        0, len(items), _ROWS_A_PART
    ):  # for a client that does not read, no more than this is made
        await exchange.work.go_on()
        await body.write(html.rows(items[at : at + _ROWS_A_PART]).encode())


async def _find_readme(exchange: Exchange, node: Node) -> Entry | None:
    """The folder's README, as far as that can be told from what is here."""
    if not node.readme_known:
        here = exchange.blocks.here_only()
        try:
            for name in readme.NAMES:
                with suppress(NoSuchLink):
                    node.readme = await here.run(lookup(node.cid, name))
                    break
            node.readme_known = True
        except (NotCached, MerkledagError):
            return None
    return node.readme


def _readme_among(page: Page) -> Entry | None:
    found = {item.entry.name: item.entry for item in page.items}
    return next((found[name] for name in readme.NAMES if name in found), None)


def _is_here(exchange: Exchange, note: Entry | None) -> bool:
    return note is None or note.cid.is_identity or exchange.blocks.local_size(note.cid) is not None


async def _readme(exchange: Exchange, entry: Entry) -> str:
    """The README as a section; a line where it cannot be shown."""
    blocks, asked = exchange.blocks, exchange.asked
    node = Node(entry.cid, "", "")
    try:
        async with asyncio.timeout(_README_PATIENCE_S):
            facts = await known_stat(node, blocks)
            if facts.kind not in ("file", "raw"):
                return ""
            is_long = facts.size_bytes > readme.MAX_BYTES
            data = b"" if is_long else await blocks.read_file(entry.cid, 0, facts.size_bytes)
    except (GatewayError, MerkledagError, TimeoutError):
        inner = '<p class="empty">It could not be fetched in time; load the page again to try once more.</p>'
    else:
        if is_long:
            inner = '<p class="empty">It is too long to be shown here.</p>'
        else:
            inner = await readme.rendered(data, entry.name, asked.base, asked.segments)
    return f'<section class="card doc" aria-label="README"><h2>{text(entry.name)}</h2>{inner}</section>'


def html_headers(headers: CIMultiDict[str]) -> None:
    """Makes `headers` those of one of our own pages."""
    headers["Content-Type"] = "text/html; charset=utf-8"
    headers["Content-Security-Policy"] = style.CONTENT_SECURITY_POLICY
