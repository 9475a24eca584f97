"""State sync: the four ABCI requests by which nodes give each other snapshots, and begin with one.

CometBFT looks for snapshots, has the app hash of the block proven by its light client, and brings the chunks
in their order. What is wrong with one it is told in the answer: whose fault it is, and what to fetch again.
Source: spec/abci of CometBFT (state sync), statesync/syncer.go.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.abci.messages import ApplySnapshotChunkResult as Applied
from ledger.engine.cometbft.abci.messages import OfferSnapshotResult as Offered
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.cometbft.sync import restore
from ledger.engine.cometbft.sync.restore import Restoration
from ledger.engine.cometbft.sync.snapshots import FORMAT, SnapshotServer
from ledger.engine.errors import StoreError
from ledger.engine.snapshots import Snapshots
from ledger.engine.storage import LedgerStorage
from ledger.errors import InvalidSnapshot
from ledger.genesis import Genesis
from ledger.snapshot import MAX_MANIFEST_BYTES, SnapshotManifest

# For who reads the state that is replaced: a snapshot of it may be under way.
READERS_S = 300.0

_log = logging.getLogger(__name__)


class StateSync:
    """Handlers of one ledger. `tip` gives the height of its last block.

    `restored` is called when another state has been put in the store's place: the application begins anew.
    It runs in the event loop, and nothing is asked of the store meanwhile.
    """

    def __init__(
        self,
        storage: LedgerStorage,
        genesis: Genesis,
        snapshots: Snapshots,
        tip: Callable[[], int],
        restored: Callable[[], object],
    ) -> None:
        self._storage = storage
        self._genesis = genesis
        self._server = SnapshotServer(snapshots)
        self._tip = tip
        self._restored = restored
        self._restoration: Restoration | None = None
        self._lock = asyncio.Lock()
        restore.clear(storage.folder)

    def close(self) -> None:
        """Gives up what is being restored."""
        restoration, self._restoration = self._restoration, None
        if restoration is not None:
            restoration.close()
            restore.clear(self._storage.folder)

    async def list_snapshots(self, _request: Any) -> Any:
        """ResponseListSnapshots: what this node serves."""
        async with self._lock:
            offers = await asyncio.to_thread(self._server.offers, self._tip())
        return messages.ResponseListSnapshots(
            snapshots=[
                messages.Snapshot(
                    height=offer.height,
                    format=FORMAT,
                    chunks=offer.chunks,
                    hash=offer.hash,
                    metadata=offer.metadata,
                )
                for offer in offers
            ]
        )

    async def load_snapshot_chunk(self, request: Any) -> Any:
        """ResponseLoadSnapshotChunk: the bytes, none for what is not here."""
        raw = b""
        if request.format == FORMAT:
            async with self._lock:
                raw = await asyncio.to_thread(self._server.chunk, request.height, request.chunk)
        return messages.ResponseLoadSnapshotChunk(chunk=raw)

    async def offer_snapshot(self, request: Any) -> Any:
        """ResponseOfferSnapshot: whether it can be the state with the app hash that the request states.

        An accepted one takes the place of one that was being restored.
        """
        result, manifest = self._examined(request.snapshot, request.app_hash)
        if manifest is not None:
            async with self._lock:
                self.close()
                if self._tip():
                    _log.warning(
                        "the state of block %d is about to be replaced: CometBFT has no blocks", self._tip()
                    )
                with _told():
                    self._restoration = await asyncio.to_thread(Restoration, self._storage.folder, manifest)
            _log.info("restoring the state of block %d: %d chunks", manifest.height, len(manifest.chunks))
        return messages.ResponseOfferSnapshot(result=result)

    def _examined(self, offered: Any, app_hash: bytes) -> tuple[Offered, SnapshotManifest | None]:
        """What to answer, and the manifest of what is accepted; costs no more than decoding it."""
        if offered.format != FORMAT:
            return Offered.REJECT_FORMAT, None
        raw = offered.metadata
        if len(raw) > MAX_MANIFEST_BYTES or hashlib.sha256(raw).digest() != offered.hash:
            return _refused(offered, "its hash is not that of its manifest")
        try:
            manifest = SnapshotManifest.decode(raw)
        except InvalidSnapshot as error:
            return _refused(offered, str(error))
        if manifest.chain != self._genesis.chain_id:
            return _refused(offered, f"it is of chain {manifest.chain}")
        if (manifest.height, len(manifest.chunks)) != (offered.height, offered.chunks) or not offered.height:
            return _refused(offered, "it is announced as another one than its manifest says")
        if manifest.app_hash != app_hash:
            return _refused(offered, "it is of another state than the validators signed")
        if Restoration.lacks_room(self._storage.folder, manifest):
            _log.error("no room on the disk for the state of block %d", manifest.height)
            return Offered.REJECT, None
        return Offered.ACCEPT, manifest

    async def apply_snapshot_chunk(self, request: Any) -> Any:
        """ResponseApplySnapshotChunk. The last one puts the state in place, or has none of it left."""
        async with self._lock:
            if self._restoration is None:
                return messages.ResponseApplySnapshotChunk(result=Applied.REJECT_SNAPSHOT)
            with _told():
                return await self._applied(self._restoration, request)

    async def _applied(self, restoration: Restoration, request: Any) -> Any:
        if request.index < restoration.following:
            return messages.ResponseApplySnapshotChunk(result=Applied.ACCEPT)  # it is in already
        if request.index > restoration.following:
            _log.warning("chunk %d came before chunk %d", request.index, restoration.following)
            return messages.ResponseApplySnapshotChunk(result=Applied.RETRY_SNAPSHOT)
        if not await asyncio.to_thread(restoration.is_named, request.chunk):
            _log.warning("peer %s gave other bytes as chunk %d", request.sender, request.index)
            return messages.ResponseApplySnapshotChunk(
                result=Applied.RETRY, refetch_chunks=[request.index], reject_senders=[request.sender]
            )
        try:
            await asyncio.to_thread(restoration.add, request.chunk, request.sender)
            if restoration.is_whole:
                await self._finish(restoration)
        except InvalidSnapshot as error:
            _log.warning("the snapshot of block %d is refused: %s", restoration.manifest.height, error)
            self.close()
            return messages.ResponseApplySnapshotChunk(
                result=Applied.REJECT_SNAPSHOT, reject_senders=sorted(restoration.senders)
            )
        return messages.ResponseApplySnapshotChunk(result=Applied.ACCEPT)

    async def _finish(self, restoration: Restoration) -> None:
        database = await asyncio.to_thread(restoration.finish, self._genesis)
        self._restoration = None
        await asyncio.to_thread(self._storage.end_transactions, READERS_S)
        # Without a thread: so the application does not read while there is no database.
        self._storage.replace(database)
        restore.clear(self._storage.folder)
        self._restored()
        _log.info("the state of block %d is restored", restoration.manifest.height)


@contextmanager
def _told() -> Iterator[None]:
    """What the disk refuses ends the process with the reason; started again, it begins anew."""
    try:
        yield
    except StoreError as error:
        raise Disagreement(f"no snapshot could be restored: {error}") from error


def _refused(offered: Any, why: str) -> tuple[Offered, None]:
    """No node of this chain offers what is refused so: CometBFT turns away from those that did."""
    _log.warning("the snapshot of block %d is refused: %s", offered.height, why)
    return Offered.REJECT_SENDER, None
