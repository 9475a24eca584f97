"""Quota, eviction and compaction of the store on disk, over processes and where things fail."""

from __future__ import annotations

import errno
import gc
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage_node.blockstore import environment, lmdb_file
from storage_node.blockstore.check import check
from storage_node.blockstore.interface import BlockClass, Blockstore
from storage_node.blockstore.memory import MemoryStore
from storage_node.blockstore.store import Store, open_store
from storage_node.errors import QuotaExceeded, StoreFailed, StoreFull
from tests.storage_node.blockstore_conformance import Clock, block, blocks, classes
from tests.storage_node.processes import run_python, start_python

OWN, CACHE, DEAL = BlockClass.OWN, BlockClass.CACHE, BlockClass.DEAL


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "disk"])
def small(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Blockstore]:
    """A store with a quota of 1,000 bytes."""
    store: Blockstore
    if request.param == "memory":
        store = MemoryStore(1000, clock)
    else:
        store = open_store(tmp_path / "quota", max_bytes=1000, reserve_bytes=0, clock=clock)
    yield store
    store.close()


# --- room is made by the cache ---


@pytest.mark.parametrize("wanted", list(BlockClass))
def test_a_put_evicts_what_was_used_least_recently(
    small: Blockstore, clock: Clock, wanted: BlockClass
) -> None:
    for number in range(10):
        clock.now_s += 1
        small.put_many([block(number)], CACHE)
    small.use_many([block(0)[0]], 9000)
    assert small.put_many([block(50), block(51)], wanted).new == 2
    assert classes(small, 10) == [CACHE, None, None] + 7 * [CACHE]
    assert small.stat().bytes == 1000


def test_own_blocks_take_the_place_of_the_whole_cache_and_of_nothing_else(small: Blockstore) -> None:
    small.put_many(blocks(4), DEAL)
    small.put_many(blocks(6, first=10), CACHE)
    for number in range(20, 26):
        small.put_many([block(number)])
    for wanted in BlockClass:
        with pytest.raises(QuotaExceeded):
            small.put_many([block(99)], wanted)
    stat = small.stat()
    assert (stat.blocks, stat.cache_blocks, stat.deal_blocks) == (10, 0, 4)


def test_a_put_never_evicts_what_a_live_lease_covers(small: Blockstore, clock: Clock) -> None:
    """Given parity that a running `store` has cached, when others need room, then it stays till that ends."""
    small.put_many(blocks(4, first=10), CACHE)
    clock.now_s += 1
    with small.lease():
        small.put_many(blocks(6), CACHE)
        assert small.put_many(blocks(4, first=20)).new == 4
        with pytest.raises(QuotaExceeded):
            small.put_many([block(30)])
        assert classes(small, 6) == 6 * [CACHE]
    assert small.put_many([block(30)]).new == 1


def test_a_lease_covers_the_cache_of_its_own_thread_alone(tmp_path: Path) -> None:
    """Given a long upload, when readers' blocks are cached beside it, then they can be evicted as ever."""
    store = open_store(tmp_path / "blocks", reserve_bytes=0)
    with store.lease():
        store.put_many(blocks(5), DEAL)
        reader = threading.Thread(target=store.put_many, args=(blocks(5, first=10), CACHE))
        reader.start()
        reader.join()
        assert store.evict(0).blocks == 5
    store.close()


COVER = """
import sys
from pathlib import Path
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import open_store
from tests.storage_node.blockstore_conformance import blocks
store = open_store(Path(sys.argv[1]), reserve_bytes=0)
with store.lease():
    store.put_many(blocks(5), BlockClass.CACHE)
    print("cached", flush=True)
    sys.stdin.read()
"""


def test_the_lease_of_another_process_keeps_its_cached_blocks(tmp_path: Path) -> None:
    store = open_store(tmp_path / "blocks", reserve_bytes=0)
    store.put_many(blocks(5, first=10), OWN)
    other = start_python(COVER, str(tmp_path / "blocks"))
    assert other.stdout is not None
    other.stdout.readline()
    assert store.evict(0).blocks == 0
    other.kill()
    other.communicate()
    assert store.evict(0).blocks == 5
    store.close()


def test_what_is_larger_than_the_quota_is_refused(small: Blockstore) -> None:
    small.put_many([block(0)])
    with pytest.raises(QuotaExceeded):
        small.put_many([block(1, 1001)], CACHE)
    assert small.has(block(0)[0])


