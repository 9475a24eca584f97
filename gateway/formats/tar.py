"""TAR streams of UnixFS trees (IPIP-0288)."""

from __future__ import annotations

import posixpath
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from aiohttp import web

from gateway.content import Located, known_stat
from gateway.errors import ContentInvalid, NotAcceptable
from gateway.exchange import Exchange, require_response_size, send_stream
from gateway.formats.block import require_whole
from gateway.formats.disposition import disposition
from gateway.formats.negotiation import MEDIA_TYPES, Format
from gateway.serving.body import Body
from merkledag import tar
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.reader import NodeStat
from merkledag.traverse import links_in
from merkledag.tree import stays_inside, walk_tree
from merkledag.unixfs import Mtime

_SMALL_FILE_BYTES = 16 * 1024
_LOOK_AHEAD_MEMBERS = 64  # checked before the status is sent


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the archive: its header and, for a file, whose bytes follow."""

    header: bytes
    file: CID | None
    size_bytes: int


async def serve_tar(exchange: Exchange, located: Located) -> web.StreamResponse:
    """The tree at `located`; its top has the name of the last path segment, or of the CID."""
    require_whole(located)
    node = located.node
    etag = f'W/"{node.cid_text}.x-tar"'
    headers = exchange.dated_headers(located, etag)
    headers["Content-Type"] = MEDIA_TYPES[Format.TAR]
    headers["Content-Disposition"] = disposition("attachment", exchange.file_name() or f"{node.cid_text}.tar")
    headers["Accept-Ranges"] = "none"
    not_modified = exchange.not_modified(headers)
    if not_modified is not None:
        return not_modified
    if node.cid.codec not in (RAW, DAG_PB) or (await known_stat(node, exchange.blocks)).kind == "other":
        raise NotAcceptable(
            f"{node.cid} is not UnixFS, so there is no TAR of it; use format=raw or format=car"
        )
    top = exchange.asked.segments[-1] if exchange.asked.segments else node.cid_text
    # What folders say of their sizes is a hint; where it is too low, the stream is cut at the limit.
    require_response_size(exchange, (await known_stat(node, exchange.blocks)).size_bytes)
    if exchange.head:
        return web.Response(headers=headers)
    exchange.blocks.follow(node.cid, links_in("all"))
    members = _Tree(exchange, top).members(node.cid)
    try:
        first = []
        async for member in members:
            first.append(member)
            if len(first) >= _LOOK_AHEAD_MEMBERS or member.size_bytes > 0:
                break

        async def write(body: Body) -> None:
            for member in first:
                await _write(exchange, body, member)
            async for member in members:
                await _write(exchange, body, member)
            await body.write(tar.END)

        return await send_stream(exchange, headers, write)
    finally:
        await members.aclose()


async def _write(exchange: Exchange, body: Body, member: Member) -> None:
    await body.write(member.header)
    if member.file is None or member.size_bytes == 0:
        return
    if member.size_bytes <= _SMALL_FILE_BYTES:
        data = await exchange.blocks.read_file(member.file, 0, member.size_bytes)
        if len(data) != member.size_bytes:
            raise ContentInvalid(f"the file {member.file} has fewer bytes than it says")
        await body.write(data)
    else:
        await exchange.blocks.send_file(body, member.file, 0, member.size_bytes)
    await body.write(tar.padding(member.size_bytes))


class _Tree:
    """A UnixFS tree, depth first."""

    def __init__(self, exchange: Exchange, top: str) -> None:
        self._exchange = exchange
        self._top = top.replace("/", "_")
        # A node need not say when it was changed; 1970 would make tar complain.
        self._now_s = int(time.time())

    async def members(self, cid: CID) -> AsyncGenerator[Member, None]:
        """Raises NotAcceptable for what must not be unpacked: names and links that leave the tree."""
        max_depth = self._exchange.settings.max_tar_depth
        walk = self._exchange.blocks.iterate(walk_tree(cid, max_depth=max_depth))
        async with aclosing(walk) as items:
            async for item in items:
                yield self._member(self._inside(item.names), item.cid, item.stat)

    def _inside(self, names: tuple[str, ...]) -> str:
        """The path of an entry; a name with `..` in it may go up and down, but not out."""
        joined = posixpath.normpath(posixpath.join(self._top, *names))
        if any("\0" in name for name in names) or (names and not joined.startswith(self._top + "/")):
            raise NotAcceptable(
                f"the name {names[-1]!r} would be unpacked outside the folder; get it with format=car instead"
            )
        return joined

    def _member(self, name: str, cid: CID, facts: NodeStat) -> Member:
        mtime = Mtime(self._now_s) if facts.mtime is None else facts.mtime
        if facts.kind == "directory":
            return Member(tar.header(name, tar.Member.FOLDER, mode=facts.mode, mtime=mtime), None, 0)
        if facts.kind == "symlink":
            target = self._link_inside(name, facts.target or "")
            return Member(tar.header(name, tar.Member.SYMLINK, mtime=mtime, target=target), None, 0)
        if facts.kind not in ("file", "raw"):
            raise NotAcceptable(f"{name!r} is not UnixFS and cannot be packed; use format=car instead")
        size_bytes = facts.size_bytes
        header = tar.header(name, tar.Member.FILE, size_bytes, mode=facts.mode, mtime=mtime)
        return Member(header, cid, size_bytes)

    def _link_inside(self, name: str, target: str) -> str:
        """Whoever unpacks must not be led out of the tree by a link and then write through it."""
        if not stays_inside(target, name.count("/") - 1):
            raise NotAcceptable(
                f"the link {name!r} leads out of the folder, to {target[:256]!r}; use format=car instead"
            )
        return target
