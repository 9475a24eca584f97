"""Collections that are stopped, killed, or without room for their journal; work goes on beside them."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from merkledag.block import Block
from merkledag.cid import CID
from proofs.commitment import commit_block
from storage_node import gc, gc_journal, mfs
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import Store, open_store
from storage_node.commitments import Commitments
from storage_node.errors import CorruptStore, IncompleteDag, LockHeld, StoreFull
from storage_node.fingerprints import FingerprintTable
from storage_node.gc_home import Collector
from storage_node.gc_journal import GcJournal, Phase
from storage_node.meta import Meta, Table
from storage_node.pins import Pins, protect
from storage_node.reach import reachable
from tests.storage_node.blockstore_conformance import block, blocks
from tests.storage_node.dags import leaf, node, pairs, tree
from tests.storage_node.processes import run_python, start_python


class Place:
    """A home's store, records and journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: Store = open_store(folder / "blocks", reserve_bytes=0)
        self.meta = Meta(folder / "meta")
        self.pins = Pins(self.meta, lambda: 0)

    def journal(self) -> GcJournal:
        return GcJournal(self.folder / "gc", self.meta)

    def add(self, dag: list[Block]) -> CID:
        with self.store.lease():
            self.store.put_many(pairs(dag))
            self.pins.add(dag[-1].cid)
        return dag[-1].cid

    def steps(self, number: int, **options: object) -> gc.GcReport:
        """So many steps of a collection."""
        left = iter(range(number - 1))
        return gc.collect(
            self.store,
            self.pins,
            journal=self.journal(),
            stop=lambda: next(left, None) is None,
            **options,  # type: ignore[arg-type]
        )

    def reached(self) -> set[bytes]:
        roots = [pin.cid for pin in self.pins.ls()]
        return {cid.multihash for cid in reachable(self.store, roots, lambda cid: pytest.fail(str(cid)))}

    def is_whole(self) -> bool:
        return all(protect_free(self.store, pin.cid) for pin in self.pins.ls())


def protect_free(store: Store, root: CID) -> bool:
    """Whether a whole DAG is here; stamps nothing."""
    return all(store.has(cid.multihash) for cid in reachable(store, [root], lambda _: None))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("gc.BLOCKS_PER_SWEEP", 7),
        ("gc.PINS_PER_STEP", 2),
        ("gc_journal.TAKE_BYTES", 120),
        ("gc_mark.LINKS_AT_ONCE", 3),
    ):
        monkeypatch.setattr(f"storage_node.{name}", value)


@pytest.mark.usefixtures("small_steps")
def test_one_step_at_a_time_frees_the_same(place: Place) -> None:
    kept = [place.add(tree(f"kept {number}")) for number in range(4)]
    dropped = [place.add(tree(f"dropped {number}")) for number in range(4)]
    for cid in dropped:
        place.pins.rm(cid)
    dry = gc.collect(place.store, place.pins, dry_run=True)
    phases: set[Phase] = set()
    report = place.steps(1)
    calls = 1
    while not report.complete:
        report = place.steps(1, progress=lambda phase, *_: phases.add(phase))
        calls += 1
        assert report.resumed
        assert place.is_whole()
    assert calls > 20
    assert phases >= {Phase.PINS, Phase.SWEEP}
    assert (report.freed, report.kept) == (dry.freed, dry.kept)
    assert set(place.store) == place.reached()
    assert {pin.cid for pin in place.pins.ls()} == set(kept)
    assert not place.journal().unfinished()


@pytest.mark.usefixtures("small_steps")
def test_whatever_is_done_between_two_steps_nothing_needed_is_freed(place: Place) -> None:
    """Pins come, go and come back, also of what the collection has found to be garbage already."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    dags = [tree(f"dag {number}", 3) for number in range(12)]
    for dag in dags:
        place.store.put_many(pairs(dag))
    complete = 0
    for _ in range(150):
        dag = chance.choice(dags)
        what = chance.random()
        if what < 0.2:
            place.add(dag)
        elif what < 0.4:
            with place.store.lease():
                if not protect(place.store, dag[-1].cid):
                    place.pins.add(dag[-1].cid)
        elif what < 0.5:
            above = node(dag[-1].cid, chance.choice(dags)[3].cid, label=str(what))
            with place.store.lease():
                place.store.put_many(pairs([above]))
                if not protect(place.store, above.cid):
                    place.pins.add(above.cid)
        elif place.pins.count():
            place.pins.rm(chance.choice(list(place.pins.ls())).cid)
        complete += place.steps(chance.randrange(1, 12)).complete
        assert place.is_whole()
    assert complete > 3
    while place.journal().unfinished():
        place.steps(100)
    place.steps(10_000)
    assert set(place.store) == place.reached()


COLLECTOR = """
import sys
from pathlib import Path
from storage_node import gc, gc_journal, gc_mark
from tests.storage_node.test_gc_resume import Place
gc.BLOCKS_PER_SWEEP, gc.PINS_PER_STEP, gc_journal.TAKE_BYTES, gc_mark.LINKS_AT_ONCE = 7, 2, 120, 3
place = Place(Path(sys.argv[1]))
print("ready")
while True:
    report = gc.collect(place.store, place.pins, journal=place.journal(), progress=lambda *_: print("."))
    print("resumed" if report.resumed else "new", report.complete)
