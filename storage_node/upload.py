"""Takes in one shard's piece, block by block, from bytes that come in any portions; no sockets here.

The erasure manifest comes first, in the order in which its decoder asks for it; then the piece is known, and
only its blocks are taken, in any order, each once. What is here already is never asked for again, so an
upload that broke off goes on where it stopped, also after a restart of the node.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from ledger.transactions import PieceCommitment
from merkledag.block import Block
from merkledag.car import CarDecoder, CarHeader
from merkledag.cid import CID
from merkledag.errors import MerkledagError
from merkledag.steps import Steps, Want, inline
from proofs.erasure.manifest import Manifest, decode_manifest
from proofs.errors import ProofsError
from storage_node.errors import UploadRefused
from storage_node.piece import PieceLayout, piece_layout
from storage_node.wire import MAX_PIECE_BLOCKS, ShardPhase, ShardState

MAX_PENDING_BYTES = 8 * 1024 * 1024
MAX_PENDING_BLOCKS = 512

Find = Callable[[bytes], bytes | None]
Has = Callable[[bytes], bool]
Put = Callable[[Iterable[tuple[bytes, bytes]]], object]


class PieceIntake:
    """The state of one shard that this node has been assigned and does not hold yet. Thread-safe.

    ``find``, ``has`` and ``put`` are the blockstore's; ``expected`` is the shard's commitment on the ledger
    and ``check`` raises UploadRefused for a manifest that is not the deal's.
    """

    def __init__(
        self,
        manifest: CID,
        shard: int,
        expected: PieceCommitment,
        *,
        check: Callable[[Manifest], None],
        find: Find,
        has: Has,
        put: Put,
    ) -> None:
        self._shard = shard
        self._expected = expected
        self._check = check
        self._find = find
        self._has = has
        self._put = put
        self._lock = threading.Lock()
        self._order: dict[bytes, None] = {}
        self._meta_bytes = 0
        self._steps: Steps[Manifest] = decode_manifest(manifest)
        self._want: CID | None = manifest
        self._started = False
        self._missing: dict[bytes, int] = {}
        self.layout: PieceLayout | None = None
        self.error: str | None = None
        self._invalid: str | None = None

    def resume(self) -> None:
        """Read as much of the manifest as is in the store, and see which blocks of the piece are."""
        with self._lock:
            self._advance(None, {})

    def state(self) -> ShardState:
        """What is still missing."""
        with self._lock:
            layout = self.layout
            if layout is None:
                return ShardState(ShardPhase.MANIFEST, error=self.error)
            phase = ShardPhase.BLOCKS if self._missing else ShardPhase.CHECKING
            return ShardState(phase, layout.count, frozenset(self._missing.values()), self.error)

    @property
    def complete(self) -> bool:
        """Whether every block of the piece is in the store."""
        with self._lock:
            return self.layout is not None and not self._missing

    @property
    def wanted_manifest_block(self) -> CID | None:
        """The manifest's block that must come next.

        None once the manifest is complete or known to be invalid.
        """
        with self._lock:
            return None if self._invalid is not None else self._want

    def missing(self) -> list[bytes]:
        """The multihashes of the blocks that are still to come, in the piece's order.

        None before the manifest.
        """
        with self._lock:
            return list(self._missing)

    def remaining_bytes(self) -> int:
        """An upper bound of what is still to be stored."""
        with self._lock:
            if self.layout is not None and not self._missing:
                return 0
            return max(0, self._expected.data_bytes + self._expected.meta_bytes - self._meta_bytes)

    def wanted(self) -> list[bytes]:
        """The multihashes of the blocks that the upload needs, as far as they are known, here or not."""
        with self._lock:
            if self.layout is None:
                return list(self._order)
            return [*self.layout.meta, *self.layout.data]

    def take(self, blocks: Iterable[Block]) -> None:
        """Store verified blocks of the piece. Raises UploadRefused for others, and what the store does."""
        with self._lock:
            fresh: dict[bytes, bytes] = {}
            try:
                for block in blocks:
                    self._sort(block, fresh)
            except UploadRefused as refusal:
                self.error = str(refusal)
                raise
            finally:
                # What came before a refused block is good, and the manifest's decoder has moved past it.
                if fresh:
                    self._put(fresh.items())
                    for multihash in fresh:
                        self._missing.pop(multihash, None)

    def _sort(self, block: Block, fresh: dict[bytes, bytes]) -> None:
        if self._invalid is not None:
            raise UploadRefused(self._invalid)
        if self.layout is None:
            self._take_manifest_block(block, fresh)
        elif block.cid.multihash in self._missing:
            fresh[block.cid.multihash] = block.data
        elif block.cid.multihash not in self.layout:
            raise UploadRefused(f"block {block.cid} is no part of shard {self._shard}")

    def _take_manifest_block(self, block: Block, fresh: dict[bytes, bytes]) -> None:
        if block.cid.multihash in self._order:
            return
        want = self._want
        if want is None or block.cid.multihash != want.multihash:
            raise UploadRefused(f"block {block.cid} came where the manifest's block {want} belongs")
        fresh[block.cid.multihash] = block.data
        self._advance(block.data, fresh)

    def _advance(self, data: bytes | None, fresh: Mapping[bytes, bytes]) -> None:
        """Drive the manifest's decoder with the awaited block, then with whatever else is here."""
        try:
            if not self._started:
                self._want = next(self._steps).cid
                self._started = True
            while self._want is not None:
                if data is None:
                    data = inline(self._want) or fresh.get(self._want.multihash)
                if data is None:
                    data = self._find(self._want.multihash)
                if data is None:
                    return
                self._count_manifest_block(self._want, data)
                want: Want = self._steps.send(data)
                self._want, data = want.cid, None
        except StopIteration as stop:
            self._want = None
            self._know(stop.value, fresh)
        except (MerkledagError, ProofsError) as error:
            # The deal names the manifest by its hash, so nothing that is sent later can mend this.
            self.error = self._invalid = f"the manifest is not valid: {error}"
            raise UploadRefused(self._invalid) from error

    def _count_manifest_block(self, cid: CID, data: bytes) -> None:
        if cid.is_identity:
            return
        if cid.multihash not in self._order:
            self._order[cid.multihash] = None
            self._meta_bytes += len(data)
        if self._meta_bytes > self._expected.meta_bytes:
            raise UploadRefused("the manifest is longer than the deal's whole metadata part")

    def _know(self, manifest: Manifest, fresh: Mapping[bytes, bytes]) -> None:
        """The manifest is complete: now the piece is known."""
        try:
            self._check(manifest)
        except UploadRefused as refusal:
            self.error = self._invalid = str(refusal)
            raise
        layout = piece_layout(list(self._order), manifest, self._shard)
        if layout.count > MAX_PIECE_BLOCKS:
            raise UploadRefused(f"a piece of {layout.count} blocks; at most {MAX_PIECE_BLOCKS} are taken")
        self._missing = {
            multihash: position
            for position, multihash in enumerate([*layout.meta, *layout.data])
            if multihash not in fresh and not self._has(multihash)
        }
        self.layout = layout


