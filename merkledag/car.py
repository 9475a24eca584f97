"""CAR archives: writing versions 1 and 2, reading both with every block verified, sans-IO (IPLD CAR specs).

`car_sections.py` reads without verifying, `car_index.py` builds, reads and checks the index of version 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from merkledag import dag_cbor, varint
from merkledag.block import MAX_BLOCK_BYTES, Block
from merkledag.car_sections import CarHeader, CarSections
from merkledag.cid import CID

__all__ = ["CarDecoder", "CarHeader", "frame", "frame_head", "header"]


def header(roots: Sequence[CID]) -> bytes:
    """The beginning of a CARv1."""
    body = dag_cbor.encode({"version": 1, "roots": list(roots)})
    return varint.encode(len(body)) + body


def frame_head(cid: CID, size_bytes: int) -> bytes:
    """What goes before the bytes of a block, `size_bytes` of them."""
    raw = bytes(cid)
    return varint.encode(len(raw) + size_bytes) + raw


def frame(block: Block) -> bytes:
    """One block as a section of a CAR."""
    return frame_head(block.cid, len(block.data)) + block.data


class CarDecoder:
    """Takes the bytes of a CAR in pieces of any length and gives its header, then its blocks, all verified.

    Holds one section and the piece fed last. A length over the limit is refused as soon as it can be read,
    before the section arrives. The index of a CARv2 is left out.
    """

    def __init__(self, max_block_bytes: int = MAX_BLOCK_BYTES, *, null_padding: bool = False) -> None:
        self._sections = CarSections(max_block_bytes, null_padding=null_padding)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Adds bytes; ValueError after `finish`."""
        self._sections.feed(data)

    def finish(self) -> None:
        """Says that no more bytes come, after `next` gave None; raises TruncatedCar if some are missing."""
        self._sections.finish()

    def next(self) -> CarHeader | Block | None:
        """The header once, then the next block; None if more bytes are needed or the archive is at its end.

        Raises DecodeError for what is no CAR, LimitExceeded for sections over the limits, HashMismatch for a
        block that is not what its CID says, UnsupportedHash. After an error the decoder is of no more use.
        """
        item = self._sections.next()
        return item if item is None or isinstance(item, CarHeader) else item.verified()
