"""One shard of the store: a small row and the bytes of every block, and the operations on them.

Keys: 0 ‖ name → counters and the GC epoch; 1 ‖ multihash → row (key of the bytes, epoch, length, class);
2 ‖ data ID → the block's bytes. The row is apart from the bytes, so that `has`, `size`, stamping and
collection never touch a block's own pages; data IDs ascend: new bytes go to the end of the tree.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import lmdb

from storage_node.blockstore.environment import STATE, Environment, Txn
from storage_node.blockstore.group_commit import Counters, GroupCommit, Work
from storage_node.blockstore.interface import BlockClass, BlockRow, Buffer, Freed
from storage_node.errors import BlockNotFound, DamagedBlock, QuotaExceeded, StoreFull

ROWS_PER_TRANSACTION = 1024

_ROWS = b"\x01"
_DATA = b"\x02"  # the last table: new keys are the tree's greatest, which fills its pages fully
_ROW = struct.Struct(">9sQIB")  # key of the bytes, epoch, length in bytes, class
_DATA_KEY = struct.Struct(">cQ")
_NUMBER = struct.Struct(">Q")
_EPOCH = STATE + b"epoch"
_CLASSES = tuple(BlockClass)

Admit = Callable[[Work, int], None]  # (work, bytes to be added); raises StoreFull or QuotaExceeded


class BlockView:
    """A block's bytes inside their read transaction; use it once, as a context manager."""

    __slots__ = ("_buffer", "_environment", "_txn")

    def __init__(self, environment: Environment, txn: Any, buffer: memoryview) -> None:
        self._environment = environment  # the file stays open at least as long
        self._txn = txn
        self._buffer = buffer

    def __enter__(self) -> memoryview:
        return self._buffer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._buffer.release()
        finally:
            self._txn.abort()


class Shard:
    """Blocks of one LMDB environment. Raises StoreFull, QuotaExceeded, CorruptStore and StoreFailed."""

    def __init__(
        self, environment: Environment, number: int, admit: Admit, settle: Callable[[], None]
    ) -> None:
        self.environment = environment
        self.number = number
        self._admit = admit
        self._commits = GroupCommit(environment, settle)

    # --- reading ---

    def find(self, multihash: bytes) -> BlockView | None:
        """The block in a read transaction of its own. Raises DamagedBlock if its row has no bytes."""
        try:
            txn = self.environment.begin()
            row = txn.get(_ROWS + multihash)
            if row is None:
                txn.abort()
                return None
            data = txn.get(row[:9])
            if data is not None and len(data) == _ROW.unpack(row)[2]:
                return BlockView(self.environment, txn, data)
            txn.abort()
        except lmdb.Error as error:
            raise self.environment.translated(error) from error
        raise DamagedBlock(
            f"block {multihash.hex()} has lost its bytes; run `holdfast repo verify`", multihash
        )

    def row(self, multihash: bytes) -> BlockRow | None:
        """The block's row, None if it is not here."""
        with self.environment.read() as txn:
            return _decode(txn.get(_ROWS + multihash))

    def rows(self, after: bytes | None = None) -> Iterator[tuple[bytes, BlockRow]]:
        """Rows by ascending multihash behind `after`, a bounded number in each transaction."""
        while True:
            found: list[tuple[bytes, BlockRow]] = []
            with self.environment.read() as txn, txn.cursor() as cursor:
                there = cursor.set_range(_ROWS + (after or b""))
                if there and after is not None and bytes(cursor.key()) == _ROWS + after:
                    there = cursor.next()
                while there and cursor.key()[:1] == _ROWS and len(found) < ROWS_PER_TRANSACTION:
                    _, epoch, length, number = _ROW.unpack(cursor.value())
                    found.append((bytes(cursor.key()[1:]), BlockRow(length, epoch, _CLASSES[number])))
                    there = cursor.next()
            yield from found
            if len(found) < ROWS_PER_TRANSACTION:
                return
            after = found[-1][0]

    def counters(self) -> Counters:
        """Committed sums over this shard."""
        with self.environment.read() as txn:
            return Counters.read(txn)

    def reusable_bytes(self) -> int:
        """Bytes inside the file that hold nothing."""
        with self.environment.read() as txn:
            return self.environment.reusable_bytes(txn)

    def epoch(self) -> int:
        """The GC epoch kept in this shard (the store keeps its own in the first shard)."""
        with self.environment.read() as txn:
            return _epoch(txn)

    # --- writing: each is one operation of a group commit, durable on return ---

    def put(self, batch: Mapping[bytes, Buffer], epoch: int, block_class: BlockClass) -> tuple[int, int]:
        """Store a batch; returns (number of new blocks, their bytes). Present blocks are stamped."""
        missing = self._not_current(batch, epoch, block_class)
        if not missing:
            return 0, 0
        size_bytes = sum(len(batch[multihash]) for multihash in missing)

        def put() -> tuple[int, int]:
            return self._commits.run(
                lambda work: self._put(work, missing, batch, epoch, block_class), size_bytes
            )

        try:
            return put()
        except QuotaExceeded:
            raise
        except StoreFull:
            if self.reusable_bytes() < size_bytes:
                raise
            # LMDB reuses a page from the second transaction after the one that freed it. On a full disk
            # the first one, if it is this put, would fail for ever: let a tiny one go before.
            self._commits.run(_tick)
            return put()

    def touch(self, multihashes: Iterable[bytes], epoch: int) -> list[bytes]:
        """Stamp present blocks and make them OWN; returns the absent ones."""
        wanted = self._not_current(multihashes, epoch, BlockClass.OWN)
        return self._commits.run(lambda work: _touch(work, wanted, epoch, BlockClass.OWN)) if wanted else []

    def free(
        self, multihashes: list[bytes], before_epoch: int | None, only_class: BlockClass | None
    ) -> Freed:
        """Delete blocks; with `before_epoch` only those whose stamp is lower now, inside the transaction."""
        with self.environment.read() as txn:
            if all(txn.get(_ROWS + multihash) is None for multihash in multihashes):
                return Freed([], 0)  # no sync for nothing
        return self._commits.run(lambda work: _free(work, multihashes, before_epoch, only_class))

    def replace(self, multihash: bytes, data: Buffer) -> None:
        """Write a present block's bytes anew. Raises BlockNotFound."""
        self._commits.run(lambda work: self._replace(work, multihash, data), len(data))

    def next_epoch(self) -> int:
        """Begin a new GC epoch and return it."""
        return self._commits.run(_next_epoch)

    def _not_current(self, multihashes: Iterable[bytes], epoch: int, block_class: BlockClass) -> list[bytes]:
        """Those that need a write: absent, stamped earlier, or cached where OWN is wanted.

        The others need none: whatever is stamped with the current epoch is as safe as a new block.
        """
        wanted = []
        with self.environment.read() as txn:
            for multihash in multihashes:
                row = _decode(txn.get(_ROWS + multihash))
                if row is None or row.epoch < epoch or row.block_class > block_class:
                    wanted.append(multihash)
        return wanted

    def _put(
        self,
        work: Work,
        multihashes: list[bytes],
        batch: Mapping[bytes, Buffer],
        epoch: int,
        block_class: BlockClass,
    ) -> tuple[int, int]:
        txn = work.txn
        new = [multihash for multihash in multihashes if txn.get(_ROWS + multihash) is None]
        new_bytes = sum(len(batch[multihash]) for multihash in new)
        self._admit(work, new_bytes)  # before the first change: a refused operation leaves nothing
        if len(new) < len(multihashes):
            _touch(work, multihashes, epoch, block_class)
        next_id = _next_id(txn)
        for multihash in new:
            block = batch[multihash]
            key = _DATA_KEY.pack(_DATA, next_id)
            txn.put(key, block, append=True)
            txn.put(_ROWS + multihash, _ROW.pack(key, epoch, len(block), block_class))
            next_id += 1
        work.counters.add(len(new), new_bytes, block_class)
        return len(new), new_bytes

    def _replace(self, work: Work, multihash: bytes, data: Buffer) -> None:
        row = work.txn.get(_ROWS + multihash)
        if row is None:
            raise BlockNotFound(f"block {multihash.hex()} is not in this store")
        key, epoch, length, number = _ROW.unpack(row)
        self._admit(work, max(0, len(data) - length))
        work.txn.put(key, data)
        work.txn.put(_ROWS + multihash, _ROW.pack(key, epoch, len(data), number))
        work.counters.add(0, len(data) - length, _CLASSES[number])


