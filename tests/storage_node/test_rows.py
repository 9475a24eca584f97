"""Proof rows are made once, in other processes where that is worth it, and nothing that is lost hurts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from proofs.commitment import commit_block
from storage_node import commitments as table
from storage_node import rows as rows_module
from storage_node.blockstore.store import Store
from storage_node.commitments import Commitments, key_of
from storage_node.errors import BlockNotFound, StoreFull
from storage_node.meta import Meta, MetaWrite, Table
from storage_node.row_workers import RowWorkers
from storage_node.rows import ProofRows
from storage_node.worker_pool import WorkerPool
from tests.storage_node.blockstore_conformance import block
from tests.storage_node.content import a_store
from tests.storage_node.processes import start_python, wait_for_end

SIZES = (0, 1, 1024, 1025, 131_072, 131_073, 300_000, 1_048_576)


class Counted(RowWorkers):
    """Real workers; notes what they are asked for."""

    asked: list[bytes]

    def submit(self, multihashes: list[bytes]) -> Future[list[bytes | None]]:  # type: ignore[override]
        self.asked += multihashes
        return super().submit(multihashes)


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(workers=2, linger_s=60)
    yield pool
    pool.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = a_store(tmp_path / "blocks")
    yield store
    store.close()


@pytest.fixture
def workers(pool: WorkerPool, tmp_path: Path) -> Counted:
    workers = Counted(pool, tmp_path / "blocks")
    workers.asked = []
    return workers


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the blocks that this process commits to; little counts as much."""
    lengths: list[int] = []

    def counted(data: bytes) -> object:
        lengths.append(len(data))
        return commit_block(data)

    monkeypatch.setattr(rows_module, "commit_block", counted)
    monkeypatch.setattr(rows_module, "WORKERS_FROM", 200_000)
    monkeypatch.setattr(rows_module, "BATCH_WORK", 50_000)
    return lengths


def some(count: int, size: int = 10_000) -> dict[bytes, bytes]:
    return dict(block(number, size) for number in range(count))


def no_progress(_: int) -> None:
    """Nobody looks."""


@pytest.fixture
def commitments(tmp_path: Path) -> Commitments:
    return Commitments(Meta(tmp_path / "meta"))


def test_other_processes_make_the_same_rows(
    store: Store, commitments: Commitments, workers: Counted, here: list[int]
) -> None:
    blocks = dict(block(number, size) for number, size in enumerate(SIZES))
    store.put_many(blocks.items())
    rows = ProofRows(store, commitments, workers)
    told: list[int] = []
    rows.ensure(blocks, told.append)
    assert {each: rows.find(each) for each in blocks} == {
        each: commit_block(data) for each, data in blocks.items()
    }
    assert sum(told) == sum(SIZES)
    assert sorted(workers.asked) == sorted(blocks)
    assert here == []


def test_nothing_is_hashed_that_was_hashed_before(
    store: Store, commitments: Commitments, workers: Counted, here: list[int]
) -> None:
    blocks = some(100)
    store.put_many(blocks.items())
    rows = ProofRows(store, commitments, workers)
    names = list(blocks)
    rows.ensure(names[:10], no_progress)  # too little for the workers
    assert len(here) == 10
    assert workers.asked == []
    rows.begin(dict.fromkeys(names[:60], 10000))
    rows.begin(dict.fromkeys(names[20:80], 10000))  # of these some are under way
    told: list[int] = []
    rows.ensure([*names, *names], told.append)
    rows.ensure(names, no_progress)
    ProofRows(store, commitments, workers).ensure(names, no_progress)
    assert len(here) == 10
    assert sorted(workers.asked) == sorted(names[10:])
    assert sum(told) >= 100 * 10_000


def test_little_that_was_begun_is_made_by_whoever_waits_for_it(
    store: Store, commitments: Commitments, workers: Counted, here: list[int]
) -> None:
    blocks = some(4)
    store.put_many(blocks.items())
    rows = ProofRows(store, commitments, workers)
    rows.begin(dict.fromkeys(blocks, 10_000))
    rows.ensure(blocks, no_progress)
    assert (len(here), workers.asked) == (4, [])


