"""A snapshot's state on its way into a database of its own, beside the one in use.

Each chunk is written when it has come and is checked. Once all have, and their tree has the app hash that is
trusted, the database is durable and may be put in place. Whatever a crash left of one is of no use.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lmdb

from ledger import snapshot
from ledger.application import Application
from ledger.engine.block_rows import put_tip
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.environment import MAP_SIZE_BYTES, open_environment, translated
from ledger.engine.format import TABLES
from ledger.engine.new_store import put_genesis
from ledger.engine.pruned_rows import Pruned, put_pruned
from ledger.engine.state_store import LmdbStore, Reading, put_writes
from ledger.errors import CorruptState, InvalidSnapshot
from ledger.genesis import Genesis
from ledger.ingest import Filling
from ledger.snapshot import SnapshotManifest

FOLDER = "restored.tmp"
LEAST_ROOM = 2  # a state's tree and lists take as much again as it does


def clear(folder: Path) -> None:
    """Deletes what an earlier restoration left in the ledger's folder."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


class Restoration:
    """One snapshot being restored; in any thread, one call at a time. Methods raise StoreError.

    `manifest` states the app hash that is trusted. `senders` are who gave its chunks so far.
    """

    def __init__(self, folder: Path, manifest: SnapshotManifest) -> None:
        """Begins in `folder`, which is the ledger's."""
        clear(folder)
        self.manifest = manifest
        self.senders: set[str] = set()
        self._path = folder / FOLDER
        self._reader = snapshot.Reader(manifest)
        with translated("beginning to restore a snapshot"):
            self._environment: Any = open_environment(self._path, MAP_SIZE_BYTES, len(TABLES), sync=False)
            self._tables = {name: self._environment.open_db(name) for name in TABLES}
        self._reading = Reading(self._environment)
        self._filling = Filling(LmdbStore(self._reading, self._tables), self._write)

    @staticmethod
    def lacks_room(folder: Path, manifest: SnapshotManifest) -> bool:
        """Whether the disk is too small for what a manifest announces, at the very least."""
        size_bytes = (len(manifest.chunks) - 1) * snapshot.CHUNK_BYTES
        return shutil.disk_usage(folder).free < LEAST_ROOM * size_bytes

    @property
    def following(self) -> int:
        """The number of the chunk that comes next."""
        return self._reader.following

    def is_named(self, raw: bytes) -> bool:
        """Whether these are the bytes of the chunk that comes next."""
        return self.following < len(self.manifest.chunks) and snapshot.names(
            self.manifest.chunks[self.following], raw
        )

    def add(self, raw: bytes, sender: str) -> None:
        """Takes the next chunk. Raises InvalidSnapshot; for one that is named so, no other will do."""
        self.senders.add(sender)
        try:
            self._fill(self._reader.take(raw))
        except CorruptState as error:
            raise InvalidSnapshot(f"chunk {self.following - 1} holds what no state has: {error}") from error

    def _fill(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        self._reading.close()
        with translated("restoring a snapshot"), self._environment.begin(write=True) as txn:
            self._reading.txn = txn
            try:
                self._filling.add(items)
            except lmdb.BadValsizeError as error:
                raise CorruptState(f"a key is too long ({error})") from error
            finally:
                self._reading.txn = None

    def _write(self, writes: Any) -> None:
        put_writes(self._reading.txn, self._tables, writes)

    @property
    def is_whole(self) -> bool:
        """Whether all chunks have come."""
        return self.following == len(self.manifest.chunks)

    def finish(self, genesis: Genesis) -> Path:
        """The database file, closed and durable, of the ledger at the snapshot's height.

        Raises InvalidSnapshot if the state is not the one that is trusted, Disagreement if it is, and this
        ledger's genesis is another.
        """
        self._reader.finish()
        if self._filling.app_hash != self.manifest.app_hash:
            raise InvalidSnapshot(
                f"the snapshot's state has app hash {self._filling.app_hash.hex()}, that of block "
                f"{self.manifest.height} is {self.manifest.app_hash.hex()}"
            )
        self._check_application(genesis)
        height = self.manifest.height
        with translated("restoring a snapshot"):
            with self._environment.begin(write=True) as txn:
                put_genesis(txn, self._tables, genesis.encode())
                put_pruned(txn, self._tables, Pruned(height, height))
                put_tip(txn, self._tables, height, self.manifest.app_hash)
            self._environment.sync(True)
        self.close()
        return self._path / "data.mdb"

    def _check_application(self, genesis: Genesis) -> None:
        """Everything that an application needs is in its state."""
        with translated("reading state"):
            self._reading.renew()
        try:
            found = Application(genesis, LmdbStore(self._reading, self._tables)).height
        except CorruptState as error:
            raise Disagreement(
                f"the state that the chain's validators signed is not of the genesis that is here ({error}): "
                "get the genesis file from those who run the chain"
            ) from error
        finally:
            self._reading.close()
        if found != self.manifest.height:
            raise InvalidSnapshot(
                f"the state of block {found} is no snapshot of block {self.manifest.height}"
            )

    def close(self) -> None:
        """Lets go of the database; harmless twice. What is unfinished is cleared when another one begins."""
        self._reading.close()
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.close()
