"""Writing into files: the chunks that stay are neither read nor written, the CID is that of the whole afresh.

Chunks have a fixed size, so those before and behind what is written keep their places. They are taken over as
they are if they are raw leaves of the profile's own form and size; others are read and cut again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from merkledag import filenode, reader
from merkledag.block import Block
from merkledag.builder import FileTree, Leaf, Link, make_leaf
from merkledag.chunker import FixedSize
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from merkledag.errors import DecodeError, LimitExceeded
from merkledag.multihash import split
from merkledag.profile import ImportProfile
from merkledag.steps import Buffer, Steps, Walk, Want
from merkledag.unixfs import Mtime

MAX_CHUNKS = 2**24  # of a file that is written into: 16 TiB in chunks of 1 MiB, 2 GB of memory


class OldFile(NamedTuple):
    """A file to be changed: its size, and the CIDs of its chunks where they can be taken over."""

    cid: CID
    size_bytes: int
    chunks: dict[int, CID]


def fixed_chunk_bytes(profile: ImportProfile) -> int:
    """The size of the profile's chunks; ValueError for other chunkers and layouts."""
    if not isinstance(profile.chunker, FixedSize) or profile.layout != "balanced":
        raise ValueError("files are written into in chunks of a fixed size and in the balanced layout")
    return profile.chunker.max_bytes


