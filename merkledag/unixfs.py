"""The UnixFS message inside a dag-pb node (UnixFS spec, sections "dag-pb Types" and "Optional Metadata")."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from merkledag.errors import DecodeError
from merkledag.protobuf import FIXED32, read_length, read_varint, skip, varint

HASH_MURMUR3 = 0x22  # murmur3-x64-64
MIN_FANOUT, MAX_FANOUT = 8, 1_024

_INT64_SIGN = 2**63
_UINT64 = 2**64


class Kind(IntEnum):
    """What a node stands for."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    HAMT = 5


class Mtime(NamedTuple):
    """Modification time: seconds since 1970 (may be negative) and nanoseconds, 0 … 999,999,999."""

    seconds: int
    nanoseconds: int = 0

    @classmethod
    def of_ns(cls, total_ns: int) -> Mtime:
        """The moment so many nanoseconds after 1970."""
        return cls(*divmod(total_ns, 10**9))

    @property
    def total_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self.seconds * 10**9 + self.nanoseconds

    @property
    def decimal(self) -> str:
        """Seconds since 1970 with nine decimals; the fraction of a moment before counts backwards too."""
        seconds, nanoseconds = divmod(abs(self.total_ns), 10**9)
        return f"{'-' if self.total_ns < 0 else ''}{seconds}.{nanoseconds:09d}"


class Data(NamedTuple):
    """The message; sizes in bytes, absent fields None. Of the 32 bits of `mode` the low 12 have a meaning."""

    kind: Kind
    data: bytes | None = None
    filesize: int | None = None
    blocksizes: tuple[int, ...] = ()
    hash_type: int | None = None
    fanout: int | None = None
    mode: int | None = None
    mtime: Mtime | None = None


def encode(message: Data) -> bytes:
    """The message's bytes; ValueError for a mode or time that cannot be written."""
    return b"".join(encode_parts(message))


def encode_parts(message: Data) -> list[bytes]:
    """The same bytes in pieces; the content is one of them, uncopied."""
    parts = [b"\x08", varint(message.kind)]
    if message.data is not None:
        parts += (b"\x12", varint(len(message.data)), message.data)
    if message.filesize is not None:
        parts += (b"\x18", varint(message.filesize))
    for size in message.blocksizes:
        parts += (b"\x20", varint(size))
    if message.hash_type is not None:
        parts += (b"\x28", varint(message.hash_type))
    if message.fanout is not None:
        parts += (b"\x30", varint(message.fanout))
    if message.mode is not None:
        if not 0 <= message.mode < 2**32:
            raise ValueError(f"mode {message.mode} does not fit in 32 bits")
        parts += (b"\x38", varint(message.mode))
    if message.mtime is not None:
        time = _encode_mtime(message.mtime)
        parts += (b"\x42", varint(len(time)), time)
    return parts


def _encode_mtime(mtime: Mtime) -> bytes:
    seconds, nanoseconds = mtime
    if not -_INT64_SIGN <= seconds < _INT64_SIGN:
        raise ValueError(f"time {seconds} s does not fit in 64 bits")
    if not 0 <= nanoseconds < 10**9:
        raise ValueError(f"{nanoseconds} ns is not a fraction of a second")
    body = b"\x08" + varint(seconds % _UINT64)
    return body + b"\x15" + struct.pack("<I", nanoseconds) if nanoseconds else body


def _decode_mtime(data: bytes) -> Mtime:
    seconds: int | None = None
    nanoseconds = 0
    position = 0
    while position < len(data):
        tag, start = read_varint(data, position)
        if tag == 0x08:
            value, position = read_varint(data, start)
            seconds = value - _UINT64 if value >= _INT64_SIGN else value
        elif tag == 0x15:
            position = skip(data, start, FIXED32)
            (nanoseconds,) = struct.unpack("<I", data[start:position])
            if not 1 <= nanoseconds < 10**9:
                raise DecodeError(f"UnixFS: mtime with {nanoseconds} ns; 1 to 999,999,999 are allowed")
        else:
            if tag >> 3 <= 2:
                raise DecodeError(f"UnixFS: field {tag >> 3} of mtime has wire type {tag & 7}")
            position = skip(data, start, tag & 7)
    if seconds is None:
        raise DecodeError("UnixFS: mtime without seconds")
    return Mtime(seconds, nanoseconds)


def _blocksizes(data: bytes, position: int, out: list[int]) -> int:
    """Reads the run of blocksizes at `position` (the first tag) into `out`; equal ones in one go."""
    value, after = read_varint(data, position + 1)
    out.append(value)
    unit = data[position:after]
    step = after - position
    repeats = 64
    while repeats:  # runs of equal sizes are the rule: compare 64 at a time, then fewer
        if data.startswith(unit * repeats, after):
            out.extend([value] * repeats)
            after += step * repeats
        else:
            repeats //= 4
    return after


def decode(data: bytes) -> Data:
    """The message in a dag-pb node's data field.

    Unknown fields are passed over, repeated single fields keep the last value (protobuf rules). Raises
    DecodeError for anything else, for an unknown type, and for a fanout above `MAX_FANOUT`.
    """
    numbers: dict[int, int] = {}
    sizes: list[int] = []
    payload: bytes | None = None
    mtime: Mtime | None = None
    position = 0
    end = len(data)
    while position < end:
        tag = data[position]
        if tag == 0x20:
            position = _blocksizes(data, position, sizes)
        elif tag in _NUMBERS:
            numbers[tag], position = read_varint(data, position + 1)
        elif tag == 0x12:
            start, position = read_length(data, position + 1)
            payload = data[start:position]
        elif tag == 0x42:
            start, position = read_length(data, position + 1)
            mtime = _decode_mtime(data[start:position])
        elif tag == 0x22:  # a packed list, which other protobuf writers may choose
            start, position = read_length(data, position + 1)
            while start < position:
                value, start = read_varint(data, start)
                sizes.append(value)
        else:
            number, after = read_varint(data, position)
            if number >> 3 <= 8:
                raise DecodeError(f"UnixFS: field {number >> 3} has wire type {number & 7}")
            position = skip(data, after, number & 7)
    return _build(numbers, sizes, payload, mtime)


_NUMBERS = frozenset({0x08, 0x18, 0x28, 0x30, 0x38})


def _build(numbers: dict[int, int], sizes: list[int], payload: bytes | None, mtime: Mtime | None) -> Data:
    number = numbers.get(0x08)
    if number is None or number > Kind.HAMT:
        raise DecodeError(
            "UnixFS: the type is missing" if number is None else f"UnixFS: unknown type {number}"
        )
    mode = numbers.get(0x38)
    fanout = numbers.get(0x30)
    if fanout is not None and fanout > MAX_FANOUT:
        raise DecodeError(f"UnixFS: fanout {fanout}; at most {MAX_FANOUT}")
    return Data(
        Kind(number),
        payload,
        numbers.get(0x18),
        tuple(sizes),
        numbers.get(0x28),
        fanout,
        None if mode is None else mode & 0xFFFFFFFF,
        mtime,
    )
