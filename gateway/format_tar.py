"""TAR streams of UnixFS trees (IPIP-0288)."""

from __future__ import annotations

import posixpath
import tarfile
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from aiohttp import web

from gateway.body import Body
from gateway.content import Located
from gateway.disposition import disposition
from gateway.errors import ContentInvalid, NotAcceptable
from gateway.exchange import Exchange
from gateway.format_block import require_whole
from gateway.negotiation import MEDIA_TYPES, Format
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.reader import Entry, NodeStat, entries, stat

_BLOCK_BYTES = 512
_END = bytes(2 * _BLOCK_BYTES)
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
    headers = exchange.headers(located, etag, located.cache_control)
    headers["Content-Type"] = MEDIA_TYPES[Format.TAR]
    headers["Content-Disposition"] = disposition("attachment", exchange.file_name() or f"{node.cid_text}.tar")
    headers["Accept-Ranges"] = "none"
    not_modified = exchange.not_modified(etag, headers)
    if not_modified is not None:
        return not_modified
    if node.cid.codec not in (RAW, DAG_PB):
        raise NotAcceptable(
            f"{node.cid} is not UnixFS, so there is no TAR of it; use format=raw or format=car"
        )
    top = exchange.asked.segments[-1] if exchange.asked.segments else node.cid_text
    if exchange.head:
        await exchange.blocks.run(stat(node.cid))
        return web.Response(headers=headers)
    members = _Tree(exchange, top).members(node.cid)
    try:
        first = []
        async for member in members:
            first.append(member)
            if len(first) >= _LOOK_AHEAD_MEMBERS or member.size_bytes > 0:
                break
        response = web.StreamResponse(headers=headers)
        body = Body(exchange.request, response, exchange.settings)
        await body.begin()
        try:
            for member in first:
                await _write(exchange, body, member)
            async for member in members:
                await _write(exchange, body, member)
            await body.write(_END)
            await body.end()
        except BaseException:
            body.abort()
            raise
    finally:
        await members.aclose()
    return response


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
    await body.write(bytes(-member.size_bytes % _BLOCK_BYTES))


class _Tree:
    """A UnixFS tree, depth first."""

    def __init__(self, exchange: Exchange, top: str) -> None:
        self._exchange = exchange
        self._top = top.replace("/", "_")
        # A node need not say when it was changed; 1970 would make tar complain.
        self._now_s = int(time.time())

    async def members(self, cid: CID) -> AsyncGenerator[Member, None]:
        """Raises NotAcceptable for what must not be unpacked: names and links that leave the tree."""
        blocks = self._exchange.blocks
        facts = await blocks.run(stat(cid))
        if facts.kind == "other":
            raise NotAcceptable(
                f"{cid} is not UnixFS, so there is no TAR of it; use format=raw or format=car"
            )
        yield self._member(self._top, cid, facts)
        if facts.kind != "directory":
            return
        open_: list[tuple[str, AsyncGenerator[Entry, None]]] = [(self._top, blocks.iterate(entries(cid)))]
        try:
            while open_:
                path, listing = open_[-1]
                entry = await anext(listing, None)
                if entry is None:
                    open_.pop()
                    continue
                name = self._inside(path, entry.name)
                facts = await blocks.run(stat(entry.cid))
                yield self._member(name, entry.cid, facts)
                if facts.kind == "directory":
                    if len(open_) >= self._exchange.settings.max_tar_depth:
                        raise ContentInvalid(f"folders nested deeper than {len(open_)} are not packed")
                    open_.append((name, blocks.iterate(entries(entry.cid))))
        finally:
            for _, listing in open_:
                await listing.aclose()

    def _inside(self, path: str, name: str) -> str:
        joined = posixpath.normpath(posixpath.join(path, name))
        if "\0" in name or not joined.startswith(self._top + "/"):
            raise NotAcceptable(
                f"the name {name!r} would be unpacked outside the folder; get it with format=car instead"
            )
        return joined

    def _member(self, name: str, cid: CID, facts: NodeStat) -> Member:
        info = tarfile.TarInfo(name)
        info.mtime = self._now_s if facts.mtime is None else facts.mtime.seconds
        if facts.kind == "directory":
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        elif facts.kind == "symlink":
            info.type, info.mode = tarfile.SYMTYPE, 0o777
            info.linkname = self._link_inside(name, facts.target or "")
        elif facts.kind in ("file", "raw"):
            info.mode, info.size = 0o644, facts.size_bytes
        else:
            raise NotAcceptable(f"{name!r} is not UnixFS and cannot be packed; use format=car instead")
        if facts.mode is not None:
            info.mode = facts.mode & 0o777
        header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        return Member(header, cid if info.isreg() else None, info.size)

    def _link_inside(self, name: str, target: str) -> str:
        """Whoever unpacks must not be led out of the tree by a link and then write through it."""
        reached = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if target.startswith("/") or "\0" in target or not (reached + "/").startswith(self._top + "/"):
            raise NotAcceptable(
                f"the link {name!r} leads out of the folder, to {target[:256]!r}; use format=car instead"
            )
        return target
