"""KZG commitments of local blocks: kept as they are made, made once, and the same as EIP-4844's."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import pytest

from merkledag.cid import CID
from proofs.commitment import PieceRow, inner_hash
from proofs.kinds import ProofKind
from proofs.kzg.backend import backend
from proofs.kzg.blob_commitments import BlobCommitments
from proofs.kzg.blobs import BLOB_BYTES
from storage_node import kzg_worker
from storage_node.blockstore.memory import MemoryStore
from storage_node.commitments import Commitments, key_of
from storage_node.errors import BlockNotFound, DamagedBlock, StoreFull, WorkersLost
from storage_node.kzg_commitments import KzgCommitments
from storage_node.kzg_rows import KzgRows
from storage_node.meta import Meta, Table
from storage_node.piece import piece_tree
from tests.storage_node.blockstore_conformance import block
from tests.storage_node.content import a_store
from tests.storage_node.kzg_workers import SETUP, P, T, Threads, committer, setup
from tests.storage_node.processes import start_python, wait_for_end

LENGTHS = (0, 1, 5_000, BLOB_BYTES, BLOB_BYTES + 1, 2 * BLOB_BYTES + 40)


class World:
    """A store with blocks of awkward lengths, and rows on disk."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.blocks = dict(sparse(number, size) for number, size in enumerate(LENGTHS))
        self.store.put_many(self.blocks.items())
        self.meta = Meta(folder)
        self.threads = Threads()
        self.rows = self.again()

    def again(self) -> KzgRows:
        """As another process would see it."""
        return KzgRows(self.store, KzgCommitments(self.meta), committer(self.threads))


def sparse(number: int, size: int) -> tuple[bytes, bytes]:
    """A block of mostly zeros, which cost nothing to commit to."""
    data = bytes([number + 1]) + bytes(max(0, size - 2)) + b"\x07"
    data = data[:size]
    return CID.of(data).multihash, data


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "meta")


async def test_rows_are_made_once_and_come_back_from_the_disk(world: World) -> None:
    told: list[tuple[int, int]] = []
    names = list(world.blocks)
    await world.rows.prepare([*names, *names], lambda done, total: told.append((done, total)))
    assert told[0] == (0, 9)
    assert told[-1] == (9, 9)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert world.threads.done == 9
    other = world.again()
    await other.prepare(names, lambda done, total: told.append((done, total)))
    assert told[-1] == (0, 0)
    assert world.threads.done == 9
    for name, data in world.blocks.items():
        row = other.kept.get(name)
        assert row is not None
        assert (row.length, row.leaves) == (len(data), ProofKind.KZG.unit_count(len(data)))
        assert other.row(name) == row == await world.rows.committer.commit(data, world.rows.committer.slots())


async def test_a_row_has_the_commitment_of_each_blob_in_order(world: World) -> None:
    data = world.blocks[list(world.blocks)[-1]]
    blobs = [data[:BLOB_BYTES], data[BLOB_BYTES : 2 * BLOB_BYTES], data[2 * BLOB_BYTES :]]
    row = await world.rows.committer.commit(data, world.rows.committer.slots())
    assert row.each() == [backend().commit(setup(), blob) for blob in blobs]
    assert len(set(row.each())) == 3