def test_a_disk_without_room_is_relieved_by_the_cache(tmp_path: Path) -> None:
    roomy = open_store(tmp_path / "blocks", reserve_bytes=0)
    roomy.put_many(blocks(60, 100_000), CACHE)
    tight = open_store(tmp_path / "blocks", reserve_bytes=1 << 62)
    assert tight.put_many([block(99, 200_000)]).new == 1
    assert 0 < tight.stat().cache_blocks < 60
    assert check(tight).clean
    roomy.close()
    tight.close()


# --- the quota over processes ---

FILL = """
import random, sys
from pathlib import Path
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import open_store
from storage_node.errors import QuotaExceeded
from tests.storage_node.blockstore_conformance import block
folder, seed, quota, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
chance = random.Random(seed)
store = open_store(folder, max_bytes=quota, reserve_bytes=0)
refused = 0
while refused < 12:
    count = chance.randrange(1, 30)
    some = [block(chance.randrange(1 << 40), chance.randrange(1, size)) for _ in range(count)]
    try:
        store.put_many(some, chance.choice([BlockClass.OWN, BlockClass.DEAL]))
    except QuotaExceeded:
        refused += 1
    if refused == 6:
        store.delete_many(multihash for multihash, _ in some)
print(refused)
"""


@pytest.mark.parametrize(("quota", "size"), [(30_000, 700), (48 << 20, 300_000)])
def test_processes_together_never_pass_the_quota(tmp_path: Path, quota: int, size: int) -> None:
    folder = tmp_path / "blocks"
    store = open_store(folder, max_bytes=quota, reserve_bytes=0)
    running = [start_python(FILL, str(folder), str(seed), str(quota), str(size)) for seed in range(3)]
    chance, highest, killed = random.Random(1), 0, False
    while any(process.poll() is None for process in running):
        time.sleep(0.001)  # leaves the processors to those who fill it
        highest = max(highest, store.stat().bytes)
        if not killed and highest > quota * 0.9 and chance.random() < 0.1:
            running[0].kill()
            killed = True
    assert [process.communicate()[0].strip() for process in running] in (["", "12", "12"], ["12"] * 3)
    report = check(store)
    assert report.clean
    assert report.bytes <= quota
    assert report.bytes > quota - 40 * size  # nobody was refused while there was room
    store.close()


# --- a commit whose process was killed in it ---

KILLED_IN_COMMIT = """
import os, shutil, signal, sys
from pathlib import Path
from storage_node.blockstore.store import open_store
folder, aside, multihash = Path(sys.argv[1]), Path(sys.argv[2]), bytes.fromhex(sys.argv[3])
shutil.copytree(folder, aside)
other = open_store(aside)
other.delete_many([multihash])
name = f"shard-{multihash[-1] % 4:02d}.1.mdb"
store = open_store(folder)
with store.shards[multihash[-1] % 4].environment.write() as txn:
    with (folder / name).open("r+b") as file:
        file.write((aside / name).read_bytes())  # pages and meta page, as the commit writes them
    os.kill(os.getpid(), signal.SIGKILL)  # before others are told
"""


def test_a_block_whose_deletion_was_killed_in_its_commit_is_not_taken_for_present(tmp_path: Path) -> None:
    store = open_store(tmp_path / "blocks", reserve_bytes=0)
    store.put_many(blocks(20))
    multihash, data = block(3)
    done = run_python(KILLED_IN_COMMIT, str(store.folder), str(tmp_path / "aside"), multihash.hex())
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert store.has(multihash), "readers still see the old state, or this test tests nothing"
    assert store.put_many([(multihash, data)]).new == 1
    assert store.put_many(blocks(40)).new == 20
    assert store.get(multihash) == data
    assert check(store).clean
    store.close()


# --- compaction that fails ---


