"""What makes a shard of an older format one of the present format, where it lies.

A step works in bounded transactions and may be begun anew at any time: it passes over what it has done. It
runs alone (the folder's creation lock), but a program of the older format may still have the file open.
"""

from __future__ import annotations

import struct

from storage_node.blockstore.environment import Environment, Txn
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.tables import COUNTERS_KEY, ROWS, Counters, pack_row, unpack_row, use_key

ROWS_PER_TRANSACTION = 4096

_COUNTERS_1 = struct.Struct(">QQQQ")  # own blocks, own bytes, cached blocks, cached bytes


def add_deals_and_last_use(shard: Environment) -> None:
    """From version 1 to 2: counters of three classes, and an index of cached blocks by last use.

    The counters come first: older programs cannot read them and so write no more to this file. Rows of
    blocks that are not cached stay as they are, so a store without a cache is done at once.
    """
    with shard.write() as txn:
        counters = _widen_counters(txn)
    if counters.by_class[BlockClass.CACHE].blocks == 0:
        return
    after: bytes | None = ROWS
    while after is not None:
        with shard.write() as txn:
            after = _index_rows(txn, after)


def _widen_counters(txn: Txn) -> Counters:
    value = txn.get(COUNTERS_KEY)
    if value is None or len(value) != _COUNTERS_1.size:
        return Counters.read(txn)
    counters = Counters()
    own_blocks, own_bytes, cache_blocks, cache_bytes = _COUNTERS_1.unpack(value)
    counters.add(own_blocks, own_bytes, BlockClass.OWN)
    counters.add(cache_blocks, cache_bytes, BlockClass.CACHE)
    counters.write(txn)
    return counters


def _index_rows(txn: Txn, after: bytes) -> bytes | None:
    """Give cached blocks behind the key `after` a last use, the oldest there is; where to go on."""
    cached: list[bytes] = []
    seen, last = 0, after
    with txn.cursor() as cursor:
        there = cursor.set_range(after)
        while there and cursor.key()[:1] == ROWS and seen < ROWS_PER_TRANSACTION:
            last = bytes(cursor.key())
            row = unpack_row(cursor.value())
            if row is not None and row.block_class is BlockClass.CACHE:
                cached.append(last)
            seen += 1
            there = cursor.next()
    for key in cached:
        row = unpack_row(txn.get(key))
        assert row is not None
        txn.put(key, pack_row(*row))
        txn.put(use_key(key[1:], row.used_s), b"")
    return last + b"\0" if seen == ROWS_PER_TRANSACTION else None
