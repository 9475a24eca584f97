"""Proof rows of local blocks: remembered on disk, made once, in other processes where that is worth it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from proofs.commitment import SUBTREE_LEAVES, BlockCommitment, PieceRow, commit_block
from storage_node.blockstore.interface import Blockstore
from storage_node.commitments import Commitments
from storage_node.errors import BlockNotFound, StorageNodeError, StoreFull

if TYPE_CHECKING:
    from storage_node.row_workers import RowWorkers

# Work is counted in bytes to hash; a block costs as much as so many more.
BLOCK_WORK = 8 * 1024
BATCH_WORK = 8 * 1024 * 1024
# Starting the workers takes as long as hashing this much here.
WORKERS_FROM = 64 * 1024 * 1024
BATCHES_A_WORKER = 3  # given to the workers at once, so that none waits; what is not given can be dropped

Advance = Callable[[int], None]


@dataclass(slots=True, eq=False)
class _Batch:
    """Blocks, with their lengths, of which other processes make the rows.

    `done` is set whether they could or not; `made` are those whose rows are remembered.
    """

    lengths: dict[bytes, int] = field(default_factory=dict)
    work: int = 0
    made: frozenset[bytes] = frozenset()
    done: threading.Event = field(default_factory=threading.Event)


class ProofRows:
    """The rows of blocks in one store. Safe from any thread.

    `workers` are processes that read the same store, made by whoever starts the program.
    """

    def __init__(
        self, store: Blockstore, commitments: Commitments, workers: RowWorkers | None = None
    ) -> None:
        self._store = store
        self._commitments = commitments
        self._workers = workers
        self._lock = threading.Lock()
        self._finished: deque[_Batch] = deque()  # batches that are at work no more, and still to be noted
        self._gathered = _Batch()  # begun, but too little so far
        self._queue: deque[_Batch] = deque()
        self._batch_of: dict[bytes, _Batch] = {}  # of blocks that are queued or at work
        self._at_work = 0
        self._ended = 0  # batches: whoever looked for rows before another one ended looks again

    def find(self, multihash: bytes) -> BlockCommitment | None:
        """A row that is remembered."""
        return self._commitments.get(multihash)

    def row(self, multihash: bytes) -> BlockCommitment:
        """A row, computed and remembered if it was not. Raises BlockNotFound."""
        known = self._commitments.get(multihash)
        if known is None:
            known = self.renew(multihash)
        return known

    def renew(self, multihash: bytes) -> BlockCommitment:
        """A row computed from the block, and remembered if the disk has room. Raises BlockNotFound."""
        with self._store.view(multihash) as data:
            row = commit_block(data)
        with suppress(StoreFull):  # a proof must not fail for want of room for a note
            self._commitments.put_many({multihash: row})
        return row

    def forget(self, multihashes: Iterable[bytes]) -> None:
        """Drop the rows of blocks that are gone."""
        self._commitments.drop_many(multihashes)

    def forget_hashes(self, multihashes: Iterable[bytes]) -> None:
        """Drop the rows, but leave those for KZG proofs."""
        self._commitments.drop_hashes(multihashes)

    def leave_to_piece(self, rows: Iterable[PieceRow]) -> None:
        """Drop what a piece's file has as well: all that a proof needs of blocks of one subtree."""
        self.forget_hashes(row.multihash for row in rows if row.leaves <= SUBTREE_LEAVES)

    def begin(self, lengths: Mapping[bytes, int]) -> None:
        """Let other processes make the rows of stored blocks; goes on without waiting for them.

        `ensure` waits, for what it needs. Little work is left to it altogether: not until much has been begun
        are there processes to do it.
        """
        if self._workers is None:
            return
        ended = self._ended
        new = self._without_row(lengths)
        with self._locked():
            self._gather(new if ended == self._ended else self._without_row(new))
            if self._gathered.work >= WORKERS_FROM or (self._at_work and self._gathered.work >= BATCH_WORK):
                self._send_gathered()

    def ensure(self, multihashes: Iterable[bytes], advance: Advance) -> None:
        """Make sure that every block's row is remembered; ``advance`` is told of bytes.

        Rows are remembered a few MiB at a time, so work that is killed goes on where it was. What ``advance``
        raises ends it. Raises BlockNotFound.
        """
        ended = self._ended
        lengths: dict[bytes, int] = {}
        for multihash in multihashes:
            known = self._commitments.get(multihash)
            if known is not None:
                advance(known.length)
            else:
                lengths[multihash] = self._length(multihash)
        all_bytes = sum(lengths.values())
        with self._locked():
            if ended != self._ended:
                lengths = self._without_row(lengths)
            work = sum(lengths.values()) + BLOCK_WORK * len(lengths)
            for multihash in lengths:
                length = self._gathered.lengths.pop(multihash, None)
                if length is not None:
                    self._gathered.work -= length + BLOCK_WORK
            if self._workers is not None and work >= WORKERS_FROM:
                self._gather(lengths)
                self._send_gathered()
            batches = {id(each): each for name in lengths if (each := self._batch_of.get(name))}
        try:
            if (made_meanwhile := all_bytes - sum(lengths.values())) > 0:
                advance(made_meanwhile)
            for batch in batches.values():
                batch.done.wait()
                advance(sum(lengths.pop(name, 0) for name in batch.made))
        except BaseException:
            self._drop(batches.values())
            raise
        for here in _batches(lengths):
            self._make_here(here.lengths)
            advance(sum(here.lengths.values()))

    def _without_row(self, lengths: Mapping[bytes, int]) -> dict[bytes, int]:
        return {each: length for each, length in lengths.items() if self._commitments.get(each) is None}

    def _length(self, multihash: bytes) -> int:
        length = self._store.size(multihash)
        if length is None:
            raise BlockNotFound(f"block {multihash.hex()} is not in this store")
        return length

    def _make_here(self, multihashes: Iterable[bytes]) -> None:
        rows: dict[bytes, BlockCommitment] = {}
        with self._store.reading() as find:
            for multihash in multihashes:
                block = find(multihash)
                if block is None:
                    raise BlockNotFound(f"block {multihash.hex()} is not in this store")
                rows[multihash] = commit_block(block)
        self._commitments.put_many(rows)

    # --- in other processes ---

    def _gather(self, lengths: Mapping[bytes, int]) -> None:
        """Note blocks that nobody works on; the lock is held, as below where nothing else is said."""
        gathered = self._gathered
        for multihash, length in lengths.items():
            if multihash not in self._batch_of and multihash not in gathered.lengths:
                gathered.lengths[multihash] = length
                gathered.work += length + BLOCK_WORK

    def _send_gathered(self) -> None:
        """Queue what is gathered."""
        gathered, self._gathered = self._gathered, _Batch()
        for batch in _batches(gathered.lengths):
            self._queue.append(batch)
            self._batch_of.update(dict.fromkeys(batch.lengths, batch))
        self._feed()

    def _feed(self) -> None:
        workers = self._workers
        assert workers is not None, "nothing is queued without workers"
        while self._queue and self._at_work < BATCHES_A_WORKER * workers.workers:
            batch = self._queue.popleft()
            try:
                future = workers.submit(list(batch.lengths))
            except (RuntimeError, OSError):  # no process can be had, or this one is ending
                self._end(batch)
                continue
            self._at_work += 1
            future.add_done_callback(partial(self._arrived, batch))

    def _arrived(self, batch: _Batch, future: Future[list[bytes | None]]) -> None:
        """Rows have come, or the workers failed; called without the lock.

        Whoever needs rows that are not there makes them itself, and hears what is wrong.
        """
        try:
            found = zip(batch.lengths, future.result(), strict=True)
            rows = {name: row for name, row in found if row is not None}
            self._commitments.put_made(rows)
            batch.made = frozenset(rows)
        except (StorageNodeError, BrokenExecutor, CancelledError, OSError):
            pass
        finally:
            self._finished.append(batch)
            self._settle()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the lock, then notes what finished meanwhile."""
        try:
            with self._lock:
                yield
        finally:
            self._settle()

    def _settle(self) -> None:
        """Note batches that finished, and feed the workers; whoever holds the lock does it afterwards.

        Never waits for the lock: a pool whose process was killed tells so while `submit` waits for it.
        """
        while self._finished and self._lock.acquire(blocking=False):
            try:
                while self._finished:
                    self._at_work -= 1
                    self._end(self._finished.popleft())
                self._feed()
            finally:
                self._lock.release()

    def _end(self, batch: _Batch) -> None:
        for multihash in batch.lengths:
            self._batch_of.pop(multihash, None)
        self._ended += 1
        batch.done.set()

    def _drop(self, batches: Iterable[_Batch]) -> None:
        """Drop those that no worker has yet; called without the lock."""
        unwanted = set(batches)
        with self._locked():
            dropped = [batch for batch in self._queue if batch in unwanted]
            self._queue = deque(batch for batch in self._queue if batch not in unwanted)
            for batch in dropped:
                self._end(batch)


def _batches(lengths: Mapping[bytes, int]) -> Iterator[_Batch]:
    batch = _Batch()
    for multihash, length in lengths.items():
        batch.lengths[multihash] = length
        batch.work += length + BLOCK_WORK
        if batch.work >= BATCH_WORK:
            yield batch
            batch = _Batch()
    if batch.lengths:
        yield batch
