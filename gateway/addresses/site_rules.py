"""Answers for paths that a site does not have, from its `_redirects` file (Web _redirects File spec)."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from gateway import errors
from gateway.addresses.redirects import (
    FILE_NAME,
    MAX_BYTES,
    InvalidRedirectsError,
    Rule,
    find_rule,
    parse_redirects,
    with_query,
)
from gateway.addresses.request import split_path
from gateway.addresses.target import redirect
from gateway.content import Locator, known_stat
from gateway.exchange import Exchange
from gateway.formats.file import serve_file
from gateway.formats.folder import serve_directory
from merkledag.errors import MerkledagError, NoSuchLink, NotADirectory

_UNREADABLE = (errors.ContentMissing, errors.RetrievalTimeout, errors.ContentInvalid, MerkledagError)


async def serve_missing(exchange: Exchange, locator: Locator) -> web.StreamResponse | None:
    """What the site's rules say about a path that does not exist; None if they say nothing.

    Raises InvalidRedirectsError, and what serving the page does that a rule leads to.
    """
    rules = await _rules(exchange, locator)
    asked = exchange.asked
    found = find_rule(rules, asked.segments, slash=asked.slash)
    if found is None:
        return None
    rule, target = found
    if rule.status in range(300, 400):
        return redirect(rule.status, with_query(target, asked.query_string))
    return await _serve_page(exchange, locator, rule, target)


async def _rules(exchange: Exchange, locator: Locator) -> tuple[Rule, ...]:
    """The rules of the site; none where there is no file."""
    try:
        file = await locator.locate(
            replace(exchange.asked, segments=(FILE_NAME,), slash=False), exchange.blocks
        )
    except (NoSuchLink, NotADirectory):
        return ()
    try:
        facts = await known_stat(file.node, exchange.blocks)
        if facts.kind not in ("file", "raw"):
            raise InvalidRedirectsError("it is not a file")
        # One byte more than allowed is enough to see that it is too large.
        data = await exchange.blocks.read_file(file.node.cid, 0, min(facts.size_bytes, MAX_BYTES + 1))
    except _UNREADABLE as error:
        raise InvalidRedirectsError(f"it could not be read: {error}") from error
    return parse_redirects(data)


async def _serve_page(exchange: Exchange, locator: Locator, rule: Rule, target: str) -> web.StreamResponse:
    """The content of the site that a rule with status 200 or 4xx leads to, under the address asked for."""
    asked = exchange.asked
    if not target.startswith("/"):
        raise InvalidRedirectsError(f"a rule with status {rule.status} must lead to a path")
    path = target.partition("#")[0].partition("?")[0]
    try:
        segments, slash = split_path(path, exchange.settings)
    except errors.BadRequest as error:
        raise InvalidRedirectsError(error.message) from error
    located = await locator.locate(replace(asked, segments=tuple(segments), slash=slash), exchange.blocks)
    facts = await known_stat(located.node, exchange.blocks)
    if facts.kind != "directory":
        return await serve_file(
            exchange, located, name=segments[-1] if segments else None, status=rule.status
        )
    if rule.status != 200:
        raise InvalidRedirectsError(f"a rule with status {rule.status} must lead to a file")
    return await serve_directory(
        replace(exchange, asked=replace(asked, segments=tuple(segments), slash=True)), located
    )
