"""Building UnixFS files: leaves, balanced trees and symlinks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from merkledag import dag_pb, unixfs
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.errors import LimitExceeded
from merkledag.profile import ImportProfile
from merkledag.unixfs import Data, Kind, Mtime

MAX_SYMLINK_BYTES = 4_096  # PATH_MAX of the systems that can hold the link


@dataclass(frozen=True, slots=True)
class Link:
    """A finished node: `size_bytes` of file content, `tsize` bytes of blocks in its whole DAG.

    `size_bytes` of a directory is 0.
    """

    cid: CID
    size_bytes: int
    tsize: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """One chunk of a file as a block."""

    block: Block
    link: Link


def make_block(profile: ImportProfile, data: bytes, codec: int = DAG_PB) -> Block:
    """A block under the profile's CID version and hash; raw blocks always have CIDv1."""
    if codec == DAG_PB:
        return Block(CID.of(data, DAG_PB, profile.hash_code, profile.cid_version), data)
    return Block(CID.of(data, codec, profile.hash_code), data)


def make_leaf(profile: ImportProfile, chunk: bytes) -> Leaf:
    """The leaf for one chunk (at most `profile.chunk_bytes`); raises LimitExceeded.

    Pure and mostly hashing, which releases the GIL: may be called from several threads. A raw leaf shares
    the chunk's memory.
    """
    size = len(chunk)
    if size > profile.chunk_bytes:
        raise LimitExceeded(f"chunk of {size} bytes; the profile has {profile.chunk_bytes}")
    if profile.raw_leaves:
        block = make_block(profile, chunk, RAW)
    else:
        block = make_block(profile, _file_leaf(chunk, None, None))
    return Leaf(block, Link(block.cid, size, len(block.data)))


def _file_leaf(chunk: bytes, mode: int | None, mtime: Mtime | None) -> bytes:
    """A dag-pb File node that holds its content itself."""
    size = len(chunk)
    message = Data(Kind.FILE, chunk or None, size, mode=mode, mtime=mtime)
    return dag_pb.assemble_leaf(unixfs.encode_parts(message))


class FileTree:
    """A balanced tree that grows by leaves and holds only the links of its open right edge.

    A node is closed when it is full and one more child arrives, so that a file of exactly one full node has
    no needless root above it.
    """

    def __init__(self, profile: ImportProfile) -> None:
        self._profile = profile
        self._levels: list[list[Link]] = [[]]
        self._first: Block | None = None  # kept while it is the only leaf: metadata may rewrite it
        self._finished = False

    def add(self, leaf: Leaf) -> list[Block]:
        """Appends a leaf; returns it and the interior nodes it finished, children first."""
        if self._finished:
            raise ValueError("the file is finished")
        self._first = leaf.block if not self._levels[0] and len(self._levels) == 1 else None
        blocks = [leaf.block]
        self._push(0, leaf.link, blocks)
        return blocks

    def finish(self, mode: int | None = None, mtime: Mtime | None = None) -> tuple[Link, list[Block]]:
        """The file's root and the blocks not returned yet, the root last; ValueError if no leaf was added.

        `mode` and `mtime` go into the root. A file of one leaf then becomes a dag-pb node that holds the
        content itself, also where the profile has raw leaves.
        """
        if self._finished or not self._levels[0]:
            raise ValueError("the file is finished" if self._finished else "a file has at least one leaf")
        self._finished = True
        if self._first is not None:
            return self._finish_single(self._first, mode, mtime)
        blocks: list[Block] = []
        level = 0
        while level < len(self._levels) - 1:  # pushing may add a level on top
            self._push(level + 1, self._close(level, blocks), blocks)
            level += 1
        return self._close(level, blocks, mode, mtime), blocks

    def _push(self, level: int, link: Link, blocks: list[Block]) -> None:
        """Appends `link` to the open node of `level`, closing that node first if it is full."""
        if level == len(self._levels):
            self._levels.append([])
        row = self._levels[level]
        if len(row) == self._profile.max_links:
            self._push(level + 1, self._close(level, blocks), blocks)
            row = self._levels[level]
        row.append(link)

    def _close(
        self, level: int, blocks: list[Block], mode: int | None = None, mtime: Mtime | None = None
    ) -> Link:
        """Makes a node of the links of `level` and empties it."""
        row = self._levels[level]
        self._levels[level] = []
        sizes = tuple(link.size_bytes for link in row)
        total = sum(sizes)
        message = unixfs.encode(Data(Kind.FILE, None, total, sizes, mode=mode, mtime=mtime))
        # The name is present and empty: that is what all writers hash.
        node = dag_pb.assemble([dag_pb.encode_link(link.cid, b"", link.tsize) for link in row], message)
        block = make_block(self._profile, node)
        blocks.append(block)
        return Link(block.cid, total, len(node) + sum(link.tsize for link in row))

    def _finish_single(self, block: Block, mode: int | None, mtime: Mtime | None) -> tuple[Link, list[Block]]:
        link = self._levels[0][0]
        if mode is None and mtime is None:
            return link, []
        chunk = block.data
        if block.cid.codec != RAW:
            chunk = unixfs.decode(dag_pb.payload(block.data) or b"").data or b""
        root = make_block(self._profile, _file_leaf(chunk, mode, mtime))
        return Link(root.cid, link.size_bytes, len(root.data)), [root]


def build_file(
    profile: ImportProfile,
    chunks: Iterable[bytes],
    mode: int | None = None,
    mtime: Mtime | None = None,
) -> tuple[Link, Iterator[Block]]:
    """A whole small file at once; no chunks is an empty file. All blocks are held in memory.

    For large files use `make_leaf` and `FileTree`, which stream.
    """
    tree = FileTree(profile)
    blocks: list[Block] = []
    for chunk in chunks:
        blocks += tree.add(make_leaf(profile, chunk))
    if not blocks:
        blocks += tree.add(make_leaf(profile, b""))
    link, rest = tree.finish(mode, mtime)
    if rest and len(blocks) == 1:
        blocks = []  # metadata rewrote the only leaf
    return link, iter(blocks + rest)


def build_symlink(
    profile: ImportProfile, target: str, mode: int | None = None, mtime: Mtime | None = None
) -> tuple[Link, Block]:
    """A symbolic link; ValueError for an empty target or one longer than `MAX_SYMLINK_BYTES`."""
    raw = dag_pb.name_bytes(target)
    if not 1 <= len(raw) <= MAX_SYMLINK_BYTES:
        raise ValueError(f"symlink target of {len(raw)} bytes; 1 to {MAX_SYMLINK_BYTES} are possible")
    message = unixfs.encode(Data(Kind.SYMLINK, raw, mode=mode, mtime=mtime))
    block = make_block(profile, dag_pb.assemble((), message))
    return Link(block.cid, 0, len(block.data)), block
