"""Unsigned varints as multiformats defines them: minimal, at most nine bytes (unsigned-varint spec)."""

from __future__ import annotations

from merkledag.errors import DecodeError

MAX_VARINT_BYTES = 9
MAX_VARINT = 2**63 - 1

_ONE_BYTE = tuple(bytes((n,)) for n in range(128))


def encode(value: int) -> bytes:
    """Shortest form of `value`, 0 … 2⁶³ − 1; ValueError outside."""
    if 0 <= value < 0x80:
        return _ONE_BYTE[value]
    if not 0 <= value <= MAX_VARINT:
        raise ValueError(f"varint out of range: {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(buf: bytes | memoryview | bytearray, offset: int = 0) -> tuple[int, int]:
    """Reads one varint at `offset`; returns (value, offset after it).

    Raises DecodeError if the buffer ends inside it, if it is longer than nine bytes, or not minimal.
    """
    end = len(buf)
    if offset >= end:
        raise DecodeError("varint missing: the data ends here")
    byte = buf[offset]
    if byte < 0x80:
        return byte, offset + 1
    value = byte & 0x7F
    shift = 7
    position = offset + 1
    while position < end:
        byte = buf[position]
        position += 1
        if byte < 0x80:
            if byte == 0:
                raise DecodeError("varint is not minimal")
            return value | byte << shift, position
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift == 7 * MAX_VARINT_BYTES:
            raise DecodeError(f"varint is longer than {MAX_VARINT_BYTES} bytes")
    raise DecodeError("varint cut off: the data ends inside it")