@pytest.mark.parametrize("step", ["sync_file", "fsync_folder"])
@pytest.mark.parametrize(("code", "expected"), [(errno.ENOSPC, StoreFull), (errno.EIO, StoreFailed)])
def test_a_compaction_that_fails_leaves_the_old_file_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, expected: type[Exception]
) -> None:
    store = open_store(tmp_path / "blocks", reserve_bytes=0)
    store.put_many(blocks(40, 5000))
    files = sorted(store.folder.iterdir())

    def fail(_: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(environment, step, fail)
    with pytest.raises(expected):
        store.compact()
    monkeypatch.undo()
    assert sorted(store.folder.iterdir()) == files  # the copy takes no room
    assert store.put_many(blocks(50, 5000)).new == 10
    store.compact()
    assert check(store).clean
    assert {key: store.get(key) for key in store} == dict(blocks(50, 5000))
    store.close()


def test_compaction_is_wanted_where_it_pays_and_stops_between_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_node.blockstore.store.WORTHWHILE_BYTES", 1 << 20)
    store = open_store(tmp_path / "blocks", reserve_bytes=0)
    store.put_many(blocks(100, 100_000))
    assert not store.wants_compaction()
    assert store.compact(only_wasteful=True) == 0
    store.delete_many([multihash for multihash, _ in blocks(60, 100_000)])
    assert store.wants_compaction()
    done: list[tuple[int, int]] = []
    assert store.compact(
        only_wasteful=True, stop=lambda: len(done) == 2, progress=lambda *at: done.append(at)
    )
    assert len(done) == 2
    assert store.wants_compaction()
    assert store.compact(only_wasteful=True) > 0
    assert not store.wants_compaction()
    assert list(store.folder.glob("shard-??.3.mdb")) == []  # none was copied twice
    store.close()


def test_a_view_that_stays_open_keeps_its_bytes_and_holds_nobody_up(tmp_path: Path) -> None:
    store = open_store(tmp_path / "blocks", reserve_bytes=0)
    some = blocks(30, 50_000)
    store.put_many(some)
    with store.view(some[0][0]) as view:
        for turn in range(4):
            store.delete_many(list(store))
            store.put_many(blocks(30, 50_000, first=100 * turn + 100))
            store.compact()
        assert view == some[0][1]
    assert check(store).clean
    store.close()


def test_readers_and_writers_go_on_while_a_store_is_compacted(tmp_path: Path) -> None:
    store: Store = open_store(tmp_path / "blocks", reserve_bytes=0)
    some = blocks(100, 20_000)
    store.put_many(some)
    failures: list[BaseException] = []
    over = threading.Event()

    def work(first: int) -> None:
        try:
            for turn in range(10_000):
                assert store.get(some[turn % 100][0]) == some[turn % 100][1]
                store.put_many([block(first + turn, 500)])
                if over.is_set():
                    return
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1 << 20, 1 << 30)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        store.compact()
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert check(store).clean
    store.close()


COUNT = """
import sys
from pathlib import Path
from storage_node.blockstore.store import open_store
print(len(list(open_store(Path(sys.argv[1])))))
"""


def test_a_mark_that_failed_to_commit_does_not_come_back_when_its_copy_is_gone(tmp_path: Path) -> None:
    """Given a commit that LMDB reported as failed although its meta page reached the disk."""
    store = open_store(tmp_path / "blocks", reserve_bytes=0)
    store.put_many(blocks(20))
    live, copy = store.folder / "shard-00.1.mdb", store.folder / "shard-00.2.mdb"
    shutil.copytree(store.folder, tmp_path / "aside")
    aside = open_store(tmp_path / "aside")
    with aside.shards[0].environment.write() as txn:
        txn.put(b"\0retired", b"2")
    copy.write_bytes(live.read_bytes())
    with live.open("r+b") as file:
        file.write((tmp_path / "aside" / live.name).read_bytes())
    assert len(list(store)) == 20, "readers do not see the mark"
    store.shards[0].environment.remove_leftovers()
    assert not copy.exists()
    aside.close()
    store.close()
    del store, aside, txn
    gc.collect()  # the file is closed, and opened as it is on the disk
    assert run_python(COUNT, str(tmp_path / "blocks")).stdout == "20\n"


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot allocate pages of files")
def test_no_page_of_a_lock_file_waits_for_room(tmp_path: Path) -> None:
    """LMDB writes to it through a map, where a full disk is SIGBUS."""
    run_python(
        "import sys; from pathlib import Path; from storage_node.blockstore.store import open_store;"
        "open_store(Path(sys.argv[1]), reserve_bytes=0)",
        str(tmp_path / "store"),
    )
    locks = sorted((tmp_path / "store").glob("*-lock"))
    assert len(locks) == 4
    for path in locks[1:]:  # as a copy of the folder or an earlier version may have it
        os.truncate(path, 0)
        os.truncate(path, lmdb_file.LOCK_FILE_BYTES)
    open_store(tmp_path / "store", reserve_bytes=0).close()
    for path in locks:
        assert path.stat().st_blocks * 512 >= path.stat().st_size == lmdb_file.LOCK_FILE_BYTES
