"""Pieces and their CIDs: version 1, which holds the root alone, and version 2, which says the size too.

    v1: CIDv1, fil-commitment-unsealed, sha2-256-trunc254-padded: root
    v2: CIDv1, raw, fr32-sha256-trunc254-padbintree: varint padding ‖ u8 height ‖ root

Source: FRC-0069; code numbers from the multicodec table.
"""

from __future__ import annotations

from dataclasses import dataclass

from merkledag import varint
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.errors import DecodeError
from proofs.errors import InvalidPieceCID
from proofs.piece_cid.tree import MAX_HEIGHT, MIN_HEIGHT, NODE_BYTES, capacity_bytes, height_of

FIL_COMMITMENT_UNSEALED = 0xF101
FIL_COMMITMENT_SEALED = 0xF102
TRUNC254_PADDED = 0x1012  # sha2-256-trunc254-padded
PADBINTREE = 0x1011  # fr32-sha256-trunc254-padbintree


@dataclass(frozen=True, slots=True)
class Piece:
    """A commitment to `payload_bytes` bytes: the root (32 bytes) of a tree as high as these need."""

    root: bytes
    payload_bytes: int

    def __post_init__(self) -> None:
        """Raises ValueError for a root or a size that cannot be."""
        if len(self.root) != NODE_BYTES:
            raise ValueError(f"a root of {len(self.root)} bytes; it has {NODE_BYTES}")
        height_of(self.payload_bytes)

    @property
    def height(self) -> int:
        """Of the tree, whose leaves have 32 bytes and height 0."""
        return height_of(self.payload_bytes)

    @property
    def padding_bytes(self) -> int:
        """Zeros behind the payload, before fr32, that fill the tree."""
        return self.unpadded_bytes - self.payload_bytes

    @property
    def unpadded_bytes(self) -> int:
        """Payload and zeros that fill the tree, before fr32: 127 · 2ⁿ."""
        return capacity_bytes(self.height)

    @property
    def padded_bytes(self) -> int:
        """What Filecoin calls the piece size: that of all leaves, 128 · 2ⁿ."""
        return NODE_BYTES << self.height

    @property
    def v1(self) -> CID:
        """The CID without the size (`baga6ea4seaq…`)."""
        return v1_of(self.root)

    @property
    def v2(self) -> CID:
        """The CID that has all (`bafkzcib…`)."""
        digest = varint.encode(self.padding_bytes) + bytes((self.height,)) + self.root
        return CID(1, RAW, varint.encode(PADBINTREE) + varint.encode(len(digest)) + digest)


def v1_of(root: bytes) -> CID:
    """The version 1 piece CID of a root of 32 bytes."""
    return CID(1, FIL_COMMITMENT_UNSEALED, varint.encode(TRUNC254_PADDED) + varint.encode(len(root)) + root)


def is_piece_cid(cid: CID) -> bool:
    """Whether a CID claims to be a piece CID, well-formed or not: its hash function or its codec says so."""
    return cid.hash_code in (PADBINTREE, TRUNC254_PADDED) or cid.codec == FIL_COMMITMENT_UNSEALED


def parse_piece_cid(cid: CID) -> Piece | bytes:
    """What a piece CID says: version 2 a `Piece`, version 1 only its root.

    Raises InvalidPieceCID for every other CID, also for one that no piece can have.
    """
    if cid.codec == FIL_COMMITMENT_SEALED:
        raise InvalidPieceCID(f"{cid} is of a sealed sector (CommR), not of a piece")
    if cid.version == 1 and cid.codec == RAW and cid.hash_code == PADBINTREE:
        return _parse_v2(cid)
    if cid.version == 1 and cid.codec == FIL_COMMITMENT_UNSEALED and cid.hash_code == TRUNC254_PADDED:
        if len(cid.digest) != NODE_BYTES:
            raise InvalidPieceCID(f"{cid}: a root of {len(cid.digest)} bytes; it has {NODE_BYTES}")
        return cid.digest
    raise InvalidPieceCID(f"{cid} is no piece CID: those begin with bafkzcib or baga6ea4seaq")


def _parse_v2(cid: CID) -> Piece:
    digest = cid.digest
    try:
        padding, end = varint.decode(digest)
    except DecodeError as error:
        raise InvalidPieceCID(f"{cid}: the padding in it: {error}") from error
    if len(digest) != end + 1 + NODE_BYTES:
        raise InvalidPieceCID(f"{cid}: its digest is not padding, height and a root of {NODE_BYTES} bytes")
    height = digest[end]
    if not MIN_HEIGHT <= height <= MAX_HEIGHT:
        raise InvalidPieceCID(f"{cid}: a tree of height {height}; {MIN_HEIGHT} to {MAX_HEIGHT} can be")
    payload_bytes = capacity_bytes(height) - padding
    if payload_bytes < 0 or height_of(payload_bytes) != height:
        raise InvalidPieceCID(
            f"{cid}: {padding} bytes of padding in a tree of height {height}: a lower one would do"
        )
    return Piece(digest[end + 1 :], payload_bytes)