async def test_what_is_interrupted_goes_on_where_the_last_row_was_kept(world: World) -> None:
    names = list(world.blocks)

    def stop_after(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await world.rows.prepare(names, stop_after)
    before = world.threads.done
    assert sum(row.leaves for row in map(world.rows.kept.get, names) if row is not None) == 4
    told: list[tuple[int, int]] = []
    await world.again().prepare(names, lambda done, total: told.append((done, total)))
    assert told[0] == (0, 5)
    assert world.threads.done - before == 5


async def test_a_cancelled_preparation_leaves_nothing_at_work(world: World) -> None:
    world.threads.on_run = (began := asyncio.Event()).set
    running = asyncio.create_task(world.rows.prepare(world.blocks, lambda *_: None))
    await began.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(asyncio.all_tasks()) == 1


async def test_a_block_that_is_gone_is_told(world: World) -> None:
    missing = block(99)[0]
    with pytest.raises(BlockNotFound, match=missing.hex()):
        await world.rows.prepare([missing], lambda *_: None)
    with pytest.raises(BlockNotFound):
        world.rows.row(missing)


async def test_nothing_is_committed_to_but_what_a_block_must_be(world: World) -> None:
    damaged = list(world.blocks)[2]
    world.store.delete_many([damaged])
    world.store.put_many([(damaged, b"changed on the disk")])
    with pytest.raises(DamagedBlock, match=damaged.hex()):
        await world.rows.prepare(world.blocks, lambda *_: None)
    with pytest.raises(DamagedBlock):
        world.rows.row(damaged)
    assert world.rows.kept.get(damaged) is None


class Killed(Threads):
    """Workers that somebody kills."""

    def run(self, work: Callable[P, T], *_: P.args, **__: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_exception(BrokenExecutor())
        return future


async def test_killed_workers_are_told_as_such(world: World) -> None:
    rows = KzgRows(world.store, KzgCommitments(world.meta), committer(Killed()))
    with pytest.raises(WorkersLost, match="try again"):
        await rows.prepare(world.blocks, lambda *_: None)
    with pytest.raises(WorkersLost):
        rows.row(next(iter(world.blocks)))


def test_a_full_disk_keeps_no_row_and_fails_no_proof(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise StoreFull("no room")

    name = next(iter(world.blocks))
    with monkeypatch.context() as patch:
        patch.setattr(Meta, "put", no_room)
        made = world.rows.row(name)
        assert world.rows.kept.get(name) is None
    assert made == world.rows.row(name) == world.rows.kept.get(name)


def test_every_damaged_row_counts_as_absent(world: World) -> None:
    kept, name = KzgCommitments(world.meta), next(iter(world.blocks))
    kept.put(name, BlobCommitments(BLOB_BYTES + 5, bytes(96)))
    value = world.meta.get(Table.KZG_COMMITMENTS, key_of(name))
    assert value is not None
    assert kept.get(name) == BlobCommitments(BLOB_BYTES + 5, bytes(96))
    for index in range(len(value)):
        changed = bytearray(value)
        changed[index] ^= 1
        world.meta.put(Table.KZG_COMMITMENTS, key_of(name), bytes(changed))
        assert kept.get(name) is None
    for length in range(len(value)):
        world.meta.put(Table.KZG_COMMITMENTS, key_of(name), value[:length])
        assert kept.get(name) is None


def test_rows_leave_with_their_blocks(world: World) -> None:
    kept, names = KzgCommitments(world.meta), list(world.blocks)
    gone = block(99)[0]
    for name in (*names, gone):
        kept.put(name, BlobCommitments(1, bytes(48)))
    Commitments(world.meta).drop_many(names[:1])
    assert kept.get(names[0]) is None
    assert Commitments(world.meta).prune(world.store) == 1
    assert kept.get(gone) is None
    assert kept.get(names[1]) is not None


async def test_a_piece_of_them_counts_blobs_and_has_roots_of_its_own_kind(world: World) -> None:
    names = list(world.blocks)
    await world.rows.prepare(names, lambda *_: None)
    tree = piece_tree(names, world.rows.row, ProofKind.KZG)
    assert (tree.kind, tree.root.sum) == (ProofKind.KZG, 9)
    first, second = (
        hashlib.sha256(b"\x05" + bytes([0, 0, 0, index]) + each).digest()
        for index, each in enumerate(world.rows.row(names[4]).each())
    )
    length = (BLOB_BYTES + 1).to_bytes(4, "big")
    root = hashlib.sha256(b"\x06" + length + inner_hash(first, second)).digest()
    assert tree.rows[4] == PieceRow(names[4], 2, root)


CHILD = """
import asyncio
import os
import sys
from pathlib import Path

from storage_node.blockstore.store import open_store
from storage_node.kzg_commitments import KzgCommitments
from storage_node.kzg_rows import Committer, KzgRows
from storage_node.meta import Meta
from storage_node.worker_pool import WorkerPool

folder = Path(sys.argv[1])
store = open_store(folder / "blocks", reserve_bytes=0)
pool = WorkerPool(workers=1)
print(pool.run(os.getpid).result(), flush=True)
rows = KzgRows(store, KzgCommitments(Meta(folder / "meta")), Committer(pool, sys.argv[2]))

def advance(done, total):
    print(done, flush=True)
    if done:
        sys.stdin.readline()  # nobody writes one: it waits here until it is killed

asyncio.run(rows.prepare(list(store.keys()), advance))
"""


async def test_after_a_kill_it_goes_on_where_it_was_and_leaves_no_process(
    world: World, tmp_path: Path
) -> None:
    store = a_store(tmp_path / "blocks")
    store.put_many(world.blocks.items())
    with start_python(CHILD, str(tmp_path), str(SETUP)) as child:
        assert child.stdout is not None
        worker = int(child.stdout.readline())
        assert int(child.stdout.readline()) == 0
        assert int(child.stdout.readline()) > 0
        gone = os.pidfd_open(worker)
        child.kill()
        child.wait()
    assert wait_for_end(gone)
    kept = [row for row in map(world.again().kept.get, world.blocks) if row is not None]
    left = 9 - sum(row.leaves for row in kept)
    assert 0 < left < 9
    told: list[tuple[int, int]] = []
    await KzgRows(store, KzgCommitments(world.meta), committer(world.threads)).prepare(
        world.blocks, lambda *each: told.append(each)
    )
    assert told[-1] == (left, left)
    assert world.threads.done == left
    store.close()


def test_a_worker_with_much_to_do_goes_over_to_ckzg(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = sparse(5, BLOB_BYTES)[1]
    few = kzg_worker.commit(str(SETUP), blob)
    monkeypatch.setattr(kzg_worker, "CKZG_FROM", 0)
    assert kzg_worker.commit(str(SETUP), blob) == few
    assert kzg_worker._quickest(kzg_worker.read_setup(str(SETUP))).NAME == "ckzg"
