"""What was acknowledged survives `kill -9` at any moment; a full disk is an error that clears by itself."""

from __future__ import annotations

import random
from pathlib import Path

from merkledag.cid import CID
from storage_node import gc
from storage_node.blockstore.store import Store, open_store
from storage_node.blockstore.verify import verify
from storage_node.meta import Meta
from storage_node.pins import Pins, protect
from tests.storage_node.processes import run_python, start_python

KILLS = 10  # thousands: `python -m bench.crash`

WORKER = """
import random, sys
from pathlib import Path
from storage_node import gc
from storage_node.blockstore.store import open_store
from storage_node.meta import Meta
from storage_node.pins import Pins
from tests.storage_node.blockstore_conformance import block
from tests.storage_node.dags import node, pairs, tree
home, seed = Path(sys.argv[1]), sys.argv[2]
chance = random.Random(seed)
store, pins = open_store(home / "blocks"), Pins(Meta(home / "meta"), lambda: 0)
mine = [pin.cid for pin in pins.ls()]
print("ready")
for turn in range(10_000):
    what = chance.random()
    if what < 0.5:
        dag = tree(f"{seed} {turn}", chance.randrange(2, 6))
        with store.lease():
            store.put_many(pairs(dag))
            pins.add(dag[-1].cid)
        print("pinned", dag[-1].cid)
        mine.append(dag[-1].cid)
    elif what < 0.65:
        store.put_many([block(chance.randrange(1 << 30), chance.randrange(1 << 19))])
        print("garbage")
    elif what < 0.8 and mine:
        cid = mine.pop(chance.randrange(len(mine)))
        print("unpinning", cid)
        pins.rm(cid)
    elif what < 0.95:
        gc.collect(store, pins)
        print("collected")
    elif what < 0.97:
        store.compact()
        print("compacted")
"""


def kill_once(home: Path, seed: str, after_lines: int) -> tuple[set[str], set[str]]:
    """Run the worker and kill it; returns the roots it had pinned and those it began to unpin."""
    pinned: set[str] = set()
    unpinned: set[str] = set()
    with start_python(WORKER, str(home), seed) as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            if number == after_lines:
                process.kill()  # whatever it is doing by now; lines that were in the pipe still count
            words = line.split()
            if line.endswith("\n") and words[0] == "pinned":
                pinned.add(words[1])
            elif words and words[0].startswith("unpin") and len(words) > 1:
                unpinned.add(words[1])
        process.wait()
    return pinned, unpinned


def check(store: Store, pins: Pins, expected: set[str]) -> None:
    there = {str(pin.cid) for pin in pins.ls()}
    assert expected <= there, "an acknowledged pin is gone"
    for text in there:
        assert protect(store, CID.parse(text)) == [], f"pin {text} dangles"
    report = verify(store)
    assert report.damaged == ()
    rows = dict(store.rows())
    assert (store.stat().blocks, store.stat().bytes) == (
        len(rows),
        sum(row.length for row in rows.values()),
    )
    assert (report.blocks, report.size_bytes) == (store.stat().blocks, store.stat().bytes)


def test_what_was_acknowledged_survives_being_killed(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    store, pins = open_store(tmp_path / "blocks"), Pins(Meta(tmp_path / "meta"), lambda: 0)
    expected: set[str] = set()
    for turn in range(KILLS):
        pinned, unpinned = kill_once(tmp_path, f"{seed} {turn}", chance.randrange(0, 24))
        expected = (expected | pinned) - unpinned
        check(store, pins, expected)
    gc.collect(store, pins)
    check(store, pins, expected)
    assert list((tmp_path / "blocks" / "leases").iterdir()) == []
    store.close()


FULL = """
import resource, sys
from pathlib import Path
from storage_node.blockstore.store import open_store
from storage_node.blockstore.verify import verify
from storage_node.errors import StoreFull
from tests.storage_node.blockstore_conformance import block, blocks
store = open_store(Path(sys.argv[1]), reserve_bytes=0)
limit = 12 << 20
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
stored, refused = [], 0
for number in range(80):
    try:
        store.put_many([block(number, 1 << 20)])
        stored.append(number)
    except StoreFull as error:
        assert "\\n" not in str(error)
        refused += 1
assert refused > 10 and len(stored) > 30, (refused, stored)
report = verify(store)
assert (report.blocks, report.damaged) == (len(stored), ())
store.delete_many([block(number, 1 << 20)[0] for number in stored[:24]])
again = 0
for number in range(200, 216):
    try:
        again += store.put_many([block(number, 1 << 20)]).new
    except StoreFull:
        pass
assert again > 4, again  # room inside the files is used
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert store.put_many(blocks(40, 1 << 20, first=300)).new == 40
assert verify(store).damaged == ()
print("fine")
"""


def test_a_full_disk_is_an_error_that_clears_by_itself(tmp_path: Path) -> None:
    done = run_python(FULL, str(tmp_path / "blocks"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"
