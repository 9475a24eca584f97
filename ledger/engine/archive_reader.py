"""Reads an archive or a snapshot from its beginning, once, each node checked against its CID and its place.

Whether the blocks follow from each other and lead to the state, `archive_replay` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from ledger import snapshot
from ledger.engine.archive import GivenBlock, Grouping, Manifest, light_of, section
from ledger.engine.blocks import node_cid
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.errors import InvalidArchive
from ledger.errors import InvalidGenesis, InvalidSnapshot
from ledger.genesis import Genesis
from ledger.snapshot import SnapshotManifest
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
        self.light = self._read_light()
        self.origin: Contents | None = None
        if self.manifest.origin is not None:
            copying = take if copy_origin is None else _copying(take, copy_origin)
            self.origin = Contents(copying, self.manifest.origin, is_origin=True)
        self._state: Iterator[tuple[bytes, bytes]] | None = None
        self.state_manifest: SnapshotManifest | None = None
        self.begun = False  # whether the blocks are next: all before them was read

    def _read_light(self) -> LightBlock | None:
        """The light block that the chain leads to, if there is one; `Links` knows whether there has to be."""
        manifest = self.manifest
        if manifest.light is None:
            return None
        if not self.genesis.validators or manifest.tip is None:
            raise InvalidArchive("it shows who signed where no validator has to")
        node = self._need(manifest.light, "last light block")
        self.offset += len(section(node))
        try:
            light = LightBlock.decode(light_of(node))
        except InvalidLightBlock as error:
            raise InvalidArchive(f"where its last light block belongs is none: {error}") from error
        if light.height - manifest.last not in (0, 1):
            raise InvalidArchive(f"header {light.height} signs no archive that ends at block {manifest.last}")
        return light

    def read_state_manifest(self) -> SnapshotManifest | None:
        """What the archive says of its state, the chain of before passed over."""
        if self.origin is not None and not self.origin.begun:
            for _ in self.origin.blocks():
                pass
            self.offset += self.origin.offset
        if self.state_manifest is None and self.manifest.state is not None:
            found = self.state_manifest = _take_state_manifest(self._take, self.manifest.state)
            if found.chain != self.manifest.chain or not (
                self.manifest.first <= found.height <= self.manifest.last
            ):
                raise InvalidArchive("its state is that of a block that it does not hold")
            self.offset += len(section(found.encode()))
        return self.state_manifest

    def state(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of the state, once; nothing if there is none. Its app hash is not checked."""
        if self._state is None:
            self._state = self._read_state()
        return self._state

    def _read_state(self) -> Iterator[tuple[bytes, bytes]]:
        manifest = self.read_state_manifest()
        if manifest is not None:
            yield from _take_state(self._counted, manifest)

    def _counted(self) -> ipld.Block:
        node = self._take()
        self.offset += len(section(node.data))
        return node

    def blocks(self) -> Iterator[GivenBlock]:
        """Every block in order; raises InvalidArchive where one lacks."""
        for _ in self.state():
            pass
        self.begun = True
        grouping = Grouping(self.manifest.first, has_headers=self.light is not None)
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


class Nodes:
    """The nodes of a CAR in a file, each checked against its CID; `root` is its only root."""

    def __init__(self, file: Readable) -> None:
        """Reads the header."""
        self._file = file
        self._decoder = car.CarDecoder()
        header = self._next()
        if not isinstance(header, car.CarHeader) or len(header.roots) != 1:
            raise InvalidArchive("an archive of a ledger has one root")
        self.root = header.roots[0]
        self.head_bytes = len(car.header(header.roots))

    def take(self) -> ipld.Block:
        """The next node. Raises InvalidArchive at the end, MerkledagError for what is no CAR or cut off."""
        found = self._next()
        if found is None:
            raise InvalidArchive("the archive ends before its last block")
        assert isinstance(found, ipld.Block), "there is one header"
        return found

    def finish(self) -> None:
        """Raises InvalidArchive unless that was the last node."""
        if self._next() is not None:
            raise InvalidArchive("more follows the last block")

    def _next(self) -> car.CarHeader | ipld.Block | None:
        while (item := self._decoder.next()) is None:
            data = self._file.read(READ_BYTES)
            if not data:
                self._decoder.finish()
                return None
            self._decoder.feed(data)
        return item


class ArchiveReader:
    """An archive in a file: `contents` is its chain."""

    def __init__(self, file: Readable, copy_origin: Callable[[bytes], object] | None = None) -> None:
        self._nodes = Nodes(file)
        self.contents = Contents(self._nodes.take, self.root, copy_origin)

    @property
    def root(self) -> CID:
        """The CID of the manifest."""
        return self._nodes.root

    @property
    def offset(self) -> int:
        """Where the last whole step of the contents ends."""
        return self._nodes.head_bytes + self.contents.offset

    def blocks(self) -> Iterator[GivenBlock]:
        """The chain's blocks; nothing may follow them."""
        yield from self.contents.blocks()
        self._nodes.finish()


class SnapshotReader:
    """A snapshot in a file (`ledger.engine.snapshots`): its manifest, and its state, once."""

    def __init__(self, file: Readable) -> None:
        self._nodes = Nodes(file)
        self.head_bytes = self._nodes.head_bytes  # what follows are the sections of a state
        self.manifest = _take_state_manifest(self._nodes.take, self._nodes.root)

    def state(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values; nothing may follow them."""
        yield from _take_state(self._nodes.take, self.manifest)
        self._nodes.finish()


def _take_state_manifest(take: Take, cid: CID) -> SnapshotManifest:
    node = take()
    if node.cid != cid:
        raise InvalidArchive("the archive has another node where its state belongs")
    try:
        return SnapshotManifest.decode(node.data)
    except InvalidSnapshot as error:
        raise InvalidArchive(str(error)) from error


def _take_state(take: Take, manifest: SnapshotManifest) -> Iterator[tuple[bytes, bytes]]:
    try:
        yield from snapshot.read(manifest, lambda _chunk: take().data)
    except InvalidSnapshot as error:
        raise InvalidArchive(str(error)) from error
