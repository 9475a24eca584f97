"""A shard as it lies in LMDB: keys, rows and counters, and what one write transaction changes in them.

Keys: 0 ‖ name → counters and the GC epoch; 0 ‖ 1 ‖ last use ‖ multihash → nothing (the cached blocks by last
use); 1 ‖ multihash → row (key of the bytes, epoch, length, class and, of cached blocks, last use); 2 ‖ data
ID → the block's bytes. The row is apart from the bytes, so that `has`, `size`, stamping and collection never
touch a block's own pages; data IDs ascend: new bytes go to the end of the tree.

A row that cannot be decoded counts as absent where blocks are written, so that putting the block heals it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from storage_node.blockstore.environment import STATE, Txn
from storage_node.blockstore.interface import BlockClass, BlockRow, Buffer, Freed, stronger
from storage_node.errors import CorruptStore

ROWS = b"\x01"
DATA = b"\x02"  # the last table: new keys are the tree's greatest, which fills its pages fully
USES = STATE + b"\x01"  # names of state are letters

MAX_USE_S = (1 << 32) - 1

_ROW = struct.Struct(">9sQIB")  # key of the bytes, epoch, length in bytes, class
_CACHE_ROW = struct.Struct(">9sQIBI")  # and last use in seconds
_DATA_KEY = struct.Struct(">cQ")
_USE_KEY = struct.Struct(">2sI")
_NUMBER = struct.Struct(">Q")
_COUNTERS = struct.Struct(">QQQQQQ")
EPOCH_KEY = STATE + b"epoch"
COUNTERS_KEY = STATE + b"counters"
LOST = b""  # in a row's place: the block was here and its bytes are lost; counts as damaged
_CLASSES = tuple(BlockClass)


class Row(NamedTuple):
    """A block's row; `used_s` is 0 unless the class is CACHE."""

    data_key: bytes
    epoch: int
    length: int
    block_class: BlockClass
    used_s: int = 0

    @property
    def public(self) -> BlockRow:
        """As the interface shows it."""
        return BlockRow(self.length, self.epoch, self.block_class, self.used_s)


def unpack_row(value: Buffer | None) -> Row | None:
    """A row, None if there is none or it is damaged. Without a last use, as in version 1, it was at 0."""
    if value is None:
        return None
    if len(value) == _ROW.size:
        key, epoch, length, number = _ROW.unpack(value)
        return Row(key, epoch, length, _CLASSES[number]) if number < len(_CLASSES) else None
    if len(value) == _CACHE_ROW.size:
        key, epoch, length, number, used_s = _CACHE_ROW.unpack(value)
        return Row(key, epoch, length, BlockClass.CACHE, used_s) if number == BlockClass.CACHE else None
    return None


def pack_row(data_key: bytes, epoch: int, length: int, block_class: BlockClass, used_s: int = 0) -> bytes:
    """The fields of a Row as they are stored; a last use is kept of cached blocks only."""
    if block_class is BlockClass.CACHE:
        return _CACHE_ROW.pack(data_key, epoch, length, block_class, used_s)
    return _ROW.pack(data_key, epoch, length, block_class)


def use_key(multihash: bytes, used_s: int) -> bytes:
    """Where the index of cached blocks has a block that was last used at `used_s`."""
    return _USE_KEY.pack(USES, used_s) + multihash


def split_use_key(key: Buffer) -> tuple[int, bytes]:
    """Last use and multihash of a key of the index."""
    return int.from_bytes(key[2:6], "big"), bytes(key[6:])


def data_key(data_id: int) -> bytes:
    """Where the bytes with this ID lie."""
    return _DATA_KEY.pack(DATA, data_id)


def data_id(key: Buffer) -> int:
    """The ID in a key of bytes."""
    return int.from_bytes(key[1:], "big")


@dataclass(slots=True)
class Sum:
    """A number of blocks and their bytes."""

    blocks: int = 0
    bytes: int = 0


