"""Random access: one block of an archive by its CID, found by the index of a CARv2 or by going through."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from merkledag.block import Block, verify_block
from merkledag.car_index import look_up
from merkledag.car_sections import (
    HEAD_BYTES,
    HEADS_ONLY,
    CarHeader,
    CarSections,
    ReadAt,
    Scan,
    Section,
    SectionHead,
    scan,
)
from merkledag.cid import CID
from merkledag.errors import DecodeError, TruncatedCar

T = TypeVar("T")

# A computation over an archive that can be read anywhere: sent the bytes that it asks for, fewer at the end.
Reads = Generator[ReadAt, bytes, T]


def run_reads(reads: Reads[T], read: Callable[[int, int], bytes]) -> T:
    """Drives `reads` to its value; `read(offset, length)` gives up to `length` bytes."""
    try:
        want = next(reads)
        while True:
            want = reads.send(read(*want))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        reads.close()


def read_header() -> Reads[CarHeader]:
    """The header of the archive. Raises DecodeError or LimitExceeded for what is no CAR."""
    scanning = scan(CarSections(), HEADS_ONLY)
    want = next(scanning)
    while not isinstance(want, CarHeader):
        if not isinstance(want, ReadAt):
            raise TypeError("a section came before the header")
        want = scanning.send((yield want))
    scanning.close()
    return want


def find_block(header: CarHeader, cid: CID) -> Reads[Block | None]:
    """The block of `cid`, verified; None if it is not in the archive. The codec of the CID does not matter.

    Looks in the archive's index, without one at every section. An identity CID is its own block. Raises
    DecodeError where the index leads to something else, HashMismatch for wrong bytes.
    """
    if cid.is_identity:
        return Block(cid, cid.digest)
    if header.v2 is not None and header.v2.has_index:
        offsets = yield from look_up(header.v2.require_index(), cid.multihash)
        head = yield from _at_first(header, cid, offsets)
    else:
        head = yield from _by_scan(cid)
    if head is None:
        return None
    data = yield ReadAt(head.data_start, head.size_bytes)
    if len(data) != head.size_bytes:
        raise TruncatedCar(f"CAR cut off: it ends inside block {cid}")
    verify_block(cid, data)
    return Block(cid, data)


def _at_first(header: CarHeader, cid: CID, offsets: list[int]) -> Reads[SectionHead | None]:
    """The head of the section at the first of the offsets that an index gave.

    An IndexSorted knows digests without their hash function: the section of another one is passed over.
    """
    for offset in offsets:
        sections = CarSections.inside(header, offset)
        sections.feed((yield ReadAt(sections.position, HEAD_BYTES)))
        head = sections.next_head()
        if not isinstance(head, SectionHead) or head.cid.digest != cid.digest:
            raise DecodeError(f"CAR index: it places {cid} at byte {offset} of the data, which is not there")
        if head.cid.multihash == cid.multihash:
            return head
    return None


def _by_scan(cid: CID) -> Reads[SectionHead | None]:
    scanning = scan(CarSections(), HEADS_ONLY)
    item = next(scanning, None)
    while item is not None:
        if isinstance(item, SectionHead) and item.cid.multihash == cid.multihash:
            return item
        item = _send(scanning, (yield item) if isinstance(item, ReadAt) else None)
    return None


def _send(scanning: Scan, answer: bytes | None) -> ReadAt | CarHeader | Section | SectionHead | None:
    try:
        return scanning.send(answer)
    except StopIteration:
        return None
