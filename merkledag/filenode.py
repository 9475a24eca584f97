"""One node of a UnixFS file: its own bytes, and its children with their sizes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate

from merkledag import dag_pb, multihash, unixfs
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW, name
from merkledag.errors import DecodeError, InvalidCID, NotAFile
from merkledag.steps import Buffer
from merkledag.unixfs import Data, Kind

_NODE_BYTES = 800
_CHILD_BYTES = 80  # its size and its end, numbers in two lists
_TAIL_LINK_BYTES = 260


class ChunkLinks:
    """The links of a file node, read only as far as they are used.

    Most nodes of large files are one run of like-shaped links: a CID is made only for a child that is wanted.
    """

    __slots__ = ("_cid_end", "_raw", "_run", "_stride", "_tail", "chunk_name", "payload")

    def __init__(self, raw: bytes) -> None:
        """Raises DecodeError if `raw` is no dag-pb node. `chunk_name` is the first name that is not empty."""
        self._raw = raw
        self._run, self._stride, self._cid_end = dag_pb.uniform_run(raw)
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

    @property
    def kept_bytes(self) -> int:
        """About the memory that they take."""
        return len(self._raw) + _TAIL_LINK_BYTES * len(self._tail)

    def cids(self, first: int, last: int) -> list[CID]:
        """The CIDs of children first … last − 1; raises DecodeError."""
        run, stride = self._run, self._stride
        try:
            head = [
                CID.decode(self._raw[at + 4 : at + self._cid_end])
                for at in range(first * stride, min(last, run) * stride, stride or 1)
            ]
        except InvalidCID as error:
            raise DecodeError(f"dag-pb: a link's CID is broken: {error}") from error
        return head + self._tail[max(first - run, 0) : max(last - run, 0)]


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

    @property
    def kept_bytes(self) -> int:
        """About the memory that it takes."""
        return self._links.kept_bytes + len(self.data) + _CHILD_BYTES * self.child_count + _NODE_BYTES

    def children(self, start: int, end: int) -> tuple[list[CID], list[int]]:
        """The children that hold bytes start … end − 1 of this node, and their n + 1 boundaries."""
        if start >= end:
            return [], []
        # _ends[i] is where child i starts and child i − 1 ends.
        first = bisect_right(self._ends, start, 1) - 1
        last = max(first, bisect_left(self._ends, end, 0, len(self._links)))
        return self._links.cids(first, last), self._ends[first : last + 1]


def described(cid: CID, block: Buffer) -> CID | None:
    """What a UnixFS Metadata node (long out of use) is about: its first link. None for other nodes."""
    node = dag_pb.decode(block) if cid.codec == DAG_PB else dag_pb.PBNode()
    if node.data is None or not node.links or unixfs.decode(node.data).kind is not Kind.METADATA:
        return None
    return node.links[0].cid


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


def leaf_node(message: Data) -> bytes:
    """A dag-pb node that holds its content itself."""
    return dag_pb.assemble_leaf(unixfs.encode_parts(message))


def is_leaf(cid: CID, chunk: bytes) -> bool:
    """Whether `cid` is the leaf that importers make of `chunk`: a raw block, or a node of two kinds."""
    if cid.codec == RAW:
        return multihash.verify(cid.multihash, chunk)
    return cid.codec == DAG_PB and any(
        multihash.verify(cid.multihash, leaf_node(Data(kind, chunk or None, len(chunk))))
        for kind in (Kind.FILE, Kind.RAW)
    )
