"""Reading UnixFS: what a node is, and any byte range of a file of any shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from merkledag import dag_pb, filenode, unixfs
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.errors import DecodeError, LimitExceeded, NotAFile
from merkledag.folder import Entry, entries, lookup
from merkledag.nodes import Nodes
from merkledag.steps import Buffer, Steps, Walk, Want, need
from merkledag.unixfs import Data, Kind, Mtime

__all__ = ["Entry", "NodeStat", "entries", "lookup", "read_file", "stat"]

MAX_FILE_DEPTH = 128  # nodes from the root of a file to a leaf; two children a node make 2¹²⁸ leaves
MAX_EMPTY_NODES = 1_024  # nodes without content that one read visits before it suspects a trap
MAX_METADATA_NODES = 8  # Metadata nodes about one another, before the file
AHEAD = 16  # how many following blocks a Want announces

StatKind = Literal["file", "directory", "symlink", "raw", "other"]

# (CID of a part, where it starts in the file, its size) -> its bytes if it is a leaf that is there already.
# The size is None for a file that is one raw block.
Known = Callable[[CID, int, int | None], Buffer | None]


class NodeStat(NamedTuple):
    """What the root block of a node says.

    `size_bytes`: content of a file, length of a raw or other block or of a symlink's target; for a directory
    its block and what its links declare for the entries (a hint, unverified). `child_count`: chunks of a
    file, entries of a flat directory, None for a HAMT and for other codecs. `mode` has 12 meaningful bits.
    """

    cid: CID
    kind: StatKind
    size_bytes: int
    block_bytes: int
    child_count: int | None = None
    mode: int | None = None
    mtime: Mtime | None = None
    target: str | None = None


def stat(cid: CID) -> Steps[NodeStat]:
    """Reads the root block alone, and for a Metadata node that of the file it is about, if it is a file.

    Raises DecodeError for a dag-pb block that is broken.
    """
    return (yield from _stat(cid, MAX_METADATA_NODES))


def _stat(cid: CID, hops: int) -> Steps[NodeStat]:
    block = yield Want(cid)
    size = len(block)
    if cid.codec != DAG_PB:
        return NodeStat(cid, "raw" if cid.codec == RAW else "other", size, size)
    message = _message(block)
    if message is not None and message.kind is Kind.METADATA and hops:
        about = filenode.described(cid, block)
        file = None if about is None else (yield from _stat(about, hops - 1))
        if file is not None and file.kind in ("file", "raw"):
            return file._replace(cid=cid, kind="file", block_bytes=size)
    if message is None or message.kind is Kind.METADATA:
        return NodeStat(cid, "other", size, size, len(dag_pb.decode(block).links))
    mode = None if message.mode is None else message.mode & 0o7777
    if message.kind in (Kind.FILE, Kind.RAW):
        node = filenode.parse(cid, block)
        return NodeStat(cid, "file", node.size, size, node.child_count, mode, message.mtime)
    if message.kind is Kind.SYMLINK:
        target = (message.data or b"").decode("utf-8", "surrogateescape")
        length = len(message.data or b"")
        return NodeStat(cid, "symlink", length, size, 0, mode, message.mtime, target)
    folder = dag_pb.decode(block)
    count = len(folder.links) if message.kind is Kind.DIRECTORY else None
    return NodeStat(cid, "directory", size + folder.below_bytes, size, count, mode, message.mtime)


def _message(block: Buffer) -> Data | None:
    """The UnixFS message of a dag-pb node, None if it holds none."""
    payload = dag_pb.payload(block)
    if payload is None:
        return None
    try:
        return unixfs.decode(payload)
    except DecodeError:
        return None


class _Frame:
    """Children of one node still to be read; `bounds` counts from the start of the file."""

    __slots__ = ("bounds", "cids", "index")

    def __init__(self, cids: list[CID], bounds: list[int], base: int) -> None:
        self.cids = cids
        self.bounds = [base + bound for bound in bounds] if base else bounds
        self.index = 0


def read_file(
    cid: CID,
    start: int = 0,
    end: int | None = None,
    *,
    known: Known | None = None,
    nodes: Nodes | None = None,
) -> Walk[Buffer]:
    """Yields the bytes start … end − 1 of a file in order (all by default), fetching only what they need.

    A range past the file's end is cut off there. Accepts raw blocks and UnixFS files of any shape, and a
    Metadata node as the file it is about. Pieces are slices of the blocks sent in and share their memory.
    Every node's size is checked against what its parent declares. `known` is asked for every part but a
    dag-pb root before it is wanted; it vouches that what it returns is what the part holds. The blocks of
    inner nodes that `nodes` knows are not wanted, and others are kept there. Raises ValueError
    for a range that runs backwards, NotAFile, DecodeError for sizes that do not agree, LimitExceeded for a
    tree deeper than `MAX_FILE_DEPTH` or one stuffed with empty nodes.
    """
    if start < 0 or (end is not None and end < start):
        raise ValueError(f"no byte range: {start} to {end}")
    stack: list[_Frame] = []
    base = stop = empty = hops = 0
    declared: int | None = None  # the root has no parent
    ahead: tuple[CID, ...] = ()
    while True:
        block = None
        is_leaf = cid.codec == RAW
        if known is not None and (is_leaf or declared is not None):
            block = known(cid, base, declared)
            is_leaf = is_leaf or block is not None
        node: filenode.FileNode | CID | None = None if nodes is None or is_leaf else nodes.files.get(cid)
        if node is None:
            if block is None:
                block = need((yield Want(cid, ahead)))
            node = None if is_leaf else _node(cid, block, declared is not None, nodes)
        if isinstance(node, CID):
            hops += 1
            if hops > MAX_METADATA_NODES:
                raise LimitExceeded(f"{cid}: over {MAX_METADATA_NODES} metadata nodes about one another")
            cid = node
            continue
        size = len(need(block)) if node is None else node.size
        if declared is None:
            stop = size if end is None else min(end, size)
        elif size != declared:
            raise DecodeError(f"{cid}: holds {size} bytes, its parent declares {declared}")
        own = need(block) if node is None else node.data
        low, high = max(start - base, 0), min(stop - base, len(own))
        if low < high:
            yield own if low == 0 and high == len(own) else memoryview(own)[low:high]
        empty += size == 0 and declared is not None
        if empty > MAX_EMPTY_NODES:
            raise LimitExceeded(f"{cid}: over {MAX_EMPTY_NODES} nodes without content in one file")
        if node is not None and node.child_count:
            stack.append(_Frame(*node.children(max(start - base, 0), stop - base), base))
            if len(stack) > MAX_FILE_DEPTH:
                raise LimitExceeded(f"{cid}: a file deeper than {MAX_FILE_DEPTH} nodes")
        while stack and stack[-1].index == len(stack[-1].cids):
            stack.pop()
        if not stack:
            return
        frame = stack[-1]
        at = frame.index
        frame.index = at + 1
        cid, base = frame.cids[at], frame.bounds[at]
        declared = frame.bounds[at + 1] - base
        ahead = tuple(frame.cids[at + 1 : at + 1 + AHEAD])


def _node(cid: CID, block: Buffer, is_child: bool, nodes: Nodes | None) -> filenode.FileNode | CID:
    """The file node in a block, or the CID of the file that a Metadata node is about.

    One with children goes to `nodes`. A child that is no file makes the whole file invalid.
    """
    try:
        node = filenode.parse(cid, block)
    except NotAFile as error:
        if is_child:
            raise DecodeError(f"part of a file is not a file: {error}") from error
        about = filenode.described(cid, block)
        if about is None:
            raise
        return about
    if nodes is not None and node.child_count:
        nodes.files.put(cid, node)
    return node