"""


def test_a_killed_collection_is_gone_on_with(place: Place) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for number in range(30):
        place.add(tree(f"kept {number}"))
        place.store.put_many(pairs(tree(f"garbage {number}")))
    resumed = 0
    for turn in range(6):
        dag, kill_at = tree(f"later {turn}"), 30 + chance.randrange(250)
        with start_python(COLLECTOR, str(place.folder)) as process:
            assert process.stdout is not None
            for number, line in enumerate(process.stdout):
                resumed += line.startswith("resumed")
                if number == 20:
                    place.add(dag)
                if number == kill_at:
                    process.kill()
            process.wait()
        assert place.is_whole()
        place.pins.rm(dag[-1].cid)
    assert resumed > 0
    while place.journal().unfinished():
        place.steps(10_000)
    place.steps(10_000)
    assert set(place.store) == place.reached()


STEPPER = """
import sys
from pathlib import Path
from storage_node import gc, gc_journal, gc_mark
from tests.storage_node.test_gc_resume import Place
gc.BLOCKS_PER_SWEEP, gc.PINS_PER_STEP, gc_journal.TAKE_BYTES, gc_mark.LINKS_AT_ONCE = 100, 2, 2000, 100
place = Place(Path(sys.argv[1]))
def step(phase, done, total):
    print(phase.name, flush=True)
    sys.stdin.readline()
report = gc.collect(place.store, place.pins, journal=place.journal(), progress=step)
print("done", report.blocks)
"""

ADDER = """
import sys
from pathlib import Path
from tests.storage_node.dags import leaf, tree
from tests.storage_node.test_gc_resume import Place
place = Place(Path(sys.argv[1]))
for line in sys.stdin:
    dag = tree(line.strip())
    place.add(dag)
    garbage = tree("garbage 0")
    if len(line) % 2:
        place.add(garbage)
    assert all(place.store.get(block.cid.multihash) == block.data for block in dag)
    assert place.store.get(leaf("kept 0 leaf 0 0").cid.multihash)
    print("added", flush=True)
