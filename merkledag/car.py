"""CAR archives: writing version 1, reading versions 1 and 2, sans-IO (IPLD CARv1 and CARv2 specs)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from merkledag import dag_cbor, varint
from merkledag.block import MAX_BLOCK_BYTES, Block, verify_block
from merkledag.cid import CID
from merkledag.errors import DecodeError, InvalidCID, LimitExceeded

MAX_HEADER_BYTES = 1024 * 1024  # some 25,000 roots
MAX_CID_BYTES = 160  # the longest digest with its prefixes
_V2_PRAGMA = b"\x0a\xa1gversion\x02"
_V2_HEADER_BYTES = 40


@dataclass(frozen=True, slots=True)
class CarHeader:
    """What an archive says about itself; `version` is 1 or 2."""

    version: int
    roots: tuple[CID, ...]


def header(roots: Sequence[CID]) -> bytes:
    """The beginning of a CARv1."""
    body = dag_cbor.encode({"version": 1, "roots": list(roots)})
    return varint.encode(len(body)) + body


def frame(block: Block) -> bytes:
    """One block as a section of a CAR."""
    raw = bytes(block.cid)
    return b"".join((varint.encode(len(raw) + len(block.data)), raw, block.data))


class CarDecoder:
    """Takes the bytes of a CAR in pieces of any length and gives its header, then its blocks, all verified.

    Holds one section and the piece fed last. A length over the limit is refused as soon as it can be read,
    before the section arrives.
    """

    def __init__(self, max_block_bytes: int = MAX_BLOCK_BYTES) -> None:
        self._max_section = max_block_bytes + MAX_CID_BYTES
        self._max_block = max_block_bytes
        self._buffer = bytearray()
        self._offset = 0  # bytes of the archive before the buffer
        self._version = 1
        self._header: CarHeader | None = None
        self._data_start = 0  # CARv2: where the inner CARv1 begins and ends
        self._data_end: int | None = None
        self._finished = False

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Adds bytes; ValueError after `finish`."""
        if self._finished:
            raise ValueError("the archive is finished")
        self._buffer += data

    def finish(self) -> None:
        """Says that no more bytes come, after `next` gave None; raises DecodeError if some are missing."""
        self._finished = True
        if self._header is None:
            raise DecodeError("CAR cut off: it ends before its header is complete")
        if self._data_end is not None:
            if self._offset < self._data_end:
                raise DecodeError(f"CAR cut off: {self._data_end - self._offset} bytes are missing")
        elif self._buffer:
            raise DecodeError(f"CAR cut off: it ends inside a block, {len(self._buffer)} bytes in")

    def next(self) -> CarHeader | Block | None:
        """The header once, then the next block; None if more bytes are needed or the archive is at its end.

        Raises DecodeError for what is no CAR, LimitExceeded for sections over the limits, HashMismatch for a
        block that is not what its CID says, UnsupportedHash. After an error the decoder is of no more use.
        """
        if self._header is None:
            return self._read_header()
        if self._data_end is not None and self._offset >= self._data_end:
            self._take(len(self._buffer))  # the index of a CARv2
            return None
        section = self._section(self._max_section, "block")
        if section is None:
            return None
        start, end = section
        with memoryview(self._buffer) as view:
            try:
                cid, after = CID.read(view[start:end])
            except InvalidCID as error:
                raise DecodeError(f"CAR: the block at byte {self._offset} has no CID: {error}") from error
            data = bytes(view[start + after : end])
        if len(data) > self._max_block:
            raise LimitExceeded(f"CAR: block {cid} has {len(data)} bytes; at most {self._max_block}")
        verify_block(cid, data)
        self._take(end)
        return Block(cid, data)

    def _take(self, count: int) -> None:
        del self._buffer[:count]
        self._offset += count

    def _section(self, limit: int, what: str) -> tuple[int, int] | None:
        """(start, end) in the buffer of the section that begins it, None if it is not complete."""
        buffer = self._buffer
        if not any(byte < 0x80 for byte in buffer[: varint.MAX_VARINT_BYTES]):
            if len(buffer) >= varint.MAX_VARINT_BYTES:
                raise DecodeError(f"CAR: no length at byte {self._offset}")
            return None
        size, start = varint.decode(buffer)
        if size == 0:
            raise DecodeError(f"CAR: an empty section at byte {self._offset}")
        if size > limit:
            raise LimitExceeded(
                f"CAR: {what} of {size} bytes announced at byte {self._offset}; at most {limit}"
            )
        end = start + size
        if self._data_end is not None and self._offset + end > self._data_end:
            raise DecodeError(f"CAR: the section at byte {self._offset} runs past the end of the data")
        return (start, end) if end <= len(buffer) else None

    def _read_header(self) -> CarHeader | None:
        if self._version == 2:
            if self._data_end is None and not self._read_v2_header():
                return None
            self._take(min(self._data_start - self._offset, len(self._buffer)))  # padding
            if self._offset < self._data_start:
                return None
        section = self._section(MAX_HEADER_BYTES, "header")
        if section is None:
            return None
        start, end = section
        if self._version == 1 and self._buffer[:end] == _V2_PRAGMA:
            self._version = 2
            self._take(end)
            return self._read_header()
        roots = _roots(dag_cbor.decode_lenient(bytes(self._buffer[start:end])))
        self._take(end)
        self._header = CarHeader(self._version, roots)
        return self._header

    def _read_v2_header(self) -> bool:
        if len(self._buffer) < _V2_HEADER_BYTES:
            return False
        start = int.from_bytes(self._buffer[16:24], "little")
        size = int.from_bytes(self._buffer[24:32], "little")
        first = len(_V2_PRAGMA) + _V2_HEADER_BYTES
        if not first <= start < 2**63 or not 0 < size < 2**63:
            raise DecodeError(f"CARv2: data of {size} bytes at byte {start} cannot be")
        self._take(_V2_HEADER_BYTES)
        self._data_start, self._data_end = start, start + size
        return True


def _roots(value: Any) -> tuple[CID, ...]:
    """The roots in the header of a CARv1; raises DecodeError."""
    if type(value) is not dict or value.keys() != {"version", "roots"}:
        raise DecodeError("CAR: the header is not a map of version and roots")
    if type(value["version"]) is not int or value["version"] != 1:
        raise DecodeError(f"CAR: version {value['version']!r} is not supported here")
    roots = value["roots"]
    if type(roots) is not list or any(type(root) is not CID for root in roots):
        raise DecodeError("CAR: the roots in the header are not CIDs")
    return tuple(roots)
