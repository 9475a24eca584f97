"""`holdfast repo gc`: frees the blocks that nothing needs."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import Meter, blocks_text, count_text, emit, meter, note, size_text, text, usage

if TYPE_CHECKING:
    from storage_node.blockstore.interface import StoreStat
    from storage_node.gc import GcReport
    from storage_node.gc_journal import Phase

MUCH_BYTES = 16 * 1024 * 1024


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; free nothing.")] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Print the CIDs of the blocks alone, one a line.")
    ] = False,
    silent: Annotated[bool, typer.Option("--silent", help="Print nothing.")] = False,
    stream_errors: Annotated[
        bool, typer.Option("--stream-errors", hidden=True, help="As it is anyway; kubo has it.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Collect although a salvage found that records are missing.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Free every block that no pin, no file of the mutable tree and no deal of this home's node needs.

    Interrupted, it goes on where it was when it is called again.
    """
    from merkledag.cid import CID
    from merkledag.codecs import RAW

    if quiet + silent + json_output > 1:
        raise usage("use one of --quiet, --silent and --json")

    def listed(multihashes: list[bytes]) -> None:
        for multihash in multihashes if quiet else ():
            text(str(CID(1, RAW, multihash)))

    with Home.locate() as home, home.daemon_lock():
        works = home.open_collector()
        if accept_loss and not dry_run:
            works.accept_loss()
        if works.unfinished() and not dry_run:
            note("going on with a collection that was interrupted")
        began_s = time.monotonic()
        progress = _Progress()
        try:
            collect = partial(works.collect, dry_run=dry_run, on_freed=listed, progress=progress)
            report = home.freeing(collect, partial(collect, recorded=False))
        except KeyboardInterrupt:
            progress.finish()
            if works.unfinished() and not dry_run:
                note("`holdfast repo gc` goes on from here")
            raise
        progress.finish()
        took_s = time.monotonic() - began_s
        store = home.open_store().stat()
        home.keep_ballast()
    if report.blocks and not dry_run and not silent and _is_much(store):
        free = size_text(store.reusable_bytes)
        note(f"the files keep {free} for new blocks; `holdfast repo compact` gives that back to the disk")
    if json_output:
        return emit(_document(report, took_s))
    return None if quiet or silent else _say(report, took_s)


def _is_much(store: StoreStat) -> bool:
    """Whether somebody who collects to make room on the disk would wonder where it is."""
    return store.reusable_bytes >= MUCH_BYTES and 2 * store.reusable_bytes >= store.file_bytes


class _Progress:
    """A line on the terminal for each phase."""

    def __init__(self) -> None:
        self._phase: Phase | None = None
        self._meter: Meter | None = None
        self._done = 0

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        from storage_node.gc_journal import Phase

        phase = max(phase, Phase.PARTIAL)  # marking, whatever it is that needs the blocks
        if phase is not self._phase or self._meter is None:
            self.finish()
            label = "swept" if phase is Phase.SWEEP else "marked"
            self._meter = meter(label, total if phase is Phase.SWEEP else None, as_text=blocks_text)
            self._phase, self._done = phase, 0
        self._meter.advance(done - self._done)
        self._done = done

    def finish(self) -> None:
        if self._meter is not None:
            self._meter.finish()


def _document(report: GcReport, took_s: float) -> dict[str, Any]:
    return {
        "freed_blocks": report.blocks,
        "freed_bytes": report.bytes,
        "freed": {
            each.name.lower(): {"blocks": tally.blocks, "bytes": tally.bytes}
            for each, tally in report.freed.items()
        },
        "kept_blocks": report.kept.blocks,
        "kept_bytes": report.kept.bytes,
        "only_for_deals_blocks": report.to_deal,
        "dry_run": report.dry_run,
        "resumed": report.resumed,
        "seconds": round(took_s, 3),
    }


def _say(report: GcReport, took_s: float) -> None:
    verb = "would free" if report.dry_run else "freed"
    kinds = {"OWN": "one's own", "CACHE": "cached", "DEAL": "of deals"}
    parts = [
        f"{count_text(tally.blocks, 'block')} {kinds[each.name]}"
        for each, tally in report.freed.items()
        if tally.blocks
    ]
    what = f" ({', '.join(parts)})" if len(parts) > 1 else ""
    gone = f"{verb} {count_text(report.blocks, 'block')}, {size_text(report.bytes)}{what}"
    stays = f"{count_text(report.kept.blocks, 'block')}, {size_text(report.kept.bytes)} stay"
    text(f"{gone}; {stays}; {took_s:.1f} s")
