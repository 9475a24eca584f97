"""The checker sees what is wrong: a home is made wrong in one way after the other."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from tests.faults.checker import recount
from tests.faults.version1 import make_home
from tests.storage_node.blockstore_conformance import blocks
from tests.storage_node.dags import tree
from tests.storage_node.processes import run_python

MAKE = """
import sys
from pathlib import Path
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import open_store
from storage_node.meta import Meta
from storage_node.pins import Pins
from tests.storage_node.blockstore_conformance import blocks
from tests.storage_node.dags import pairs, tree
home = Path(sys.argv[1])
store = open_store(home / "blocks", reserve_bytes=0)
store.put_many(pairs(tree("pinned")))
store.put_many(blocks(40), BlockClass.CACHE)
store.put_many(blocks(40, first=100), BlockClass.DEAL)
Pins(Meta(home / "meta"), lambda: 0).add(tree("pinned")[-1].cid, name="a name")
store.close()
"""
SHARDS = 4
PINNED = tree("pinned")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done = run_python(MAKE, str(folder))  # elsewhere, so that no file stays open here
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def home(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "home")
    return tmp_path / "home"


def change(file: Path, how: Callable[[Any], object]) -> None:
    with (
        lmdb.open(str(file), subdir=False, map_size=1 << 40) as environment,
        environment.begin(write=True) as txn,
    ):
        how(txn)


def shard_of(home: Path, multihash: bytes) -> Path:
    return home / "blocks" / f"shard-{multihash[-1] % SHARDS:02d}.1.mdb"


def test_a_good_home_is_counted(home: Path) -> None:
    seen = recount(home)
    assert seen.findings == []
    assert len(seen.blocks) == len(PINNED) + 80
    assert [sum(each == number for each in seen.classes.values()) for number in range(3)] == [
        len(PINNED),
        40,
        40,
    ]
    assert seen.size_bytes == sum(seen.bytes_by_class.values())
    assert len(seen.pins) == 1


def test_a_home_of_version_1_is_counted_before_and_after_it_is_migrated(tmp_path: Path) -> None:
    pins = make_home(tmp_path, random.Random(1))
    before = recount(tmp_path)
    done = run_python(
        "import sys; from pathlib import Path; from storage_node.blockstore.store import open_store\n"
        "open_store(Path(sys.argv[1])).close()",
        str(tmp_path / "blocks"),
    )
    assert done.returncode == 0, done.stderr
    after = recount(tmp_path)
    assert before.findings == after.findings == []
    assert (before.blocks, before.classes) == (after.blocks, after.classes)
    assert set(after.pins) == set(pins)


ROOT = PINNED[-1].cid.multihash
LEAF = PINNED[0].cid.multihash
CACHED = blocks(1)[0][0]


def flip(txn: Any) -> None:
    key = txn.get(b"\1" + LEAF)[:9]
    data = txn.get(key)
    txn.put(key, bytes([data[0] ^ 1]) + data[1:])


def miscount(txn: Any) -> None:
    first, *others = struct.unpack(">6Q", txn.get(b"\0counters"))
    txn.put(b"\0counters", struct.pack(">6Q", first + 1, *others))


def unlist(txn: Any) -> None:
    used = txn.get(b"\1" + CACHED)[22:]
    assert txn.delete(b"\0\1" + used + CACHED)


@pytest.mark.parametrize(
    ("multihash", "how", "said"),
    [
        (LEAF, flip, "is damaged"),
        (LEAF, miscount, "the counters say"),
        (LEAF, lambda txn: txn.delete(txn.get(b"\1" + LEAF)[:9]), "has a row and no bytes"),
        (LEAF, lambda txn: txn.delete(b"\1" + LEAF), "belong to no row"),
        (LEAF, lambda txn: txn.delete(b"\1" + LEAF), "lacks 1 blocks"),
        (ROOT, lambda txn: txn.put(b"\1" + ROOT, txn.get(b"\1" + ROOT)[:21] + b"\7"), "class 7"),
        (CACHED, unlist, "listed by last use"),
    ],
)
def test_wrong_blocks_are_seen(home: Path, multihash: bytes, how: Callable[[Any], object], said: str) -> None:
    change(shard_of(home, multihash), how)
    assert any(said in finding for finding in recount(home).findings), recount(home).findings


def test_wrong_records_are_seen(home: Path) -> None:
    meta = home / "meta" / "meta-00.1.mdb"
    cid = bytes(PINNED[-1].cid)
    change(meta, lambda txn: txn.delete(b"\2a name\0" + cid))
    assert any("index by name" in finding for finding in recount(home).findings)
    change(meta, lambda txn: txn.delete(b"\1" + cid))
    assert any("counted as (1, 0)" in finding for finding in recount(home).findings)


def test_a_file_that_is_gone_or_cut_is_seen(home: Path) -> None:
    file = shard_of(home, LEAF)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2 // 4096 * 4096])
    assert recount(home).findings
    file.unlink()
    assert any("no live file" in finding for finding in recount(home).findings)