def test_work_that_is_ended_goes_on_where_it_was(
    store: Store, commitments: Commitments, workers: Counted, here: list[int]
) -> None:
    blocks = some(200)
    store.put_many(blocks.items())
    rows = ProofRows(store, commitments, workers)

    def ended(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows.ensure(blocks, ended)
    assert 0 < len(workers.asked) < 200
    rows.ensure(blocks, no_progress)
    assert len(workers.asked) == len(set(workers.asked)) == 200
    assert here == []


def test_where_workers_are_killed_the_rest_is_made_here(
    store: Store, commitments: Commitments, tmp_path: Path, here: list[int]
) -> None:
    blocks = some(60)
    store.put_many(blocks.items())
    pool = WorkerPool(workers=1)
    pid = pool.run(os.getpid).result()
    os.kill(pid, signal.SIGKILL)
    rows = ProofRows(store, commitments, RowWorkers(pool, tmp_path / "blocks"))
    rows.ensure(blocks, no_progress)
    assert all(rows.find(each) == commit_block(data) for each, data in blocks.items())
    again = pool.run(os.getpid).result()  # and the next work has new ones
    assert again not in (pid, os.getpid())
    pool.close()


class Dying(RowWorkers):
    """Workers whose process dies after the first batch; it is told before `submit` ends, as on 3.13."""

    first: Future[list[bytes | None]] | None = None
    was_heard = True

    def submit(self, multihashes: list[bytes]) -> Future[list[bytes | None]]:  # type: ignore[override]
        if self.first is None:
            self.first = Future()
            return self.first
        if not self.first.done():
            teller = threading.Thread(
                target=self.first.set_exception, args=(BrokenProcessPool(),), daemon=True
            )
            teller.start()
            teller.join(5)
            self.was_heard = not teller.is_alive()
        raise BrokenProcessPool


def test_a_death_is_heard_while_work_is_given(
    store: Store, commitments: Commitments, pool: WorkerPool, tmp_path: Path, here: list[int]
) -> None:
    blocks = some(60)
    store.put_many(blocks.items())
    workers = Dying(pool, tmp_path / "blocks")
    rows = ProofRows(store, commitments, workers)
    rows.ensure(blocks, no_progress)
    assert workers.was_heard
    assert all(rows.find(each) == commit_block(data) for each, data in blocks.items())


def test_a_block_that_is_gone_is_told(
    store: Store, commitments: Commitments, workers: Counted, here: list[int]
) -> None:
    blocks = some(60)
    store.put_many(blocks.items())
    rows = ProofRows(store, commitments, workers)
    names = list(blocks)
    store.delete_many(names[-1:])
    with pytest.raises(BlockNotFound):
        rows.ensure(names, no_progress)
    rows.begin(dict.fromkeys(names, 10_000))  # the workers do not find it either
    rows.ensure(names[:-1], no_progress)
    assert rows.find(names[-1]) is None


def test_a_full_disk_keeps_no_row_and_fails_no_proof(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, data = block(1, 300_000)
    store.put_many([(name, data)])
    rows = ProofRows(store, Commitments(Meta(tmp_path / "meta")))
    with monkeypatch.context() as patch:
        patch.setattr(MetaWrite, "put", no_room)
        assert rows.row(name) == rows.renew(name) == commit_block(data)
        assert rows.find(name) is None
    assert rows.row(name) == rows.find(name)


def no_room(*_: object) -> None:
    raise StoreFull("no room")


def test_a_damaged_row_counts_as_none_and_is_made_anew(store: Store, tmp_path: Path) -> None:
    name, data = block(1, 300_000)
    store.put_many([(name, data)])
    meta = Meta(tmp_path / "meta")
    rows = ProofRows(store, Commitments(meta))
    made = rows.row(name)
    kept = meta.get(Table.COMMITMENTS, key_of(name))
    assert kept is not None
    assert table.decode(name, kept) == made == commit_block(data)
    damaged = [kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :] for at in range(len(kept))]
    for value in (*damaged, *(kept[:at] for at in range(len(kept))), kept + b"\0", kept + bytes(32)):
        assert table.decode(name, value) is None
    assert table.decode(block(2, 300_000)[0], kept) is None
    meta.put(Table.COMMITMENTS, key_of(name), damaged[-1])
    assert rows.find(name) is None
    assert rows.row(name) == made
    assert meta.get(Table.COMMITMENTS, key_of(name)) == kept


CHILD = """
import sys
from pathlib import Path
from storage_node import rows as rows_module
from storage_node.blockstore.store import open_store
from storage_node.commitments import Commitments, key_of
from storage_node.meta import Meta
from storage_node.row_workers import RowWorkers
from storage_node.worker_pool import WorkerPool
import os

rows_module.WORKERS_FROM = rows_module.BATCH_WORK = 50_000
folder = Path(sys.argv[1])
store = open_store(folder / "blocks", reserve_bytes=0)
pool = WorkerPool(workers=1)
print(pool.run(os.getpid).result(), flush=True)
rows = rows_module.ProofRows(store, Commitments(Meta(folder / "meta")), RowWorkers(pool, folder / "blocks"))

def advance(size_bytes):
    print(size_bytes, flush=True)
    sys.stdin.readline()  # nobody writes one: it waits here until it is killed

rows.ensure(list(store.keys()), advance)
"""


def test_after_a_kill_it_goes_on_where_it_was_and_leaves_no_process(
    store: Store, tmp_path: Path, here: list[int]
) -> None:
    blocks = some(100)
    store.put_many(blocks.items())
    with start_python(CHILD, str(tmp_path)) as child:
        assert child.stdout is not None
        worker = int(child.stdout.readline())
        assert int(child.stdout.readline()) > 0
        gone = os.pidfd_open(worker)
        child.kill()
        child.wait()
    assert wait_for_end(gone)
    commitments = Commitments(Meta(tmp_path / "meta"))
    done = sum(commitments.get(each) is not None for each in blocks)
    assert 0 < done < 100
    ProofRows(store, commitments).ensure(blocks, no_progress)
    assert len(here) == 100 - done
