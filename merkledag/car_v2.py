"""What CARv2 puts before a CARv1: its pragma, and its header that says where data and index lie."""

from __future__ import annotations

from typing import NamedTuple

from merkledag.errors import DecodeError

PRAGMA = b"\x0a\xa1gversion\x02"
HEADER_BYTES = 40  # after the pragma
START_BYTES = len(PRAGMA) + HEADER_BYTES  # the least offset of the data

_FULLY_INDEXED = 0x80  # the first bit of the 16 bytes of characteristics; the others have no meaning yet
_CHARACTERISTICS_BYTES = 16
_MAX_OFFSET = 2**63 - 1


class V2Header(NamedTuple):
    """Where the inner CARv1 and the index are, in bytes from the start of the archive.

    `index_offset` 0 means that there is no index. `fully_indexed`: the index lists identity CIDs too.
    """

    data_offset: int
    data_size: int
    index_offset: int
    fully_indexed: bool = False

    @property
    def data_end(self) -> int:
        """Offset of the first byte after the data."""
        return self.data_offset + self.data_size

    @property
    def has_index(self) -> bool:
        """Whether the header says that an index follows."""
        return self.index_offset != 0

    def encode(self) -> bytes:
        """Pragma and header, `START_BYTES` long."""
        characteristics = bytes([_FULLY_INDEXED * self.fully_indexed]).ljust(_CHARACTERISTICS_BYTES, b"\0")
        offsets = (self.data_offset, self.data_size, self.index_offset)
        return PRAGMA + characteristics + b"".join(each.to_bytes(8, "little") for each in offsets)

    def require_index(self) -> int:
        """The offset of the index; raises DecodeError if there is none or if it lies inside the data."""
        if not self.has_index:
            raise DecodeError("CARv2: the archive has no index")
        if not self.data_end <= self.index_offset <= _MAX_OFFSET:
            raise DecodeError(
                f"CARv2: an index at byte {self.index_offset} cannot be: the data ends at {self.data_end}"
            )
        return self.index_offset


def decode(data: bytes) -> V2Header:
    """The header in the `HEADER_BYTES` after the pragma; raises DecodeError for data that cannot be there.

    The place of the index is not judged: see `V2Header.require_index`.
    """
    if len(data) != HEADER_BYTES:
        raise DecodeError(f"CARv2: a header of {len(data)} bytes, not {HEADER_BYTES}")
    start, size, index = (int.from_bytes(data[at : at + 8], "little") for at in (16, 24, 32))
    if not START_BYTES <= start <= _MAX_OFFSET or not 0 < size <= _MAX_OFFSET:
        raise DecodeError(f"CARv2: data of {size} bytes at byte {start} cannot be")
    return V2Header(start, size, index, bool(data[0] & _FULLY_INDEXED))


def wrap(data_size: int, *, index: bool, fully_indexed: bool = False) -> V2Header:
    """The header for a CARv1 of `data_size` bytes with no padding, and an index right after it or none."""
    end = START_BYTES + data_size
    return V2Header(START_BYTES, data_size, end if index else 0, fully_indexed)