class Counters:
    """Number and bytes of a shard's blocks, by class; kept in the transaction that changes them."""

    __slots__ = ("by_class",)

    def __init__(self) -> None:
        self.by_class = tuple(Sum() for _ in _CLASSES)  # by the classes' numbers

    @classmethod
    def read(cls, txn: Txn) -> Counters:
        """As last committed, or as this write transaction has them."""
        value = txn.get(COUNTERS_KEY)
        return cls() if value is None else cls.unpack(value)

    @classmethod
    def unpack(cls, value: Buffer) -> Counters:
        """As they are stored. Raises CorruptStore."""
        if len(value) != _COUNTERS.size:
            raise CorruptStore(f"counters of {len(value)} bytes in a shard; run `holdfast repo fsck`")
        found, numbers = cls(), iter(_COUNTERS.unpack(value))
        for each in found.by_class:
            each.blocks, each.bytes = next(numbers), next(numbers)
        return found

    def write(self, txn: Txn) -> None:
        """Into the write transaction `txn`."""
        # Wrong counters (a damaged file) must not stop a deletion: they stay at zero until they are repaired.
        numbers = (max(0, number) for each in self.by_class for number in (each.blocks, each.bytes))
        txn.put(COUNTERS_KEY, _COUNTERS.pack(*numbers))

    def add(self, blocks: int, size_bytes: int, block_class: BlockClass) -> None:
        """Count blocks in (or, negative, out)."""
        of_class = self.by_class[block_class]
        of_class.blocks += blocks
        of_class.bytes += size_bytes

    @property
    def blocks(self) -> int:
        """Number of all blocks."""
        return sum(each.blocks for each in self.by_class)

    @property
    def bytes(self) -> int:
        """Bytes of all blocks."""
        return sum(each.bytes for each in self.by_class)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counters) and self.by_class == other.by_class

    __hash__ = None  # type: ignore[assignment]


class Work:
    """What an operation works with: the open write transaction and the counters to keep in step.

    `most_bytes` is what the shard's blocks may take when the transaction ends, None without a quota.
    """

    __slots__ = ("counters", "most_bytes", "txn")

    def __init__(self, txn: Txn, most_bytes: int | None = None) -> None:
        self.txn = txn
        self.counters = Counters.read(txn)
        self.most_bytes = most_bytes

    def row(self, multihash: bytes) -> Row | None:
        """The row as this transaction has it."""
        return unpack_row(self.txn.get(ROWS + multihash))

    def insert(self, multihash: bytes, row: Row) -> None:
        """Set the row of a block that is not counted yet, count it, and list it if it is cached."""
        self.txn.put(ROWS + multihash, pack_row(*row))
        self.counters.add(1, row.length, row.block_class)
        if row.block_class is BlockClass.CACHE:
            self.txn.put(use_key(multihash, row.used_s), b"")

    def change(self, multihash: bytes, before: Row, after: Row) -> None:
        """Set a row anew, with its counters and its place in the index of cached blocks."""
        if after == before:
            return
        if (before.block_class, before.used_s) == (after.block_class, after.used_s):
            self.txn.put(ROWS + multihash, pack_row(*after))
            self.counters.add(0, after.length - before.length, after.block_class)
            return
        self._forget(multihash, before)
        self.insert(multihash, after)

    def remove(self, multihash: bytes, row: Row) -> None:
        """Delete a block: its bytes, its row, its place in the index."""
        self.txn.delete(row.data_key)
        self.txn.delete(ROWS + multihash)
        self._forget(multihash, row)

    def _forget(self, multihash: bytes, row: Row) -> None:
        self.counters.add(-1, -row.length, row.block_class)
        if row.block_class is BlockClass.CACHE:
            self.txn.delete(use_key(multihash, row.used_s))


class Mark(NamedTuple):
    """What a put or touch gives a block: the epoch, at least this class and, if cached, this last use."""

    epoch: int
    block_class: BlockClass
    now_s: int

    def on(self, row: Row) -> Row:
        """The row of a present block once it is put or touched."""
        kept = stronger(row.block_class, self.block_class)
        used_s = max(row.used_s, self.now_s) if kept is BlockClass.CACHE else 0
        return Row(row.data_key, max(row.epoch, self.epoch), row.length, kept, used_s)

    def changes(self, row: Row) -> bool:
        """Whether `on` may give another row, told quickly."""
        if row.epoch < self.epoch:
            return True
        if row.block_class is self.block_class:
            # Whoever evicts the block just now is waited for.
            return row.block_class is BlockClass.CACHE
        return self.on(row) != row


def recount(txn: Txn) -> Counters:
    """What the counters must be, from every row of the shard."""
    counted = Counters()
    with txn.cursor() as cursor:
        there = cursor.set_range(ROWS)
        while there and cursor.key()[:1] == ROWS:
            row = unpack_row(cursor.value())
            if row is not None:
                counted.add(1, row.length, row.block_class)
            there = cursor.next()
    return counted


