"""One shard of the store: how blocks are found in it and the operations that change it, each one durable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

import lmdb

from storage_node.blockstore import tables
from storage_node.blockstore.disk import free_bytes
from storage_node.blockstore.environment import Environment, Txn
from storage_node.blockstore.group_commit import GroupCommit, Writing
from storage_node.blockstore.interface import BlockClass, BlockRow, Buffer, Find, Freed
from storage_node.blockstore.tables import ROWS, USES, Counters, Mark, Row, Work, unpack_row
from storage_node.errors import BlockNotFound, DamagedBlock, QuotaExceeded, StoreFull

ROWS_PER_TRANSACTION = 1024
DAMAGED = BlockRow(0, 0, BlockClass.OWN, is_damaged=True)
USES_PER_TRANSACTION = 256
TIGHT_BYTES = 32 * 1024 * 1024  # of disk that is not for the pages that a deletion writes
DELETION_BYTES = 128 * 1024  # of new pages for each block, until those are free that it gives back

T = TypeVar("T")
Admit = Callable[[Work, int], None]  # (work, bytes to be added); raises StoreFull or QuotaExceeded


class BlockView:
    """A block's bytes inside their read transaction; use it once, as a context manager."""

    __slots__ = ("_buffer", "_environment", "_txn")

    def __init__(self, environment: Environment, txn: Any, buffer: memoryview) -> None:
        self._environment = environment  # the file stays open at least as long
        self._txn = txn
        self._buffer = buffer

    def __len__(self) -> int:
        return len(self._buffer)

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

    def __init__(self, environment: Environment, number: int, admit: Admit, writing: Writing) -> None:
        self.environment = environment
        self.number = number
        self._admit = admit
        self._commits = GroupCommit(writing)

    # --- reading ---

    def find(self, multihash: bytes) -> BlockView | None:
        """The block in a read transaction of its own. Raises DamagedBlock if its row has no bytes."""
        try:
            txn = self.environment.begin()
            try:
                data = _bytes_of(txn, multihash)
            except BaseException:
                txn.abort()
                raise
            if data is None:
                txn.abort()
                return None
            return BlockView(self.environment, txn, data)
        except lmdb.Error as error:
            raise self.environment.translated(error) from error

    @contextmanager
    def reading(self) -> Iterator[Find]:
        """Finds blocks in one read transaction. Raises DamagedBlock as `find` does."""
        with self.environment.read() as txn:
            yield partial(_bytes_of, txn)

    def row(self, multihash: bytes) -> BlockRow | None:
        """The block's row, None if it is not here."""
        row = unpack_row(self.environment.get(ROWS + multihash))
        return None if row is None else row.public

    def rows(self, after: bytes | None = None) -> Iterator[tuple[bytes, BlockRow]]:
        """Rows by ascending multihash behind `after`, with a stand-in for each damaged one."""
        for multihash, row in self._pages(after):
            yield multihash, DAMAGED if row is None else row.public

    def keys(self, after: bytes | None = None) -> Iterator[bytes]:
        """Multihashes in ascending order behind `after`, those of damaged rows too."""
        for multihash, _ in self._pages(after):
            yield multihash

    def _pages(self, after: bytes | None) -> Iterator[tuple[bytes, Row | None]]:
        """Rows, a bounded number in each transaction."""
        while True:
            found: list[tuple[bytes, Row | None]] = []
            with self.environment.read(buffers=False) as txn, txn.cursor() as cursor:
                there = cursor.set_range(ROWS + (after or b""))
                if there and after is not None and cursor.key() == ROWS + after:
                    there = cursor.next()
                for key, value in islice(cursor.iternext(), ROWS_PER_TRANSACTION if there else 0):
                    if key[:1] != ROWS:
                        break
                    found.append((key[1:], unpack_row(value)))
            yield from found
            if len(found) < ROWS_PER_TRANSACTION:
                return
            after = found[-1][0]

    def least_used(self) -> Iterator[tuple[int, bytes, int]]:
        """(last use, multihash, length) of cached blocks by ascending last use, found by the index."""
        after = USES
        while True:
            found: list[tuple[int, bytes, int]] = []
            seen = 0
            with self.environment.read() as txn, txn.cursor() as cursor:
                there = cursor.set_range(after)
                if there and bytes(cursor.key()) == after:
                    there = cursor.next()
                while there and cursor.key()[: len(USES)] == USES and seen < USES_PER_TRANSACTION:
                    after = bytes(cursor.key())
                    used_s, multihash = tables.split_use_key(after)
                    row = unpack_row(txn.get(ROWS + multihash))
                    if row is not None and row.block_class is BlockClass.CACHE and row.used_s == used_s:
                        found.append((used_s, multihash, row.length))
                    seen += 1
                    there = cursor.next()
            yield from found
            if seen < USES_PER_TRANSACTION:
                return

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
            return tables.epoch_of(txn)

    # --- writing: each is one operation of a group commit, durable on return ---

    def put(self, batch: Mapping[bytes, Buffer], mark: Mark) -> tuple[int, int]:
        """Store a batch; returns (number of new blocks, their bytes). Present blocks are marked."""
        missing = self._to_mark(batch, mark)
        if not missing:
            return 0, 0
        size_bytes = sum(len(batch[multihash]) for multihash in missing)

        def put() -> tuple[int, int]:
            return self._commits.run(lambda work: self._put(work, missing, batch, mark), size_bytes)

        try:
            return put()
        except QuotaExceeded:
            raise
        except StoreFull as error:
            why = str(error)
        # Behind the `except`: what it caught keeps the file open, which may have to be opened anew.
        self.environment.release_dead_readers()
        if self.reusable_bytes() < size_bytes:
            raise StoreFull(why)
        # LMDB reuses a page from the second transaction after the one that freed it. On a full disk
        # the first one, if it is this put, would fail for ever: let a tiny one go before.
        self._commits.run(tables.tick)
        return put()

    def touch(self, multihashes: Iterable[bytes], mark: Mark) -> list[bytes]:
        """Mark present blocks; returns the absent ones."""
        wanted = self._to_mark(multihashes, mark)
        return self._commits.run(lambda work: tables.touch(work, wanted, mark)) if wanted else []

    def use(self, multihashes: list[bytes], at_s: int) -> None:
        """Set the last use of cached blocks."""
        with self.environment.read() as txn:
            rows = ((each, unpack_row(txn.get(ROWS + each))) for each in multihashes)
            wanted = [
                multihash
                for multihash, row in rows
                if row is not None and row.block_class is BlockClass.CACHE and row.used_s < at_s
            ]
        if wanted:
            self._commits.run(lambda work: tables.use(work, wanted, at_s))

    def reclass(
        self, multihashes: list[bytes], block_class: BlockClass, before_epoch: int, now_s: int
    ) -> int:
        """Set the class of blocks stamped below `before_epoch`; returns how many changed."""
        return self._commits.run(
            lambda work: tables.reclass(work, multihashes, block_class, before_epoch, now_s)
        )

    def free(
        self, multihashes: list[bytes], before_epoch: int | None, only_class: BlockClass | None
    ) -> Freed:
        """Delete blocks; with `before_epoch` only those whose stamp is lower now, inside the transaction."""
        with self.environment.read_settled() as txn:
            if all(txn.get(ROWS + multihash) is None for multihash in multihashes):
                return Freed([], 0)  # no sync for nothing
        del txn  # it keeps the file open, which may have to be opened anew
        return self._in_steps(
            multihashes, lambda work, some: tables.free(work, some, before_epoch, only_class)
        )

    def evict(self, candidates: list[tuple[bytes, int]], kept_since: Callable[[], int | None]) -> Freed:
        """Delete cached blocks, given with the last use that `least_used` told, unless they changed."""
        return self._in_steps(candidates, lambda work, some: tables.evict(work, some, kept_since()))

    def _in_steps(self, items: list[T], delete: Callable[[Work, list[T]], Freed]) -> Freed:
        """Delete in one transaction; where the disk has little room, in ones that the file has room for.

        Deleting writes pages before it gives others back, fewer in smaller steps; what one step frees serves
        the next but one. A step that fails takes room as well, for the file has grown by then.
        """
        freed: list[bytes] = []
        size_bytes = done = 0
        most = len(items)
        while done < len(items):
            some = items[done : done + max(1, min(most, self._affordable()))]
            try:
                gone = self._commits.run(partial(_swapped, delete, some))
            except StoreFull:
                if len(some) == 1:
                    raise
                most = len(some) // 2
                continue
            freed += gone.multihashes
            size_bytes += gone.bytes
            done += len(some)
            most *= 2
        return Freed(freed, size_bytes)

    def _affordable(self) -> int:
        """How many blocks can be deleted at once without taking much of a disk that has little room."""
        room_bytes = max(self.reusable_bytes(), free_bytes(self.environment.path.parent) - TIGHT_BYTES)
        return room_bytes // DELETION_BYTES

    def replace(self, multihash: bytes, data: Buffer) -> None:
        """Write a present block's bytes anew. Raises BlockNotFound."""
        self._commits.run(lambda work: self._replace(work, multihash, data), len(data))

    def next_epoch(self) -> int:
        """Begin a new GC epoch and return it."""
        return self._commits.run(tables.next_epoch)

    def _to_mark(self, multihashes: Iterable[bytes], mark: Mark) -> list[bytes]:
        """Those that need a write: absent, stamped earlier, of a weaker class, or cached and used earlier.

        The others need none: whatever is stamped with the current epoch is as safe as a new block. What a
        killed process deleted is not taken for present: the look is at what is committed.
        """
        with self.environment.read_settled() as txn:
            rows = ((multihash, unpack_row(txn.get(ROWS + multihash))) for multihash in multihashes)
            return [multihash for multihash, row in rows if row is None or mark.changes(row)]

    def _put(
        self, work: Work, multihashes: list[bytes], batch: Mapping[bytes, Buffer], mark: Mark
    ) -> tuple[int, int]:
        new = [multihash for multihash in multihashes if work.row(multihash) is None]
        new_bytes = sum(len(batch[multihash]) for multihash in new)
        self._admit(work, new_bytes)  # before the first change: a refused operation leaves nothing
        if len(new) < len(multihashes):
            tables.touch(work, multihashes, mark)
        tables.insert_blocks(work, batch, new, mark)
        return len(new), new_bytes

    def _replace(self, work: Work, multihash: bytes, data: Buffer) -> None:
        row = work.row(multihash)
        if row is None:
            if work.txn.get(ROWS + multihash) is None:
                raise BlockNotFound(f"block {multihash.hex()} is not in this store")
            self._admit(work, len(data))
            epoch = tables.epoch_of(work.txn)
            return tables.insert_blocks(work, {multihash: data}, [multihash], Mark(epoch, BlockClass.OWN, 0))
        self._admit(work, max(0, len(data) - row.length))
        work.txn.put(row.data_key, data)
        work.change(multihash, row, row._replace(length=len(data)))
        return None


def _swapped(delete: Callable[[Work, list[T]], Freed], items: list[T], work: Work) -> Freed:
    return delete(work, items)


def _bytes_of(txn: Txn, multihash: bytes) -> memoryview | None:
    """A block's bytes, None if it is not here. Raises DamagedBlock if its row has none, lmdb.Error."""
    value = txn.get(ROWS + multihash)
    if value is None:
        return None
    row = unpack_row(value)
    if row is not None:
        data: memoryview | None = txn.get(row.data_key)
        if data is not None and len(data) == row.length:
            return data
    raise DamagedBlock(f"block {multihash.hex()} has lost its bytes; run `holdfast repo verify`", multihash)
