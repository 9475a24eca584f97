"""A block: bytes and the CID they hash to."""

from __future__ import annotations

from typing import NamedTuple

from merkledag import multihash
from merkledag.cid import CID
from merkledag.errors import HashMismatch, LimitExceeded

MAX_BLOCK_BYTES = 2 * 1024 * 1024


class Block(NamedTuple):
    """`data` is taken to match `cid`; call `verify_block` on what comes from outside."""

    cid: CID
    data: bytes


def verify_block(cid: CID, data: bytes | memoryview) -> None:
    """Raises HashMismatch unless `data` hashes to `cid`, LimitExceeded over `MAX_BLOCK_BYTES`.

    Raises UnsupportedHash if the hash function is unknown.
    """
    if len(data) > MAX_BLOCK_BYTES:
        raise LimitExceeded(f"block {cid} has {len(data)} bytes; at most {MAX_BLOCK_BYTES}")
    if not multihash.verify(cid.multihash, data):
        raise HashMismatch(f"block {cid}: the {len(data)} bytes received do not hash to this CID")
