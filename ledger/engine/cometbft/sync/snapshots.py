"""The snapshots that this node serves to others over CometBFT's state sync.

In ABCI's words: of format `FORMAT`, `metadata` is the manifest (`ledger.snapshot`), `hash` its SHA-256, and
chunk number n the n-th chunk that it names. The same block has the same snapshot on every validator, so that
who restores it asks several for its chunks. Source: spec/abci of CometBFT (state sync), statesync/reactor.go.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import BinaryIO, Final

from ledger import snapshot
from ledger.engine.archive import section
from ledger.engine.archive_reader import SnapshotReader
from ledger.engine.errors import InvalidArchive
from ledger.engine.snapshots import Snapshots
from ledger.snapshot import SnapshotManifest
from merkledag import varint
from merkledag.errors import MerkledagError

FORMAT: Final = 1
# Who restores the state after block H needs the light blocks of H, H + 1 and H + 2, maybe from a server that
# is a little behind; without one of them it never looks at that snapshot again.
SHOWN_AFTER_BLOCKS: Final = 4
_HEAD_BYTES: Final = 64  # no length and CID are longer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A snapshot's manifest, and where in its file each chunk begins and ends."""

    manifest: SnapshotManifest
    raw: bytes
    chunks: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A snapshot as others are told of it."""

    height: int
    chunks: int
    hash: bytes
    metadata: bytes


class SnapshotServer:
    """Reads from one ledger's snapshots; in any thread, one call at a time.

    What cannot be read is not served, and a damaged file is dropped with a message: for a wrong chunk a peer
    would turn away from this node.
    """

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._opened: dict[int, _Opened] = {}

    def offers(self, tip: int) -> list[Offer]:
        """Those that a node can restore when the chain is at `tip`."""
        return [
            Offer(height, len(opened.chunks), opened.manifest.cid.digest, opened.raw)
            for height in self._snapshots.heights()
            if 0 < height <= tip - SHOWN_AFTER_BLOCKS and (opened := self._open(height)) is not None
        ]

    def chunk(self, height: int, index: int) -> bytes:
        """The bytes of a chunk; b"" for what is not here."""
        opened = self._open(height) if height in self._snapshots.heights() else None
        if opened is None or not 0 <= index < len(opened.chunks):
            return b""
        self._snapshots.note_read(height)
        start, end = opened.chunks[index]
        try:
            with self._snapshots.path(height).open("rb") as file:
                file.seek(start)
                raw = file.read(end - start)
        except OSError as error:
            _log.warning("chunk %d of the snapshot of block %d is not served: %s", index, height, error)
            return b""
        if not snapshot.names(opened.manifest.chunks[index], raw):
            self._give_up(height, f"its chunk {index} has other bytes than were written")
            return b""
        return raw

    def _open(self, height: int) -> _Opened | None:
        for gone in self._opened.keys() - set(self._snapshots.heights()):
            del self._opened[gone]
        if height not in self._opened:
            try:
                with self._snapshots.path(height).open("rb") as file:
                    self._opened[height] = _opened(file)
            except FileNotFoundError:
                return None
            except (OSError, InvalidArchive, MerkledagError, ValueError) as error:
                self._give_up(height, str(error))
                return None
        return self._opened[height]

    def _give_up(self, height: int, why: str) -> None:
        _log.error("the snapshot of block %d is damaged and dropped: %s", height, why)
        self._opened.pop(height, None)
        try:
            self._snapshots.drop(height)
        except OSError as error:
            _log.error("it cannot be deleted: %s", error)


def _opened(file: BinaryIO) -> _Opened:
    """Reads the manifest, and of each chunk its head alone. Raises ValueError, and as `SnapshotReader`."""
    reader = SnapshotReader(file)
    raw = reader.manifest.encode()
    at = reader.head_bytes + len(section(raw))
    size_bytes = os.fstat(file.fileno()).st_size
    chunks = []
    for cid in reader.manifest.chunks:
        file.seek(at)
        length, used = varint.decode(file.read(_HEAD_BYTES))
        start, end = at + used + len(bytes(cid)), at + used + length
        if not start <= end <= min(size_bytes, start + snapshot.MAX_CHUNK_BYTES):
            raise ValueError(f"the chunk {cid} is cut off")
        chunks.append((start, end))
        at = end
    return _Opened(reader.manifest, raw, tuple(chunks))
