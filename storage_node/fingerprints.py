"""Compact tables of keys for marking: 16 bytes a key with a few flags, in memory or in a mapped file."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from storage_node.errors import CorruptStore

FEW_KEYS = 1 << 17  # of a set in memory: up to 18 MB
FLAG_BITS = 4
ALL_FLAGS = (1 << FLAG_BITS) - 1

_MAGIC = b"HFMARKS1"
_HEADER_BYTES = 4096
_SALT_BYTES = 16
_COUNT = 3  # the header in words of 8 bytes: magic, salt (two), number of keys
_FIRST = _HEADER_BYTES // 8
_SLOT_BYTES = 16
_MIN_SLOTS = 1 << 10
_RECOUNTED_WORDS = 1 << 16
_split = struct.Struct("<QQ").unpack


class FingerprintTable:
    """Keys with flags. Of a key only 124 bits of a hash under a secret salt are kept.

    Two keys are mixed up with probability n²/2¹²⁵, and nobody can aim at it who does not know the salt. Open
    addressing in one flat array that doubles when it is two thirds full: a million keys take 32 MiB.

    With a path the table is a file that others' pages push out of memory, and what was added is there after
    `kill -9` (not after a power cut, unless `sync` was called). A key that was being added is then either
    there or not; a half-written slot is a key that nobody asks for.
    """

    def __init__(self, path: Path | None = None, keys: int = 0, *, keep: bool = True) -> None:
        """A new table with room for `keys`, replacing a file that is there. Raises OSError for no room.

        Unless `keep`, the file has no name any more, and goes with the table.
        """
        self._path = path
        self._keep = keep
        slots = _MIN_SLOTS
        while keys * 3 > slots * 2:
            slots *= 2
        self._take(_allocated(path, slots))
        if path is not None and not keep:
            path.unlink()
        self._words[1:_COUNT] = memoryview(os.urandom(_SALT_BYTES)).cast("Q")
        self._begin()

    @classmethod
    def open(cls, path: Path) -> FingerprintTable:
        """The table in a file. Raises CorruptStore for one that is none, FileNotFoundError."""
        table = cls.__new__(cls)
        table._path = path
        table._keep = True
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            slots = (size - _HEADER_BYTES) // _SLOT_BYTES
            if slots < _MIN_SLOTS or slots & (slots - 1) or size % _SLOT_BYTES:
                raise CorruptStore(f"{path}: not a table of marks")
            table._take(mmap.mmap(file.fileno(), size))
        if table._map[: len(_MAGIC)] != _MAGIC:
            raise CorruptStore(f"{path}: not a table of marks")
        table._begin()
        return table

    def _take(self, mapped: mmap.mmap) -> None:
        self._map = mapped
        self._words = memoryview(mapped).cast("Q")
        self._slots = (len(mapped) - _HEADER_BYTES) // _SLOT_BYTES

    def _begin(self) -> None:
        """Write the header last: what has none is no table."""
        salt = self._words[1:_COUNT].tobytes()
        self._hash = blake2b(digest_size=16, key=salt)
        self._map[: len(_MAGIC)] = _MAGIC

    def __len__(self) -> int:
        return self._words[_COUNT]

    def add(self, key: bytes, flags: int = 0) -> int:
        """Set flags of a key; returns those it had, -1 if it was not here."""
        words = self._words
        if words[_COUNT] * 3 >= self._slots * 2:
            self._grow()
            words = self._words
        first, second = self._fingerprint(key)
        at = self._find(first, second)
        if words[at]:
            held = words[at + 1]
            if flags & ~held:
                words[at + 1] = held | flags
            return held & ALL_FLAGS
        words[at + 1] = second | flags
        words[at] = first  # last: a slot counts from here on
        words[_COUNT] += 1
        return -1

    def add_many(self, keys: Iterable[bytes], flags: int = 0) -> list[int]:
        """As `add`, for many keys."""
        return [self.add(key, flags) for key in keys]

    def flags(self, key: bytes) -> int:
        """The flags of a key, -1 if it is not here."""
        at = self._find(*self._fingerprint(key))
        return self._words[at + 1] & ALL_FLAGS if self._words[at] else -1

    def __contains__(self, key: bytes) -> bool:
        return bool(self._words[self._find(*self._fingerprint(key))])

    def recount(self) -> int:
        """The number of keys, counted: fewer than there were if a part of the file was lost."""
        count = 0
        for at in range(_FIRST, len(self._words), _RECOUNTED_WORDS):
            firsts = self._words[at : at + _RECOUNTED_WORDS : 2].tolist()
            count += len(firsts) - firsts.count(0)
        return count

    def sync(self) -> None:
        """Bring a file to the disk."""
        self._map.flush()

    def digest(self) -> bytes:
        """A hash of all of it."""
        return blake2b(self._map, digest_size=16).digest()

    def close(self) -> None:
        """Let go of the memory; the table is not usable afterwards."""
        self._words.release()
        self._map.close()

    def _fingerprint(self, key: bytes) -> tuple[int, int]:
        """The first word of a slot, never 0 (0 is an empty slot), and the second without flags."""
        state = self._hash.copy()
        state.update(key)
        first, second = _split(state.digest())
        return first or 1, second & ~ALL_FLAGS

    def _find(self, first: int, second: int) -> int:
        """The word at which the slot of a fingerprint is, or the empty one where it belongs."""
        words, slots = self._words, self._slots
        slot = first % slots
        while True:
            at = _FIRST + 2 * slot
            held = words[at]
            if not held or (held == first and words[at + 1] & ~ALL_FLAGS == second):
                return at
            slot = slot + 1 & slots - 1

    def _grow(self) -> None:
        """Move to a table of twice the size; a file stays as it was until the new one is whole."""
        old, old_map = self._words, self._map
        aside = None if self._path is None else self._path.with_suffix(".new")
        self._take(_allocated(aside, 2 * self._slots))
        words = self._words
        words[: _COUNT + 1] = old[: _COUNT + 1]
        for at in range(_FIRST, len(old), 2):
            if old[at]:
                to = self._find(old[at], old[at + 1] & ~ALL_FLAGS)
                words[to], words[to + 1] = old[at], old[at + 1]
        if aside is not None and self._path is not None:
            if self._keep:
                aside.replace(self._path)
            else:
                aside.unlink()
        old.release()
        old_map.close()


def _allocated(path: Path | None, slots: int) -> mmap.mmap:
    """Zeros for a table. A file's room on the disk is taken at once: a full one is an error, not a SIGBUS."""
    size = _HEADER_BYTES + slots * _SLOT_BYTES
    if path is None:
        return mmap.mmap(-1, size)
    path.unlink(missing_ok=True)
    with path.open("x+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), size)
        except OSError:
            path.unlink()
            raise


class FingerprintSet:
    """Remembers keys in memory: a few as they are, which is quick, many in a FingerprintTable."""

    def __init__(self) -> None:
        self._few: set[bytes] = set()
        self._many: FingerprintTable | None = None

    def __len__(self) -> int:
        return len(self._few) if self._many is None else len(self._many)

    def add(self, key: bytes) -> bool:
        """Remember `key`; False if it was known."""
        if self._many is not None:
            return self._many.add(key) < 0
        if key in self._few:
            return False
        self._few.add(key)
        if len(self._few) > FEW_KEYS:
            self._many = FingerprintTable(keys=len(self._few))
            self._many.add_many(self._few)
            self._few.clear()
        return True

    def __contains__(self, key: bytes) -> bool:
        return key in self._few if self._many is None else key in self._many
