"""Garbage collection: frees what no pin needs, beside adders in this and other processes.

Every put stamps its block with the current epoch, and an adder holds a lease that carries the epoch at
which it began. A collection (1) begins a new epoch, (2) lists the live leases, (3) marks what pins and
other roots reach, (4) frees unmarked blocks stamped below both the new epoch and the oldest lease, reading
the stamp again inside each deleting transaction. So:

- a block put after (1) carries the new epoch and stays;
- a block put before (1) under a lease that lives at (2) is stamped no lower than that lease and stays;
- a block whose lease ended before (2) was pinned first, and the pins are read after (2);
- a lease that (2) does not show was recorded after (1), so what it covers carries the new epoch;
- the lease of a killed process counts no more, but its last pin or root may be committed: the meta store is
  settled after (2), or readers would see it only when everything below it is gone.

Nothing here waits for an adder or a reader, or makes one wait for longer than one bounded transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from merkledag.cid import CID
from storage_node.blockstore.interface import BlockClass, Blockstore
from storage_node.errors import DamagedBlock, IncompleteDag
from storage_node.fingerprints import FingerprintSet
from storage_node.pins import PinMode, Pins
from storage_node.reach import reachable

BLOCKS_PER_SWEEP = 1024  # at most this many, and these bytes, before the next look at `stop`
BYTES_PER_SWEEP = 256 * 1024 * 1024

OnFreed = Callable[[list[bytes]], None]


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a collection freed (or, in a dry run, would free now); `kept` blocks were marked or too young."""

    blocks: int
    bytes: int
    kept: int
    dry_run: bool
    complete: bool  # False if `stop` ended it early


def collect(
    store: Blockstore,
    pins: Pins,
    *,
    roots: Iterable[CID] = (),
    partial_roots: Iterable[CID] = (),
    dry_run: bool = False,
    on_freed: OnFreed | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> GcReport:
    """Free every block that neither pins nor roots reach.

    `roots` are kept like recursive pins (deals, for instance); of `partial_roots` whatever part is here.
    They are read after the epoch began, so an iterator that looks them up late is best. `on_freed` is
    told the multihashes that went. `stop` is asked between bounded steps of marking and sweeping.
    Raises IncompleteDag, having freed nothing, if links of a pin or root cannot be read: what hangs
    below a missing block is unknown.
    """
    limit = store.lease_floor() if dry_run else store.begin_collection()
    pins.settle()
    marked = _mark(store, pins, roots, partial_roots, stop)
    if marked is None:
        return GcReport(0, 0, 0, dry_run, complete=False)
    blocks = size_bytes = kept = 0
    for candidates, passed_over in _candidates(store, marked, limit):
        kept += passed_over
        if dry_run:
            blocks += len(candidates)
            size_bytes += sum(candidates.values())
        else:
            freed = store.free_many(candidates, limit)
            blocks += len(freed.multihashes)
            size_bytes += freed.bytes
            kept += len(candidates) - len(freed.multihashes)
            if on_freed is not None and freed.multihashes:
                on_freed(freed.multihashes)
        if stop():
            return GcReport(blocks, size_bytes, kept, dry_run, complete=False)
    return GcReport(blocks, size_bytes, kept, dry_run, complete=True)


def evict_cache(store: Blockstore, target_bytes: int, on_freed: OnFreed | None = None) -> GcReport:
    """Free cached blocks, the oldest epochs first, until at most `target_bytes` of cache are left.

    Needs no mark: whoever comes to rely on a cached block makes it OWN first, which the deleting
    transaction sees.
    """
    surplus = store.stat().cache_bytes - target_bytes
    last_epoch, of_last_bytes = _cutoff(store, surplus)
    blocks = freed_bytes = 0
    for group in _cached(store, last_epoch, of_last_bytes):
        freed = store.free_many(group, last_epoch + 1, BlockClass.CACHE)
        blocks += len(freed.multihashes)
        freed_bytes += freed.bytes
        if on_freed is not None and freed.multihashes:
            on_freed(freed.multihashes)
    return GcReport(blocks, freed_bytes, 0, dry_run=False, complete=True)


def _cutoff(store: Blockstore, surplus_bytes: int) -> tuple[int, int]:
    """The last epoch that eviction reaches, and how many bytes of that one must go."""
    by_epoch: dict[int, int] = {}
    if surplus_bytes > 0:
        for _, row in store.rows():
            if row.block_class is BlockClass.CACHE:
                by_epoch[row.epoch] = by_epoch.get(row.epoch, 0) + row.length
    for epoch in sorted(by_epoch):
        if surplus_bytes <= by_epoch[epoch]:
            return epoch, surplus_bytes
        surplus_bytes -= by_epoch[epoch]
    return max(by_epoch, default=0), max(0, surplus_bytes)


def _cached(store: Blockstore, last_epoch: int, of_last_bytes: int) -> Iterator[list[bytes]]:
    """Cached blocks to evict in bounded groups; keys are hashes, so within an epoch it is chance."""
    group: list[bytes] = []
    size_bytes = 0
    for multihash, row in store.rows() if of_last_bytes else ():
        if row.block_class is not BlockClass.CACHE or row.epoch > last_epoch:
            continue
        if row.epoch == last_epoch:
            if of_last_bytes <= 0:
                continue
            of_last_bytes -= row.length
        group.append(multihash)
        size_bytes += row.length
        if len(group) >= BLOCKS_PER_SWEEP or size_bytes >= BYTES_PER_SWEEP:
            yield group
            group, size_bytes = [], 0
    yield group


def _mark(
    store: Blockstore,
    pins: Pins,
    roots: Iterable[CID],
    partial_roots: Iterable[CID],
    stop: Callable[[], bool],
) -> FingerprintSet | None:
    """The multihashes to keep, or None if `stop` said so."""
    marked = FingerprintSet()

    def refuse(cid: CID) -> None:
        raise IncompleteDag(f"block {cid} of a pin or deal is missing; nothing was freed: fetch or unpin it")

    def whole() -> Iterator[CID]:
        for pin in pins.ls():
            if pin.mode is PinMode.RECURSIVE:
                yield pin.cid
            else:
                marked.add(pin.cid.multihash)
        yield from roots

    try:
        for source, missing in ((whole(), refuse), (iter(partial_roots), lambda _: None)):
            for count, cid in enumerate(reachable(store, source, missing)):
                marked.add(cid.multihash)
                if count % BLOCKS_PER_SWEEP == 0 and stop():
                    return None
    except DamagedBlock as error:
        raise IncompleteDag(f"{error}; nothing was freed") from error
    return marked


def _candidates(
    store: Blockstore, marked: FingerprintSet, limit: int
) -> Iterator[tuple[dict[bytes, int], int]]:
    """Bounded groups of (multihash → length of what may go, number of blocks passed over)."""
    group: dict[bytes, int] = {}
    size_bytes = passed_over = 0
    for multihash, row in store.rows():
        if row.epoch >= limit or multihash in marked:
            passed_over += 1
        else:
            group[multihash] = row.length
            size_bytes += row.length
        if len(group) + passed_over >= BLOCKS_PER_SWEEP or size_bytes >= BYTES_PER_SWEEP:
            yield group, passed_over
            group, size_bytes, passed_over = {}, 0, 0
    yield group, passed_over
