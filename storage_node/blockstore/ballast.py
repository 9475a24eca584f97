"""A file of nothing that a full disk is relieved of, so that whoever frees blocks has the room to do so.

LMDB writes new pages before it gives old ones back. On a disk without a free byte, with files without a free
page, nothing could be deleted any more; so a little is set aside while there is plenty.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from storage_node.blockstore.disk import free_bytes

FILE: Final = "ballast"
MIN_BYTES: Final = 2 << 20
MAX_BYTES: Final = 16 << 20  # a step of a deletion writes some thousand pages at most
PART: Final = 4  # of the store's files: small ones are emptied in fewer pages
PLENTY: Final = 4  # as much must stay free, as often as the ballast takes


class Ballast:
    """The ballast of the store in `folder`, of whose disk `reserve_bytes` are left free anyway."""

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._path = folder / FILE
        self._reserve_bytes = reserve_bytes

    def keep(self, file_bytes: int) -> None:
        """Set as much aside as befits files of this size, if there is plenty of room; it may fail."""
        wanted = min(max(file_bytes // PART, MIN_BYTES), MAX_BYTES)
        with suppress(OSError):
            if self._size() >= wanted // 2:  # files grow: not each time
                return
            if free_bytes(self._path.parent) >= max(self._reserve_bytes, PLENTY * wanted) + wanted:
                self._fill(wanted)

    def give_up(self) -> int:
        """Give its room back to the disk; how many bytes that is, 0 if there was none."""
        size_bytes = self._size()
        self._path.unlink(missing_ok=True)
        return size_bytes

    def take_back(self, size_bytes: int) -> None:
        """Set aside again what was given up, as far as it is there, for the next one who needs it."""
        with suppress(OSError):
            self._fill(min(size_bytes, free_bytes(self._path.parent)))

    def _size(self) -> int:
        with suppress(FileNotFoundError):
            return self._path.stat().st_size
        return 0

    def _fill(self, size_bytes: int) -> None:
        partial = self._path.with_name(FILE + ".tmp")
        try:
            partial.write_bytes(os.urandom(size_bytes))  # which no file system makes smaller
            partial.replace(self._path)
        finally:
            partial.unlink(missing_ok=True)