"""


def test_adds_and_reads_never_wait_for_a_collection(place: Place) -> None:
    """A collection that stands still at each of its steps; another process adds and reads meanwhile."""
    for number in range(6):
        place.add(tree(f"kept {number}"))
        place.store.put_many(pairs(tree(f"garbage {number}")))
    collector = start_python(STEPPER, str(place.folder))
    adder = start_python(ADDER, str(place.folder))
    assert collector.stdin
    assert collector.stdout
    assert adder.stdin
    assert adder.stdout
    phases: list[str] = []
    try:
        for line in collector.stdout:
            phases.append(line.split()[0])
            if phases[-1] == "done":
                break
            adder.stdin.write(f"meanwhile {len(phases)}\n")
            adder.stdin.flush()
            assert adder.stdout.readline() == "added\n"  # the collector waits for us all the while
            collector.stdin.write("\n")
            collector.stdin.flush()
    finally:
        for process in (collector, adder):
            process.kill()
            process.communicate()
    assert {"PINS", "SWEEP", "done"} <= set(phases)
    assert place.pins.count() >= 6 + len(phases) - 1
    assert place.is_whole()
    place.steps(10_000)
    assert set(place.store) == place.reached()


def test_a_journal_of_other_records_counts_for_nothing(place: Place, tmp_path: Path) -> None:
    place.add(tree("kept"))
    place.store.put_many(blocks(50))
    place.steps(1)
    assert place.journal().unfinished()
    other = Meta(tmp_path / "restored")
    with GcJournal(place.folder / "gc", other) as journal:
        assert journal.resume() is None
    with place.journal() as journal:
        work = journal.resume()
        assert work is not None
        work.close()


def test_marks_that_a_power_cut_may_have_hurt_are_made_anew(place: Place) -> None:
    place.add(tree("kept"))
    place.store.put_many(blocks(3000, 8))
    state = place.folder / "gc" / "state"
    for phase, counts in ((Phase.PINS, False), (Phase.SWEEP, True)):
        while not state.exists() or json.loads(state.read_text())["phase"] != phase:
            assert not place.steps(1).complete
        state.write_text(json.dumps({**json.loads(state.read_text()), "boot": "an earlier one"}))
        with place.journal() as journal:
            work = journal.resume()
            assert (work is not None) is counts
            if work is not None:
                work.close()
    with (place.folder / "gc" / "marks").open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    with place.journal() as journal:
        assert journal.resume() is None


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("phase", Phase)
def test_marks_of_which_a_part_was_lost_free_nothing_that_is_needed(place: Place, phase: Phase) -> None:
    for number in range(20):
        place.add(tree(f"kept {number}"))
    place.store.put_many(blocks(100, 8))
    state = place.folder / "gc" / "state"
    assert not place.steps(3).complete
    while json.loads(state.read_text())["phase"] < phase:
        assert not place.steps(1).complete
    with (place.folder / "gc" / "marks").open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(bytes(size - 4096))  # behind the header, as if it were a table of nothing
    place.steps(10_000)
    assert set(place.store) == place.reached()


@pytest.mark.parametrize("damage", ["", "{}", "[]", "nonsense", "[" * 50_000, '{"id": 1}'])
def test_a_damaged_journal_is_made_anew(place: Place, damage: str) -> None:
    place.add(tree("kept"))
    place.store.put_many(blocks(50))
    place.steps(1)
    (place.folder / "gc" / "state").write_text(damage)
    report = place.steps(10_000)
    assert (report.blocks, report.resumed, report.complete) == (50, False, True)


@pytest.mark.parametrize("name", ["marks", "whole", "partial"])
def test_a_journal_that_lost_a_file_is_made_anew(place: Place, name: str) -> None:
    place.add(tree("kept"))
    place.store.put_many(blocks(50))
    place.steps(1)
    (place.folder / "gc" / name).unlink()
    assert not place.steps(10_000).resumed
    assert set(place.store) == place.reached()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("damage", [_cut, _zero, Path.touch])
def test_a_journal_whose_queue_is_damaged_frees_nothing_that_is_needed(
    place: Place, damage: Callable[[Path], None]
) -> None:
    """What is marked as queued and is in no queue would never be followed."""
    for number in range(4):
        place.add(tree(f"kept {number}"))
    place.store.put_many(blocks(50))
    for _ in range(3):
        assert not place.steps(1).complete
    queue = place.folder / "gc" / "whole"
    assert queue.stat().st_size > 0
    damage(queue)
    for _ in range(3):
        with suppress(CorruptStore):
            place.steps(10_000)
    assert set(place.store) == place.reached()
    assert place.store.stat().blocks == 84


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(os, "posix_fallocate", id="from the beginning"),
        pytest.param(gc_journal, "write_durably", id="when everything has been marked"),
    ],
)
def test_no_room_for_a_journal_is_no_obstacle(
    place: Place, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place.add(tree("kept"))
    mutable = pairs(tree("the mutable tree"))
    place.store.put_many([*mutable, *blocks(50)])
    place.meta.put(Table.RECORDS, mfs.ROOT_KEY, bytes(8) + bytes(tree("the mutable tree")[-1].cid))
    monkeypatch.setattr(module, name, full)
    collector = Collector(
        place.store, place.meta, place.pins, place.folder / "pieces", place.folder / "gc", lambda: 7
    )
    assert collector.collect(dry_run=True).blocks == 50
    assert collector.collect().blocks == 50
    assert set(place.store) == place.reached() | {multihash for multihash, _ in mutable}
    assert not place.journal().unfinished()


def test_a_dry_run_leaves_an_unfinished_collection_alone(place: Place) -> None:
    place.add(tree("kept"))
    place.store.put_many(blocks(50))
    place.steps(1)
    before = {path.name: path.read_bytes() for path in (place.folder / "gc").iterdir()}
    assert place.steps(10_000, dry_run=True).blocks == 50
    assert {path.name: path.read_bytes() for path in (place.folder / "gc").iterdir()} == before


def test_two_collections_in_one_place_are_refused(place: Place) -> None:
    with place.journal(), pytest.raises(LockHeld):
        gc.collect(place.store, place.pins, journal=place.journal())


def test_what_is_missing_ends_a_resumed_collection_too(place: Place) -> None:
    dag = tree("dag")
    place.add(dag)
    place.store.put_many(blocks(50))
    place.steps(1)
    place.store.delete_many([dag[4].cid.multihash])
    with pytest.raises(IncompleteDag) as caught:
        place.steps(10_000)
    assert caught.value.cid == dag[4].cid
    assert place.store.stat().blocks == 70
    place.store.put_many(pairs([dag[4]]))
    assert place.steps(10_000).blocks == 50


# --- what only deals need ---


def test_blocks_that_only_deals_need_change_their_class(place: Place) -> None:
    dag = tree("dag", 3)
    root = place.add(dag)
    cached, garbage = block(1), block(2)
    place.store.put_many([cached], BlockClass.CACHE)
    place.store.put_many([garbage], BlockClass.DEAL)
    deals = [each.cid.multihash for each in dag[:5]] + [cached[0]]
    report = gc.collect(place.store, place.pins, deals=deals)
    assert (report.to_deal, report.freed[BlockClass.DEAL].blocks) == (0, 1)
    place.pins.rm(root)
    assert gc.collect(place.store, place.pins, deals=deals, dry_run=True).to_deal == 5
    assert place.store.stat().deal_blocks == 0
    report = gc.collect(place.store, place.pins, deals=deals)
    assert (report.to_deal, report.freed[BlockClass.OWN].blocks) == (5, len(dag) - 5)
    stat = place.store.stat()
    assert (stat.deal_blocks, stat.cache_blocks, stat.blocks) == (5, 1, 6)
    place.add(dag)
    assert place.store.stat().deal_blocks == 0
    assert gc.collect(place.store, place.pins).freed[BlockClass.CACHE].blocks == 1


# --- a home's collection ---


def test_a_home_collects_anew_what_became_garbage_meanwhile(place: Place) -> None:
    collector = Collector(
        place.store, place.meta, place.pins, place.folder / "pieces", place.folder / "gc", lambda: 7
    )
    first, second = place.add(tree("first")), place.add(tree("second"))
    place.pins.rm(first)
    asked = iter([False])
    assert not collector.collect(stop=lambda: next(asked, True)).complete
    assert collector.unfinished()
    place.pins.rm(second)
    report = collector.collect()
    assert (report.blocks, report.resumed, report.complete) == (42, True, True)
    assert not collector.unfinished()
    assert place.store.stat().blocks == 0


def test_records_that_cannot_be_written_end_no_collection(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full; blocks are deleted all the same, since that is what makes room."""

    def full(*_: object) -> None:
        raise StoreFull("no room")

    collector = Collector(
        place.store, place.meta, place.pins, place.folder / "pieces", place.folder / "gc", lambda: 7
    )
    rows = Commitments(place.meta)
    place.add(tree("kept"))
    place.store.put_many(blocks(50))
    rows.put_many({block(1)[0]: commit_block(block(1)[1])})
    with monkeypatch.context() as patched:
        patched.setattr(Meta, "put", full)
        patched.setattr(Commitments, "_drop", full)
        assert collector.collect().blocks == 50
    assert rows.get(block(1)[0]) is not None
    place.store.put_many(blocks(2000, 8))
    asked = iter([False, False, False])
    assert not collector.collect(stop=lambda: next(asked, True)).complete
    assert collector.collect().complete
    assert rows.get(block(1)[0]) is None
    assert set(place.store) == place.reached()


