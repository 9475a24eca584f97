"""The state every so many blocks, in a file for whoever wants to begin there instead of at genesis.

`snapshots/<height, 20 digits>.car` in the ledger's folder is a CAR. Its root, and first section, is the
manifest of the snapshot (`ledger.snapshot`); its chunks follow. The signed block of that height states the
app hash.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from ledger import snapshot
from ledger.engine.archive import section
from ledger.engine.errors import StoreError
from ledger.engine.storage import LedgerStorage
from ledger.engine.wal import sync_folder
from ledger.errors import InvalidSnapshot
from merkledag import car

FOLDER = "snapshots"
KEPT = 2  # whoever reads the older one may go on
COPY_BYTES = 1 << 20

_log = logging.getLogger(__name__)


class Snapshots:
    """The snapshots of one open store; `every_blocks` 0 makes none. `make` may run in any one thread."""

    def __init__(self, storage: LedgerStorage, chain: str, every_blocks: int) -> None:
        self._storage = storage
        self._chain = chain
        self._every_blocks = every_blocks
        self._folder = storage.folder / FOLDER

    def is_due(self, height: int) -> bool:
        """Whether the block of this height is one to make a snapshot after."""
        return self._every_blocks > 0 and height % self._every_blocks == 0

    def heights(self) -> list[int]:
        """Of which heights there are snapshots, the newest last."""
        return sorted(int(path.stem) for path in self._folder.glob("*.car") if path.stem.isdigit())

    def newest(self) -> int:
        """The height of the newest snapshot; 0 while there is none."""
        return max(self.heights(), default=0)

    def path(self, height: int) -> Path:
        """Where the snapshot of a height is, if there is one."""
        return self._folder / f"{height:020d}.car"

    def make(self) -> int | None:
        """Writes the state as it is, and drops all but the newest; None, with a message, if it could not.

        What a crash left of an unfinished one goes with it.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for unfinished in self._folder.glob("*.tmp"):
                unfinished.unlink()
            height = self._write()
            for old in self.heights()[:-KEPT]:
                self.path(old).unlink(missing_ok=True)
        except (OSError, StoreError, InvalidSnapshot) as error:
            _log.error("no snapshot could be made: %s", error)
            return None
        return height

    def _write(self) -> int:
        chunks, made = self._folder / "chunks.tmp", self._folder / "made.tmp"
        with self._storage.moment() as now, chunks.open("wb") as file:
            # The state is read once: the database cannot use its pages again while somebody does.
            manifest = snapshot.take(
                now.items, self._chain, now.height, now.app_hash, lambda chunk: _append(file, chunk)
            )
        with chunks.open("rb") as source, made.open("wb") as file:
            file.write(car.header([manifest.cid]) + section(manifest.encode()))
            shutil.copyfileobj(source, file, COPY_BYTES)
            file.flush()
            os.fsync(file.fileno())
        chunks.unlink()
        made.rename(self.path(manifest.height))
        sync_folder(self._folder)
        return manifest.height


def _append(file: BinaryIO, chunk: bytes) -> None:
    file.write(section(chunk))