class CarIntake:
    """One upload connection: CAR bytes in, blocks into the intake in bounded portions."""

    def __init__(self, intake: PieceIntake) -> None:
        self._intake = intake
        self._decoder = CarDecoder()
        self._pending: list[Block] = []
        self._pending_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes; hashes, so call it in a thread. Raises UploadRefused, and what `put` does."""
        try:
            self._decoder.feed(data)
            while (item := self._decoder.next()) is not None:
                if isinstance(item, CarHeader) or item.cid.is_identity:
                    continue
                self._pending.append(item)
                self._pending_bytes += len(item.data)
                if self._pending_bytes >= MAX_PENDING_BYTES or len(self._pending) >= MAX_PENDING_BLOCKS:
                    self._flush()
        except MerkledagError as error:
            raise UploadRefused(f"the CAR is not valid: {error}") from error

    def finish(self) -> None:
        """The CAR ends here. Raises UploadRefused when it was cut off; what was whole is stored."""
        self._flush()
        try:
            self._decoder.finish()
        except MerkledagError as error:
            raise UploadRefused(f"the CAR is not valid: {error}") from error

    def abandon(self, rest: bytes) -> None:
        """The connection broke after ``rest``: keep the whole blocks that arrived."""
        self.feed(rest)
        self._flush()

    def _flush(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        self._intake.take(pending)
