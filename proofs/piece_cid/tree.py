"""The binary tree over fr32-padded bytes: SHA-256 of two children, its two highest bits set to zero.

A leaf is 32 padded bytes, the smallest tree has four (one quad). A tree is as high as its payload needs, and
what lacks to 2^height leaves is zeros, whose subtrees are known. Source: FRC-0069.
"""

from __future__ import annotations

import hashlib
from struct import unpack

from merkledag.steps import Buffer
from proofs.piece_cid.fr32 import BATCH_QUADS, QUAD_BYTES, pad

NODE_BYTES = 32
MIN_HEIGHT = 2
MAX_HEIGHT = 58  # the payload of a higher tree would be 2⁶³ bytes or more, which no varint of a CID can say
SEGMENT_HEIGHT = 15
SEGMENT_BYTES = QUAD_BYTES << SEGMENT_HEIGHT - MIN_HEIGHT  # 1,040,384

_BATCH_HEIGHT = BATCH_QUADS.bit_length() - 1 + MIN_HEIGHT
_BATCH_BYTES = BATCH_QUADS * QUAD_BYTES
_ZERO_BATCH = bytes(_BATCH_BYTES)
_PAIR = f"{2 * NODE_BYTES}s"
_TRUNCATE = bytes(value & 0x3F for value in range(256))

_new_sha256 = hashlib.sha256().copy  # to copy a hash of nothing takes less than to make one


def _level(nodes: bytes | bytearray) -> bytearray:
    """The nodes above an even number of `nodes`, all as one run of 32 bytes each."""
    digests = []
    for pair in unpack(_PAIR * (len(nodes) // (2 * NODE_BYTES)), nodes):
        hashed = _new_sha256()
        hashed.update(pair)
        digests.append(hashed.digest())
    above = bytearray().join(digests)
    above[NODE_BYTES - 1 :: NODE_BYTES] = above[NODE_BYTES - 1 :: NODE_BYTES].translate(_TRUNCATE)
    return above


def node(left: bytes, right: bytes) -> bytes:
    """The parent of two nodes."""
    return bytes(_level(left + right))


def _zero_roots() -> tuple[bytes, ...]:
    roots = [bytes(NODE_BYTES)]
    while len(roots) <= MAX_HEIGHT:
        roots.append(node(roots[-1], roots[-1]))
    return tuple(roots)


ZERO_ROOTS = _zero_roots()  # by height


def height_of(payload_bytes: int) -> int:
    """The height of the tree over so many bytes; ValueError below 0 and above what a CID can say."""
    quads = -(-payload_bytes // QUAD_BYTES)
    height = MIN_HEIGHT + max(quads - 1, 0).bit_length()
    if payload_bytes < 0 or height > MAX_HEIGHT:
        raise ValueError(f"no piece has {payload_bytes} bytes; at most {capacity_bytes(MAX_HEIGHT)}")
    return height


def capacity_bytes(height: int) -> int:
    """How many bytes of payload fill a tree of this height ≥ `MIN_HEIGHT`."""
    return QUAD_BYTES << height - MIN_HEIGHT


def lift(root: bytes, height: int, to_height: int) -> bytes:
    """The root of a higher tree whose leaves beyond the given one are zeros."""
    for level in range(height, to_height):
        root = node(root, ZERO_ROOTS[level])
    return root


def segment_root(payload: Buffer) -> bytes:
    """The root of the tree, as high as needed, over up to `SEGMENT_BYTES` of payload; ValueError for more.

    It depends on nothing else, so that segments may be hashed by many processes.
    """
    if len(payload) > SEGMENT_BYTES:
        raise ValueError(f"a segment of {len(payload)} bytes; at most {SEGMENT_BYTES}")
    height = height_of(len(payload))
    view = memoryview(payload)
    if len(view) <= _BATCH_BYTES:
        return _batch_root(bytes(view), height)
    roots = [
        _batch_root(bytes(view[start : start + _BATCH_BYTES]), _BATCH_HEIGHT)
        for start in range(0, len(view), _BATCH_BYTES)
    ]
    return _fold(b"".join(roots), _BATCH_HEIGHT, height)


def _batch_root(payload: bytes, height: int) -> bytes:
    if payload == _ZERO_BATCH:
        return ZERO_ROOTS[height]
    lacking = -len(payload) % QUAD_BYTES
    return _fold(pad(payload + bytes(lacking) if lacking else payload), 0, height)


def _fold(nodes: bytes | bytearray, height: int, to_height: int) -> bytes:
    """The node at `to_height` above `nodes` of `height`; what lacks of them is zeros."""
    for level in range(height, to_height):
        if len(nodes) % (2 * NODE_BYTES):
            nodes = nodes + ZERO_ROOTS[level]
        nodes = _level(nodes)
    return bytes(nodes) or ZERO_ROOTS[to_height]
