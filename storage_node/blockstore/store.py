"""The blockstore on disk: LMDB environments sharded by multihash, opened directly by every process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from merkledag.block import MAX_BLOCK_BYTES
from storage_node.blockstore import eviction
from storage_node.blockstore.disk import free_bytes
from storage_node.blockstore.interface import (
    BlockClass,
    BlockRow,
    Buffer,
    Evicted,
    Find,
    Freed,
    PutResult,
    StoreStat,
    storable,
)
from storage_node.blockstore.layout import open_folder
from storage_node.blockstore.leases import LeaseBook
from storage_node.blockstore.migrations import add_deals_and_last_use
from storage_node.blockstore.room import DEFAULT_RESERVE_BYTES, Room
from storage_node.blockstore.shard import BlockView, Shard
from storage_node.blockstore.tables import MAX_USE_S, Mark
from storage_node.blockstore.writes import Writes
from storage_node.errors import BlockNotFound, BlockRefused, QuotaExceeded, StoreFull

DEFAULT_SHARDS = 4  # 1 GiB of 1 MiB blocks: 1.9 s with one environment, 1.4 s with four
BATCH_BYTES = 4 * 1024 * 1024  # of one shard in one transaction; larger ones only wait longer for each other
BATCH_BLOCKS = 4096
KEYS_PER_WRITE = 1024  # stamped or deleted in one transaction
EVICTION_TRIES = 8  # others may take the room that one makes
EVICT_AHEAD_FROM_BYTES = 64 * 1024 * 1024  # of cache: from here on more goes than must, so that it pays
EVICT_AHEAD_PART = 32  # that is, one 32nd
WORTHWHILE_BYTES = 64 * 1024 * 1024  # compaction of a shard that gives back less is not wanted ...
WORTHWHILE_PART = 4  # ... nor of one of whose file less than a quarter is free
FORMAT = "holdfast-blocks"
FILE = "shard"
MIGRATIONS = (add_deals_and_last_use,)  # one for each version behind the first


def open_store(
    folder: Path,
    *,
    max_bytes: int | None = None,
    reserve_bytes: int = DEFAULT_RESERVE_BYTES,
    clock: Callable[[], float] = time.time,
) -> Store:
    """The store in `folder`, made first if the folder is new or empty.

    `max_bytes` bounds the bytes of all blocks; writes stop while less than `reserve_bytes` are free on
    the disk. `clock` tells when cached blocks are put, in seconds since 1970. Raises CorruptStore (naming
    the file), StoreFull or StoreFailed.
    """
    return Store(folder, max_bytes, reserve_bytes, clock)


class Store:
    """A `Blockstore` on disk; see the protocol for every method. Any number of processes may share it."""

    def __init__(
        self, folder: Path, max_bytes: int | None, reserve_bytes: int, clock: Callable[[], float]
    ) -> None:
        self.folder = folder
        self._clock = clock
        environments = open_folder(folder, FORMAT, FILE, DEFAULT_SHARDS, MIGRATIONS)
        self._room = Room(folder, environments, max_bytes, reserve_bytes)
        self._shards = [
            Shard(environment, number, partial(self._room.admit, number), partial(self._room.writing, number))
            for number, environment in enumerate(environments)
        ]
        self._leases = LeaseBook(folder / "leases")
        self._pool = ThreadPoolExecutor(len(self._shards), thread_name_prefix="blockstore")

    # --- reading ---

    def find(self, multihash: bytes) -> BlockView | None:
        """See Blockstore. Raises DamagedBlock too."""
        return self._shard(multihash).find(multihash) if storable(multihash) else None

    def view(self, multihash: bytes) -> BlockView:
        """See Blockstore."""
        found = self.find(multihash)
        if found is None:
            raise BlockNotFound(f"block {multihash.hex()} is not in this store")
        return found

    def get(self, multihash: bytes) -> bytes:
        """See Blockstore."""
        with self.view(multihash) as block:
            return bytes(block)

    @contextmanager
    def reading(self) -> Iterator[Find]:
        """See Blockstore."""
        with ExitStack() as entered:
            finders: list[Find | None] = [None] * len(self._shards)

            def find(multihash: bytes) -> memoryview | None:
                if not storable(multihash):
                    return None
                number = multihash[-1] % len(finders)
                finder = finders[number]
                if finder is None:
                    finder = finders[number] = entered.enter_context(self._shards[number].reading())
                return finder(multihash)

            yield find

    def row(self, multihash: bytes) -> BlockRow | None:
        """See Blockstore."""
        return self._shard(multihash).row(multihash) if storable(multihash) else None

    def size(self, multihash: bytes) -> int | None:
        """See Blockstore."""
        row = self.row(multihash)
        return None if row is None else row.length

    def has(self, multihash: bytes) -> bool:
        """See Blockstore."""
        return self.row(multihash) is not None

    def rows(self, after: bytes | None = None) -> Iterator[tuple[bytes, BlockRow]]:
        """See Blockstore."""
        for shard, behind in self._shards_from(after):
            yield from shard.rows(behind)

    def keys(self, after: bytes | None = None) -> Iterator[bytes]:
        """See Blockstore."""
        for shard, behind in self._shards_from(after):
            yield from shard.keys(behind)

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def stat(self) -> StoreStat:
        """See Blockstore."""
        counters = [shard.counters().by_class for shard in self._shards]
        blocks = {each: sum(of[each].blocks for of in counters) for each in BlockClass}
        sizes = {each: sum(of[each].bytes for of in counters) for each in BlockClass}
        return StoreStat(
            blocks=sum(blocks.values()),
            bytes=sum(sizes.values()),
            cache_blocks=blocks[BlockClass.CACHE],
            cache_bytes=sizes[BlockClass.CACHE],
            deal_blocks=blocks[BlockClass.DEAL],
            deal_bytes=sizes[BlockClass.DEAL],
            file_bytes=sum(shard.environment.file_bytes() for shard in self._shards),
            reusable_bytes=sum(shard.reusable_bytes() for shard in self._shards),
            disk_free_bytes=free_bytes(self.folder),
            max_bytes=self._room.max_bytes,
            reserve_bytes=self._room.reserve_bytes,
        )

    # --- writing ---

    def put_many(
        self, items: Iterable[tuple[bytes, Buffer]], block_class: BlockClass = BlockClass.OWN
    ) -> PutResult:
        """See Blockstore. At most two batches a shard are held: one being written, one being filled."""
        self._cover(block_class)
        batches: list[dict[bytes, Buffer]] = [{} for _ in self._shards]
        sizes = [0] * len(self._shards)
        writes = Writes(self._pool)
        total = 0
        try:
            for multihash, block in items:
                if not storable(multihash):
                    continue
                if len(block) > MAX_BLOCK_BYTES:
                    raise BlockRefused(f"a block of {len(block)} bytes; at most {MAX_BLOCK_BYTES} are stored")
                total += 1
                number = multihash[-1] % len(self._shards)
                batch = batches[number]
                if multihash in batch:
                    continue
                batch[multihash] = block
                sizes[number] += len(block)
                if sizes[number] >= BATCH_BYTES or len(batch) >= BATCH_BLOCKS:
                    batches[number], sizes[number] = {}, 0
                    writes.start(number, partial(self._put_batch, number, batch, block_class))
            last = [(number, batch) for number, batch in enumerate(batches) if batch]
            for number, batch in last[1:]:
                writes.start(number, partial(self._put_batch, number, batch, block_class))
            for number, batch in last[:1]:
                writes.here(partial(self._put_batch, number, batch, block_class))
        finally:
            results = writes.finish()
        new, new_bytes = sum(each[0] for each in results), sum(each[1] for each in results)
        return PutResult(new, total - new, new_bytes)

    def touch_many(
        self, multihashes: Iterable[bytes], block_class: BlockClass = BlockClass.OWN
    ) -> list[bytes]:
        """See Blockstore."""
        self._cover(block_class)
        absent: list[bytes] = []
        for number, keys in self._by_shard(multihashes):
            absent += self._shards[number].touch(keys, self._mark(block_class))
        return absent

    def use_many(self, multihashes: Iterable[bytes], at_s: int) -> None:
        """See Blockstore."""
        for number, keys in self._by_shard(multihashes):
            self._shards[number].use(keys, _seconds(at_s))

    def evict(self, target_bytes: int, on_freed: Callable[[list[bytes]], None] | None = None) -> Evicted:
        """See Blockstore."""
        shards = self._shards
        return eviction.evict_surplus(
            shards, lambda: self._cache_bytes(shards) - target_bytes, self._leases.cached_since, on_freed
        )

    def delete_many(self, multihashes: Iterable[bytes]) -> Freed:
        """See Blockstore."""
        return self._free(multihashes, None, None)

    def free_many(
        self, multihashes: Iterable[bytes], before_epoch: int, only_class: BlockClass | None = None
    ) -> Freed:
        """See Blockstore."""
        return self._free(multihashes, before_epoch, only_class)

    def reclass_many(self, multihashes: Iterable[bytes], block_class: BlockClass, before_epoch: int) -> int:
        """See Blockstore."""
        now_s = _seconds(self._clock())
        return sum(
            self._shards[number].reclass(keys, block_class, before_epoch, now_s)
            for number, keys in self._by_shard(multihashes)
        )

    def replace(self, multihash: bytes, data: Buffer) -> None:
        """See Blockstore."""
        if not storable(multihash):
            raise BlockNotFound(f"block {multihash.hex()} is not in this store")
        if len(data) > MAX_BLOCK_BYTES:
            raise BlockRefused(f"a block of {len(data)} bytes; at most {MAX_BLOCK_BYTES} are stored")
        self._shard(multihash).replace(multihash, data)

    # --- leases and collection ---

    @contextmanager
    def lease(self) -> Iterator[None]:
        """See Blockstore."""
        # Whoever collects raises the epoch first and lists the leases then. A lease that the list does
        # not show was written after the raise, so the puts that follow it carry the new epoch.
        with self._leases.hold(self.epoch()):
            yield

    def epoch(self) -> int:
        """The current GC epoch, kept in the first shard."""
        return self._shards[0].epoch()

    def begin_collection(self) -> int:
        """See Blockstore."""
        self.tidy()
        return self._below_leases(self._shards[0].next_epoch())

    def lease_floor(self) -> int:
        """See Blockstore."""
        return self._below_leases(self.epoch() + 1)

    @property
    def shards(self) -> Sequence[Shard]:
        """The parts of the store, for what looks at each by itself."""
        return self._shards

    @property
    def leases(self) -> LeaseBook:
        """Who relies on blocks just now."""
        return self._leases

    def wants_compaction(self) -> bool:
        """Whether some shard's file has so much free space that copying the rest pays; costs a look."""
        return any(_is_wasteful(shard) for shard in self._shards)

    def compact(
        self,
        *,
        only_wasteful: bool = False,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Shrink the files to what they hold, one shard after another; returns the bytes given back.

        With `only_wasteful` shards that `wants_compaction` would not name are passed over. `stop` is asked
        before each shard; `progress` is told the bytes of the files done and of all. Reads go on; writes to
        the shard at work wait. Needs room for one shard's copy: StoreFull.
        """
        chosen = [shard for shard in self._shards if not only_wasteful or _is_wasteful(shard)]
        sizes = [shard.environment.file_bytes() for shard in chosen]
        shrunk = done_bytes = 0
        for shard, size_bytes in zip(chosen, sizes, strict=True):
            if stop():
                break
            shard.environment.remove_leftovers()
            self._room.demand(size_bytes - shard.reusable_bytes())
            shrunk += shard.environment.compact()
            done_bytes += size_bytes
            if progress is not None:
                progress(done_bytes, sum(sizes))
        return shrunk

    def tidy(self) -> None:
        """Free what killed processes left: reader slots (they keep deleted pages from reuse) and leases."""
        for shard in self._shards:
            shard.environment.release_dead_readers()
        self._leases.oldest()

    def close(self) -> None:
        """See Blockstore. Views that are still open stay valid."""
        self._pool.shutdown()

    # --- within ---

    def _shards_from(self, after: bytes | None) -> Iterator[tuple[Shard, bytes | None]]:
        """The shards in the order of keys, from that of `after` on, each with where to begin in it."""
        first = 0 if after is None else self._shard(after).number
        for shard in self._shards[first:]:
            yield shard, after if shard.number == first else None

    def _shard(self, multihash: bytes) -> Shard:
        return self._shards[multihash[-1] % len(self._shards)]

    def _below_leases(self, epoch: int) -> int:
        oldest = self._leases.oldest()
        return epoch if oldest is None else min(epoch, oldest)

    def _mark(self, block_class: BlockClass) -> Mark:
        return Mark(self.epoch(), block_class, _seconds(self._clock()))

    def _cover(self, block_class: BlockClass) -> None:
        if block_class is BlockClass.CACHE:
            self._leases.cover_cache(_seconds(self._clock()))

    def _put_batch(self, number: int, batch: dict[bytes, Buffer], block_class: BlockClass) -> tuple[int, int]:
        """Store a batch; where there is no room, cached blocks make some."""
        wanted_bytes = sum(len(block) for block in batch.values())
        for _ in range(EVICTION_TRIES):
            try:
                return self._shards[number].put(batch, self._mark(block_class))
            except StoreFull as full:
                # The quota counts all shards; free pages serve the shard alone whose file has them.
                for_quota = isinstance(full, QuotaExceeded)
                shards = self._shards if for_quota else [self._shards[number]]
                if not self._make_room(shards, wanted_bytes):
                    raise
                if not for_quota:  # some of the free pages may be too few in a row, or in a reader's sight
                    wanted_bytes *= 2
        return self._shards[number].put(batch, self._mark(block_class))

    def _make_room(self, shards: list[Shard], wanted_bytes: int) -> bool:
        """Evict cached blocks; False if there are none."""
        cache_bytes = self._cache_bytes(shards)
        ahead = cache_bytes // EVICT_AHEAD_PART if cache_bytes >= EVICT_AHEAD_FROM_BYTES else 0
        return eviction.evict(shards, wanted_bytes + ahead, self._leases.cached_since).blocks > 0

    def _cache_bytes(self, shards: list[Shard]) -> int:
        return sum(shard.counters().by_class[BlockClass.CACHE].bytes for shard in shards)

    def _by_shard(self, multihashes: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
        """The storable ones in bounded groups of one shard."""
        groups: list[list[bytes]] = [[] for _ in self._shards]
        for multihash in multihashes:
            if storable(multihash):
                number = multihash[-1] % len(self._shards)
                groups[number].append(multihash)
                if len(groups[number]) >= KEYS_PER_WRITE:
                    yield number, groups[number]
                    groups[number] = []
        yield from ((number, group) for number, group in enumerate(groups) if group)

    def _free(
        self, multihashes: Iterable[bytes], before_epoch: int | None, only_class: BlockClass | None
    ) -> Freed:
        gone: list[bytes] = []
        size_bytes = 0
        for number, keys in self._by_shard(multihashes):
            freed = self._shards[number].free(keys, before_epoch, only_class)
            gone += freed.multihashes
            size_bytes += freed.bytes
        return Freed(gone, size_bytes)


def _is_wasteful(shard: Shard) -> bool:
    free = shard.reusable_bytes()
    return free >= WORTHWHILE_BYTES and free * WORTHWHILE_PART >= shard.environment.file_bytes()


def _seconds(at_s: float) -> int:
    """A time that rows can keep."""
    return min(max(int(at_s), 0), MAX_USE_S)
