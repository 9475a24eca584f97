"""Both blockstores keep the promises of the interface; the one on disk keeps more."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_node.blockstore.check import check
from storage_node.blockstore.interface import BlockClass, Blockstore
from storage_node.blockstore.memory import MemoryStore
from storage_node.blockstore.store import BATCH_BYTES, Store, open_store
from storage_node.errors import CorruptStore, QuotaExceeded, StoreFull
from storage_node.fingerprints import FingerprintSet
from tests.storage_node.blockstore_conformance import BlockstoreConformance, Clock, block, blocks


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk_store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    store = open_store(tmp_path / "blocks", reserve_bytes=0, clock=clock)
    yield store
    store.close()


class TestMemoryStore(BlockstoreConformance):
    @pytest.fixture
    def store(self, clock: Clock) -> Blockstore:
        return MemoryStore(clock=clock)


class TestStore(BlockstoreConformance):
    @pytest.fixture
    def store(self, disk_store: Store) -> Blockstore:
        return disk_store


@pytest.fixture(params=["memory", "disk"])
def small_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blockstore]:
    """A store with a quota of 10,000 bytes."""
    store: Blockstore
    store = (
        MemoryStore(10_000)
        if request.param == "memory"
        else open_store(tmp_path / "quota", max_bytes=10_000, reserve_bytes=0)
    )
    yield store
    store.close()


def test_the_quota_is_exact_and_clears_by_itself(small_store: Blockstore) -> None:
    small_store.put_many(blocks(10, 1000))
    with pytest.raises(QuotaExceeded):
        small_store.put_many([block(99, 1)])
    assert small_store.put_many(blocks(10, 1000)).present == 10
    assert small_store.stat().bytes == 10_000
    small_store.delete_many([block(3, 1000)[0]])
    assert small_store.put_many([block(99, 1000)]).new == 1


def test_the_quota_holds_against_threads(small_store: Blockstore) -> None:
    refused: list[int] = []

    def work(seed: int) -> None:
        for turn in range(20):
            try:
                small_store.put_many([block(100 * seed + turn, 250)])
            except QuotaExceeded:
                refused.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert small_store.stat().bytes == 10_000  # not one too many, and none refused too early
    assert len(refused) == 40


def test_the_reserve_of_free_disk_is_kept(tmp_path: Path) -> None:
    roomy = open_store(tmp_path / "blocks", reserve_bytes=0)
    roomy.put_many(blocks(60, 100_000))
    tight = open_store(tmp_path / "blocks", reserve_bytes=1 << 62)
    with pytest.raises(StoreFull):
        tight.put_many([block(99, 200_000)])
    assert tight.put_many(blocks(3, 100_000)).present == 3
    with pytest.raises(StoreFull):
        tight.compact()
    tight.delete_many(list(tight))  # room inside the files needs none on the disk
    assert tight.put_many([block(99, 200_000)]).new == 1
    roomy.close()
    tight.close()


def test_a_store_is_found_again(tmp_path: Path) -> None:
    first = open_store(tmp_path / "blocks")
    first.put_many(blocks(100))
    first.begin_collection()
    epoch = first.epoch()
    first.close()
    del first
    gc.collect()
    again = open_store(tmp_path / "blocks")
    assert {key: again.get(key) for key in again} == dict(blocks(100))
    assert again.epoch() == epoch
    assert again.stat().bytes == 10_000
    again.close()


def test_two_openings_in_one_process_share_the_files(tmp_path: Path) -> None:
    first = open_store(tmp_path / "blocks")
    (tmp_path / "link").symlink_to(tmp_path / "blocks")
    second = open_store(tmp_path / "link")
    first.put_many(blocks(10))
    assert len(list(second)) == 10
    first.close()
    assert second.put_many(blocks(20)).new == 10
    second.close()


def test_a_put_larger_than_its_batches(disk_store: Store) -> None:
    count = 3 * BATCH_BYTES // (1 << 20) * 4
    report = disk_store.put_many(block(number, 1 << 20) for number in range(count))
    assert report.new == count
    assert all(disk_store.has(block(number, 1 << 20)[0]) for number in range(0, count, 7))


def test_views_outlive_deletion_and_reuse_of_their_pages(disk_store: Store) -> None:
    multihash, data = block(1, 1 << 20)
    disk_store.put_many([(multihash, data)])
    with disk_store.view(multihash) as view:
        for turn in range(5):
            disk_store.delete_many(list(disk_store))
            disk_store.put_many(blocks(8, 1 << 20, first=100 + 10 * turn))
        assert view == data
    with pytest.raises(ValueError):
        bytes(view)  # released: no dangling memory


def test_compaction_gives_room_back_beside_readers(disk_store: Store) -> None:
    some = blocks(64, 200_000)
    disk_store.put_many(some)
    disk_store.begin_collection()
    disk_store.delete_many([multihash for multihash, _ in some[8:]])
    before, epoch = disk_store.stat(), disk_store.epoch()
    with disk_store.view(some[0][0]) as view:
        shrunk = disk_store.compact()
        assert view == some[0][1]
    after = disk_store.stat()
    assert before.file_bytes - after.file_bytes == shrunk > 10_000_000
    assert (after.blocks, after.bytes) == (8, 1_600_000)
    assert disk_store.epoch() == epoch
    assert all(disk_store.get(multihash) == data for multihash, data in some[:8])
    assert disk_store.put_many(some).new == 56
    disk_store.compact()
    assert len(list(disk_store)) == 64


def test_a_compaction_that_was_killed_leaves_the_old_file_in_force(tmp_path: Path) -> None:
    store = open_store(tmp_path / "blocks")
    store.put_many(blocks(10))
    folder = store.folder
    # what is on disk between the rename of the copy and the mark in the old file
    (folder / "shard-00.2.mdb").write_bytes((folder / "shard-00.1.mdb").read_bytes())
    (folder / "shard-01.2.mdb.tmp").write_bytes(b"half a copy")
    store.put_many(blocks(20))
    store.close()
    del store
    gc.collect()
    store = open_store(tmp_path / "blocks")
    assert len(list(store)) == 20
    store.compact()
    assert len(list(store)) == 20
    assert sorted(path.name for path in folder.glob("*.mdb*")) == sorted(
        f"shard-0{number}.2.mdb{end}" for number in range(4) for end in ("", "-lock")
    )
    store.close()


# --- damaged and foreign folders: one clear line that names the file ---


def closed_store(tmp_path: Path, count: int = 50) -> Path:
    store = open_store(tmp_path / "blocks")
    store.put_many(blocks(count, 5000))
    store.close()
    del store
    gc.collect()
    return tmp_path / "blocks"


def refusal(folder: Path) -> str:
    with pytest.raises(CorruptStore) as caught:
        open_store(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"\xff\xd8")
    assert "holiday.jpg" in refusal(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg", "init.lock"] or sorted(
        path.name for path in tmp_path.iterdir()
    ) == ["holiday.jpg", "init.lock"]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"format": "holdfast-meta", "version": 1, "shards": 1}',
     '{"format": "holdfast-blocks", "version": 3, "shards": 4}',
     '{"format": "holdfast-blocks", "version": 2, "shards": 4, "migrating_from": 2}',
     '{"format": "holdfast-blocks", "version": 2, "shards": 4, "migrating_from": "1"}',
     '{"format": "holdfast-blocks", "version": "1", "shards": 4}',
     '{"format": "holdfast-blocks", "version": 1, "shards": 0}',
     '{"format": "holdfast-blocks", "version": 1, "shards": 1e9}',
     '{"format": "holdfast-blocks", "version": 2, "shards": 2}', "[" * 50_000],
)  # fmt: skip
def test_an_impossible_format_file_is_refused(tmp_path: Path, text: str) -> None:
    folder = closed_store(tmp_path)
    (folder / "format.json").write_text(text)
    assert "format.json" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"not LMDB", bytes(20_000)])
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = closed_store(tmp_path)
    (folder / "shard-02.1.mdb").write_bytes(content)
    assert "shard-02.1.mdb" in refusal(folder)


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = closed_store(tmp_path)
    (folder / "shard-03.1.mdb").unlink()
    assert "shard-03.1.mdb" in refusal(folder)
    assert not (folder / "shard-03.1.mdb").exists()  # nothing empty takes its place


def test_a_store_whose_creation_was_killed_is_made(tmp_path: Path) -> None:
    folder = closed_store(tmp_path)
    (folder / "format.json").unlink()
    (folder / "shard-03.1.mdb").write_bytes(b"")
    store = open_store(folder)
    assert store.put_many(blocks(60, 5000)).present > 0
    store.close()


CUT = """
import sys
from pathlib import Path
from storage_node.blockstore.store import open_store
from storage_node.blockstore.verify import verify
from storage_node.errors import CorruptStore
from tests.storage_node.blockstore_conformance import block, blocks
try:
    store = open_store(Path(sys.argv[1]))
    report = verify(store)
    print("verified", len(report.damaged), store.put_many(blocks(5, 5000, first=900)).new)
