"""Where blocks of a DAG stand in what people see of it: in which file, and with which of its bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from merkledag import codecs, dag_pb, unixfs
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.errors import DecodeError, LimitExceeded, MerkledagError, NotADirectory, UnsupportedCodec
from merkledag.folder import directory_message
from merkledag.hamt import prefix_chars
from merkledag.protobuf import read_length, read_varint, skip
from merkledag.steps import Walk, Want
from merkledag.unixfs import Data, Kind

AHEAD = 16  # how many following blocks a Want announces
MAX_NODES = 1 << 24
MAX_PENDING = 1 << 18
MAX_NAMES = 256  # on the way to a block
DATA_FIELD = 0x12


class Place(NamedTuple):
    """Where a walk first met a block: `names` lead there from the root.

    `what` is "file", "folder", "symlink" or "node" (of no kind that people see; links without a name are
    `#` and their number). Of a file's block that holds some of its bytes, `start` is where these begin in the
    file, `at` where they begin in the block, and `size` how many there are; else all three are 0.
    """

    multihash: bytes
    names: tuple[str, ...]
    what: str
    start: int = 0
    at: int = 0
    size: int = 0


class _Node(NamedTuple):
    """What is still to be looked at: `start` is where it begins in its file, `width` of a shard's names."""

    cid: CID
    names: tuple[str, ...]
    start: int = 0
    width: int = 0


def find_blocks(root: CID, wanted: Mapping[bytes, int]) -> Walk[Place]:
    """Yields where the wanted blocks (multihash → length) are first met, depth first; ends with the last one.

    Each CID is looked at once, so a block that stands in several places is told once. Raw blocks are not
    fetched. What is sent for a Want may be None: then what is below that block is passed over. Nodes whose
    UnixFS does not hold together count as nodes with links. Raises LimitExceeded for DAGs of more than
    `MAX_NODES` blocks and for paths of more than `MAX_NAMES` names.
    """
    left = dict(wanted)
    seen: set[CID] = set()
    stack = [_Node(root, ())]
    while stack and left:
        node = stack.pop()
        cid = node.cid
        if cid in seen:
            continue
        seen.add(cid)
        if len(seen) > MAX_NODES or len(stack) > MAX_PENDING or len(node.names) > MAX_NAMES:
            raise LimitExceeded(f"{root}: a DAG too large, or too deep, to look for blocks in it")
        if cid.codec == RAW:
            length = left.pop(cid.multihash, None)
            if length is not None:
                yield Place(cid.multihash, node.names, "file", node.start, 0, length)
            continue
        data = yield Want(cid, tuple(each.cid for each in stack[: -AHEAD - 1 : -1] if each.cid.codec != RAW))
        if data is None:
            continue
        place, below = _look(node, bytes(data))
        if left.pop(cid.multihash, None) is not None:
            yield place
        stack.extend(reversed(below))


def _look(node: _Node, data: bytes) -> tuple[Place, list[_Node]]:
    """A block's own place, and what it links to."""
    try:
        if node.cid.codec == DAG_PB:
            return _unixfs(node, data)
    except (DecodeError, NotADirectory, LimitExceeded):
        pass
    place = Place(node.cid.multihash, node.names, "node")
    try:
        links = codecs.links(node.cid, data)
    except (UnsupportedCodec, MerkledagError):
        return place, []
    return place, [_Node(cid, (*node.names, f"#{index}")) for index, cid in enumerate(links)]


def _unixfs(node: _Node, data: bytes) -> tuple[Place, list[_Node]]:
    """The same for a UnixFS node; raises DecodeError, NotADirectory, LimitExceeded."""
    rows, payload = dag_pb.decode_rows(data)
    message = None if payload is None else unixfs.decode(payload)
    name = node.cid.multihash
    if message is None:
        raise DecodeError("no UnixFS")
    if message.kind in (Kind.FILE, Kind.RAW):
        own = message.data or b""
        place = Place(name, node.names, "file")
        if own:
            place = Place(name, node.names, "file", node.start, _data_at(data), len(own))
        return place, _parts(node, rows, message)
    if message.kind is Kind.SYMLINK:
        return Place(name, node.names, "symlink"), []
    if message.kind is Kind.METADATA:
        return Place(name, node.names, "node"), [_Node(row[0], node.names) for row in rows[:1]]
    directory_message(node.cid, payload)
    width = prefix_chars(message.fanout or 0) if message.kind is Kind.HAMT else 0
    if node.width not in (0, width):
        raise DecodeError("a shard of another folder")
    return Place(name, node.names, "folder"), list(_entries(node, rows, width))


def _parts(node: _Node, rows: list[dag_pb.Row], message: Data) -> list[_Node]:
    """The parts of a file and where each begins in it."""
    if len(rows) != len(message.blocksizes):
        raise DecodeError("a file's links and sizes do not agree")
    start = node.start + len(message.data or b"")
    parts = []
    for (cid, _, _), size in zip(rows, message.blocksizes, strict=True):
        parts.append(_Node(cid, node.names, start))
        start += size
    return parts


def _entries(node: _Node, rows: list[dag_pb.Row], width: int) -> Iterable[_Node]:
    """The entries of a folder or of one shard of it, and its sub-shards."""
    for cid, given, _ in rows:
        name = (given or b"")[width:].decode("utf-8", "surrogateescape")
        if width and len(given or b"") == width:
            yield _Node(cid, node.names, width=width)
        else:
            yield _Node(cid, (*node.names, name))


def _data_at(data: bytes) -> int:
    """Where in the block of a UnixFS file its own bytes begin; raises DecodeError."""
    found = 0
    for tag, start, end in dag_pb.fields(data):
        if tag != dag_pb.DATA_TAG:
            continue
        while start < end:
            number, after = read_varint(data, start)
            if number == DATA_FIELD:
                found, start = read_length(data, after)
            else:
                start = skip(data, after, number & 7)
    return found
