"""CAR streams: the blocks of a path and of what it names, for clients that verify (trustless gateway)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict

from gateway.content import Located, Node, known_stat
from gateway.errors import BadRequest
from gateway.exchange import Exchange, require_response_size, send_stream
from gateway.formats.disposition import disposition
from gateway.formats.negotiation import MEDIA_TYPES, Format
from gateway.headers import IMMUTABLE
from gateway.serving.body import Body
from merkledag import car, varint
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.errors import NoSuchLink, NotADirectory
from merkledag.reader import stat
from merkledag.resolve import Resolved, resolve
from merkledag.scope import EntityBytes, file_blocks, parse_entity_bytes
from merkledag.steps import Steps, Walk, Want
from merkledag.traverse import Scope, links_in, walk_dag

SCOPES: tuple[Scope, ...] = ("all", "entity", "block")


@dataclass(frozen=True, slots=True)
class CarRequest:
    """Which blocks, and whether each time they occur."""

    scope: Scope
    entity_bytes: EntityBytes | None
    dups: bool

    @property
    def content_type(self) -> str:
        """The media type with all that is known of the stream (IPIP-0412)."""
        return f"{MEDIA_TYPES[Format.CAR]}; version=1; order=dfs; dups={'y' if self.dups else 'n'}"


def car_request(query: Mapping[str, str], dups: str | None) -> CarRequest:
    """Reads `dag-scope` and `entity-bytes` (IPIP-0402); raises BadRequest."""
    name = query.get("dag-scope", "all")
    scope = next((scope for scope in SCOPES if scope == name), None)
    if scope is None:
        raise BadRequest(f"dag-scope={name[:64]!r} is not known; use one of {', '.join(SCOPES)}")
    text = query.get("entity-bytes")
    if text is None:
        return CarRequest(scope, None, dups == "y")
    try:
        # "It implies dag-scope=entity" (trustless gateway spec), whatever scope is named beside it.
        return CarRequest("entity", parse_entity_bytes(text), dups == "y")
    except ValueError as error:
        raise BadRequest(f"entity-bytes: {error}") from None


async def serve_car(exchange: Exchange, located: Located) -> web.StreamResponse:
    """The blocks of every node on the way, then those in scope, depth first."""
    node = located.node
    wanted = car_request(exchange.asked.query, exchange.wanted.car.dups)
    headers = _headers(exchange, located, wanted)
    not_modified = exchange.not_modified(headers)
    if not_modified is not None:
        return not_modified
    path_blocks: list[Want] = []
    await exchange.blocks.run(_recording(resolve(located.root, located.segments), path_blocks))
    walk, sees_raw = await _walk(exchange, node.cid, wanted)
    # The first blocks are looked for before the status is sent: a missing root is 404, not half a CAR.
    await exchange.blocks.open_block(located.root)
    await exchange.blocks.open_block(node.cid)
    if wanted.scope == "all" and node.cid.codec in (RAW, DAG_PB):
        # What folders say of their sizes is a hint; where it is too low, the stream is cut at the limit.
        require_response_size(exchange, (await known_stat(node, exchange.blocks)).size_bytes)
    if exchange.head:
        walk.close()
        return web.Response(headers=headers)
    path_blocks = [want for want in path_blocks if want.cid != node.cid]
    if wanted.entity_bytes is None:
        exchange.blocks.follow(node.cid, links_in(wanted.scope))
    return await _send(exchange, headers, node.cid, path_blocks, walk, sees_raw=sees_raw)


async def serve_absence(exchange: Exchange, root: CID, segments: tuple[str, ...]) -> web.StreamResponse:
    """The blocks from the root to the node that lacks the next segment: they prove that nothing is there.

    A client that verifies can make nothing of a status: with 404 boxo's gateway over CARs could not even list
    a folder without an index.html. So boxo answers 200 here, and so do we.
    """
    located = Located(Node(root, "", str(root)), root, segments, True, IMMUTABLE)
    wanted = car_request(exchange.asked.query, exchange.wanted.car.dups)
    headers = _headers(exchange, located, wanted)
    not_modified = exchange.not_modified(headers)
    if not_modified is not None:
        return not_modified
    path_blocks: list[Want] = []
    with suppress(NoSuchLink, NotADirectory):
        await exchange.blocks.run(_recording(resolve(root, segments), path_blocks))
    if exchange.head:
        return web.Response(headers=headers)
    return await _send(exchange, headers, root, path_blocks, None, sees_raw=False)


def _headers(exchange: Exchange, located: Located, wanted: CarRequest) -> CIMultiDict[str]:
    headers = exchange.dated_headers(located, _etag(located, wanted))
    headers["Content-Type"] = wanted.content_type
    file_name = exchange.file_name() or f"{located.node.cid_text}.car"
    headers["Content-Disposition"] = disposition("attachment", file_name)
    headers["Accept-Ranges"] = "none"
    return headers


def _etag(located: Located, wanted: CarRequest) -> str:
    """Weak: other versions of this gateway may order a CAR differently."""
    what = f"{located.root} {located.segments} {wanted}".encode("utf-8", "surrogateescape")
    return f'W/"{located.node.cid_text}.car.{wanted.scope}.{hashlib.sha256(what).hexdigest()[:16]}"'


async def _walk(exchange: Exchange, cid: CID, wanted: CarRequest) -> tuple[Walk[Block], bool]:
    """The traversal, and whether it must see the bytes of raw blocks."""
    if wanted.entity_bytes is not None and cid.codec in (RAW, DAG_PB):
        facts = await exchange.blocks.run(stat(cid))
        if facts.kind in ("file", "raw"):
            start, end = wanted.entity_bytes.span(facts.size_bytes)
            # A part of no bytes inside the file is not an error: its root alone shows why there are none.
            if start == end and _is_outside(wanted.entity_bytes, facts.size_bytes):
                raise BadRequest(f"entity-bytes lies outside the {facts.size_bytes} bytes of {cid}")
            return file_blocks(cid, start, end, dedupe=not wanted.dups), True
    return walk_dag(cid, scope=wanted.scope, dedupe=not wanted.dups), False


def _is_outside(part: EntityBytes, size_bytes: int) -> bool:
    """Whether all of a part lies before or behind the bytes of a file; an empty file has no outside."""
    before = part.first < 0 and part.last is not None and part.last < -size_bytes
    return size_bytes > 0 and (part.first >= size_bytes or before)


def _recording(steps: Steps[Resolved], wants: list[Want]) -> Steps[Resolved]:
    """`steps`, noting what it wanted."""
    try:
        want = next(steps)
        while True:
            wants.append(want)
            want = steps.send((yield want))
    except StopIteration as stop:
        result: Resolved = stop.value
        return result


async def _send(
    exchange: Exchange,
    headers: CIMultiDict[str],
    cid: CID,
    path_blocks: list[Want],
    walk: Walk[Block] | None,
    *,
    sees_raw: bool,
) -> web.StreamResponse:
    blocks = exchange.blocks

    async def write(body: Body) -> None:
        await body.write(car.header([cid]))
        sent: set[CID] = set()
        for want in path_blocks:
            if want.cid not in sent and not want.cid.is_identity:
                sent.add(want.cid)
                await body.write(car.frame(Block(want.cid, await blocks.get(want))))
        if walk is not None:
            await _send_walk(exchange, body, walk, sees_raw=sees_raw)

    return await send_stream(exchange, headers, write)


async def _send_walk(exchange: Exchange, body: Body, walk: Walk[Block], *, sees_raw: bool) -> None:
    """Frames the blocks of a traversal; raw blocks that are here go from their views.

    A raw block has no links, so a traversal that need not see it is sent no bytes, and the client all.
    """
    blocks = exchange.blocks
    local: int | None = None
    try:
        item = next(walk)
        while True:
            if isinstance(item, Want):
                local = blocks.local_size(item.cid) if item.cid.codec == RAW and not sees_raw else None
                if local is None:
                    item = walk.send(await blocks.get(item))
                else:
                    await blocks.look_ahead(item)
                    item = walk.send(b"")
                continue
            raw = bytes(item.cid)
            size = len(item.data) if local is None else local
            await body.write(varint.encode(len(raw) + size) + raw)
            if local is None:
                await body.write(item.data)
            else:
                await blocks.send_block(body, item.cid, None, 0, size)
            item = walk.send(None)
    except StopIteration:
        return
    finally:
        walk.close()