except CorruptStore as error:
    assert "shard-01" in str(error) and "\\n" not in str(error), error
    print("corrupt")
"""


@pytest.mark.parametrize("kept_percent", [3, 30, 60, 90, 99])
def test_a_file_cut_short_is_an_error_and_no_crash(tmp_path: Path, kept_percent: int) -> None:
    from tests.storage_node.processes import run_python

    folder = closed_store(tmp_path, 200)
    path = folder / "shard-01.1.mdb"
    os.truncate(path, path.stat().st_size * kept_percent // 100)
    done = run_python(CUT, str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in {"verified", "corrupt"}
    if done.stdout.startswith("verified"):
        assert int(done.stdout.split()[1]) > 0


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("pcdTtxruef"), st.integers(0, 12)), max_size=40))
def test_both_stores_agree(operations: list[tuple[str, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        disk, memory = open_store(Path(folder), reserve_bytes=0, clock=clock), MemoryStore(clock=clock)
        try:
            for name, number in operations:
                clock.now_s += number % 3
                results = [operate(store, name, number) for store in (disk, memory)]
                assert results[0] == results[1]
            assert dict(disk.rows()) == dict(memory.rows())
            for field in ("blocks", "bytes", "cache_blocks", "cache_bytes", "deal_blocks", "deal_bytes"):
                assert getattr(disk.stat(), field) == getattr(memory.stat(), field)
            assert check(disk).clean
        finally:
            disk.close()


def operate(store: Blockstore, name: str, number: int) -> object:
    """One operation by its letter; what it returned."""
    multihash, _ = block(number)
    if name in "pcd":
        return store.put_many([block(number)], BlockClass("pcd".index(name)))
    if name in "Tt":
        return store.touch_many([multihash], BlockClass.OWN if name == "T" else BlockClass.DEAL)
    if name == "x":
        return store.delete_many([multihash])
    if name == "r":
        return store.reclass_many([multihash], BlockClass(number % 3), store.lease_floor())
    if name == "u":
        store.use_many([multihash], 1000 + number)
    if name == "e":
        return store.evict(100 * number)
    return store.free_many([multihash], store.begin_collection(), BlockClass.CACHE) if name == "f" else None


@pytest.mark.parametrize("few", [10, 4999, 5000])
def test_the_fingerprint_set_is_a_set(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.fingerprints.FEW_KEYS", few)
    known = FingerprintSet()
    keys = [block(number)[0] for number in range(5000)]
    assert all(known.add(key) for key in keys)
    assert not any(known.add(key) for key in keys)
    assert len(known) == 5000
    assert all(key in known for key in keys)
    assert not any(block(number)[0] in known for number in range(5000, 9000))
    assert b"\x01" not in known
    assert known.add(b"\x01")
    assert b"\x01" in known