def survey(profile: ImportProfile, cid: CID) -> Steps[OldFile]:
    """Reads the inner nodes of a file, no raw leaf. Raises NotAFile, DecodeError, LimitExceeded."""
    chunk_bytes = fixed_chunk_bytes(profile)
    block = yield Want(cid)
    if cid.codec == RAW:
        chunks = {0: cid} if _is_own(profile, cid) and len(block) <= chunk_bytes else {}
        return OldFile(cid, len(block), chunks)
    root = filenode.parse(cid, block)
    chunks = {}
    seen = 0
    pending: list[tuple[filenode.FileNode, int, int]] = [(root, 0, 1)]
    while pending:
        node, base, depth = pending.pop()
        cids, bounds = node.children(0, node.size)
        seen += len(cids)
        if depth > reader.MAX_FILE_DEPTH or seen > MAX_CHUNKS:
            raise LimitExceeded(f"{cid}: over {reader.MAX_FILE_DEPTH} levels or {MAX_CHUNKS} chunks")
        for child, (start, end) in zip(cids, pairwise(bounds), strict=True):
            size, place = end - start, base + start
            if child.codec == DAG_PB and size > chunk_bytes:
                inner = filenode.parse(child, (yield Want(child)))
                if inner.size != size:
                    raise DecodeError(f"{child}: holds {inner.size} bytes, its parent declares {size}")
                pending.append((inner, place, depth + 1))
                continue
            fits = place % chunk_bytes == 0 and (size == chunk_bytes or place + size == root.size)
            if fits and size <= chunk_bytes and _is_own(profile, child):
                chunks[place // chunk_bytes] = child
    return OldFile(cid, root.size, chunks)


def _is_own(profile: ImportProfile, cid: CID) -> bool:
    """Whether a chunk has the form that the profile would give it."""
    return profile.raw_leaves and cid.codec == RAW and split(cid.multihash)[0] == profile.hash_code


class Writer:
    """Builds the changed file from front to back; its methods yield Wants for old chunks, and new blocks."""

    def __init__(self, profile: ImportProfile, old: OldFile | None) -> None:
        self._chunk_bytes = fixed_chunk_bytes(profile)
        self._profile = profile
        self._old = old
        self._old_bytes = 0 if old is None else old.size_bytes
        self._tree = FileTree(profile)
        self._pending = bytearray()
        self._took = False
        self.size_bytes = 0
        self.link: Link | None = None

    def keep(self, end: int, *, last: bool = False) -> Walk[Block]:
        """The old file's bytes from here to `end`, and zeros where it is shorter.

        `last` promises that nothing follows, so that a short chunk at the end may stay.
        """
        chunk_bytes = self._chunk_bytes
        while self.size_bytes < min(end, self._old_bytes):
            number, within = divmod(self.size_bytes, chunk_bytes)
            stop = min((number + 1) * chunk_bytes, self._old_bytes)
            known = None if self._old is None or within or stop > end else self._old.chunks.get(number)
            if known is not None and (last or stop % chunk_bytes == 0):
                yield from self._take(known, stop - self.size_bytes)
            else:
                yield from self._copy(min(stop, end))
        while self.size_bytes < end:
            chunks = 0 if self._pending else (end - self.size_bytes) // chunk_bytes
            if chunks:
                yield from self._zeros(chunks)
            else:
                yield from self.write(bytes(min(end - self.size_bytes, chunk_bytes - len(self._pending))))

    def _zeros(self, chunks: int) -> Walk[Block]:
        """Appends whole chunks of zeros, which are made once."""
        leaf = make_leaf(self._profile, bytes(self._chunk_bytes))
        self.size_bytes += chunks * self._chunk_bytes
        yield from self._new(self._tree.add(leaf))
        again = Leaf(Block(leaf.block.cid, b""), leaf.link)
        self._took = self._took or chunks > 1
        for _ in range(chunks - 1):
            yield from self._new(self._tree.add(again))

    def _take(self, cid: CID, size: int) -> Walk[Block]:
        """Appends a chunk that is stored already; yields the nodes that it finished."""
        self._took = True
        self.size_bytes += size
        yield from self._new(self._tree.add(Leaf(Block(cid, b""), Link(cid, size, size))))

    def _new(self, blocks: list[Block]) -> Iterator[Block]:
        """The blocks that are not only placeholders for taken chunks; a chunk beside those is never empty."""
        return (block for block in blocks if block.data or not self._took)

    def _copy(self, stop: int) -> Walk[Block]:
        assert self._old is not None  # the old file has bytes here
        walk = reader.read_file(self._old.cid, self.size_bytes, stop)
        answer: Buffer | None = None
        while True:
            try:
                item = walk.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(item, Want):
                answer = yield item
            else:
                yield from self.write(item)

    def write(self, data: Buffer) -> Walk[Block]:
        """New bytes at the end of what is there."""
        self._pending += data
        self.size_bytes += len(data)
        while len(self._pending) >= self._chunk_bytes:
            chunk = bytes(self._pending[: self._chunk_bytes])
            del self._pending[: self._chunk_bytes]
            yield from self._new(self._tree.add(make_leaf(self._profile, chunk)))

    def finish(self, mode: int | None, mtime: Mtime | None) -> Walk[Block]:
        """The last blocks; `link` is the file then."""
        if self._pending or not self.size_bytes:
            yield from self._new(self._tree.add(make_leaf(self._profile, bytes(self._pending))))
        self.link, blocks = self._tree.finish(mode, mtime)
        yield from self._new(blocks)


def _require_size(profile: ImportProfile, size_bytes: int) -> None:
    if size_bytes > MAX_CHUNKS * fixed_chunk_bytes(profile):
        raise LimitExceeded(f"a file of {size_bytes} bytes; at most {MAX_CHUNKS} chunks are written into")


def rewrite(
    profile: ImportProfile,
    old: OldFile | None,
    offset: int,
    data: Iterable[Buffer],
    *,
    truncate: bool = False,
    mode: int | None = None,
    mtime: Mtime | None = None,
) -> Walk[Block | Link]:
    """Yields the new blocks of a file with `data` written at `offset`, and last of all its Link.

    Behind the old end there are zeros. `truncate` drops what the old file had before the data is written
    (zeros up to `offset` are left). `old` None is an empty file. Raises LimitExceeded over MAX_CHUNKS.
    """
    _require_size(profile, offset)
    if old is not None and old.size_bytes <= fixed_chunk_bytes(profile) and (mode, mtime) != (None, None):
        old = old._replace(chunks={})  # a file of one chunk with attributes holds it in its root
    writer = Writer(profile, None if truncate else old)
    yield from writer.keep(offset)
    for piece in data:
        _require_size(profile, writer.size_bytes + len(piece))
        yield from writer.write(piece)
    if not truncate and old is not None:
        yield from writer.keep(old.size_bytes, last=True)
    yield from writer.finish(mode, mtime)
    assert writer.link is not None  # finish sets it
    yield writer.link