def epoch_of(txn: Txn) -> int:
    """The GC epoch kept in this shard."""
    value = txn.get(EPOCH_KEY)
    return 1 if value is None else int(_NUMBER.unpack(value)[0])


def pack_epoch(epoch: int) -> bytes:
    """An epoch as it is stored."""
    return _NUMBER.pack(epoch)


def unpack_epoch(value: bytes) -> int | None:
    """An epoch, None if it is damaged."""
    return int(_NUMBER.unpack(value)[0]) if len(value) == _NUMBER.size else None


def tick(work: Work) -> None:
    """Change nothing and commit it, for the pages that LMDB frees with it."""
    work.counters.write(work.txn)


def next_epoch(work: Work) -> int:
    """Begin a new GC epoch and return it."""
    epoch = epoch_of(work.txn) + 1
    work.txn.put(EPOCH_KEY, pack_epoch(epoch))
    return epoch


def insert_blocks(work: Work, blocks: Mapping[bytes, Buffer], new: list[bytes], mark: Mark) -> None:
    """Store the bytes and rows of blocks that are not here."""
    txn, size_bytes = work.txn, 0
    for number, multihash in enumerate(new, _next_id(txn)):
        block = blocks[multihash]
        key = data_key(number)
        txn.put(key, block, append=True)
        txn.put(ROWS + multihash, pack_row(key, mark.epoch, len(block), mark.block_class, mark.now_s))
        if mark.block_class is BlockClass.CACHE:
            txn.put(use_key(multihash, mark.now_s), b"")
        size_bytes += len(block)
    work.counters.add(len(new), size_bytes, mark.block_class)


def touch(work: Work, multihashes: Iterable[bytes], mark: Mark) -> list[bytes]:
    """Mark present blocks; returns the absent ones."""
    absent = []
    for multihash in multihashes:
        row = work.row(multihash)
        if row is None:
            absent.append(multihash)
        else:
            work.change(multihash, row, mark.on(row))
    return absent


def use(work: Work, multihashes: Iterable[bytes], at_s: int) -> None:
    """Set the last use of cached blocks, unless it is later already."""
    for multihash in multihashes:
        row = work.row(multihash)
        if row is not None and row.block_class is BlockClass.CACHE and row.used_s < at_s:
            work.change(multihash, row, row._replace(used_s=at_s))


def reclass(
    work: Work, multihashes: Iterable[bytes], block_class: BlockClass, before_epoch: int, now_s: int
) -> int:
    """Set the class of blocks whose stamp is below `before_epoch`; returns how many changed."""
    changed = 0
    for multihash in multihashes:
        row = work.row(multihash)
        if row is None or row.epoch >= before_epoch or row.block_class is block_class:
            continue
        used_s = now_s if block_class is BlockClass.CACHE else 0
        work.change(multihash, row, row._replace(block_class=block_class, used_s=used_s))
        changed += 1
    return changed


def free(
    work: Work, multihashes: list[bytes], before_epoch: int | None, only_class: BlockClass | None
) -> Freed:
    """Delete blocks; with `before_epoch` only of a lower stamp, with `only_class` only of that class.

    Without a class a row that is damaged goes too: whoever relies on its block puts it, which heals the row.
    """
    freed, freed_bytes = [], 0
    for multihash in multihashes:
        row = work.row(multihash)
        if row is None:
            if only_class is None and work.txn.delete(ROWS + multihash):
                freed.append(multihash)
            continue
        if before_epoch is not None and row.epoch >= before_epoch:
            continue
        if only_class is not None and row.block_class is not only_class:
            continue
        work.remove(multihash, row)
        freed.append(multihash)
        freed_bytes += row.length
    return Freed(freed, freed_bytes)


def evict(work: Work, candidates: Iterable[tuple[bytes, int]], kept_since: int | None) -> Freed:
    """Delete cached blocks whose last use is still the one that is given with each, before `kept_since`."""
    freed, freed_bytes = [], 0
    for multihash, used_s in candidates:
        row = work.row(multihash)
        if row is None or row.block_class is not BlockClass.CACHE or row.used_s != used_s:
            continue
        if kept_since is not None and used_s >= kept_since:
            continue
        work.remove(multihash, row)
        freed.append(multihash)
        freed_bytes += row.length
    return Freed(freed, freed_bytes)


def _next_id(txn: Txn) -> int:
    with txn.cursor() as cursor:
        if not cursor.last() or cursor.key()[:1] != DATA:
            return 1
        return data_id(cursor.key()) + 1
