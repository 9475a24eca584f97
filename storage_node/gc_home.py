"""A collection of one home: what of it needs blocks, and what is said afterwards of how it went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage_node import meta_salvage, mfs, pin_jobs
from storage_node.blockstore.interface import Blockstore
from storage_node.commitments import Commitments
from storage_node.errors import CorruptStore, IncompleteDag, StoreFull
from storage_node.gc import GcReport, OnFreed, OnProgress, collect
from storage_node.gc_journal import GcJournal
from storage_node.maintenance import GC, DutyRecords
from storage_node.meta import Meta, Table
from storage_node.mfs_partial import PartialNodes, path_to
from storage_node.mfs_view import text
from storage_node.pin_index import PinIndex
from storage_node.pins import Pins


@dataclass(frozen=True, slots=True)
class Collector:
    """Collects in a home. `pieces` is the folder of what its storage node keeps for others, `folder` where
    unfinished collections are recorded. `clock` gives Unix seconds. Hold the lock of the maintenance.
    """

    store: Blockstore
    meta: Meta
    pins: Pins
    pieces: Path
    folder: Path
    clock: Callable[[], float]

    def unfinished(self) -> bool:
        """Whether a collection was stopped or killed and can go on."""
        return GcJournal(self.folder, self.meta).unfinished()

    def accept_loss(self) -> None:
        """Collect from now on although a salvage found that records of pins or files may be missing."""
        meta_salvage.accept_loss(self.meta)

    def collect(
        self,
        *,
        anew: bool = True,
        dry_run: bool = False,
        recorded: bool = True,
        on_freed: OnFreed = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
        progress: OnProgress = lambda *_: None,
    ) -> GcReport:
        """Go on with an unfinished collection, or make a new one; with `anew` always a new one at the end.

        What became garbage after an unfinished one had begun goes with the new one only. Not `recorded`, it
        takes no room on the disk, forgets an unfinished one, and cannot be gone on with. See `gc.collect`,
        which raises IncompleteDag; CorruptStore for a damaged piece file, or while records may be missing.
        """
        if not recorded:
            GcJournal(self.folder, self.meta).discard()
        report = self._once(dry_run, recorded, on_freed, stop, progress)
        if anew and report.resumed and report.complete:
            report = self._once(dry_run, recorded, on_freed, stop, progress).after(report)
        return report

    def _once(
        self,
        dry_run: bool,
        recorded: bool,
        on_freed: OnFreed,
        stop: Callable[[], bool],
        progress: OnProgress,
    ) -> GcReport:
        if not dry_run and (file := meta_salvage.loss(self.meta)) is not None:
            raise CorruptStore(
                f"{file} was damaged, and pins or files may be missing since; nothing was freed: look at "
                "`pin ls` and `files ls`, pin what is missing, then call `holdfast repo gc --accept-loss`"
            )
        began_s = self.clock()
        tree = self.meta.get(Table.RECORDS, mfs.ROOT_KEY)
        partial = PartialNodes(self.meta)
        commitments = Commitments(self.meta)

        stale = False

        def freed(multihashes: list[bytes]) -> None:
            nonlocal stale
            if not dry_run:
                try:
                    commitments.drop_many(multihashes)
                except StoreFull:  # a collection that makes room must not end for lack of it
                    stale = True
            on_freed(multihashes)

        def collected(journal: GcJournal | None) -> GcReport:
            return collect(
                self.store,
                self.pins,
                roots=mfs.roots(self.meta),
                is_partial=partial,
                partial_roots=pin_jobs.roots(self.meta),
                deals=self._pieces(),
                journal=journal,
                dry_run=dry_run,
                on_freed=freed,
                stop=stop,
                progress=progress,
            )

        try:
            try:
                report = collected(GcJournal(self.folder, self.meta) if recorded else None)
            except OSError:
                report = collected(None)  # it is to help where the disk is full; roots are read anew
        except IncompleteDag as error:
            raise self._explained(error) from error
        if report.complete and not dry_run:
            with suppress(StoreFull):  # as above
                self._note(report, began_s)
                if stale or report.resumed:  # one that was killed may not have dropped them
                    commitments.prune(self.store)
                if not report.resumed:
                    partial.forget_unseen(tree, mfs.ROOT_KEY)
                PinIndex(self.meta, self.pins, self.store).clean(stop)
        return report

    def _pieces(self) -> Iterator[bytes]:
        """The blocks of pieces in the care of this home's node, running or not."""
        if not self.pieces.is_dir():
            return
        from storage_node.piece_file import blocks_of_pieces  # code of the node, which most homes lack
        from storage_node.upload_file import blocks_of_uploads

        yield from blocks_of_pieces(self.pieces)
        yield from blocks_of_uploads(self.pieces, self.clock())

    def _explained(self, error: IncompleteDag) -> IncompleteDag:
        """Where in the mutable tree the missing block belongs, if it does."""
        if error.cid is None:
            return error
        for root in mfs.roots(self.meta):
            path = path_to(self.store, root, error.cid, PartialNodes(self.meta))
            if path is not None:
                return IncompleteDag(
                    f"block {error.cid} of {text(path)} in the mutable tree is missing; nothing was freed: "
                    f"put it again, or let go of what was there with `holdfast files rm -r {text(path)}`",
                    error.cid,
                )
        return error

    def _note(self, report: GcReport, began_s: float) -> None:
        ended_s = self.clock()
        facts = {
            "at_s": int(ended_s),
            "seconds": round(max(0.0, ended_s - began_s), 3),
            "freed_blocks": report.blocks,
            "freed_bytes": report.bytes,
            "kept_blocks": report.kept.blocks,
            "kept_bytes": report.kept.bytes,
        }
        DutyRecords(self.meta).note(GC, facts)
