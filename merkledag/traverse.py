"""Walking whole DAGs block by block, depth first, parents before children."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from merkledag import codecs, dag_pb, unixfs
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from merkledag.errors import DecodeError, LimitExceeded, UnsupportedCodec
from merkledag.hamt import prefix_chars
from merkledag.steps import Walk, Want, need
from merkledag.unixfs import Kind

MAX_DAG_DEPTH = 4_096  # nodes on one path
MAX_PENDING_LINKS = 2**18  # links seen and not yet followed, on all levels together: about 60 MB
AHEAD = 16  # how many following blocks a Want announces

Scope = Literal["all", "block", "entity"]
IsNew = Callable[[bytes], bool]  # remembers a binary CID; False if it was known


def walk_dag(
    root: CID,
    *,
    scope: Scope = "all",
    skip: Callable[[CID], bool] | None = None,
    dedupe: bool = True,
    is_new: IsNew | None = None,
) -> Walk[Block]:
    """Yields the blocks of a DAG in depth-first pre-order.

    `scope`: everything; the root "block" alone; or the "entity" (trustless gateway spec): a file with all its
    chunks, a directory without what its entries hold, any other node alone. `skip(cid)` true leaves out a
    node and what hangs below it, unfetched. With `dedupe` each CID comes once; without it a small hostile DAG
    can be endless. `is_new` is what remembers them, by default a set of about 100 bytes a block. Blocks
    inside identity CIDs are followed, not yielded. Codecs without known links are leaves.

    Raises DecodeError for blocks that are not what their codec says, LimitExceeded past `MAX_DAG_DEPTH` or
    `MAX_PENDING_LINKS`.
    """
    links_of = _LINKS[scope]
    if is_new is None:
        is_new = _Seen().add
    stack = [[root]]
    pending = 1
    while stack:
        row = stack[-1]
        if not row:
            stack.pop()
            continue
        cid = row.pop()
        pending -= 1
        if dedupe and not is_new(bytes(cid)):
            continue
        if skip is not None and skip(cid):
            continue
        data = bytes(need((yield Want(cid, tuple(row[: -AHEAD - 1 : -1])))))
        links = links_of(cid, data)
        if not cid.is_identity:
            yield Block(cid, data)
        if links:
            pending += len(links)
            if len(stack) >= MAX_DAG_DEPTH:
                raise LimitExceeded(f"{cid}: the DAG is deeper than {MAX_DAG_DEPTH} nodes")
            if pending > MAX_PENDING_LINKS:
                raise LimitExceeded(f"{cid}: more than {MAX_PENDING_LINKS} links wait to be followed")
            links.reverse()
            stack.append(links)


class _Seen:
    """Remembers keys."""

    def __init__(self) -> None:
        self._keys: set[bytes] = set()

    def add(self, key: bytes) -> bool:
        if key in self._keys:
            return False
        self._keys.add(key)
        return True


def _all_links(cid: CID, data: bytes) -> list[CID]:
    try:
        return codecs.links(cid, data)
    except UnsupportedCodec:
        return []


def _no_links(_cid: CID, _data: bytes) -> list[CID]:
    return []


def _entity_links(cid: CID, data: bytes) -> list[CID]:
    if cid.codec != DAG_PB:
        return []
    node = dag_pb.decode(data)
    try:
        message = unixfs.decode(node.data or b"")
    except DecodeError:
        return []
    if message.kind in (Kind.FILE, Kind.RAW):
        return [link.cid for link in node.links]
    if message.kind is Kind.HAMT and message.fanout:
        width = prefix_chars(message.fanout)
        return [link.cid for link in node.links if len(link.name or "") == width]
    return []


def links_in(scope: Scope) -> Callable[[CID, bytes], list[CID]]:
    """What `walk_dag` follows of a block, in its order. The function that is returned raises DecodeError."""
    return _LINKS[scope]


_LINKS: dict[Scope, Callable[[CID, bytes], list[CID]]] = {
    "all": _all_links,
    "block": _no_links,
    "entity": _entity_links,
}
