"""Piece commitments as their definition says, bit by bit and without any of the product's code."""

from __future__ import annotations

import hashlib


def padded(payload: bytes) -> bytes:
    """fr32: the payload's bits, lowest first, with two zeros after each 254; zeros fill it to 128 · 2ⁿ."""
    quads = 1
    while quads * 127 < len(payload):
        quads *= 2
    filled = payload + bytes(quads * 127 - len(payload))
    bits = [byte >> place & 1 for byte in filled for place in range(8)]
    spread: list[int] = []
    for start in range(0, len(bits), 254):
        spread += [*bits[start : start + 254], 0, 0]
    out = bytearray()
    for start in range(0, len(spread), 8):
        out.append(sum(bit << place for place, bit in enumerate(spread[start : start + 8])))
    return bytes(out)


def root_above(leaves: bytes) -> bytes:
    """The root over 32-byte leaves, of which there are 2ⁿ."""
    if len(leaves) == 32:
        return leaves
    half = len(leaves) // 2
    digest = hashlib.sha256(root_above(leaves[:half]) + root_above(leaves[half:])).digest()
    return digest[:31] + bytes([digest[31] & 0b0011_1111])


def commitment(payload: bytes) -> tuple[bytes, int]:
    """(root, padded size in bytes) of a payload."""
    leaves = padded(payload)
    return root_above(leaves), len(leaves)


def v2_bytes(payload: bytes) -> bytes:
    """The binary piece CID, version 2."""
    root, piece_bytes = commitment(payload)
    padding = piece_bytes // 128 * 127 - len(payload)
    varint = bytearray()
    while padding >= 128:
        varint.append(padding % 128 + 128)
        padding //= 128
    varint.append(padding)
    height = (piece_bytes // 32).bit_length() - 1
    digest = bytes(varint) + bytes([height]) + root
    return bytes([0x01, 0x55, 0x91, 0x20, len(digest)]) + digest
