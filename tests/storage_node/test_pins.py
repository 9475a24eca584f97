"""Pins: added, found, listed in pages, moved and removed; the lock of the maintaining process."""

from __future__ import annotations

import gc
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from merkledag.cid import CID
from merkledag.codecs import DAG_PB
from storage_node.blockstore.memory import MemoryStore
from storage_node.daemon_lock import daemon_lock, holder
from storage_node.errors import BlockRefused, CorruptStore, LockHeld, PinNotFound
from storage_node.meta import ITEMS_PER_TRANSACTION, Meta, Table
from storage_node.pins import Pin, PinMode, Pins, protect
from tests.storage_node.dags import leaf, pairs, tree
from tests.storage_node.processes import run_python, start_python


@pytest.fixture
def pins(tmp_path: Path) -> Pins:
    return Pins(Meta(tmp_path / "meta"), lambda: 1_700_000_000.5)


def cid(number: int) -> CID:
    return leaf(f"content {number}").cid


def test_a_pin_is_found_with_what_it_was_given(pins: Pins) -> None:
    added = pins.add(cid(1), name="photos", metadata={"from": "me"})
    assert added == Pin(cid(1), PinMode.RECURSIVE, "photos", {"from": "me"}, 1_700_000_000)
    assert pins.get(cid(1)) == added
    assert pins.get(cid(2)) is None
    assert list(pins.ls()) == [added]
    assert pins.count() == 1


def test_pinning_again_replaces_what_is_given_and_keeps_the_rest(pins: Pins) -> None:
    pins.add(cid(1), recursive=False, name="old", metadata={"from": "me"})
    kept = pins.add(cid(1))
    assert (kept.mode, kept.name, kept.metadata) == (PinMode.RECURSIVE, "old", {"from": "me"})
    assert pins.add(cid(1), name="new").metadata == {"from": "me"}
    assert [(pin.mode, pin.name) for pin in pins.ls()] == [(PinMode.RECURSIVE, "new")]
    assert list(pins.ls(name="old")) == []
    assert len(list(pins.ls(name="new"))) == 1


def test_a_direct_pin_does_not_take_the_place_of_a_recursive_one(pins: Pins) -> None:
    kept = pins.add(cid(2))
    with pytest.raises(BlockRefused, match="pinned recursively"):
        pins.add_many([cid(1), cid(2)], recursive=False)
    assert list(pins.ls()) == [kept]
    assert pins.counts() == (1, 0)


def test_both_versions_of_a_cid_are_one_pin(pins: Pins) -> None:
    v0 = CID.of(b"node", DAG_PB, version=0)
    pins.add(v0)
    assert pins.get(v0.to_v1()) == pins.get(v0)
    assert [str(pin.cid) for pin in pins.ls()] == [str(v0)]
    pins.rm(v0.to_v1())
    assert pins.count() == 0


def test_removing_names_what_is_wrong(pins: Pins) -> None:
    pins.add(cid(1))
    with pytest.raises(PinNotFound, match="not pinned"):
        pins.rm(cid(2))
    with pytest.raises(PinNotFound, match="recursive pin"):
        pins.rm(cid(1), recursive=False)
    assert pins.rm(cid(1), recursive=True).cid == cid(1)
    assert list(pins.ls()) == []


def test_listing_is_paged_and_filtered(pins: Pins) -> None:
    count = ITEMS_PER_TRANSACTION + 40
    for number in range(count):
        pins.add(cid(number), recursive=number % 2 == 0, name="even" if number % 2 == 0 else "")
    everything = list(pins.ls())
    assert len(everything) == count
    paged: list[Pin] = []
    while page := list(islice(pins.ls(after=paged[-1].cid if paged else None), 100)):
        paged += page
    assert paged == everything
    assert {pin.cid for pin in pins.ls(PinMode.DIRECT)} == {cid(number) for number in range(1, count, 2)}
    named = list(pins.ls(name="even"))
    assert {pin.cid for pin in named} == {cid(number) for number in range(0, count, 2)}
    assert list(pins.ls(name="even", after=named[9].cid)) == named[10:]
    assert list(pins.ls(name="eve")) == []


def test_updating_moves_name_and_metadata(pins: Pins) -> None:
    pins.add(cid(1), name="site", metadata={"a": "b"})
    pins.update(cid(1), cid(2))
    assert [(pin.cid, pin.name, pin.metadata) for pin in pins.ls()] == [(cid(2), "site", {"a": "b"})]
    pins.update(cid(2), cid(3), unpin=False)
    assert {pin.cid for pin in pins.ls(name="site")} == {cid(2), cid(3)}
    with pytest.raises(PinNotFound):
        pins.update(cid(9), cid(1))
    pins.update(cid(3), cid(3))
    assert pins.get(cid(3)) is not None