def _decode(row: memoryview | None) -> BlockRow | None:
    if row is None:
        return None
    _, epoch, length, number = _ROW.unpack(row)
    return BlockRow(length, epoch, _CLASSES[number])


def _epoch(txn: Txn) -> int:
    value = txn.get(_EPOCH)
    return 1 if value is None else int(_NUMBER.unpack(value)[0])


def _tick(work: Work) -> None:
    work.counters.write(work.txn)


def _next_epoch(work: Work) -> int:
    epoch = _epoch(work.txn) + 1
    work.txn.put(_EPOCH, _NUMBER.pack(epoch))
    return epoch


def _next_id(txn: Txn) -> int:
    with txn.cursor() as cursor:
        if not cursor.last() or cursor.key()[:1] != _DATA:
            return 1
        return int(_DATA_KEY.unpack(cursor.key())[1]) + 1


def _touch(work: Work, multihashes: Iterable[bytes], epoch: int, block_class: BlockClass) -> list[bytes]:
    absent = []
    for multihash in multihashes:
        row = work.txn.get(_ROWS + multihash)
        if row is None:
            absent.append(multihash)
            continue
        key, stamped, length, number = _ROW.unpack(row)
        if number > block_class:  # from CACHE to OWN, never back
            work.counters.add(-1, -length, BlockClass.CACHE)
            work.counters.add(1, length, BlockClass.OWN)
            number = int(block_class)
        work.txn.put(_ROWS + multihash, _ROW.pack(key, max(epoch, stamped), length, number))
    return absent


def _free(
    work: Work, multihashes: list[bytes], before_epoch: int | None, only_class: BlockClass | None
) -> Freed:
    freed, freed_bytes = [], 0
    for multihash in multihashes:
        row = work.txn.get(_ROWS + multihash)
        if row is None:
            continue
        key, epoch, length, number = _ROW.unpack(row)
        if before_epoch is not None and epoch >= before_epoch:
            continue
        if only_class is not None and number != only_class:
            continue
        work.txn.delete(key)
        work.txn.delete(_ROWS + multihash)
        work.counters.add(-1, -length, _CLASSES[number])
        freed.append(multihash)
        freed_bytes += length
    return Freed(freed, freed_bytes)
