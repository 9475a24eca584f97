"""A compact set of keys for marking: 16 bytes of plain memory a key, no object each."""

from __future__ import annotations

from array import array

_FIRST_SLOTS = 1 << 10
_MASK = (1 << 64) - 1


class FingerprintSet:
    """Remembers 128 bits of each key: 64 of the process's own keyed hash, 64 of the key's end.

    Two keys are mixed up with probability n²/2¹²⁹; nobody can aim at it without the process's hash key.
    Open addressing in one flat array; a million keys take 32 MiB.
    """

    def __init__(self) -> None:
        self._allocate(_FIRST_SLOTS)
        self._count = 0

    def _allocate(self, slots: int) -> None:
        self._slots = slots
        self._table = array("Q", bytes(16 * slots))

    def __len__(self) -> int:
        return self._count

    def add(self, key: bytes) -> bool:
        """Remember `key`; False if it was known."""
        first, second = _fingerprint(key)
        position = self._find(first, second)
        if self._table[position]:
            return False
        self._table[position], self._table[position + 1] = first, second
        self._count += 1
        if self._count * 3 > self._slots * 2:
            self._grow()
        return True

    def __contains__(self, key: bytes) -> bool:
        return bool(self._table[self._find(*_fingerprint(key))])

    def _find(self, first: int, second: int) -> int:
        """Index of the pair, or of the empty place where it belongs."""
        table, mask = self._table, 2 * self._slots - 1
        position = 2 * first & mask
        while table[position] and (table[position] != first or table[position + 1] != second):
            position = position + 2 & mask
        return position

    def _grow(self) -> None:
        old = self._table
        self._allocate(2 * self._slots)
        for index in range(0, len(old), 2):
            if old[index]:
                position = self._find(old[index], old[index + 1])
                self._table[position], self._table[position + 1] = old[index], old[index + 1]


def _fingerprint(key: bytes) -> tuple[int, int]:
    """Two 64-bit numbers, the first never 0 (0 is an empty place)."""
    return (hash(key) & _MASK) or 1, int.from_bytes(key[-8:], "little")
