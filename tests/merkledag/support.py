"""Blocks in memory, and indexes of archives, for tests."""

from __future__ import annotations

from collections.abc import Iterable

from merkledag import dag_pb, unixfs
from merkledag.block import Block, verify_block
from merkledag.car_index import CarIndex
from merkledag.car_sections import CarSections, Section
from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from merkledag.dag_pb import PBLink, PBNode
from merkledag.unixfs import Data, Kind


class Blocks:
    """A block source that remembers what was asked of it."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self.by_cid: dict[CID, bytes] = {}
        self.asked: list[CID] = []
        self.add(blocks)

    def add(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            verify_block(block.cid, block.data)
            self.by_cid[block.cid] = block.data

    def put(self, data: bytes, codec: int = DAG_PB) -> CID:
        cid = CID.of(data, codec)
        self.by_cid[cid] = data
        return cid

    def put_node(self, links: Iterable[PBLink], message: Data | None) -> CID:
        """A dag-pb node with any links and any UnixFS message, however wrong."""
        data = None if message is None else unixfs.encode(message)
        return self.put(dag_pb.encode(PBNode(tuple(links), data)))

    def put_file(self, children: list[tuple[CID, int]], data: bytes | None = None, **changes: int) -> CID:
        """A file node over (child, size in bytes); `filesize` may be forced to something else."""
        sizes = tuple(size for _, size in children)
        total = changes.get("filesize", sum(sizes) + len(data or b""))
        links = [PBLink(cid, "", size) for cid, size in children]
        return self.put_node(links, Data(Kind.FILE, data, total, sizes))

    def get(self, cid: CID) -> bytes:
        self.asked.append(cid)
        return self.by_cid[cid]

    async def aget(self, cid: CID) -> bytes:
        return self.get(cid)


def index_of(data: bytes, *, identity: bool = False) -> CarIndex:
    """The index of a whole archive."""
    index = CarIndex(identity=identity)
    sections = CarSections()
    sections.feed(data)
    while (item := sections.next()) is not None:
        if isinstance(item, Section):
            index.add(item.cid, item.offset)
    return index
