"""A ledger's history as a CAR of its own DAG-CBOR nodes: its forms (docs/operating-a-ledger.md).

The sections of an archive are, in this order: the manifest (the only root) and the genesis; of a chain of
validators, the light block that all of it leads to; where the chain goes on from another one, all sections of
that one's end; the manifest and the chunks of a state, if there is one (`ledger.snapshot`); and the blocks
`first`…`last`, each followed by its signed transactions and, of a chain of validators, by its header. A light
block and a header are LightBlock messages of CometBFT in a node of bytes. `archive_reader` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

from ledger import limits, snapshot
from ledger.engine.blocks import PREVIOUS, Block, node_cid
from ledger.engine.errors import InvalidArchive
from ledger.fields import Digest, FieldError, Link, Uint, Wire, text, uint
from ledger.genesis import Genesis
from ledger.snapshot import SnapshotManifest
from merkledag import block as ipld
from merkledag import car, dag_cbor
from merkledag.cid import CID
from merkledag.errors import MerkledagError

KIND: Final = "holdfast/ledger-archive/2"
CAR_TYPE: Final = "application/vnd.ipld.car"


@dataclass(frozen=True, slots=True)
class Manifest(Wire):
    """What an archive holds: the blocks `first`…`last` of a chain.

    `tip` is the CID of the last block and `app_hash` what it led to; without blocks, `last` is `first` − 1
    and `tip` null. `state` is the CID of the `SnapshotManifest` of one of the blocks, or null; `origin` that
    of the manifest of the chain that this one goes on from, whose last block and state are in it too. `light`
    is the CID of the light block of height `last`, or `last` + 1, which the validators signed; null where an
    operator signs each block, and in an origin, for which the genesis after it stands.
    """

    kind: Annotated[str, text(64)]
    chain: Annotated[str, text(limits.MAX_CHAIN_ID_CHARS)]
    genesis: Link
    first: Annotated[int, uint(1)]
    last: Uint
    tip: Annotated[CID | None, PREVIOUS]
    app_hash: Digest
    state: Annotated[CID | None, PREVIOUS]
    origin: Annotated[CID | None, PREVIOUS]
    light: Annotated[CID | None, PREVIOUS]

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
    """A block as somebody gave it: decoded, its bytes, and those of its transactions and header, if any."""

    block: Block
    raw: bytes
    txs: tuple[bytes, ...]
    light: bytes = b""

    @property
    def size_bytes(self) -> int:
        """How many bytes its nodes have."""
        return len(self.raw) + sum(map(len, self.txs)) + len(self.light)


class Grouping:
    """Puts nodes in the order of an archive together into blocks with their transactions, and headers."""

    def __init__(self, first: int, *, has_headers: bool) -> None:
        self.following = first
        self._has_headers = has_headers
        self._block: tuple[Block, bytes] | None = None
        self._txs: list[bytes] = []

    def add(self, cid: CID, data: bytes) -> GivenBlock | None:
        """The block that this node makes whole, if it does. Raises InvalidArchive for a node out of order."""
        light = b""
        if self._block is None:
            self._block = (self._read_block(data), data)
        elif len(self._txs) == len(self._block[0].txs):
            light = light_of(data)
        elif cid != self._block[0].txs[len(self._txs)]:
            raise InvalidArchive(f"{cid} is not the next transaction of block {self.following}")
        else:
            self._txs.append(data)
        block, raw = self._block
        if len(self._txs) < len(block.txs) or (self._has_headers and not light):
            return None
        given = GivenBlock(block, raw, tuple(self._txs), light)
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
    """A block, its transactions and its header as sections."""
    lights = [light_node(given.light)] if given.light else []
    return b"".join(section(each) for each in (given.raw, *given.txs, *lights))


def light_node(light: bytes) -> bytes:
    """A LightBlock message as a node."""
    return dag_cbor.encode(light)


def light_of(node: bytes) -> bytes:
    """Back from `light_node`; raises InvalidArchive."""
    try:
        light = dag_cbor.decode(node)
    except MerkledagError as error:
        raise InvalidArchive(f"where a header belongs is none: {error}") from error
    if type(light) is not bytes or not light:
        raise InvalidArchive("where a header belongs is none")
    return light


def head(manifest: Manifest, genesis: Genesis, light: bytes = b"") -> bytes:
    """The beginning of an archive; `light` is the message that the manifest names, if it does."""
    raw = manifest.encode()
    nodes = [raw, genesis.encode(), *([light_node(light)] if light else [])]
    return car.header([node_cid(raw)]) + b"".join(map(section, nodes))


def state_manifest(
    items: Iterable[tuple[bytes, bytes]], chain: str, height: int, app_hash: bytes
) -> SnapshotManifest:
    """The manifest of a state, for `write_state`; InvalidSnapshot if it is too large."""
    return snapshot.take(items, chain, height, app_hash, lambda _chunk: None)


def write_state(
    write: Callable[[bytes], object], manifest: SnapshotManifest, items: Iterable[tuple[bytes, bytes]]
) -> None:
    """Its manifest, and its chunks, cut again from the same items, as sections."""
    write(section(manifest.encode()))
    snapshot.take(
        items, manifest.chain, manifest.height, manifest.app_hash, lambda chunk: write(section(chunk))
    )


def write_end(
    write: Callable[[bytes], object],
    genesis: Genesis,
    tip: GivenBlock,
    items: Callable[[], Iterable[tuple[bytes, bytes]]],
) -> None:
    """An archive of a chain's last block and the state after it, for a chain that goes on from there.

    The genesis of that one names both, so nothing in it shows what validators have signed.
    """
    block = tip.block
    state = state_manifest(items(), block.chain, block.height, block.app_hash)
    manifest = Manifest(
        kind=KIND,
        chain=genesis.chain_id,
        genesis=node_cid(genesis.encode()),
        first=block.height,
        last=block.height,
        tip=node_cid(tip.raw),
        app_hash=block.app_hash,
        state=state.cid,
        origin=None,
        light=None,
    )
    write(head(manifest, genesis))
    write_state(write, state, items())
    write(sections(tip._replace(light=b"")))
