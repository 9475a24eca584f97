"""Building UnixFS files: leaves, the trees above them, and symlinks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from merkledag import dag_pb, unixfs
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.errors import LimitExceeded
from merkledag.filenode import leaf_node
from merkledag.layouts import Balanced, Trickle
from merkledag.multihash import IDENTITY
from merkledag.profile import ImportProfile
from merkledag.unixfs import Data, Kind, Mtime

MAX_SYMLINK_BYTES = 4_096  # PATH_MAX of the systems that can hold the link


class Link(NamedTuple):
    """A finished node: `size_bytes` of file content, `tsize` bytes of blocks in its whole DAG.

    `size_bytes` of a directory is 0.
    """

    cid: CID
    size_bytes: int
    tsize: int


class Leaf(NamedTuple):
    """One chunk of a file as a block."""

    block: Block
    link: Link


def make_block(profile: ImportProfile, data: bytes, codec: int = DAG_PB) -> Block:
    """A block under the profile's CID version and hash; raw and inlined blocks always have CIDv1."""
    if profile.inline_bytes is not None and len(data) <= profile.inline_bytes:
        return Block(CID.of(data, codec, IDENTITY), data)
    if codec == DAG_PB:
        return Block(CID.of(data, DAG_PB, profile.hash_code, profile.cid_version), data)
    return Block(CID.of(data, codec, profile.hash_code), data)


def make_leaf(profile: ImportProfile, chunk: bytes) -> Leaf:
    """The leaf for one chunk, at most what the profile's chunker makes; raises LimitExceeded.

    Pure and mostly hashing, which releases the GIL: may be called from several threads. A raw leaf shares
    the chunk's memory.
    """
    size = len(chunk)
    if size > profile.chunker.max_bytes:
        raise LimitExceeded(f"chunk of {size} bytes; {profile.chunker} makes {profile.chunker.max_bytes}")
    if profile.raw_leaves:
        block = make_block(profile, chunk, RAW)
    else:  # the two layouts have always called their leaves differently
        kind = Kind.RAW if profile.layout == "trickle" else Kind.FILE
        block = make_block(profile, leaf_node(Data(kind, chunk or None, size)))
    return Leaf(block, Link(block.cid, size, len(block.data)))


class FileTree:
    """A file's tree, which grows by leaves and holds only the links of its open right edge."""

    def __init__(self, profile: ImportProfile) -> None:
        self._profile = profile
        self._blocks: list[Block] = []  # made and not returned yet
        self._rows: Balanced[Link] | Trickle[Link] | None = None  # most files have one leaf and need none
        self._single: Leaf | None = None  # kept while it is the only leaf: metadata may rewrite it
        self._leaves = 0
        self._finished = False

    def add(self, leaf: Leaf) -> list[Block]:
        """Appends a leaf; returns finished blocks, children first. The first leaf waits for the second."""
        if self._finished:
            raise ValueError("the file is finished")
        self._leaves += 1
        if self._leaves == 1:
            self._single = leaf
            return []
        if self._single is not None:
            self._append(self._single)
            self._single = None
        self._append(leaf)
        return self._returned()

    def finish(self, mode: int | None = None, mtime: Mtime | None = None) -> tuple[Link, list[Block]]:
        """The file's root and the blocks not returned yet, the root last; ValueError if no leaf was added.

        `mode` and `mtime` go into the root. A balanced file of one leaf then becomes a dag-pb node that holds
        the content itself, also where the profile has raw leaves; without them it is its leaf. The root of a
        trickle file is never a leaf, and an empty file has none.
        """
        if self._finished or not self._leaves:
            raise ValueError("the file is finished" if self._finished else "a file has at least one leaf")
        self._finished = True
        single = self._single
        if single is not None:
            if self._profile.layout == "balanced":
                return self._finish_single(single, mode, mtime)
            if single.link.size_bytes:
                self._append(single)
        row = [] if self._rows is None else self._rows.close()
        link = self._write(row, mode, mtime)
        return link, self._returned()

    def _append(self, leaf: Leaf) -> None:
        self._blocks.append(leaf.block)
        if self._rows is None:
            layout = Trickle if self._profile.layout == "trickle" else Balanced
            self._rows = layout(self._profile.max_links, self._write)
        self._rows.append(leaf.link)

    def _returned(self) -> list[Block]:
        blocks, self._blocks = self._blocks, []
        return blocks

    def _write(self, row: list[Link], mode: int | None = None, mtime: Mtime | None = None) -> Link:
        """Makes an interior node over `row`."""
        sizes = tuple(link.size_bytes for link in row)
        total = sum(sizes)
        message = unixfs.encode(Data(Kind.FILE, None, total, sizes, mode=mode, mtime=mtime))
        # The name is present and empty: that is what all writers hash.
        node = dag_pb.assemble([dag_pb.encode_link(link.cid, b"", link.tsize) for link in row], message)
        block = make_block(self._profile, node)
        self._blocks.append(block)
        return Link(block.cid, total, len(node) + sum(link.tsize for link in row))

    def _finish_single(self, leaf: Leaf, mode: int | None, mtime: Mtime | None) -> tuple[Link, list[Block]]:
        if mode is None and mtime is None:
            return leaf.link, [leaf.block]
        chunk = leaf.block.data
        if leaf.block.cid.codec != RAW:
            chunk = unixfs.decode(dag_pb.payload(chunk) or b"").data or b""
        message = Data(Kind.FILE, chunk or None, len(chunk), mode=mode, mtime=mtime)
        root = make_block(self._profile, leaf_node(message))
        return Link(root.cid, len(chunk), len(root.data)), [root]


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
    empty = True
    for chunk in chunks:
        blocks += tree.add(make_leaf(profile, chunk))
        empty = False
    if empty:
        blocks += tree.add(make_leaf(profile, b""))
    link, rest = tree.finish(mode, mtime)
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
