"""The room that is set aside for whoever frees blocks on a full disk; deletions that take little of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from storage_node.blockstore import ballast, shard
from storage_node.blockstore.ballast import MIN_BYTES, Ballast
from storage_node.blockstore.check import check
from storage_node.blockstore.disk import free_bytes
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import open_store
from tests.red_team.support import Machine
from tests.storage_node.blockstore_conformance import blocks


def size(folder: Path) -> int:
    return (folder / "ballast").stat().st_size if (folder / "ballast").exists() else 0


def test_it_is_kept_where_there_is_plenty_and_given_up_once(tmp_path: Path) -> None:
    kept = Ballast(tmp_path, 0)
    assert kept.give_up() == 0
    kept.keep(0)
    assert size(tmp_path) == MIN_BYTES
    kept.keep(20 << 20)
    assert size(tmp_path) == 5 << 20, "it grows with the files"
    kept.keep(21 << 20)
    assert size(tmp_path) == 5 << 20, "but not each time"
    assert kept.give_up() == 5 << 20
    assert size(tmp_path) == 0
    kept.take_back(1000)
    assert size(tmp_path) == 1000


@pytest.mark.parametrize(("free", "reserve"), [(8 << 20, 0), (1 << 30, 1 << 30)])
def test_it_takes_no_room_that_is_wanted_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, reserve: int
) -> None:
    monkeypatch.setattr(ballast, "free_bytes", lambda _: free)
    Ballast(tmp_path, reserve).keep(0)
    assert list(tmp_path.iterdir()) == []


def test_deletions_on_a_disk_with_little_room_take_small_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a full disk, when blocks are deleted, then the file hardly grows and all of them go."""
    store = open_store(tmp_path / "blocks", reserve_bytes=0)
    some, cached = blocks(800, 1000), blocks(400, 1000, first=1000)
    store.put_many(some)
    store.put_many(cached, BlockClass.CACHE)
    store.compact()
    before = store.stat().file_bytes
    monkeypatch.setattr(shard, "free_bytes", lambda _: 0)
    assert store.delete_many([multihash for multihash, _ in some[::2]]).bytes == 400_000
    assert store.evict(0).blocks == 400
    assert store.stat().file_bytes < before + 4 * 300_000
    assert check(store).clean
    assert set(store) == {multihash for multihash, _ in some[1::2]}
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_without_a_free_byte_can_be_relieved(small_disk: Path, tmp_path: Path) -> None:
    machine = Machine(small_disk / "home")
    (tmp_path / "file").write_bytes(os.urandom(3_000_000))
    root = machine.run("add", "-Q", "--chunker=size-2000", str(tmp_path / "file")).out.strip().decode()
    machine.run("repo", "compact")
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            continue
    assert free_bytes(small_disk) == 0
    assert "set aside" in machine.run("pin", "rm", root).err
    assert "freed" in machine.run("repo", "gc").out.decode()
    assert machine.json("repo", "stat")["blocks"] == 0
    assert size(machine.home / "blocks") > 0, "and again"
    (small_disk / "filler").unlink()
    again = machine.run("add", "-Q", "--chunker=size-2000", str(tmp_path / "file")).out.strip().decode()
    assert again == root
    assert machine.run("cat", root).out == (tmp_path / "file").read_bytes()
