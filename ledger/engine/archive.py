"""A ledger's history as a CAR of its own DAG-CBOR nodes: what is in it, and reading it (docs/ledger-rpc.md).

The sections of a whole archive are, in this order: the manifest (the only root), the genesis, the parts of a
snapshot if there is one, and the blocks `first`…`last`, each followed by its signed transactions. Every
node's CID is checked while it is read; whether the blocks follow from each other, `archive_replay` says.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple, Protocol

from ledger import limits
from ledger.engine.blocks import PREVIOUS, Block, node_cid
from ledger.engine.errors import InvalidArchive
from ledger.errors import InvalidGenesis
from ledger.fields import Digest, FieldError, Link, Uint, Wire, text, uint
from ledger.genesis import Genesis
from merkledag import block as ipld
from merkledag import car, dag_cbor
from merkledag.cid import CID
from merkledag.errors import MerkledagError

KIND: Final = "holdfast/ledger-archive/1"
CAR_TYPE: Final = "application/vnd.ipld.car"
READ_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Manifest(Wire):
    """What an archive holds: the blocks `first`…`last` of a chain.

    `tip` is the CID of the last block and `app_hash` what it led to; without blocks, `last` is `first` − 1
    and `tip` null. `snapshot` is the root of a state at some height from `first` − 1 to `last`, or null.
    """

    kind: Annotated[str, text(64)]
    chain: Annotated[str, text(limits.MAX_CHAIN_ID_CHARS)]
    genesis: Link
    first: Annotated[int, uint(1)]
    last: Uint
    tip: Annotated[CID | None, PREVIOUS]
    app_hash: Digest
    snapshot: Annotated[CID | None, PREVIOUS]

    def encode(self) -> bytes:
        """Canonical DAG-CBOR."""
        return dag_cbor.encode(self.to_map())

    @classmethod
    def decode(cls, raw: bytes) -> Manifest:
        """From canonical bytes; raises InvalidArchive."""
        try:
            found = cls.from_map(dag_cbor.decode(raw))
        except (MerkledagError, FieldError) as error:
            raise InvalidArchive(f"this is no archive of a ledger: {error}") from error
        if found.kind != KIND:
            raise InvalidArchive(f"an archive of kind {found.kind!r}: use the release that wrote it")
        if found.last < found.first - 1 or (found.tip is None) != (found.last == found.first - 1):
            raise InvalidArchive(f"the archive claims blocks {found.first} to {found.last}: it is damaged")
        return found


class GivenBlock(NamedTuple):
    """A block as somebody gave it: decoded, its bytes, and those of its transactions."""

    block: Block
    raw: bytes
    txs: tuple[bytes, ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes its nodes have."""
        return len(self.raw) + sum(map(len, self.txs))


def check_link(given: GivenBlock, genesis: Genesis, prev: CID | None) -> None:
    """Raises InvalidArchive for a block that is not the operator's, or does not follow `prev`."""
    block = given.block
    if block.chain != genesis.chain_id or block.account != genesis.operator or not block.verify():
        raise InvalidArchive(
            f"block {block.height} is not of chain {genesis.chain_id}, signed by its operator"
        )
    if block.prev != prev:
        raise InvalidArchive(f"block {block.height} does not follow the block that came before it")


class Grouping:
    """Puts nodes in the order of an archive together into blocks with their transactions."""

    def __init__(self, first: int) -> None:
        self.following = first
        self._block: tuple[Block, bytes] | None = None
        self._txs: list[bytes] = []

    @property
    def is_between(self) -> bool:
        """Whether no block is half given."""
        return self._block is None

    def add(self, cid: CID, data: bytes) -> GivenBlock | None:
        """The block that this node makes whole, if it does. Raises InvalidArchive for a node out of order."""
        if self._block is None:
            self._block = (self._read_block(data), data)
        elif cid != self._block[0].txs[len(self._txs)]:
            raise InvalidArchive(f"{cid} is not the next transaction of block {self.following}")
        else:
            self._txs.append(data)
        block, raw = self._block
        if len(self._txs) < len(block.txs):
            return None
        given = GivenBlock(block, raw, tuple(self._txs))
        self.following += 1
        self._block, self._txs = None, []
        return given

    def _read_block(self, data: bytes) -> Block:
        try:
            block = Block.decode(data)
        except ValueError as error:
            raise InvalidArchive(f"where block {self.following} belongs is none: {error}") from error
        if block.height != self.following:
            raise InvalidArchive(f"block {block.height} stands where block {self.following} belongs")
        return block


def section(data: bytes) -> bytes:
    """A node as a section of the archive."""
    return car.frame(ipld.Block(node_cid(data), data))


def sections(given: GivenBlock) -> bytes:
    """A block and its transactions as sections."""
    return b"".join(section(each) for each in (given.raw, *given.txs))


def head(manifest: Manifest, genesis: Genesis) -> bytes:
    """The beginning of an archive."""
    raw = manifest.encode()
    return car.header([node_cid(raw)]) + section(raw) + section(genesis.encode())


class Readable(Protocol):
    """A file, or whatever else gives its bytes in portions."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


class ArchiveReader:
    """Reads an archive from its beginning, once.

    Raises InvalidArchive, and MerkledagError for what is no CAR.
    """

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = car.CarDecoder()
        self._nodes = self._read()
        root = self._need_root()
        manifest = self._take()
        if manifest.cid != root:
            raise InvalidArchive("the archive does not begin with its root")
        self.manifest = Manifest.decode(manifest.data)
        genesis = self._take()
        if genesis.cid != self.manifest.genesis:
            raise InvalidArchive("the genesis does not follow the manifest")
        try:
            self.genesis = Genesis.decode(genesis.data)
        except InvalidGenesis as error:
            raise InvalidArchive(f"its genesis is none: {error}") from error
        if self.genesis.chain_id != self.manifest.chain:
            raise InvalidArchive(f"its genesis is that of chain {self.genesis.chain_id}")
        self.offset = len(head(self.manifest, self.genesis))  # where the last whole block ends

    def blocks(self) -> Iterator[GivenBlock]:
        """Every block in order. Raises InvalidArchive where one lacks, TruncatedCar where the file is cut."""
        grouping = Grouping(self.manifest.first)
        while grouping.following <= self.manifest.last:
            node = self._take()
            given = grouping.add(node.cid, node.data)
            if given is None:
                continue
            if given.block.height == self.manifest.last and node_cid(given.raw) != self.manifest.tip:
                raise InvalidArchive(f"block {self.manifest.last} is not the one that the manifest names")
            self.offset += len(sections(given))
            yield given
        if next(self._nodes, None) is not None:
            raise InvalidArchive("more follows the last block")

    def _need_root(self) -> CID:
        found = next(self._nodes)
        assert isinstance(found, car.CarHeader), "a decoder gives the header first, or raises"
        if len(found.roots) != 1:
            raise InvalidArchive("an archive of a ledger has one root")
        return found.roots[0]

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
