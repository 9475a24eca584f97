"""The state every so many blocks, in a file for whoever wants to begin there instead of at genesis.

`snapshots/<height, 20 digits>.car` in the ledger's folder is a CAR. Its root, and first section, is the
manifest of the snapshot (`ledger.snapshot`); its chunks follow. The signed block of that height states the
app hash.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from ledger import snapshot
from ledger.engine.archive import section
from ledger.engine.errors import StoreError
from ledger.engine.storage import LedgerStorage, Moment
from ledger.engine.wal import sync_folder
from ledger.errors import InvalidSnapshot
from merkledag import car

FOLDER = "snapshots"
KEPT = 2
# An older one stays while somebody goes on fetching it: for so long after the last read, and only as one of
# so many that were due last. So nobody makes a node keep many, or one for ever.
HELD_S = 600.0
MOST_KEPT = 4
# All nodes of a chain make one after the same block: each leaves most of the time to the blocks that follow,
# by pauses between the chunks that are so many times as long as it works on one.
PAUSES = 3
COPY_BYTES = 1 << 20

_log = logging.getLogger(__name__)


class _Stopped(Exception):
    """The ledger stops: what is begun is not finished."""


class Snapshots:
    """The snapshots of one open store; `every_blocks` 0 makes none.

    They are written in a thread of their own, until `close`.
    """

    def __init__(
        self,
        storage: LedgerStorage,
        chain: str,
        every_blocks: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._chain = chain
        self.every_blocks = every_blocks
        self._monotonic = monotonic
        self._folder = storage.folder / FOLDER
        self._reads: dict[int, float] = {}  # height: when it was read last
        self._is_busy = False
        self._writer = ThreadPoolExecutor(1, "ledger-snapshot")
        self._closing = threading.Event()

    def note_block(self, height: int) -> None:
        """The store's last block is of this height: if a snapshot is due after it, it is begun."""
        write = self.begin() if self.every_blocks and height % self.every_blocks == 0 else None
        if write is not None:
            self._writer.submit(write)

    def close(self) -> None:
        """Gives up what is being written; harmless twice."""
        self._closing.set()
        self._writer.shutdown(wait=True)

    def heights(self) -> list[int]:
        """Of which heights there are snapshots, the newest last."""
        return sorted(int(path.stem) for path in self._folder.glob("*.car") if path.stem.isdigit())

    def newest(self) -> int:
        """The height of the newest snapshot; 0 while there is none."""
        return max(self.heights(), default=0)

    def path(self, height: int) -> Path:
        """Where the snapshot of a height is, if there is one."""
        return self._folder / f"{height:020d}.car"

    def note_read(self, height: int) -> None:
        """Somebody reads this one, and is likely to go on: it is not dropped soon."""
        self._reads[height] = self._monotonic()

    def drop(self, height: int) -> None:
        """Deletes one; harmless if it is not there. Raises OSError."""
        self.path(height).unlink(missing_ok=True)
        self._reads.pop(height, None)

    def begin(self) -> Callable[[], int | None] | None:
        """What writes the state as it is at this call, whatever follows, and may run in any one thread.

        So the snapshot of a height is the same wherever it is made. None while the last one is being written:
        the database cannot use pages again that somebody reads.
        """
        if self._is_busy:
            _log.warning("no snapshot is made of this block: the last one is still being written")
            return None
        reading = ExitStack()
        try:
            now = reading.enter_context(self._storage.moment())
        except StoreError as error:
            _log.error("no snapshot could be made: %s", error)
            return None
        self._is_busy = True
        return lambda: self._make(reading, now)

    def _make(self, reading: ExitStack, now: Moment) -> int | None:
        """Writes a snapshot and drops old ones; None, with a message, if it could not.

        What a crash left of an unfinished one goes with it.
        """
        try:
            with reading:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                for unfinished in self._folder.glob("*.tmp"):
                    unfinished.unlink()
                self._drop_old()
                manifest = self._write_chunks(now)
            self._put_together(manifest)
            self._drop_old()
        except _Stopped:
            return None
        except (OSError, StoreError, InvalidSnapshot) as error:
            _log.error("no snapshot could be made: %s", error)
            return None
        finally:
            self._is_busy = False
        return manifest.height

    def _drop_old(self) -> None:
        for height in self.heights()[:-KEPT]:
            if not self._is_held(height):
                self.drop(height)

    def _is_held(self, height: int) -> bool:
        last = self._reads.get(height)
        is_read = last is not None and self._monotonic() < last + HELD_S
        return is_read and height > self.newest() - MOST_KEPT * self.every_blocks

    def _write_chunks(self, now: Moment) -> snapshot.SnapshotManifest:
        began = self._monotonic()
        with (self._folder / "chunks.tmp").open("wb") as file:

            def keep(chunk: bytes) -> None:
                nonlocal began
                file.write(section(chunk))
                if self._closing.wait(PAUSES * (self._monotonic() - began)):
                    raise _Stopped
                began = self._monotonic()

            # The state is read once.
            return snapshot.take(now.items, self._chain, now.height, now.app_hash, keep)

    def _put_together(self, manifest: snapshot.SnapshotManifest) -> None:
        chunks, made = self._folder / "chunks.tmp", self._folder / "made.tmp"
        with chunks.open("rb") as source, made.open("wb") as file:
            file.write(car.header([manifest.cid]) + section(manifest.encode()))
            shutil.copyfileobj(source, file, COPY_BYTES)
            file.flush()
            os.fsync(file.fileno())
        chunks.unlink()
        made.rename(self.path(manifest.height))
        sync_folder(self._folder)
