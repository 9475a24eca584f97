"""Strict DAG-CBOR: one value, one encoding (IPLD dag-cbor spec)."""

from __future__ import annotations

import struct
from math import isfinite
from typing import IO, Any, NoReturn, cast

import cbor2

from merkledag.cid import CID
from merkledag.errors import DecodeError, InvalidCID, TruncatedValue
from merkledag.steps import Buffer

MAX_DEPTH = 256  # nested lists and maps
CID_TAG = 42

_UINT64 = 2**64
_pack_float = struct.Struct(">d").pack
_CID_HEAD = b"\xd8\x2a"


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major | value,))
    if value < 0x100:
        return bytes((major | 24, value))
    if value < 0x10000:
        return bytes((major | 25,)) + value.to_bytes(2, "big")
    if value < 0x100000000:
        return bytes((major | 26,)) + value.to_bytes(4, "big")
    return bytes((major | 27,)) + value.to_bytes(8, "big")


_HEADS = {major: tuple(_head(major, n) for n in range(256)) for major in (0x00, 0x40, 0x60, 0x80, 0xA0)}
_UINT, _BYTES, _TEXT = _HEADS[0x00], _HEADS[0x40], _HEADS[0x60]


def _text(value: str) -> bytes:
    raw = value.encode()  # UnicodeEncodeError, a ValueError, for lone surrogates
    size = len(raw)
    return (_TEXT[size] if size < 256 else _head(0x60, size)) + raw


def _put(obj: Any, out: list[bytes], depth: int, plain: bool) -> None:
    """Appends the encoding of `obj`; exact types only, so that nothing is written by accident."""
    kind = type(obj)
    if kind is str:
        out.append(_text(obj))
    elif kind is bytes:
        size = len(obj)
        out.append((_BYTES[size] if size < 256 else _head(0x40, size)) + obj)
    elif kind is int:
        if 0 <= obj < 256:
            out.append(_UINT[obj])
        elif 0 <= obj < _UINT64:
            out.append(_head(0x00, obj))
        elif -_UINT64 <= obj < 0:
            out.append(_head(0x20, -1 - obj))
        else:
            raise ValueError(
                f"DAG-CBOR integers have 64 bits: {obj:.3e}" if abs(obj) < 2**900 else "integer too big"
            )
    elif kind is dict:
        _put_map(obj, out, depth, plain)
    elif kind is list or kind is tuple:
        if depth >= MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        out.append(_head(0x80, len(obj)))
        for item in obj:
            _put(item, out, depth + 1, plain)
    elif kind is CID and not plain:
        raw = bytes(obj)
        out.append(_CID_HEAD + _head(0x40, len(raw) + 1) + b"\0" + raw)
    elif obj is None:
        out.append(b"\xf6")
    elif kind is bool:
        out.append(b"\xf5" if obj else b"\xf4")
    elif kind is float:
        if not isfinite(obj):
            raise ValueError("DAG-CBOR has no NaN and no infinity")
        out.append(b"\xfb" + _pack_float(obj))
    else:
        raise ValueError(f"{'plain ' if plain else 'DAG-'}CBOR has no {kind.__name__}")


def _put_map(obj: dict[Any, Any], out: list[bytes], depth: int, plain: bool) -> None:
    if depth >= MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    for key in obj:
        if type(key) is not str:
            raise ValueError(f"a map key is a string, not {type(key).__name__}")
    # A longer key has a greater length byte: sorting the encoded keys sorts length-first.
    items = [(_text(key), value) for key, value in obj.items()]
    if not plain:
        items.sort(key=_first)
    out.append(_head(0xA0, len(items)))
    for key, value in items:
        out.append(key)
        _put(value, out, depth + 1, plain)


def _first(item: tuple[bytes, Any]) -> bytes:
    return item[0]


def encode(obj: Any) -> bytes:
    """The one encoding of `obj`: dict with str keys, list or tuple, str, bytes, int, float, bool, None, CID.

    Raises ValueError for other types, integers beyond 64 bits, NaN, infinities, and nesting over `MAX_DEPTH`.
    """
    out: list[bytes] = []
    _put(obj, out, 0, plain=False)
    return b"".join(out)


def _to_cid(value: object, _immutable: bool) -> CID:
    if type(value) is not bytes or value[:1] != b"\0":
        raise InvalidCID("tag 42 holds no binary CID")
    return CID.decode(value[1:])


def _refuse_tag(_value: object, _immutable: bool) -> NoReturn:
    raise DecodeError("no tag but 42 for CIDs has a meaning here")


