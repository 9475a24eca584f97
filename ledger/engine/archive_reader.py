"""Reads an archive from its beginning, once, every node checked against its CID and its place.

Whether the blocks follow from each other and lead to the state, `archive_replay` says.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Final, Protocol

from ledger.engine.archive import GivenBlock, Grouping, Manifest, StateRoot, read_part, section
from ledger.engine.blocks import node_cid
from ledger.engine.errors import InvalidArchive
from ledger.errors import InvalidGenesis
from ledger.genesis import Genesis
from merkledag import block as ipld
from merkledag import car
from merkledag.cid import CID

READ_BYTES: Final = 256 << 10
Take = Callable[[], ipld.Block]


class Readable(Protocol):
    """A file, or whatever else gives its bytes in portions."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


def _copying(take: Take, copy: Callable[[bytes], object]) -> Take:
    def taken() -> ipld.Block:
        node = take()
        copy(node.data)
        return node

    return taken


class Contents:
    """One chain in an archive. `state` and `blocks` are read in this order; what is passed over is checked.

    Methods raise InvalidArchive, and MerkledagError for what is no CAR or cut off.
    """

    def __init__(
        self,
        take: Take,
        root: CID,
        copy_origin: Callable[[bytes], object] | None = None,
        *,
        is_origin: bool = False,
    ) -> None:
        """`copy_origin` gets the nodes of the chain that this one goes on from, as they are read."""
        self._take = take
        self.offset = 0  # bytes of the sections up to the last whole step: beginning, state, block
        manifest = self._need(root, "manifest")
        self.manifest = Manifest.decode(manifest)
        genesis = self._need(self.manifest.genesis, "genesis")
        try:
            self.genesis = Genesis.decode(genesis)
        except InvalidGenesis as error:
            raise InvalidArchive(f"its genesis is none: {error}") from error
        if self.genesis.chain_id != self.manifest.chain:
            raise InvalidArchive(f"its genesis is that of chain {self.genesis.chain_id}")
        if self.manifest.origin is not None and (self.genesis.origin is None or is_origin):
            raise InvalidArchive("it holds a chain that it does not go on from")
        self.offset = len(section(manifest)) + len(section(genesis))
        self.origin: Contents | None = None
        if self.manifest.origin is not None:
            copying = take if copy_origin is None else _copying(take, copy_origin)
            self.origin = Contents(copying, self.manifest.origin, is_origin=True)
        self._state: Iterator[tuple[bytes, bytes]] | None = None
        self.state_root: StateRoot | None = None
        self.begun = False  # whether the blocks are next: all before them was read

    def read_state_root(self) -> StateRoot | None:
        """What the archive says of its state, the chain of before passed over."""
        if self.origin is not None and not self.origin.begun:
            for _ in self.origin.blocks():
                pass
            self.offset += self.origin.offset
        if self.state_root is None and self.manifest.state is not None:
            raw = self._need(self.manifest.state, "state")
            self.state_root = StateRoot.decode(raw)
            if not self.manifest.first <= self.state_root.height <= self.manifest.last:
                raise InvalidArchive("its state is that of a block that it does not hold")
            self.offset += len(section(raw))
        return self.state_root

    def state(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of the state, once; nothing if there is none. Its app hash is not checked."""
        if self._state is None:
            self._state = self._read_state()
        return self._state

    def _read_state(self) -> Iterator[tuple[bytes, bytes]]:
        root = self.read_state_root()
        for cid in root.parts if root is not None else ():
            raw = self._need(cid, "next part of the state")
            self.offset += len(section(raw))
            yield from read_part(raw)

    def blocks(self) -> Iterator[GivenBlock]:
        """Every block in order; raises InvalidArchive where one lacks."""
        for _ in self.state():
            pass
        self.begun = True
        grouping = Grouping(self.manifest.first)
        size_bytes = 0
        while grouping.following <= self.manifest.last:
            node = self._take()
            size_bytes += len(section(node.data))
            given = grouping.add(node.cid, node.data)
            if given is None:
                continue
            if given.block.height == self.manifest.last and node_cid(given.raw) != self.manifest.tip:
                raise InvalidArchive(f"block {self.manifest.last} is not the one that the manifest names")
            self.offset += size_bytes
            size_bytes = 0
            yield given

    def _need(self, cid: CID, what: str) -> bytes:
        node = self._take()
        if node.cid != cid:
            raise InvalidArchive(f"the archive has another node where its {what} belongs")
        return node.data


class ArchiveReader:
    """An archive in a file: `contents` is its chain."""

    def __init__(self, file: Readable, copy_origin: Callable[[bytes], object] | None = None) -> None:
        self._file = file
        self._decoder = car.CarDecoder()
        self._nodes = self._read()
        header = next(self._nodes)
        assert isinstance(header, car.CarHeader), "a decoder gives the header first, or raises"
        if len(header.roots) != 1:
            raise InvalidArchive("an archive of a ledger has one root")
        self._head_bytes = len(car.header(header.roots))
        self.root = header.roots[0]
        self.contents = Contents(self._take, self.root, copy_origin)

    @property
    def offset(self) -> int:
        """Where the last whole step of the contents ends."""
        return self._head_bytes + self.contents.offset

    def blocks(self) -> Iterator[GivenBlock]:
        """The chain's blocks; nothing may follow them."""
        yield from self.contents.blocks()
        if next(self._nodes, None) is not None:
            raise InvalidArchive("more follows the last block")

    def _take(self) -> ipld.Block:
        found = next(self._nodes, None)
        if found is None:
            raise InvalidArchive("the archive ends before its last block")
        assert isinstance(found, ipld.Block), "there is one header"
        return found

    def _read(self) -> Generator[car.CarHeader | ipld.Block, None, None]:
        while True:
            item = self._decoder.next()
            if item is not None:
                yield item
                continue
            data = self._file.read(READ_BYTES)
            if not data:
                self._decoder.finish()
                return
            self._decoder.feed(data)