def test_what_is_too_long_is_refused(pins: Pins) -> None:
    for name in ("x" * 256, "nul\0"):
        with pytest.raises(BlockRefused):
            pins.add(cid(1), name=name)
    with pytest.raises(BlockRefused):
        pins.add(cid(1), metadata={"k": "v" * 5000})
    assert pins.count() == 0
    pins.add(cid(1), name="ü" * 127)
    assert len(list(pins.ls(name="ü" * 127))) == 1


def test_pins_are_found_again(tmp_path: Path) -> None:
    pins = Pins(Meta(tmp_path / "meta"), lambda: 0)
    pins.add(cid(1), name="kept")
    del pins
    gc.collect()
    assert [pin.name for pin in Pins(Meta(tmp_path / "meta"), lambda: 0).ls()] == ["kept"]


def test_a_damaged_pin_is_named(tmp_path: Path) -> None:
    meta = Meta(tmp_path / "meta")
    meta.put(Table.PINS, bytes(cid(1)), b"\xff\xff")
    with pytest.raises(CorruptStore, match=bytes(cid(1)).hex()):
        list(Pins(meta, lambda: 0).ls())


def test_protecting_names_what_is_missing() -> None:
    store = MemoryStore()
    dag = tree("one")
    store.put_many(pairs([dag[0], *dag[2:]]))
    assert protect(store, dag[-1].cid) == [dag[1].cid]
    assert protect(store, dag[-1].cid, recursive=False) == []
    assert protect(store, dag[1].cid, recursive=False) == [dag[1].cid]
    store.put_many(pairs(dag))
    assert protect(store, dag[-1].cid) == []


def test_a_node_that_comes_while_its_dag_is_protected_was_not_walked() -> None:
    dag = tree("one")
    inner = dag[4]

    class Busy(MemoryStore):
        """Another adder puts the inner node right after we found it absent."""

        def find(self, multihash: bytes) -> Any:
            found = super().find(multihash)
            if found is None:
                self.put_many(pairs([inner]))
            return found

    store = Busy()
    store.put_many(pairs([each for each in dag if each not in dag[:5]]))
    assert protect(store, dag[-1].cid) == [inner.cid]
    assert protect(store, dag[-1].cid) == [each.cid for each in dag[:4]]


def test_the_meta_store_compacts(tmp_path: Path) -> None:
    meta = Meta(tmp_path / "meta")
    for number in range(300):
        meta.put(Table.RECORDS, b"%d" % number, bytes(5000))
    for number in range(299):
        assert meta.delete(Table.RECORDS, b"%d" % number)
    assert meta.compact() > 1_000_000
    assert list(meta.items(Table.RECORDS)) == [(b"299", bytes(5000))]
    assert not meta.delete(Table.RECORDS, b"1")
    with pytest.raises(ValueError):
        meta.put(Table.RECORDS, b"k" * 501, b"")


READ = """
import sys
from pathlib import Path
from storage_node.meta import Meta, Table
print(Meta(Path(sys.argv[1])).get(Table.RECORDS, b"key"))
"""


def test_opening_and_reading_wait_for_no_writer(tmp_path: Path) -> None:
    meta = Meta(tmp_path / "meta")
    meta.put(Table.RECORDS, b"key", b"before")
    with meta.write() as write:
        write.put(Table.RECORDS, b"key", b"after")
        assert write.get(Table.RECORDS, b"key") == b"after"
        assert run_python(READ, str(tmp_path / "meta")).stdout == "b'before'\n"
    assert run_python(READ, str(tmp_path / "meta")).stdout == "b'after'\n"


def test_a_failed_change_leaves_nothing(tmp_path: Path) -> None:
    meta = Meta(tmp_path / "meta")

    def change() -> None:
        with meta.write() as write:
            write.put(Table.RECORDS, b"key", b"value")
            raise RuntimeError("given up")

    with pytest.raises(RuntimeError):
        change()
    assert meta.get(Table.RECORDS, b"key") is None


# --- run/daemon.lock ---

HOLD = """
import sys
from pathlib import Path
from storage_node.daemon_lock import daemon_lock
with daemon_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

TRY = """
import os, sys
from pathlib import Path
from storage_node.daemon_lock import daemon_lock, holder
from storage_node.errors import LockHeld
try:
    with daemon_lock(Path(sys.argv[1])):
        print("free")
except LockHeld as error:
    print(error.pid, holder(Path(sys.argv[1])))
"""


def test_one_process_holds_the_lock_and_others_learn_which(tmp_path: Path) -> None:
    path = tmp_path / "run" / "daemon.lock"
    assert holder(path) is None
    with daemon_lock(path):
        assert holder(path) == os.getpid()
        assert run_python(TRY, str(path)).stdout.split() == [str(os.getpid())] * 2
        with pytest.raises(LockHeld, match=str(os.getpid())), daemon_lock(path, sleep=lambda _: None):
            pass
    assert holder(path) is None
    assert run_python(TRY, str(path)).stdout.split() == ["free"]


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    with start_python(HOLD, str(path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert holder(path) == process.pid
        process.kill()
        process.wait()
        assert holder(path) is None
        with daemon_lock(path):
            assert holder(path) == os.getpid()
