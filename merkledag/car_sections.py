"""The sections of a CAR of either version, not yet verified, from bytes in any portions (sans-IO).

`CarSections` is for whoever hashes elsewhere, skips blocks or needs offsets; `car.CarDecoder` verifies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from merkledag import car_v2, dag_cbor, varint
from merkledag.block import MAX_BLOCK_BYTES, Block, verify_block
from merkledag.cid import CID
from merkledag.errors import DecodeError, InvalidCID, LimitExceeded, TruncatedCar

MAX_HEADER_BYTES = 1024 * 1024  # some 25,000 roots
MAX_CID_BYTES = 160  # the longest digest with its prefixes
SMALL_WINDOW_BYTES = 4 * 1024
WINDOW_BYTES = 1024 * 1024
HEADS_ONLY = -1  # for `scan`: no section with its bytes, not even an empty one
HEAD_BYTES = varint.MAX_VARINT_BYTES + MAX_CID_BYTES  # the most that comes before the bytes of a block


@dataclass(frozen=True, slots=True)
class CarHeader:
    """What an archive says about itself; `version` is 1 or 2, `v2` the header of version 2."""

    version: int
    roots: tuple[CID, ...]
    v2: car_v2.V2Header | None = field(default=None, compare=False)

    @property
    def data_offset(self) -> int:
        """Where the CARv1 begins in the archive."""
        return 0 if self.v2 is None else self.v2.data_offset


class SectionHead(NamedTuple):
    """The beginning of a section: `offset` counts from the start of the CARv1, as an index does.

    `data_start` is the first byte of the block in the whole archive.
    """

    cid: CID
    offset: int
    data_start: int
    size_bytes: int


class Section(NamedTuple):
    """A section with its bytes, of which nobody knows yet whether they are the block of the CID."""

    cid: CID
    offset: int
    data: bytes

    def verified(self) -> Block:
        """The block; raises HashMismatch, UnsupportedHash or LimitExceeded."""
        verify_block(self.cid, self.data)
        return Block(self.cid, self.data)


class ReadAt(NamedTuple):
    """A request for up to `length` bytes at `offset` of the archive; fewer come at its end only."""

    offset: int
    length: int


# Goes through an archive that can be read anywhere; sent the bytes after a ReadAt, None after an item.
Scan = Generator[ReadAt | CarHeader | Section | SectionHead, bytes | None, None]


class CarSections:
    """Takes the bytes of a CAR in order and gives its header, then its sections.

    Holds one section and the piece fed last, which is not copied if it leaves as it came. A length over the
    limit is refused as soon as it can be read. With `null_padding`, a section of length zero ends the data.
    """

    def __init__(self, max_block_bytes: int = MAX_BLOCK_BYTES, *, null_padding: bool = False) -> None:
        self._max_block = max_block_bytes
        self._null_padding = null_padding
        self._queue = _Pieces()
        self._offset = 0  # of the first byte in the queue, in the archive
        self._gap = 0  # bytes before that which nobody wants
        self._header: CarHeader | None = None
        self._v2: car_v2.V2Header | None = None
        self._head: SectionHead | None = None
        self._ended = False
        self._finished = False
        self.rest = b""  # what was fed behind the data of a CARv2 by the time its end was seen

    @classmethod
    def inside(cls, header: CarHeader, offset: int) -> CarSections:
        """Begins with the section at `offset` of the data of an archive whose header is known."""
        if header.v2 is not None and not 0 <= offset < header.v2.data_size:
            raise DecodeError(f"CAR: byte {offset} is not among the {header.v2.data_size} of the data")
        made = cls()
        made._header, made._v2 = header, header.v2
        made._offset = header.data_offset + offset
        return made

    @property
    def position(self) -> int:
        """Where in the archive the next byte to be fed lies, if what `jump` spares is left out."""
        return self._offset + self._gap + len(self._queue)

    @property
    def data_position(self) -> int:
        """How much of the CARv1 has been taken, in bytes."""
        return self._offset - (0 if self._v2 is None else self._v2.data_offset)

    @property
    def ended(self) -> bool:
        """Whether the data is complete: padding or an index may follow. Never true of a CARv1 by itself."""
        return self._ended

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Adds bytes; ValueError after `finish`."""
        if self._finished:
            raise ValueError("the archive is finished")
        if self._gap:
            over = min(self._gap, len(data))
            self._gap -= over
            self._offset += over
            data = data[over:]
        if data and not self._ended:
            self._queue.append(bytes(data))

    def jump(self) -> None:
        """Says that the caller leaves out what nobody wants: the next feed is from `position` on."""
        self._offset += self._gap
        self._gap = 0

    def finish(self) -> None:
        """Says that no more bytes come, after `next` gave None; raises TruncatedCar if some are missing."""
        self._finished = True
        if self._header is None:
            raise TruncatedCar("CAR cut off: it ends before its header is complete")
        if self._ended:
            return
        if self._v2 is not None:
            raise TruncatedCar(f"CAR cut off: {self._v2.data_end - self._offset} bytes are missing")
        if self._queue or self._gap or self._head is not None:
            raise TruncatedCar(f"CAR cut off: it ends inside a block, {len(self._queue)} bytes in")

    def next(self) -> CarHeader | Section | None:
        """The header once, then the next section; None if more bytes are needed or the data is at its end.

        Raises DecodeError for what is no CAR, LimitExceeded for sections over the limits. After an error this
        object is of no more use.
        """
        head = self._head or self.next_head()
        if head is None or isinstance(head, CarHeader):
            return head
        if len(self._queue) < head.size_bytes:
            return None
        self._head = None
        self._offset += head.size_bytes
        return Section(head.cid, head.offset, self._queue.take(head.size_bytes))

    def next_head(self) -> CarHeader | SectionHead | None:
        """As `next`, but without the block: `next` then gives the section, `skip` leaves it out.

        The same head comes again until one of them is called.
        """
        if self._header is None:
            return self._read_header()
        if self._head is None and not self._ended:
            self._read_head()
        return self._head

    def skip(self) -> None:
        """Leaves out the block whose head came last, arrived or not."""
        head = self._head
        if head is None:
            raise ValueError("no section's head was read")
        self._head = None
        self._drop(head.size_bytes)

    def _drop(self, count: int) -> None:
        here = min(count, len(self._queue))
        self._queue.drop(here)
        self._offset += here
        self._gap = count - here

    # --- the parts of an archive ---

    def _length(self, head: bytes, limit: int, what: str) -> tuple[int, int] | None:
        """(length, bytes of its varint) of the section that begins with `head`; None if that is too short."""
        if not head or min(head[: varint.MAX_VARINT_BYTES]) >= 0x80:
            if len(head) >= varint.MAX_VARINT_BYTES:
                raise DecodeError(f"CAR: no length at byte {self._offset}")
            return None
        size, start = varint.decode(head)
        if size > limit:
            raise LimitExceeded(
                f"CAR: {what} of {size} bytes announced at byte {self._offset}; at most {limit}"
            )
        if self._v2 is not None and self._offset + start + size > self._v2.data_end:
            raise DecodeError(f"CAR: the section at byte {self._offset} runs past the end of the data")
        return size, start

    def _read_head(self) -> None:
        if self._v2 is not None and self._offset + self._gap >= self._v2.data_end:
            self._ended = True
            self.rest = self._queue.take(len(self._queue))  # padding, index
            return
        head = self._queue.peek(HEAD_BYTES)
        found = self._length(head, self._max_block + MAX_CID_BYTES, "block")
        if found is None:
            return
        size, start = found
        if size == 0:
            if not self._null_padding:
                raise DecodeError(f"CAR: an empty section at byte {self._offset}")
            self._ended = True
            self._queue.drop(len(self._queue))
            return
        if len(head) < min(start + size, HEAD_BYTES):
            return
        try:
            cid, after = CID.read(head[: start + size], start)
        except InvalidCID as error:
            raise DecodeError(f"CAR: the block at byte {self._offset} has no CID: {error}") from error
        length = start + size - after
        if length > self._max_block:
            raise LimitExceeded(f"CAR: block {cid} has {length} bytes; at most {self._max_block}")
        self._head = SectionHead(cid, self.data_position, self._offset + after, length)
        self._drop(after)

    def _read_header(self) -> CarHeader | None:
        if self._gap:
            return None  # the padding of a CARv2
        found = self._length(self._queue.peek(varint.MAX_VARINT_BYTES), MAX_HEADER_BYTES, "header")
        if found is None:
            return None
        size, start = found
        if size == 0:
            raise DecodeError(f"CAR: an empty section at byte {self._offset}")
        if self._v2 is None and self._queue.peek(len(car_v2.PRAGMA)) == car_v2.PRAGMA:
            if len(self._queue) < car_v2.START_BYTES:
                return None
            self._v2 = car_v2.decode(self._queue.peek(car_v2.START_BYTES)[len(car_v2.PRAGMA) :])
            self._drop(self._v2.data_offset)
            return self._read_header()
        if len(self._queue) < start + size:
            return None
        roots = _roots(dag_cbor.decode_lenient(self._queue.take(start + size)[start:]))
        self._offset += start + size
        self._header = CarHeader(1 if self._v2 is None else 2, roots, self._v2)
        return self._header


