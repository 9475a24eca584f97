"""Stores of older formats become ones of the present format, whatever happens meanwhile."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import lmdb
import pytest

from storage_node.blockstore import migrations
from storage_node.blockstore.check import check
from storage_node.blockstore.interface import BlockClass, Evicted
from storage_node.blockstore.layout import open_folder
from storage_node.blockstore.store import FORMAT, open_store
from storage_node.blockstore.verify import verify
from storage_node.errors import CorruptStore
from tests.storage_node.blockstore_conformance import block, blocks
from tests.storage_node.processes import run_python, start_python

SHARDS = 4
OWN = blocks(300, 50)
CACHED = blocks(500, 40, first=1000)


def write_version_1(folder: Path) -> None:
    """A store as programs of version 1 wrote it: OWN and CACHED blocks, epoch 7."""
    folder.mkdir()
    (folder / "leases").mkdir()
    for number in range(SHARDS):
        counters = [0, 0, 0, 0]
        mine = [
            (multihash, data, block_class)
            for block_class, some in enumerate((OWN, CACHED))
            for multihash, data in some
            if multihash[-1] % SHARDS == number
        ]
        path = str(folder / f"shard-0{number}.1.mdb")
        with lmdb.open(path, subdir=False, map_size=1 << 30) as file, file.begin(write=True) as txn:
            for data_id, (multihash, data, block_class) in enumerate(mine, 1):
                key = struct.pack(">cQ", b"\2", data_id)
                txn.put(key, data)
                txn.put(b"\1" + multihash, struct.pack(">9sQIB", key, 6, len(data), block_class))
                counters[2 * block_class] += 1
                counters[2 * block_class + 1] += len(data)
            txn.put(b"\0counters", struct.pack(">QQQQ", *counters))
            if number == 0:
                txn.put(b"\0epoch", struct.pack(">Q", 7))
    (folder / "format.json").write_text(json.dumps({"format": FORMAT, "version": 1, "shards": SHARDS}))


def assert_migrated(folder: Path) -> None:
    assert json.loads((folder / "format.json").read_text()) == {
        "format": FORMAT,
        "version": 2,
        "shards": SHARDS,
    }
    store = open_store(folder, reserve_bytes=0)
    assert check(store).findings == ()
    assert {key: store.get(key) for key in store} == dict([*OWN, *CACHED])
    assert verify(store).damaged == ()
    stat = store.stat()
    assert (stat.blocks, stat.bytes) == (800, 35_000)
    assert (stat.cache_blocks, stat.cache_bytes, stat.deal_blocks) == (500, 20_000, 0)
    assert store.epoch() == 7
    store.close()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    write_version_1(tmp_path / "blocks")
    return tmp_path / "blocks"


def test_a_store_of_version_1_is_migrated_when_it_is_opened(old: Path) -> None:
    store = open_store(old, reserve_bytes=0, clock=lambda: 500)
    store.put_many([block(9000, 40)], BlockClass.CACHE)
    store.touch_many([CACHED[0][0]])
    store.use_many([CACHED[1][0]], 400)
    assert store.evict(80) == Evicted(498, 498 * 40)  # what an old program cached counts as never used
    assert store.has(CACHED[1][0])
    assert store.has(block(9000, 40)[0])
    assert store.stat().blocks == 303
    store.close()


def test_nothing_is_lost(old: Path) -> None:
    open_store(old).close()
    assert_migrated(old)


OPEN = """
import sys
from pathlib import Path
from storage_node.blockstore import migrations
from storage_node.blockstore.store import open_store
migrations.ROWS_PER_TRANSACTION = 8
print("begun")
store = open_store(Path(sys.argv[1]), reserve_bytes=0)
assert len(list(store)) == 800 and store.stat().blocks == 800
print("opened")
"""


KILLED = """
import os, signal, sys
from pathlib import Path
from storage_node.blockstore import migrations
from storage_node.blockstore.environment import Environment
from storage_node.blockstore.store import open_store
migrations.ROWS_PER_TRANSACTION = 8
begin, left = Environment.begin, int(sys.argv[2])
def counted(self, write=False):
    global left
    if write:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return begin(self, write)
Environment.begin = counted
open_store(Path(sys.argv[1]))
"""


def test_a_migration_that_is_killed_goes_on_at_the_next_opening(old: Path) -> None:
    for transactions in (0, 1, 2, 5, 9, 30, 40):
        assert run_python(KILLED, str(old), str(transactions)).returncode == -9
        assert json.loads((old / "format.json").read_text())["migrating_from"] == 1
    open_store(old).close()
    assert_migrated(old)


def test_several_processes_may_open_it_at_once(old: Path) -> None:
    running = [start_python(OPEN, str(old)) for _ in range(4)]
    assert [process.communicate()[0] for process in running] == ["begun\nopened\n"] * 4
    assert_migrated(old)


def test_older_programs_refuse_it_from_the_first_moment_on(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(migrations, "_widen_counters", stop)
    with pytest.raises(KeyboardInterrupt):
        open_store(old)
    with pytest.raises(CorruptStore, match=r"version 2, this program knows 1; upgrade"):
        open_folder(old, FORMAT, "shard", SHARDS)
    monkeypatch.undo()
    open_store(old).close()
    assert_migrated(old)


def test_a_program_that_has_the_old_file_open_writes_no_more_to_it(old: Path) -> None:
    done = run_python(OPEN, str(old))
    assert done.returncode == 0, done.stderr
    for number in range(SHARDS):
        path = str(old / f"shard-0{number}.1.mdb")
        with lmdb.open(path, subdir=False, readonly=True) as file, file.begin() as txn:
            # an old program reads the counters as four numbers in every transaction, and fails
            assert len(txn.get(b"\0counters") or b"") == struct.calcsize(">QQQQQQ")
