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

With a journal a collection that was stopped or killed is gone on with by the next one, whenever that is. What
it had marked may be garbage by then and stays this time. What it had not marked and is stamped below its
limit is garbage for good: nothing referred to it at (3), and whoever has come to rely on it since has put or
touched it, which stamps it with an epoch that is no lower than the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from merkledag.cid import CID
from storage_node.blockstore.interface import BlockClass, BlockRow, Blockstore
from storage_node.errors import CorruptStore, DamagedBlock, IncompleteDag, StoreFull
from storage_node.gc_journal import GcJournal, Phase, Workspace
from storage_node.gc_mark import NEEDED, IsPartial, Marker
from storage_node.pins import PinMode, Pins

BLOCKS_PER_SWEEP = 4096  # at most this many, and these bytes, before the next look at `stop`
BYTES_PER_SWEEP = 256 * 1024 * 1024
PINS_PER_STEP = 1024

OnFreed = Callable[[list[bytes]], None]
OnProgress = Callable[[Phase, int, int], None]  # how far the phase is, in blocks, of how many at most


class Tally(NamedTuple):
    """A number of blocks and their bytes."""

    blocks: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a collection freed (or, in a dry run, would free now), and what stays: marked or too young.

    Of one that was resumed it counts the earlier parts too.
    """

    freed: Mapping[BlockClass, Tally]  # by the class that the blocks had
    kept: Tally
    to_deal: int  # blocks of one's own that only deals need now: their class is DEAL from here on
    dry_run: bool = False
    complete: bool = True  # False if `stop` ended it early
    resumed: bool = False  # whether it went on with an earlier one

    @property
    def blocks(self) -> int:
        """Blocks freed."""
        return sum(tally.blocks for tally in self.freed.values())

    @property
    def bytes(self) -> int:
        """Bytes freed."""
        return sum(tally.bytes for tally in self.freed.values())

    def after(self, earlier: GcReport) -> GcReport:
        """This one and the one before it in one."""
        both = {each: (self.freed[each], earlier.freed[each]) for each in BlockClass}
        freed = {each: Tally(a.blocks + b.blocks, a.bytes + b.bytes) for each, (a, b) in both.items()}
        return GcReport(
            freed, self.kept, self.to_deal + earlier.to_deal, self.dry_run, self.complete, earlier.resumed
        )


def collect(
    store: Blockstore,
    pins: Pins,
    *,
    roots: Iterable[CID] = (),
    is_partial: IsPartial | None = None,
    partial_roots: Iterable[CID] = (),
    deals: Iterable[bytes] = (),
    journal: GcJournal | None = None,
    dry_run: bool = False,
    on_freed: OnFreed | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: OnProgress = lambda *_: None,
) -> GcReport:
    """Free every block that neither pins nor roots reach, or go on with what the journal says is unfinished.

    `roots` are kept like recursive pins, except that below a node that `is_partial` whatever part is here is
    kept, as of `partial_roots`; `deals` are multihashes of blocks that are kept each for itself, and
    become DEAL where nothing else needs them. They are read once, after the epoch began, so an iterable that
    looks them up late is best. `on_freed` is told the multihashes that went. `stop` is asked between bounded
    steps of marking and sweeping. Raises IncompleteDag, having freed nothing, if links of a pin or root
    cannot be read: what hangs below a missing block is unknown.

    Without a journal marks are in memory and nothing can be resumed. Where the disk has no room for one, or
    errors, OSError is raised: collect again without, with roots that are read anew.
    """
    run = _Run(store, pins, roots, is_partial, partial_roots, deals, dry_run, on_freed, stop, progress)
    if journal is None:
        return run.work_in(Workspace.unrecorded(run.limit(), store.stat().blocks))
    try:
        with journal:
            return _recorded(journal, run)
    except OSError:  # of the journal's files: the store has errors of its own
        if not dry_run:
            journal.discard()
        raise  # and not go on from here: roots that were read are used up


def _recorded(journal: GcJournal, run: _Run) -> GcReport:
    if run.dry_run:
        return run.work_in(journal.aside(run.limit(), run.store.stat().blocks))
    work = journal.resume()
    run.resumed = work is not None
    if work is None:
        work = journal.begin(run.limit(), run.store.stat().blocks)
    try:
        report = run.work_in(work)
    except (IncompleteDag, CorruptStore):
        journal.discard()
        raise
    if report.complete:
        journal.discard()
    return report


@dataclass(slots=True)
class _Run:
    """One call of `collect`."""

    store: Blockstore
    pins: Pins
    roots: Iterable[CID]
    is_partial: IsPartial | None
    partial_roots: Iterable[CID]
    deals: Iterable[bytes]
    dry_run: bool
    on_freed: OnFreed | None
    stop: Callable[[], bool]
    progress: OnProgress
    resumed: bool = False

    def limit(self) -> int:
        """The epoch below which stamps may be freed, of a collection that begins now."""
        return self.store.lease_floor() if self.dry_run else self.store.begin_collection()

    def work_in(self, work: Workspace) -> GcReport:
        """Mark and sweep, from where the workspace is."""
        try:
            complete = work.state.phase is Phase.SWEEP or self._mark(work)
            if complete:
                complete = self._sweep(work)
            state = work.state
            freed = {each: Tally(*state.freed.get(each.name, (0, 0))) for each in BlockClass}
            return GcReport(freed, Tally(*state.kept), state.to_deal, self.dry_run, complete, self.resumed)
        except DamagedBlock as error:
            raise IncompleteDag(f"{error}; nothing was freed") from error
        finally:
            work.close()

    def _mark(self, work: Workspace) -> bool:
        """Mark what is to stay; False if `stop` said so."""
        state, marker = work.state, Marker(self.store, work)
        total = self.store.stat().blocks

        def go_on() -> bool:
            work.save()
            self.progress(state.phase, len(work.marks), total)
            return not self.stop()

        self.pins.settle()
        if state.phase is Phase.PINS:
            if not state.pin and not self.dry_run:
                with suppress(StoreFull):  # a collection that makes room must not end for lack of it
                    self.pins.forget_moves()
            if not self._read_pins(work, marker, go_on) or not marker.follow_whole(go_on):
                return False
            state.phase = Phase.ROOTS
        # Read again when resumed: what is marked already costs a look-up.
        if state.phase is Phase.ROOTS:
            marker.whole(self.roots, self.is_partial)
            if not marker.follow_whole(go_on, self.is_partial):
                return False
            state.phase = Phase.PARTIAL
        marker.partial(self.partial_roots)
        if not marker.follow_partial(go_on):
            return False
        marker.blocks_of_deals(self.deals)
        work.begin_sweep()
        return not self.stop()

    def _read_pins(self, work: Workspace, marker: Marker, go_on: Callable[[], bool]) -> bool:
        state = work.state
        pins = self.pins.ls(after=CID.decode(bytes.fromhex(state.pin)) if state.pin else None)
        while page := list(islice(pins, PINS_PER_STEP)):
            marker.whole(pin.cid for pin in page if pin.mode is PinMode.RECURSIVE)
            for pin in page:
                if pin.mode is PinMode.DIRECT:
                    marker.block(pin.cid.multihash)
            state.pin = bytes(page[-1].cid).hex()
            if not go_on():
                return False
        return True

    def _sweep(self, work: Workspace) -> bool:
        """Free what is not marked; False if `stop` said so."""
        state = work.state
        total, passed = self.store.stat().blocks, state.kept[0]
        after = bytes.fromhex(state.cursor) if state.cursor else None
        for group in _groups(self.store.rows(after)):
            garbage, only_deals = self._sort(work, group)
            self._free(garbage, work)
            if only_deals and not self.dry_run:
                state.to_deal += self.store.reclass_many(only_deals, BlockClass.DEAL, state.limit)
            else:
                state.to_deal += len(only_deals)
            state.cursor = group[-1][0].hex()
            work.save()
            passed += len(group)
            self.progress(Phase.SWEEP, passed, total)
            if self.stop():
                return False
        return True

    def _sort(
        self, work: Workspace, group: list[tuple[bytes, BlockRow]]
    ) -> tuple[dict[bytes, BlockRow], list[bytes]]:
        """What may go, and blocks of one's own that only deals need; counts what stays."""
        state = work.state
        garbage: dict[bytes, BlockRow] = {}
        only_deals: list[bytes] = []
        for multihash, row in group:
            flags = work.marks.flags(multihash)
            if row.epoch < state.limit and flags < 0:
                garbage[multihash] = row
                continue
            _count(state.kept, row)
            if row.epoch < state.limit and row.block_class is BlockClass.OWN and not flags & NEEDED:
                only_deals.append(multihash)
        return garbage, only_deals

    def _free(self, garbage: dict[bytes, BlockRow], work: Workspace) -> None:
        gone: Iterable[bytes] = garbage
        if not self.dry_run and garbage:
            gone = self.store.free_many(garbage, work.state.limit).multihashes
        went = set(gone)
        for multihash, row in garbage.items():
            if multihash in went:
                _count(work.state.freed.setdefault(row.block_class.name, [0, 0]), row)
            elif self.store.has(multihash):  # put or touched meanwhile
                _count(work.state.kept, row)
        if self.on_freed is not None and went:
            self.on_freed(list(went))


def _count(tally: list[int], row: BlockRow) -> None:
    tally[0] += 1
    tally[1] += row.length


def _groups(rows: Iterator[tuple[bytes, BlockRow]]) -> Iterator[list[tuple[bytes, BlockRow]]]:
    """Rows in bounded groups, none of them empty."""
    group: list[tuple[bytes, BlockRow]] = []
    size_bytes = 0
    for each in rows:
        group.append(each)
        size_bytes += each[1].length
        if len(group) >= BLOCKS_PER_SWEEP or size_bytes >= BYTES_PER_SWEEP:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group