class _Pieces:
    """Bytes that came in some pieces and are taken in others."""

    __slots__ = ("_at", "_length", "_pieces")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._at = 0  # bytes of the first piece that are gone
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._length += len(piece)

    def peek(self, count: int) -> bytes:
        """The first `count` bytes, or all there are."""
        if not self._pieces:
            return b""
        at = self._at
        found = self._pieces[0][at : at + count]
        return found if len(found) == count or len(self._pieces) == 1 else self._joined(found, count)

    def take(self, count: int) -> bytes:
        """Removes the first `count` bytes, which are there, and returns them."""
        if not count:
            return b""
        first, at = self._pieces[0], self._at
        if len(first) - at >= count:
            taken = first[at : at + count]  # the piece itself if that is all of it
        else:
            taken = self._joined(memoryview(first)[at:], count)
        self.drop(count)
        return taken

    def _joined(self, begin: bytes | memoryview, count: int) -> bytes:
        """`begin`, of the first piece, and what follows it, `count` bytes in all or what there is."""
        parts: list[bytes | memoryview] = [begin]
        missing = count - len(begin)
        for piece in islice(self._pieces, 1, None):
            if missing <= 0:
                break
            parts.append(piece if len(piece) <= missing else memoryview(piece)[:missing])
            missing -= len(piece)
        return b"".join(parts)

    def drop(self, count: int) -> None:
        """Removes the first `count` bytes, which are there."""
        self._length -= count
        count += self._at
        pieces = self._pieces
        while pieces and count >= len(pieces[0]):
            count -= len(pieces.popleft())
        self._at = count


def scan(sections: CarSections, inline_bytes: int) -> Scan:
    """Goes through an archive that can be read anywhere.

    Yields the header, then each section: with its bytes if it has at most `inline_bytes` of them, else its
    head alone, for the caller to read or to leave out. Ends where the archive ends or an empty read says so.
    Raises as `CarSections.next` and `finish`; a block that is cut off is the caller's to notice when its head
    alone came.
    """
    window = SMALL_WINDOW_BYTES
    while True:
        item = sections.next_head()
        if isinstance(item, SectionHead):
            if item.size_bytes > inline_bytes:
                sections.skip()
                yield item
                window = SMALL_WINDOW_BYTES
                continue
            section = sections.next()
            if section is not None:
                yield section
                continue
        elif item is not None:
            yield item
            continue
        if sections.ended:
            return
        sections.jump()
        data = yield ReadAt(sections.position, window)
        if not data:
            sections.finish()
            return
        sections.feed(data)
        window = min(4 * window, WINDOW_BYTES)


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
