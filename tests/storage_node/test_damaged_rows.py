"""Rows that are damaged themselves: nobody passes over them silently, and their blocks can come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage_node import gc
from storage_node.backup import Source, back_up
from storage_node.backup_folder import make_folder
from storage_node.blockstore.check import Kind, check, repair
from storage_node.blockstore.store import Store, open_store
from storage_node.blockstore.tables import LOST, ROWS
from storage_node.blockstore.verify import verify
from storage_node.errors import BlockNotFound, DamagedBlock
from storage_node.meta import Meta
from storage_node.pins import Pins
from storage_node.scrub import Damaged, heal_listed
from tests.storage_node.blockstore_conformance import blocks

BLOCKS = blocks(40, 70)
GARBLED = b"\x02" + b"\xff" * 21


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(tmp_path / "blocks", reserve_bytes=0)
    made.put_many(BLOCKS)
    yield made
    made.close()


@pytest.fixture
def meta(tmp_path: Path) -> Meta:
    return Meta(tmp_path / "meta")


def damage(store: Store, multihash: bytes, value: bytes) -> None:
    with store.shards[multihash[-1] % len(store.shards)].environment.write() as txn:
        txn.put(ROWS + multihash, value)


@pytest.mark.parametrize("value", [LOST, GARBLED])
def test_healing_writes_a_block_whose_row_is_damaged(store: Store, meta: Meta, value: bytes) -> None:
    (multihash, data), (other, _) = BLOCKS[:2]
    damage(store, multihash, value)
    damage(store, other, value)
    assert set(verify(store).damaged) == {multihash, other}
    damaged = Damaged(meta)
    damaged.add([multihash, other], 1)
    healed = heal_listed(store, damaged, lambda wanted: {multihash: data})
    assert (healed.healed, healed.lost) == (1, (other,))
    assert list(damaged) == [other]
    assert store.get(multihash) == data
    with pytest.raises(BlockNotFound):
        store.replace(blocks(1, first=99)[0][0], b"x")
    with pytest.raises(DamagedBlock):
        store.get(other)
    after = repair(store)  # finds the bytes of the other one, for only its row was damaged
    assert (after.blocks, after.counts) == (40, {})


def test_a_backup_names_blocks_whose_rows_are_damaged(store: Store, meta: Meta, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "backup")
    source = Source(tmp_path, store, meta)
    saved, unsaved = BLOCKS[3][0], blocks(1, 70, first=500)[0]
    back_up(source, folder, 1)
    store.put_many([unsaved])
    damage(store, saved, GARBLED)
    damage(store, unsaved[0], GARBLED)
    report = back_up(source, folder, 2)
    assert report.damaged == (unsaved[0],)
    assert report.snapshot.blocks == 40  # the one that an earlier pack has is in the new snapshot too


def test_a_collection_lets_go_of_lost_blocks_that_nothing_needs(store: Store, meta: Meta) -> None:
    pins = Pins(meta, lambda: 0)
    for multihash, _ in BLOCKS[:4]:
        damage(store, multihash, LOST)
    needed = [multihash for multihash, _ in BLOCKS[2:]]
    dry = gc.collect(store, pins, deals=needed, dry_run=True)
    assert (dry.blocks, dry.bytes, dry.kept.blocks) == (2, 0, 38)
    assert check(store).counts[Kind.LOST] == 4
    report = gc.collect(store, pins, deals=needed)
    assert (report.blocks, report.bytes, report.kept.blocks) == (2, 0, 38)
    assert sorted(verify(store).damaged) == sorted(needed[:2])
    assert store.put_many(BLOCKS[:4]).new == 4
    assert verify(store).damaged == ()


def test_a_lost_block_that_is_put_again_is_not_collected(store: Store, meta: Meta) -> None:
    """Given a collection that has seen the damaged row, when the block is put, then it stays."""
    multihash, data = BLOCKS[0]
    damage(store, multihash, LOST)
    limit = store.begin_collection()
    store.put_many([(multihash, data)])
    assert store.free_many([multihash], limit).multihashes == []
    assert store.get(multihash) == data
