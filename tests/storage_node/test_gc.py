"""Garbage collection frees what nothing needs and nothing else, whatever goes on beside it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from merkledag import dag_pb
from merkledag import multihash as mh
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, DAG_PB, RAW
from storage_node import gc
from storage_node.blockstore.interface import Blockstore
from storage_node.blockstore.memory import MemoryStore, _MemoryView
from storage_node.blockstore.store import Store, open_store
from storage_node.commitments import Commitments
from storage_node.errors import IncompleteDag
from storage_node.meta import Meta, Table
from storage_node.pins import Pins, protect
from storage_node.reach import reachable
from tests.storage_node.blockstore_conformance import block, blocks
from tests.storage_node.dags import leaf, node, pairs, tree
from tests.storage_node.processes import run_python, start_python


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blockstore]:
    made: Blockstore = MemoryStore() if request.param == "memory" else open_store(tmp_path / "blocks")
    yield made
    made.close()


@pytest.fixture
def disk_store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(tmp_path / "blocks")
    yield made
    made.close()


@pytest.fixture
def pins(tmp_path: Path) -> Pins:
    return Pins(Meta(tmp_path / "meta"), lambda: 0)


def is_whole(store: Blockstore, dag: list[Block]) -> bool:
    return all(store.has(each.cid.multihash) for each in dag)


def is_gone(store: Blockstore, dag: list[Block]) -> bool:
    return not any(store.has(each.cid.multihash) for each in dag)


def test_what_pins_and_roots_reach_stays(store: Blockstore, pins: Pins) -> None:
    pinned, dealt, partial, garbage = tree("pinned"), tree("dealt"), tree("partial"), tree("garbage")
    direct = node(leaf("not kept").cid)
    for dag in (pinned, dealt, partial[1:], garbage, [direct, leaf("not kept")]):
        store.put_many(pairs(dag))
    pins.add(pinned[-1].cid)
    pins.add(direct.cid, recursive=False)
    expected = [*garbage, leaf("not kept")]
    dry = gc.collect(store, pins, roots=[dealt[-1].cid], partial_roots=[partial[-1].cid], dry_run=True)
    assert (dry.blocks, dry.bytes) == (len(expected), sum(len(each.data) for each in expected))
    assert (dry.kept.blocks, dry.dry_run, dry.complete) == (63, True, True)
    assert is_whole(store, garbage)
    told: list[bytes] = []
    report = gc.collect(
        store, pins, roots=[dealt[-1].cid], partial_roots=[partial[-1].cid], on_freed=told.extend
    )
    assert (report.blocks, report.bytes, report.kept) == (dry.blocks, dry.bytes, dry.kept)
    assert sorted(told) == sorted(each.cid.multihash for each in expected)
    assert is_whole(store, [*pinned, *dealt, *partial[1:], direct])
    assert is_gone(store, expected)
    pins.rm(pinned[-1].cid)
    pins.rm(direct.cid)
    gc.collect(store, pins)
    assert store.stat().blocks == 0


def test_every_codec_with_links_is_followed(store: Blockstore, pins: Pins) -> None:
    below = leaf("below dag-pb")
    data = dag_pb.encode(dag_pb.PBNode(links=(dag_pb.PBLink(cid=below.cid, name="x", tsize=1),), data=b""))
    above = Block(CID.of(data, DAG_PB, version=0), data)
    carried = node(above.cid).data
    inline = CID.of(carried, DAG_CBOR, mh.IDENTITY)
    root = node(inline, CID.of(b"tiny", RAW, mh.IDENTITY))
    store.put_many(pairs([below, above, root]))
    pins.add(root.cid)
    assert gc.collect(store, pins).blocks == 0


def test_one_multihash_under_two_codecs(store: Blockstore, pins: Pins) -> None:
    below = leaf("below")
    inner = node(below.cid)
    as_raw = CID(1, RAW, inner.cid.multihash)
    root = node(as_raw, inner.cid)
    store.put_many(pairs([below, inner, root]))
    pins.add(root.cid)
    assert gc.collect(store, pins).blocks == 0


def test_unknown_and_undecodable_blocks_are_kept_as_leaves(store: Blockstore, pins: Pins) -> None:
    unknown = CID.of(b"whatever", 0x300539)
    not_cbor = CID.of(b"\xff\xff", DAG_CBOR)
    root = node(unknown, not_cbor)
    store.put_many([(unknown.multihash, b"whatever"), (not_cbor.multihash, b"\xff\xff"), *pairs([root])])
    pins.add(root.cid)
    assert gc.collect(store, pins).kept.blocks == 3


def test_nothing_is_freed_where_links_are_missing_or_damaged(store: Blockstore, pins: Pins) -> None:
    dag, garbage = tree("dag"), tree("garbage")
    store.put_many(pairs([*dag, *garbage]))
    pins.add(dag[-1].cid)
    inner = dag[4]
    store.replace(inner.cid.multihash, b"\xffrotten")
    with pytest.raises(IncompleteDag, match=str(inner.cid)):
        gc.collect(store, pins)
    store.delete_many([inner.cid.multihash])
    with pytest.raises(IncompleteDag, match=str(inner.cid)):
        gc.collect(store, pins)
    assert is_whole(store, garbage)
    store.put_many(pairs([inner]))
    assert gc.collect(store, pins).blocks == len(garbage)


class Watched(MemoryStore):
    """Notes which blocks were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[bytes] = []

    def find(self, multihash: bytes) -> _MemoryView | None:
        self.read.append(multihash)
        return super().find(multihash)