# Every tag that cbor2 would turn into something itself (dates, big numbers, patterns, shared references…).
_FOREIGN_TAGS = (
    0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799,
)  # fmt: skip
_PLAIN_TAGS = dict.fromkeys(_FOREIGN_TAGS, _refuse_tag)
_TAGS = {CID_TAG: _to_cid, **_PLAIN_TAGS}


def _has_more_items(raw: bytes, most: int) -> bool:
    """Whether there are more than `most` heads of values, keys and tags; whether it is CBOR is left open."""
    at, end, count = 0, len(raw), 0
    while at < end and count <= most:
        count += 1
        major, value = raw[at] >> 5, raw[at] & 31
        at += 1
        if value >= 24:
            start = at
            at += 1 << min(value, 27) - 24
            value = int.from_bytes(raw[start:at], "big")
        if major in (2, 3):
            at += value
    return count > most


def decode(data: Buffer, *, max_items: int | None = None) -> Any:
    """The value of a block; raises DecodeError unless encoding it again gives the same bytes.

    So refused are: numbers, lengths or floats not in their one form, indefinite lengths, unsorted or repeated
    keys, NaN, tags but 42, and trailing bytes. Bytes that end too early are a TruncatedValue. For strangers'
    bytes, of which some kilobytes may be thousands of lists, `max_items` bounds how many values, keys and
    tags there may be before any is made.
    """
    raw = bytes(data)
    if max_items is not None and len(raw) > max_items and _has_more_items(raw, max_items):
        raise DecodeError(f"more than {max_items} values")
    try:
        obj = cbor2.loads(
            raw,
            semantic_decoders=_TAGS,
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            strict_hashable_types=True,
        )
    except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
        kind = TruncatedValue if isinstance(error, cbor2.CBORDecodeEOF) else DecodeError
        raise kind(f"not DAG-CBOR: {_reason(error)}") from error
    try:
        again = encode(obj)
    except ValueError as error:
        raise DecodeError(f"not DAG-CBOR: {error}") from error
    if again != raw:
        raise DecodeError("not canonical DAG-CBOR (key order, number forms or trailing bytes)")
    return obj


class _Reader:
    """What cbor2 reads from, so that bytes left after the value can be noticed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int) -> bytes:
        start = self._position
        self._position += size
        return self._data[start : start + size]


def decode_lenient(data: Buffer) -> Any:
    """The value of a block that others wrote: the order of keys and the form of numbers are not checked.

    For reading and traversing only; raises DecodeError for what is not CBOR or has tags but 42.
    """
    return _read(data, "DAG-CBOR", _TAGS, indefinite=False)


def decode_plain(data: Buffer) -> Any:
    """The value of a plain CBOR block, in any form, as far as the data model can hold it.

    Raises DecodeError for what is not CBOR, and for tags, which have no meaning there.
    """
    return _read(data, "CBOR", _PLAIN_TAGS, indefinite=True)


def encode_plain(obj: Any) -> bytes:
    """`obj` as plain CBOR: as `encode`, but keys stay in their order and CIDs are refused (ValueError)."""
    out: list[bytes] = []
    _put(obj, out, 0, plain=True)
    return b"".join(out)


def _read(data: Buffer, what: str, tags: dict[int, Any], *, indefinite: bool) -> Any:
    try:
        decoder = cbor2.CBORDecoder(
            cast("IO[bytes]", _Reader(bytes(data))),
            semantic_decoders=tags,
            tag_hook=_refuse_tag,
            max_depth=MAX_DEPTH,
            allow_indefinite=indefinite,
            strict_hashable_types=True,
        )
        obj = decoder.decode()
    except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
        raise DecodeError(f"not {what}: {_reason(error)}") from error
    try:
        decoder.read(1)
    except cbor2.CBORDecodeEOF:
        return obj
    raise DecodeError(f"not {what}: bytes after the value")


def links(data: Buffer) -> list[CID]:
    """The CIDs in a block, in the order they stand there, with repetitions; raises DecodeError."""
    found: list[CID] = []
    pending = [decode_lenient(data)]
    while pending:
        item = pending.pop()
        if type(item) is CID:
            found.append(item)
        elif type(item) is dict:
            pending.extend(reversed(item.values()))
        elif type(item) is list:
            pending.extend(reversed(item))
    return found


def _reason(error: Exception) -> str:
    cause = error.__cause__
    return str(cause) if isinstance(cause, (DecodeError, InvalidCID)) else str(error)
