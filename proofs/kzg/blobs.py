"""How a block becomes polynomials: blobs of 4,096 field elements with 31 data bytes each.

A block is cut every 126,976 bytes; the last blob may be shorter, and an empty block has one empty blob. As an
EIP-4844 blob (131,072 bytes) it has a zero byte before each 31, which keeps every element below r, and zeros
after the data.
"""

from __future__ import annotations

from collections.abc import Iterator

from merkledag.multihash import Buffer
from proofs.kinds import ProofKind
from proofs.kzg.field import DATA_BYTES, ELEMENTS, SCALAR_BYTES

BLOB_BYTES = ProofKind.KZG.rules.unit_bytes
EIP4844_BLOB_BYTES = ELEMENTS * SCALAR_BYTES


def blobs_of(block: Buffer) -> Iterator[memoryview]:
    """The block's blobs, in order, uncopied; each 126,976 bytes but the last."""
    view = memoryview(block)
    for index in range(ProofKind.KZG.unit_count(len(view))):
        yield view[index * BLOB_BYTES : (index + 1) * BLOB_BYTES]


def field_elements(blob: Buffer) -> list[int]:
    """The 4,096 field elements of a blob of up to 126,976 bytes, big-endian, zeros after its end."""
    padded = eip4844_blob(blob)
    return [
        int.from_bytes(padded[start : start + SCALAR_BYTES], "big")
        for start in range(0, EIP4844_BLOB_BYTES, SCALAR_BYTES)
    ]


def eip4844_blob(blob: Buffer) -> bytes:
    """The blob as EIP-4844 has it, 131,072 bytes; raises ValueError for more than 126,976 bytes."""
    if len(blob) > BLOB_BYTES:
        raise ValueError(f"a blob of {len(blob)} bytes; it has at most {BLOB_BYTES}")
    return spread(blob, SCALAR_BYTES)


def spread(blob: Buffer, width: int) -> bytes:
    """The blob's field elements as big-endian numbers of `width` ≥ 31 bytes each, one after the other."""
    data = bytes(blob).ljust(BLOB_BYTES, b"\0")
    spread_out = bytearray(ELEMENTS * width)
    for place in range(DATA_BYTES):
        spread_out[width - DATA_BYTES + place :: width] = data[place::DATA_BYTES]
    return bytes(spread_out)