def test_no_raw_leaf_is_read_and_no_node_twice(pins: Pins) -> None:
    store, dag = Watched(), tree("dag")
    again = node(dag[-1].cid, dag[4].cid)
    store.put_many(pairs([*dag, again]))
    pins.add(dag[-1].cid)
    pins.add(again.cid)
    gc.collect(store, pins)
    nodes = [each.cid.multihash for each in [*dag, again] if each.cid.codec != RAW]
    assert sorted(store.read) == sorted(nodes)


def test_a_deep_dag_needs_no_deep_stack(store: Blockstore, pins: Pins) -> None:
    chain = [leaf("end")]
    for depth in range(3000):
        chain.append(node(chain[-1].cid, label=str(depth)))
    store.put_many(pairs(chain))
    pins.add(chain[-1].cid)
    assert gc.collect(store, pins).blocks == 0


def test_it_stops_when_told(store: Blockstore, pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.gc.BLOCKS_PER_SWEEP", 1000)
    store.put_many(blocks(3000, 8))
    asked = iter([False, False, True])
    pins.add(tree("dag")[0].cid)
    report = gc.collect(store, pins, stop=lambda: next(asked, True))
    assert not report.complete
    report = gc.collect(store, pins, stop=lambda: True)
    assert (report.blocks, report.complete) == (0, False)
    assert 0 < store.stat().blocks < 3000


def test_proof_rows_leave_with_the_blocks(store: Blockstore, pins: Pins, tmp_path: Path) -> None:
    from proofs.commitment import commit_block

    commitments = Commitments(Meta(tmp_path / "meta"))
    multihash, data = block(1)
    store.put_many([(multihash, data)])
    commitments.put_many({multihash: commit_block(data)})
    gc.collect(store, pins, on_freed=commitments.drop_many)
    assert commitments.get(multihash) is None


# --- beside adders: the roots are read between the new epoch and the sweep, so an adder runs there ---


def test_what_is_added_and_pinned_meanwhile_stays(store: Blockstore, pins: Pins) -> None:
    dag = tree("dag")
    store.put_many(pairs(tree("garbage")))

    def meanwhile() -> Iterator[CID]:
        with store.lease():
            store.put_many(pairs(dag))
            pins.add(dag[-1].cid)
        yield from ()

    assert gc.collect(store, pins, roots=meanwhile()).blocks == 21
    assert is_whole(store, dag)


def test_old_garbage_that_is_added_again_meanwhile_stays(store: Blockstore, pins: Pins) -> None:
    dag = tree("dag")
    store.put_many(pairs(dag))

    def meanwhile() -> Iterator[CID]:
        with store.lease():
            assert store.put_many(pairs(dag)).new == 0
            pins.add(dag[-1].cid)
        yield from ()

    assert gc.collect(store, pins, roots=meanwhile()).blocks == 0
    assert is_whole(store, dag)


def test_old_garbage_that_is_pinned_meanwhile_stays(store: Blockstore, pins: Pins) -> None:
    dag = tree("dag")
    store.put_many(pairs(dag))

    def meanwhile() -> Iterator[CID]:
        with store.lease():
            assert protect(store, dag[-1].cid) == []
            pins.add(dag[-1].cid)
        yield from ()

    assert gc.collect(store, pins, roots=meanwhile()).blocks == 0
    assert is_whole(store, dag)


def test_an_add_that_began_before_and_ends_after_stays(store: Blockstore, pins: Pins) -> None:
    dag, garbage = tree("dag"), tree("garbage")
    store.put_many(pairs(garbage))
    gc.collect(store, pins, dry_run=True)
    with store.lease():
        store.put_many(pairs(dag[:10]))
        for _ in range(3):
            gc.collect(store, pins)
        store.put_many(pairs(dag[10:]))
        pins.add(dag[-1].cid)
    assert is_whole(store, dag)
    assert gc.collect(store, pins).kept.blocks == len(dag)
    assert is_gone(store, garbage)


def test_an_add_that_was_given_up_is_collected(store: Blockstore, pins: Pins) -> None:
    def give_up() -> None:
        with store.lease():
            store.put_many(pairs(tree("dag")))
            raise RuntimeError("given up")

    with pytest.raises(RuntimeError):
        give_up()
    assert gc.collect(store, pins).blocks == 21


LEASE = """
import sys
from pathlib import Path
from storage_node.blockstore.store import open_store
from tests.storage_node.dags import pairs, tree
store = open_store(Path(sys.argv[1]))
with store.lease():
    store.put_many(pairs(tree("other process")))
    print("leased", flush=True)
    sys.stdin.read()
"""


def test_a_lease_of_another_process_counts_until_it_dies(disk_store: Store, pins: Pins) -> None:
    with start_python(LEASE, str(disk_store.folder)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leased\n"
        assert gc.collect(disk_store, pins).blocks == 0
        process.kill()
        process.wait()
        assert gc.collect(disk_store, pins).blocks == 21
    assert list((disk_store.folder / "leases").iterdir()) == []


def test_unreadable_leases_are_leftovers(disk_store: Store, pins: Pins) -> None:
    disk_store.put_many(blocks(3))
    folder = disk_store.folder / "leases"
    for name, text in (("1-a", ""), ("2-b", "[]"), ("3-c", '{"pid": 1}'), ("x.tmp", ""), ("0-d.tmp", "")):
        (folder / name).write_text(text)
    (folder / "1-e").write_text('{"pid": 1, "start": "another boot:1", "epoch": 1}')
    assert gc.collect(disk_store, pins).blocks == 3
    assert list(folder.iterdir()) == []


# --- real processes ---

ADDER = """
import random, sys
from pathlib import Path
from storage_node.blockstore.store import open_store
from storage_node.meta import Meta, Table
from storage_node.pins import Pins, protect
from storage_node.reach import reachable
from tests.storage_node.dags import node, pairs, tree
home, me, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
chance = random.Random(me)
store, pins = open_store(home / "blocks"), Pins(Meta(home / "meta"), lambda: 0)
mine = []
for turn in range(rounds):
    shared = tree(f"shared {chance.randrange(6)}")  # the other adder adds and drops the same ones
    root = node(shared[-1].cid, label=f"{me} {turn}")
    with store.lease():
        if chance.random() < 0.5:
            store.put_many(pairs([*shared, root]))
        else:
            store.put_many(pairs([root]))
            while missing := protect(store, root.cid):
                store.put_many(pairs([each for each in shared if each.cid in missing]))
        pins.add(root.cid, name=me)
    mine.append(root.cid)
    if chance.random() < 0.8:
        pins.rm(mine.pop(chance.randrange(len(mine))))
print(" ".join(str(cid) for cid in mine))
"""

COLLECTOR = """
import sys, threading
from pathlib import Path
from storage_node import gc
from storage_node.blockstore.store import open_store
from storage_node.meta import Meta, Table
from storage_node.pins import Pins
home = Path(sys.argv[1])
store, pins = open_store(home / "blocks"), Pins(Meta(home / "meta"), lambda: 0)
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
runs = freed = 0
while not done.is_set():
    freed += gc.collect(store, pins).blocks
    runs += 1
    store.compact()
print(runs, freed)
"""


def test_two_processes_add_while_one_collects_and_compacts(tmp_path: Path) -> None:
    open_store(tmp_path / "blocks").close()
    collector = start_python(COLLECTOR, str(tmp_path))
    adders = [start_python(ADDER, str(tmp_path), name, "150") for name in ("one", "two")]
    try:
        kept = [text for adder in adders for text in adder.communicate(timeout=60)[0].split()]
        runs, freed = (int(text) for text in collector.communicate(timeout=60)[0].split())
    finally:
        for process in (collector, *adders):
            process.kill()
            process.wait()
    assert [process.returncode for process in (collector, *adders)] == [0, 0, 0]
    assert runs > 2
    assert freed > 0
    store, pins = open_store(tmp_path / "blocks"), Pins(Meta(tmp_path / "meta"), lambda: 0)
    assert {str(pin.cid) for pin in pins.ls()} == set(kept)
    assert all(protect(store, CID.parse(text)) == [] for text in kept)
    gc.collect(store, pins)
    reached = {cid.multihash for text in kept for cid in reachable(store, [CID.parse(text)], print)}
    assert set(store) == reached
    store.close()


ROOTS_WRITER = """
import sys
from itertools import cycle
from pathlib import Path
from storage_node.blockstore.store import open_store
from storage_node.meta import Meta, Table
from tests.storage_node.dags import leaf
home = Path(sys.argv[1])
store, meta = open_store(home / "blocks"), Meta(home / "meta")
print("ready")
for block in cycle([leaf("one"), leaf("two")]):
    with store.lease():
        store.put_many([(block.cid.multihash, block.data)])
        meta.put(Table.RECORDS, b"root", bytes(block.cid))
"""


def test_what_a_killed_process_committed_at_last_stays(disk_store: Store, tmp_path: Path) -> None:
    """Given a file that others have open, LMDB hides a commit whose process died while it was synced."""
    meta = Meta(tmp_path / "meta")
    for turn in range(10):
        writer = start_python(ROOTS_WRITER, str(tmp_path))
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.02 + turn / 1000)
        writer.kill()
        writer.communicate()

        def roots() -> Iterator[CID]:
            root = meta.get(Table.RECORDS, b"root")
            if root is not None:
                yield CID.decode(root)

        gc.collect(disk_store, Pins(meta, lambda: 0), partial_roots=roots())
        meta.put(Table.RECORDS, b"other", b"")
        assert all(disk_store.has(root.multihash) for root in roots())


GROWN = """
import sys
from pathlib import Path
from storage_node.blockstore.store import open_store
store = open_store(Path(sys.argv[1]))
print(sum(len(store.get(key)) for key in store))
"""


def test_another_process_sees_what_was_put(disk_store: Store) -> None:
    disk_store.put_many(blocks(40, 100_000))
    assert run_python(GROWN, str(disk_store.folder)).stdout.split() == ["4000000"]
