"""Proof rows are kept as they were computed, and leave with their blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofs.commitment import commit_block
from storage_node.blockstore.memory import MemoryStore
from storage_node.commitments import KEY_BYTES, Commitments, key_of
from storage_node.meta import Meta, Table
from tests.storage_node.blockstore_conformance import block


@pytest.fixture
def meta(tmp_path: Path) -> Meta:
    return Meta(tmp_path / "meta")


def test_rows_come_back_as_they_were(meta: Meta) -> None:
    commitments = Commitments(meta)
    some = [block(number, size) for number, size in enumerate((0, 1, 1024, 131_072, 131_073, 1 << 20))]
    rows = {multihash: commit_block(data) for multihash, data in some}
    commitments.put_many(rows)
    assert {multihash: commitments.get(multihash) for multihash, _ in some} == rows
    assert commitments.get(block(99)[0]) is None


def test_rows_leave_with_their_blocks(meta: Meta) -> None:
    commitments, store = Commitments(meta), MemoryStore()
    some = [block(number) for number in range(6)]
    store.put_many(some[:3])
    commitments.put_many({multihash: commit_block(data) for multihash, data in some})
    commitments.drop_many([some[0][0], block(99)[0]])
    assert commitments.prune(store) == 3
    assert [commitments.get(multihash) is not None for multihash, _ in some] == [
        False, True, True, False, False, False,
    ]  # fmt: skip


def test_an_unreadable_row_counts_as_unknown(meta: Meta) -> None:
    meta.put(Table.COMMITMENTS, key_of(block(1)[0]), b"short")
    assert Commitments(meta).get(block(1)[0]) is None


def test_a_row_of_another_block_with_the_same_key_counts_as_unknown(meta: Meta) -> None:
    commitments = Commitments(meta)
    (name, data), (other, _) = block(1), block(2)
    twin = other[:-KEY_BYTES] + name[-KEY_BYTES:]
    commitments.put_many({name: commit_block(data)})
    assert commitments.get(name) == commit_block(data)
    assert commitments.get(twin) is None


def test_keys_of_an_earlier_release_are_pruned(meta: Meta) -> None:
    commitments, store = Commitments(meta), MemoryStore()
    name, data = block(1)
    store.put_many([(name, data)])
    commitments.put_many({name: commit_block(data)})
    meta.put(Table.COMMITMENTS, name, b"as it was")
    assert commitments.prune(store) == 1
    assert [key for key, _ in meta.items(Table.COMMITMENTS)] == [key_of(name)]
