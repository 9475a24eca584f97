"""A store's own consistency: what a check finds, and that a repair takes it away and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage_node.blockstore import check as checking
from storage_node.blockstore.check import Kind, check, repair
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import Store, open_store
from storage_node.blockstore.tables import COUNTERS_KEY, ROWS, Counters, unpack_row, use_key
from storage_node.blockstore.verify import verify
from storage_node.errors import DamagedBlock
from tests.storage_node.blockstore_conformance import block, blocks
from tests.storage_node.processes import run_python

OWN, CACHED = blocks(60, 70), blocks(60, 70, first=500)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "blocks", reserve_bytes=0)
    store.put_many(OWN)
    store.put_many(CACHED, BlockClass.CACHE)
    store.put_many(blocks(10, 70, first=900), BlockClass.DEAL)
    yield store
    store.close()


def test_a_store_in_use_is_clean(store: Store) -> None:
    seen: list[int] = []
    report = check(store, seen.append)
    assert report.clean
    assert (report.blocks, report.bytes) == (130, 9100)
    store.evict(2000)
    store.delete_many([OWN[0][0]])
    store.reclass_many([OWN[1][0]], BlockClass.DEAL, 99)
    with store.lease():
        assert check(store).findings == ()
    store.compact()
    assert repair(store).clean


def damage_row(store: Store) -> tuple[int, int]:
    multihash = OWN[5][0]
    with write(store, multihash) as txn:
        txn.put(ROWS + multihash, b"\x02" + b"\xff" * 21)
    with store.reading() as find, pytest.raises(DamagedBlock):
        find(multihash)
    with pytest.raises(DamagedBlock):
        store.get(multihash)
    assert multihash in list(store)
    assert verify(store).damaged == (multihash,)
    return 0, 0


def write(store: Store, multihash: bytes):  # type: ignore[no-untyped-def]
    return store.shards[multihash[-1] % len(store.shards)].environment.write()


def lose_bytes(store: Store) -> tuple[int, int]:
    for multihash, _ in (OWN[5], CACHED[5]):
        with write(store, multihash) as txn:
            row = unpack_row(txn.get(ROWS + multihash))
            assert row is not None
            txn.delete(row.data_key)
    return 2, 140  # the cached one is forgotten, the other noted


def cut_bytes(store: Store) -> tuple[int, int]:
    multihash = OWN[7][0]
    with write(store, multihash) as txn:
        row = unpack_row(txn.get(ROWS + multihash))
        assert row is not None
        txn.put(row.data_key, b"short")
    return 1, 70


def lose_row(store: Store) -> tuple[int, int]:
    for multihash, _ in (OWN[3], CACHED[3]):
        with write(store, multihash) as txn:
            txn.delete(ROWS + multihash)
    return 0, 0


def spoil_index(store: Store) -> tuple[int, int]:
    for number, (multihash, _) in enumerate(CACHED[:20]):
        with write(store, multihash) as txn:
            row = unpack_row(txn.get(ROWS + multihash))
            assert row is not None
            if number % 3:
                txn.delete(use_key(multihash, row.used_s))
            if number % 2:
                txn.put(use_key(multihash, 77), b"")
    return 0, 0


def miscount(store: Store) -> tuple[int, int]:
    for shard in store.shards:
        with shard.environment.write() as txn:
            counters = Counters.read(txn)
            counters.add(3, -50, BlockClass.OWN)
            counters.write(txn)
    return 0, 0


def lose_counters(store: Store) -> tuple[int, int]:
    with store.shards[1].environment.write() as txn:
        txn.put(COUNTERS_KEY, b"12345")
    return 0, 0


@pytest.mark.parametrize(
    ("damage", "found", "lost"),
    [
        (damage_row, {Kind.ROW: 1, Kind.NO_ROW: 1, Kind.COUNTERS: 1}, ()),
        (lose_bytes, {Kind.NO_BYTES: 2}, (OWN[5][0],)),
        (cut_bytes, {Kind.NO_BYTES: 1}, (OWN[7][0],)),
        (lose_row, {Kind.NO_ROW: 2, Kind.INDEX: 1, Kind.COUNTERS: None}, ()),
        (spoil_index, {Kind.INDEX: 23}, ()),
        (miscount, {Kind.COUNTERS: 4}, ()),
        (lose_counters, {Kind.COUNTERS: 1}, ()),
    ],
)
def test_damage_is_found_and_repaired(
    store: Store,
    damage: Callable[[Store], tuple[int, int]],
    found: dict[Kind, int | None],
    lost: tuple[bytes, ...],
) -> None:
    blocks_lost, bytes_lost = damage(store)
    report = check(store)
    assert {kind: None if found.get(kind, 0) is None else n for kind, n in report.counts.items()} == found
    assert all(finding.repairable and finding.file.endswith(".mdb") for finding in report.findings)
    after = repair(store)
    assert after.counts == ({Kind.LOST: len(lost)} if lost else {})
    assert after.repaired >= len(report.findings)
    assert (after.blocks, after.bytes) == (130 - blocks_lost, 9100 - bytes_lost)
    assert (store.stat().blocks, store.stat().bytes) == (after.blocks, after.bytes)
    assert verify(store).damaged == lost
    store.put_many([*OWN, *CACHED])
    assert check(store).clean
    assert all(store.get(multihash) == data for multihash, data in [*OWN, *CACHED])


def test_more_than_one_pass_finds_lists_and_repairs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "MAX_FINDINGS", 3)
    monkeypatch.setattr(checking, "WINDOW_IDS", 16)
    for multihash, _ in OWN[:40]:
        with write(store, multihash) as txn:
            txn.delete(ROWS + multihash)
    report = check(store)
    assert report.counts[Kind.NO_ROW] == 40
    assert len([each for each in report.findings if each.kind is Kind.NO_ROW]) == 12
    assert repair(store).clean
    assert store.stat().blocks == 130
    assert all(store.get(multihash) == data for multihash, data in OWN)


def test_bytes_of_two_blocks_are_found_and_given_back_if_they_are_here(store: Store) -> None:
    first, second = [multihash for multihash, _ in OWN if multihash[-1] % 4 == 1][:2]
    with write(store, first) as txn:
        row = txn.get(ROWS + first)
        txn.put(ROWS + second, bytes(row or b""))
    assert check(store).counts == {Kind.SHARED: 1, Kind.NO_ROW: 1}
    assert verify(store).damaged == (second,)
    assert repair(store).clean
    assert verify(store).damaged == ()


LEAVE_A_LEASE = """
import os, sys
from pathlib import Path
from storage_node.blockstore.store import open_store
held = open_store(Path(sys.argv[1])).lease()
held.__enter__()
os._exit(0)
"""


def test_files_and_leases_of_the_killed_are_found_and_removed(store: Store) -> None:
    folder = store.folder
    retired = folder / "shard-00.1.mdb"
    os.link(retired, folder.parent / "kept")
    store.compact()
    os.link(folder.parent / "kept", retired)
    unused = ["shard-01.3.mdb", "shard-01.3.mdb-lock", "shard-02.3.mdb.tmp", "format.json.tmp"]
    for name in unused:
        (folder / name).write_bytes(b"left")
    left = [retired.name, *unused]
    (folder / "holiday.jpg").write_bytes(b"\xff\xd8")
    done = run_python(LEAVE_A_LEASE, str(folder))
    assert done.returncode == 0, done.stderr
    left.append("shard-00.1.mdb-lock")  # it looked into the retired file to find out that it is
    report = check(store)
    assert sorted(each.file for each in report.findings if each.kind is Kind.STRAY) == sorted(left)
    assert report.counts == {Kind.STRAY: len(left), Kind.FOREIGN: 1, Kind.LEASE: 1}
    with store.lease():
        assert repair(store).counts == {Kind.FOREIGN: 1}
        assert len(list((folder / "leases").iterdir())) == 1
    assert (folder / "holiday.jpg").exists()
    assert all(store.get(multihash) == data for multihash, data in [*OWN, *CACHED])


def test_putting_a_block_heals_its_damaged_row(store: Store) -> None:
    damage_row(store)
    assert store.put_many([OWN[5]]).new == 1
    assert store.get(OWN[5][0]) == OWN[5][1]
    assert repair(store).clean
    assert store.stat().blocks == 130


def test_a_damaged_row_can_be_deleted(store: Store) -> None:
    damage_row(store)
    assert store.delete_many([OWN[5][0]]).multihashes == [OWN[5][0]]
    assert store.put_many([block(5, 70)]).new == 1