# --- tables of marks ---


def test_a_table_grows_and_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    keys = [block(number)[0] for number in range(3000)]
    table = FingerprintTable(tmp_path / "marks")
    assert set(table.add_many(keys, 1)) == {-1}
    assert table.add_many(keys[:1000], 4) == [1] * 1000
    table.close()
    again = FingerprintTable.open(tmp_path / "marks")
    assert len(again) == 3000
    assert [again.flags(key) for key in keys] == [5] * 1000 + [1] * 2000
    assert again.flags(leaf("other").cid.multihash) == -1
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["marks"]
    (tmp_path / "marks").write_bytes(bytes(4096 + 16 * 1024))
    with pytest.raises(CorruptStore):
        FingerprintTable.open(tmp_path / "marks")
    (tmp_path / "marks").write_bytes(b"short")
    with pytest.raises(CorruptStore):
        FingerprintTable.open(tmp_path / "marks")


GROWN = """
import sys
from pathlib import Path
from storage_node.fingerprints import FingerprintTable
def anonymous_kib():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])
before = anonymous_kib()
table = FingerprintTable(Path(sys.argv[1]) / "marks", 600_000)
table.add_many((number.to_bytes(8, "big") for number in range(200_000)), 1)
print(anonymous_kib() - before)
"""


def test_marks_in_a_file_take_no_memory_of_their_own(tmp_path: Path) -> None:
    grown_kib = int(run_python(GROWN, str(tmp_path)).stdout)
    assert grown_kib < 12_000  # the list of what add_many returned, and nothing of the 16 MiB table
