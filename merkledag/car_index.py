"""The index of a CARv2: building, writing, reading and checking both sorted kinds (CARv2 spec, go-car v2).

Layout, all numbers little-endian: varint of the kind; then IndexSorted is `count:u32` and that many buckets
`width:u32 bytes:u64 (digest offset:u64)…`, ascending by width, entries ascending by digest. The specification
calls the second number a count of entries; all implementations write the length in bytes, as is done here.
MultihashIndexSorted is `count:u32` and that many pairs `hash code:u64, IndexSorted`, ascending by code.
Offsets count from the start of the CARv1. Entries of the same digest are ascending by offset.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from merkledag import multihash, varint
from merkledag.car_sections import ReadAt
from merkledag.cid import CID
from merkledag.errors import DecodeError, LimitExceeded

MAX_BUCKETS = 4_096  # hash functions, and digest lengths of one
MAX_MATCHES = 1_024  # places of one block that a look-up returns

_OFFSET_BYTES = 8
_KIND_BYTES = 2
_COUNT_BYTES = 4
_CODE_BYTES = 8
_BUCKET_BYTES = 12  # the head of a bucket: width and length


class IndexKind(IntEnum):
    """The multicodec numbers of the index formats."""

    SORTED = 0x0400
    MULTIHASH_SORTED = 0x0401


class Bucket(NamedTuple):
    """Entries of one width; `code` is the hash function, None where the kind does not tell it."""

    code: int | None
    width: int
    entries: memoryview

    def __len__(self) -> int:
        return len(self.entries) // self.width

    def records(self) -> Iterator[bytes]:
        """Each entry as digest and big-endian offset, so that sorting bytes sorts both."""
        data, width = bytes(self.entries), self.width
        for at in range(0, len(data), width):
            end = at + width
            yield data[at : end - _OFFSET_BYTES] + data[end - _OFFSET_BYTES : end][::-1]


class CarIndex:
    """Which block begins where: filled section by section, 100 bytes each.

    Identity CIDs are left out unless `identity`, which the header then says as `fully_indexed`.
    """

    def __init__(self, *, identity: bool = False) -> None:
        self.identity = identity
        # hash code -> width -> digest and big-endian offset of each section
        self._records: dict[int, dict[int, list[bytes]]] = {}

    def add(self, cid: CID, offset: int) -> None:
        """A section of the CARv1 begins at `offset`."""
        if cid.is_identity and not self.identity:
            return
        code, digest = multihash.split(cid.multihash)
        record = digest + offset.to_bytes(_OFFSET_BYTES, "big")
        self._records.setdefault(code, {}).setdefault(len(record), []).append(record)

    def encode(self, kind: IndexKind) -> bytes:
        """The index as it stands in a CARv2."""
        if kind is IndexKind.SORTED:
            return varint.encode(kind) + _encode_widths(self._by_width())
        parts = [varint.encode(kind), len(self._records).to_bytes(_COUNT_BYTES, "little")]
        for code in sorted(self._records):
            parts += [code.to_bytes(_CODE_BYTES, "little"), _encode_widths(self._records[code])]
        return b"".join(parts)

    def check(self, data: bytes | memoryview) -> IndexKind:
        """Compares an encoded index of this same archive with what was added; returns its kind.

        Every entry must lead to the start of a section of that digest, and every section that was added must
        be found by its digest. Raises DecodeError saying what is wrong.
        """
        kind, buckets = read_index(data)
        ours_of: dict[int | None, dict[int, list[bytes]]] = {None: self._by_width()}
        if kind is IndexKind.MULTIHASH_SORTED:
            ours_of = dict(self._records.items())
        for bucket in buckets:
            _check_order(bucket)
            ours = ours_of.get(bucket.code, {}).get(bucket.width, [])
            wrong = next(iter(set(bucket.records()) - set(ours)), None)
            if wrong is not None:
                digest, at = wrong[:-_OFFSET_BYTES], int.from_bytes(wrong[-_OFFSET_BYTES:], "big")
                raise DecodeError(
                    f"CAR index: it places {digest.hex()} at byte {at} of the data, which is not there"
                )
        listed = {(bucket.code, record[:-_OFFSET_BYTES]) for bucket in buckets for record in bucket.records()}
        for code, widths in ours_of.items():
            for records in widths.values():
                for record in records:
                    if (code, record[:-_OFFSET_BYTES]) not in listed:
                        raise DecodeError(
                            f"CAR index: the block with digest {record[:-_OFFSET_BYTES].hex()} is not in it"
                        )
        return kind

    def max_encoded_bytes(self) -> int:
        """An honest index of these sections is not longer, whatever its kind."""
        records = [len(each) for widths in self._records.values() for each in widths.values()]
        sizes = sum(len(each) * width for widths in self._records.values() for width, each in widths.items())
        heads = _KIND_BYTES + _COUNT_BYTES + len(self._records) * (_CODE_BYTES + _COUNT_BYTES)
        return heads + len(records) * _BUCKET_BYTES + sizes

    def _by_width(self) -> dict[int, list[bytes]]:
        merged: dict[int, list[bytes]] = {}
        for widths in self._records.values():
            for width, records in widths.items():
                merged.setdefault(width, []).extend(records)
        return merged


def _encode_widths(widths: dict[int, list[bytes]]) -> bytes:
    parts = [len(widths).to_bytes(_COUNT_BYTES, "little")]
    for width in sorted(widths):
        records = sorted(widths[width])
        parts += [width.to_bytes(4, "little"), (width * len(records)).to_bytes(8, "little")]
        parts += [each[:-_OFFSET_BYTES] + each[: -_OFFSET_BYTES - 1 : -1] for each in records]
    return b"".join(parts)


def _check_order(bucket: Bucket) -> None:
    entries, width = bytes(bucket.entries), bucket.width
    digests = (entries[at : at + width - _OFFSET_BYTES] for at in range(0, len(entries), width))
    for before, after in pairwise(digests):
        if after < before:
            raise DecodeError(f"CAR index: {after.hex()} comes after {before.hex()}: it is not sorted")


def read_index(data: bytes | memoryview) -> tuple[IndexKind, list[Bucket]]:
    """The kind and the buckets of a whole encoded index.

    Raises DecodeError for an unknown kind, for lengths that do not fit together, buckets out of order and
    bytes behind the last one; LimitExceeded for over `MAX_BUCKETS`. The order of entries is not looked at.
    """
    view = memoryview(data)
    kind, at = read_kind(bytes(view[: varint.MAX_VARINT_BYTES]))
    if kind is IndexKind.SORTED:
        buckets, at = _read_widths(view, at, None)
    else:
        codes, at = _number(view, at, _COUNT_BYTES)
        if codes > MAX_BUCKETS:
            raise LimitExceeded(f"CAR index: {codes} hash functions; at most {MAX_BUCKETS}")
        buckets, last = [], -1
        for _ in range(codes):
            code, at = _number(view, at, _CODE_BYTES)
            if code <= last:
                raise DecodeError(f"CAR index: hash function 0x{code:x} is out of order")
            last = code
            more, at = _read_widths(view, at, code)
            buckets += more
    if at != len(view):
        raise DecodeError(f"CAR index: {len(view) - at} bytes after its end")
    return kind, buckets


def read_kind(data: bytes) -> tuple[IndexKind, int]:
    """The kind with which an index begins and the bytes it takes; raises DecodeError for an unknown one."""
    number, at = varint.decode(data)
    try:
        return IndexKind(number), at
    except ValueError:
        raise DecodeError(f"CAR index: format 0x{number:x} is not known") from None


def _read_widths(view: memoryview, at: int, code: int | None) -> tuple[list[Bucket], int]:
    count, at = _number(view, at, _COUNT_BYTES)
    if count > MAX_BUCKETS:
        raise LimitExceeded(f"CAR index: {count} digest lengths; at most {MAX_BUCKETS}")
    buckets: list[Bucket] = []
    for _ in range(count):
        width, at = _number(view, at, 4)
        size, at = _number(view, at, 8)
        if buckets and width <= buckets[-1].width:
            raise DecodeError(f"CAR index: entries of {width} bytes are out of order")
        _check_bucket(width, size)
        if size > len(view) - at:
            raise DecodeError(f"CAR index: cut off, {size} bytes announced and {len(view) - at} there")
        buckets.append(Bucket(code, width, view[at : at + size]))
        at += size
    return buckets, at


def _check_bucket(width: int, size: int) -> None:
    if not _OFFSET_BYTES <= width <= _OFFSET_BYTES + multihash.MAX_DIGEST_BYTES:
        raise DecodeError(f"CAR index: entries of {width} bytes cannot be")
    if size % width:
        raise DecodeError(f"CAR index: {size} bytes are no whole number of entries of {width} bytes")


def _number(view: memoryview, at: int, length: int) -> tuple[int, int]:
    if len(view) - at < length:
        raise DecodeError("CAR index: cut off")
    return int.from_bytes(view[at : at + length], "little"), at + length


def look_up(index_offset: int, wanted: bytes) -> Generator[ReadAt, bytes, list[int]]:
    """The offsets that an index at a place in an archive gives for a multihash, by binary search.

    Reads the heads of the buckets and some twenty entries of one; nothing that it says is to be trusted.
    Raises DecodeError for what is no index.
    """
    code, digest = multihash.split(wanted)
    kind, taken = read_kind((yield ReadAt(index_offset, varint.MAX_VARINT_BYTES)))
    at = index_offset + taken
    groups = 1
    if kind is IndexKind.MULTIHASH_SORTED:
        groups = yield from _read_number(at, _COUNT_BYTES)
        at += _COUNT_BYTES
    for _ in range(min(groups, MAX_BUCKETS)):
        is_ours = True
        if kind is IndexKind.MULTIHASH_SORTED:
            is_ours = (yield from _read_number(at, _CODE_BYTES)) == code
            at += _CODE_BYTES
        count = yield from _read_number(at, _COUNT_BYTES)
        at += _COUNT_BYTES
        for _ in range(min(count, MAX_BUCKETS)):
            width = yield from _read_number(at, 4)
            size = yield from _read_number(at + 4, 8)
            _check_bucket(width, size)
            at += _BUCKET_BYTES
            if is_ours and width == len(digest) + _OFFSET_BYTES:
                return (yield from _search(at, size // width, digest))
            at += size
    return []


def _search(start: int, count: int, digest: bytes) -> Generator[ReadAt, bytes, list[int]]:
    width = len(digest) + _OFFSET_BYTES
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if (yield from _read_exactly(start + middle * width, width))[:-_OFFSET_BYTES] < digest:
            low = middle + 1
        else:
            high = middle
    found: list[int] = []
    while low < count and len(found) < MAX_MATCHES:
        entry = yield from _read_exactly(start + low * width, width)
        if entry[:-_OFFSET_BYTES] != digest:
            break
        found.append(int.from_bytes(entry[-_OFFSET_BYTES:], "little"))
        low += 1
    return found


def _read_number(offset: int, length: int) -> Generator[ReadAt, bytes, int]:
    return int.from_bytes((yield from _read_exactly(offset, length)), "little")


def _read_exactly(offset: int, length: int) -> Generator[ReadAt, bytes, bytes]:
    data = yield ReadAt(offset, length)
    if len(data) != length:
        raise DecodeError("CAR index: cut off")
    return data
