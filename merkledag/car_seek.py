"""Random access: one block of an archive by its CID, found by the index of a CARv2 or by going through."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from merkledag.block import Block, verify_block
from merkledag.car_index import CarIndex, look_up
from merkledag.car_sections import (
    HEAD_BYTES,
    HEADS_ONLY,
    CarHeader,
    CarSections,
    ReadAt,
    Scan,
    Section,
    SectionHead,
    TruncatedCar,
    scan,
)
from merkledag.cid import CID
from merkledag.errors import DecodeError

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


def build_index(*, identity: bool = False) -> Reads[CarIndex]:
    """The index of any archive, from the heads of its sections. Raises as `car_sections.scan`."""
    index = CarIndex(identity=identity)
    scanning = scan(CarSections(), HEADS_ONLY)
    item = next(scanning, None)
    while item is not None:
        answer = None
        if isinstance(item, ReadAt):
            answer = yield item
        elif not isinstance(item, CarHeader):
            index.add(item.cid, item.offset)
        item = _send(scanning, answer)
    return index


def find_block(header: CarHeader, cid: CID, index: bytes | None = None) -> Reads[Block | None]:
    """The block of `cid`, verified; None if it is not in the archive. The codec of the CID does not matter.

    Looks in `index`, an encoded one, else in the archive's own, else at every section. An identity CID is its
    own block. Raises DecodeError where an index leads to something else, HashMismatch for wrong bytes.
    """
    if cid.is_identity:
        return Block(cid, cid.digest)
    if index is not None:
        offsets = run_reads(look_up(0, cid.multihash), lambda at, length: index[at : at + length])
        head = yield from _at_first(header, cid, offsets)
    elif header.v2 is not None and header.v2.has_index:
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
