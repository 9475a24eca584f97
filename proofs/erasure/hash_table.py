"""A list of multihashes packed into one byte string: a manifest names millions of blocks."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from struct import Struct

from merkledag import multihash

_SHA2_256 = b"\x12\x20"
_SHA2_256_BYTES = 34
_ROW = Struct(f"{_SHA2_256_BYTES}s")


class HashTable:
    """Immutable; behaves as a sequence of whole multihashes. `blob` is all of them, one after the other."""

    __slots__ = ("_starts", "blob")

    blob: bytes
    _starts: array[int] | None  # where each begins, and the end; None if all are sha2-256

    def __init__(self, blob: bytes) -> None:
        """Splits `blob`; raises merkledag's DecodeError or LimitExceeded if it is not whole multihashes."""
        self.blob = blob
        self._starts = None
        count, rest = divmod(len(blob), _SHA2_256_BYTES)
        if rest == 0 and all(
            blob[i::_SHA2_256_BYTES] == bytes([byte]) * count for i, byte in enumerate(_SHA2_256)
        ):
            return
        self._starts = array("Q", [0])
        while self._starts[-1] < len(blob):
            self._starts.append(multihash.read(blob, self._starts[-1])[2])

    @classmethod
    def of(cls, multihashes: Iterable[bytes]) -> HashTable:
        """Raises as the constructor does."""
        return cls(b"".join(multihashes))

    def __len__(self) -> int:
        return len(self.blob) // _SHA2_256_BYTES if self._starts is None else len(self._starts) - 1

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._starts is None:
            return self.blob[index * _SHA2_256_BYTES : (index + 1) * _SHA2_256_BYTES]
        return self.blob[self._starts[index] : self._starts[index + 1]]

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))

    def rows(self, start: int, stop: int) -> list[bytes]:
        """The multihashes from `start` up to `stop` (not beyond the end); much faster than one by one."""
        if self._starts is None:
            return [row for (row,) in _ROW.iter_unpack(self.cut(start, stop))]
        return [self[index] for index in range(start, min(stop, len(self)))]

    def cut(self, start: int, stop: int) -> bytes:
        """The multihashes from `start` up to `stop` (not beyond the end), one after the other."""
        if self._starts is None:
            return self.blob[start * _SHA2_256_BYTES : stop * _SHA2_256_BYTES]
        return self.blob[self._starts[start] : self._starts[min(stop, len(self))]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HashTable) and self.blob == other.blob

    def __hash__(self) -> int:
        raise TypeError("a HashTable is not a key")

    def __repr__(self) -> str:
        return f"HashTable({len(self)} multihashes)"
