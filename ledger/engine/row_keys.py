"""The keys of the store's rows: heights, places of transactions, accounts with heights."""

from __future__ import annotations

import struct

HEIGHT = struct.Struct(">Q")
MAX_HEIGHT = (1 << 63) - 1
PLACE = struct.Struct(">QI")
PLACE_BYTES = PLACE.size


def journal_key(account: bytes, height: int) -> bytes:
    """The key of an account's journal of one block."""
    return account + HEIGHT.pack(height)


def place_key(height: int, index: int) -> bytes:
    """The key of a transaction and its receipt."""
    return PLACE.pack(height, index)


def read_place(key: bytes) -> tuple[int, int]:
    """(height, index) of a key that `place_key` made."""
    height, index = PLACE.unpack(key)
    return height, index
