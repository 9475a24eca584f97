"""One node of a UnixFS file: its own bytes, and its children with their sizes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate

from merkledag import dag_pb, unixfs
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, name
from merkledag.errors import DecodeError, InvalidCID, NotAFile
from merkledag.steps import Buffer
from merkledag.unixfs import Data, Kind

_CONTINUES = bytes(0x80) + b"\1" * 0x80  # maps each byte of a varint to whether another follows


class ChunkLinks:
    """The links of a file node, read only as far as they are used.

    Nodes of large files hold a thousand links of one shape: their fixed bytes are compared column by column,
    and a CID is made only for a child that is wanted.
    """

    __slots__ = ("_cid_end", "_cid_start", "_raw", "_run", "_stride", "_tail", "chunk_name", "payload")

    def __init__(self, raw: bytes) -> None:
        """Raises DecodeError if `raw` is no dag-pb node. `chunk_name` is the first name that is not empty."""
        self._raw = raw
        self._run, self._stride, self._cid_start, self._cid_end = _uniform_run(raw)
        self._tail: list[CID] = []
        self.payload: bytes | None = None
        self.chunk_name: str | None = None
        for tag, start, end in dag_pb.fields(raw, self._run * self._stride):
            if tag == dag_pb.DATA_TAG:
                self.payload = raw[start:end]
                continue
            link = dag_pb.read_link(raw, start, end)
            self.chunk_name = self.chunk_name or link.name
            self._tail.append(link.cid)

    def __len__(self) -> int:
        return self._run + len(self._tail)

    def cids(self, first: int, last: int) -> list[CID]:
        """The CIDs of children first … last − 1; raises DecodeError."""
        run, stride = self._run, self._stride
        try:
            head = [
                CID.decode(self._raw[at + self._cid_start : at + self._cid_end])
                for at in range(first * stride, min(last, run) * stride, stride or 1)
            ]
        except InvalidCID as error:
            raise DecodeError(f"dag-pb: a link's CID is broken: {error}") from error
        return head + self._tail[max(first - run, 0) : max(last - run, 0)]


def _uniform_run(raw: bytes) -> tuple[int, int, int, int]:
    """(count, stride, start and end of the CID in a link) of the like-shaped links that `raw` begins with."""
    none = (0, 0, 0, 0)
    if len(raw) < 8 or raw[0] != dag_pb.LINK_TAG or raw[1] >= 0x80 or raw[2] != 0x0A or raw[3] >= 0x80:
        return none
    stride = 2 + raw[1]
    cid_end = 4 + raw[3]
    fixed = [0, 1, 2, 3]
    at = cid_end
    if raw[at : at + 2] == b"\x12\0":
        fixed += (at, at + 1)
        at += 2
    if raw[at : at + 1] != b"\x18" or not at + 1 < stride <= len(raw):
        return none
    fixed.append(at)
    count = min(_same(raw[column::stride]) for column in fixed)
    for column in range(at + 1, stride):
        marks = raw[column::stride].translate(_CONTINUES)
        if marks[0] != (column < stride - 1):
            return none
        count = min(count, _same(marks))
    return count, stride, 4, cid_end


def _same(column: bytes) -> int:
    """How many equal bytes a column begins with."""
    return len(column) - len(column.lstrip(column[:1]))


class FileNode:
    """A checked file node: `data` comes first, then the children; `size` is the sum of both, in bytes."""

    __slots__ = ("_ends", "_links", "data", "message", "size")

    def __init__(self, links: ChunkLinks, message: Data) -> None:
        self.message = message
        self.data = message.data or b""
        self._links = links
        self._ends = list(accumulate(message.blocksizes, initial=len(self.data)))
        self.size = self._ends[-1]

    @property
    def child_count(self) -> int:
        return len(self._links)

    def children(self, start: int, end: int) -> tuple[list[CID], list[int]]:
        """The children that hold bytes start … end − 1 of this node, and their n + 1 boundaries."""
        if start >= end:
            return [], []
        # _ends[i] is where child i starts and child i − 1 ends.
        first = bisect_right(self._ends, start, 1) - 1
        last = max(first, bisect_left(self._ends, end, 0, len(self._links)))
        return self._links.cids(first, last), self._ends[first : last + 1]


def parse(cid: CID, block: Buffer) -> FileNode:
    """The dag-pb file node in a block.

    Raises NotAFile for other nodes, DecodeError for nodes whose sizes and links do not agree.
    """
    if cid.codec != DAG_PB:
        raise NotAFile(f"{cid} is a {name(cid.codec)} block, not a file")
    links = ChunkLinks(bytes(block))
    if links.payload is None:
        raise NotAFile(f"{cid} is a dag-pb node without UnixFS data")
    message = unixfs.decode(links.payload)
    if message.kind not in (Kind.FILE, Kind.RAW):
        raise NotAFile(f"{cid} is a UnixFS {message.kind.name.lower()}, not a file")
    if links.chunk_name:
        raise DecodeError(f"{cid}: a chunk of the file has the name {links.chunk_name[:80]!r}")
    if len(links) != len(message.blocksizes):
        raise DecodeError(f"{cid}: {len(links)} links but {len(message.blocksizes)} block sizes")
    node = FileNode(links, message)
    if message.filesize is not None and message.filesize != node.size:
        raise DecodeError(f"{cid}: file size {message.filesize} declared, its parts add up to {node.size}")
    return node
