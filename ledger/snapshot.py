"""A state at a height as chunks of bounded size and a manifest that names them, and back again.

A chunk is a DAG-CBOR list of [key, value] pairs, keys ascending through all chunks; it ends with the pair
with which it has `CHUNK_BYTES` or more (what is cut in another way is refused). The same state gives the same
chunks, and everything is named by its CID. That the chunks are the state of a block shows in the app hash,
once they are in a store (`ingest.fill`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

from ledger import limits
from ledger.errors import InvalidSnapshot
from ledger.fields import LINK, Digest, FieldError, Uint, Wire, sequence, text
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from merkledag.errors import MerkledagError

KIND = "holdfast/ledger-snapshot/1"
CHUNK_BYTES = 512 << 10
MAX_CHUNK_BYTES = 2 << 20
MAX_CHUNKS = 40_000  # so that a manifest is no larger than a block may be
MAX_MANIFEST_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class SnapshotManifest(Wire):
    """What a snapshot holds: `items` pairs in these chunks, the state after block `height` of a chain."""

    kind: Annotated[str, text(64)]
    chain: Annotated[str, text(limits.MAX_CHAIN_ID_CHARS)]
    height: Uint
    app_hash: Digest
    items: Uint
    chunks: Annotated[tuple[CID, ...], sequence(LINK, MAX_CHUNKS)]

    def encode(self) -> bytes:
        """Canonical DAG-CBOR."""
        return dag_cbor.encode(self.to_map())

    @property
    def cid(self) -> CID:
        """What names the snapshot."""
        return CID.of(self.encode(), codec=DAG_CBOR)

    @classmethod
    def decode(cls, raw: bytes) -> SnapshotManifest:
        """From canonical bytes; raises InvalidSnapshot."""
        if len(raw) > MAX_MANIFEST_BYTES:
            raise InvalidSnapshot(f"a snapshot's manifest has at most {MAX_MANIFEST_BYTES} bytes")
        try:
            found = cls.from_map(dag_cbor.decode(raw))
        except (MerkledagError, FieldError) as error:
            raise InvalidSnapshot(f"this is no snapshot of a ledger: {error}") from error
        if found.kind != KIND:
            raise InvalidSnapshot(f"a snapshot of kind {found.kind!r}: use the release that wrote it")
        return found


def take(
    items: Iterable[tuple[bytes, bytes]],
    chain: str,
    height: int,
    app_hash: bytes,
    keep: Callable[[bytes], object],
) -> SnapshotManifest:
    """The manifest of a state, whose items come in order; `keep` is given chunk after chunk.

    Memory is that of one chunk. Raises InvalidSnapshot if the state is too large for MAX_CHUNKS.
    """
    count, chunks = 0, list[CID]()
    for pairs in _cut(items):
        if len(chunks) == MAX_CHUNKS:
            raise InvalidSnapshot(f"the state does not fit into {MAX_CHUNKS} chunks")
        raw = dag_cbor.encode(pairs)
        keep(raw)
        count += len(pairs)
        chunks.append(CID.of(raw, codec=DAG_CBOR))
    return SnapshotManifest(KIND, chain, height, app_hash, count, tuple(chunks))


def _cut(items: Iterable[tuple[bytes, bytes]]) -> Iterator[list[list[bytes]]]:
    pairs: list[list[bytes]] = []
    size = 0
    for key, value in items:
        pairs.append([key, value])
        size += len(key) + len(value)
        if size >= CHUNK_BYTES:
            yield pairs
            pairs, size = [], 0
    if pairs:
        yield pairs


class Reader:
    """Checks the chunks of a manifest in their order, as they come, each before anything is done with it."""

    def __init__(self, manifest: SnapshotManifest) -> None:
        self._manifest = manifest
        self._last = b""
        self._items = 0
        self.following = 0  # the number of the chunk that comes next

    def take(self, raw: bytes) -> list[tuple[bytes, bytes]]:
        """The items of the next chunk; raises InvalidSnapshot, and waits for the same chunk then.

        Of bytes that the manifest names (`names`) it is the manifest's maker who meant them so.
        """
        if self.following == len(self._manifest.chunks):
            raise InvalidSnapshot(f"the snapshot has {self.following} chunks")
        chunk = self._manifest.chunks[self.following]
        if not names(chunk, raw):
            raise InvalidSnapshot(f"the chunk {chunk} has other bytes than its name says")
        last, items, before, size = self._last, list[tuple[bytes, bytes]](), 0, 0
        for key, value in _pairs(chunk, raw):
            if key <= last:
                raise InvalidSnapshot(f"the keys in chunk {chunk} are out of order")
            last = key
            items.append((key, value))
            before, size = size, size + len(key) + len(value)
        is_last = self.following + 1 == len(self._manifest.chunks)
        if not items or before >= CHUNK_BYTES or (size < CHUNK_BYTES and not is_last):
            raise InvalidSnapshot(f"the chunk {chunk} is cut elsewhere than a snapshot's are")
        self._last = last
        self._items += len(items)
        self.following += 1
        return items

    def finish(self) -> None:
        """Raises InvalidSnapshot unless that was all of it."""
        if self.following != len(self._manifest.chunks) or self._items != self._manifest.items:
            raise InvalidSnapshot(
                f"the chunks hold {self._items} items, the manifest says {self._manifest.items}"
            )


def names(chunk: CID, raw: bytes) -> bool:
    """Whether these are a chunk's bytes."""
    return len(raw) <= MAX_CHUNK_BYTES and CID.of(raw, codec=DAG_CBOR) == chunk


def read(manifest: SnapshotManifest, get: Callable[[CID], bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The items in order, chunk after chunk; raises InvalidSnapshot if they are not what they should be."""
    reader = Reader(manifest)
    for chunk in manifest.chunks:
        yield from reader.take(get(chunk))
    reader.finish()


def _pairs(chunk: CID, raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    try:
        pairs = dag_cbor.decode(raw)
    except MerkledagError as error:
        raise InvalidSnapshot(f"the chunk {chunk} does not decode: {error}") from error
    if not isinstance(pairs, list):
        raise InvalidSnapshot(f"the chunk {chunk} is no list")
    for pair in pairs:
        match pair:
            case [bytes() as key, bytes() as value]:
                yield key, value
            case _:
                raise InvalidSnapshot(f"the chunk {chunk} holds something else than pairs")
