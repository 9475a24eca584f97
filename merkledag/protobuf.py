"""The little of the protobuf wire format that dag-pb, UnixFS and IPNS records need."""

from __future__ import annotations

from merkledag.errors import DecodeError

MAX_VARINT64_BYTES = 10
_UINT64 = 2**64

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

_ONE_BYTE = tuple(bytes((n,)) for n in range(128))
_CONTINUED = tuple([bytes((n,)) for n in range(128, 256)])
_TWO_BYTES = tuple([low + high for high in _ONE_BYTE[1:] for low in _CONTINUED])


def varint(value: int) -> bytes:
    """A protobuf varint, 0 … 2⁶⁴ − 1; ValueError outside."""
    if 0 <= value < 0x80:
        return _ONE_BYTE[value]
    if 0 <= value < 0x4000:
        return _TWO_BYTES[value - 128]
    if 0 <= value < 0x200000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    if not 0 <= value < _UINT64:
        raise ValueError(f"not an unsigned 64-bit number: {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | bytes) -> bytes:
    """A whole field: a varint or a length-delimited value; ValueError for a number outside 64 bits."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    return varint(number << 3 | LENGTH) + varint(len(value)) + value


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """(value, offset after it) of the varint at `offset`; raises DecodeError past 64 bits or the end."""
    end = len(data)
    if offset < end and data[offset] < 0x80:
        return data[offset], offset + 1
    value = shift = 0
    position = offset
    end = min(end, offset + MAX_VARINT64_BYTES)
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= _UINT64:
                break
            return value, position
        shift += 7
    raise DecodeError("protobuf number cut off or longer than 64 bits")


def read_length(data: bytes, offset: int) -> tuple[int, int]:
    """(start, end) of the length-delimited value at `offset`; raises DecodeError past the end."""
    size, start = read_varint(data, offset)
    if size > len(data) - start:
        raise DecodeError(f"protobuf field of {size} bytes where {len(data) - start} are left")
    return start, start + size


def skip(data: bytes, offset: int, wire_type: int) -> int:
    """The offset after a value of `wire_type`; raises DecodeError."""
    if wire_type == VARINT:
        return read_varint(data, offset)[1]
    if wire_type == LENGTH:
        return read_length(data, offset)[1]
    size = {FIXED64: 8, FIXED32: 4}.get(wire_type)
    if size is None or offset + size > len(data):
        raise DecodeError(f"protobuf field of wire type {wire_type} is cut off or unknown")
    return offset + size
