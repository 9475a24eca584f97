"""Backups of a store and its records: what is in them, what they share, and what damage does to them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from merkledag import multihash as mh
from merkledag.block import Block
from merkledag.car import CarDecoder, CarHeader
from merkledag.cid import CID
from merkledag.codecs import RAW
from storage_node import backup_snapshot as snapshots
from storage_node.backup import BackupReport, Source, back_up, prune
from storage_node.backup_folder import BackupFolder, make_folder
from storage_node.backup_restore import Lost, restore_blocks, restore_records
from storage_node.backup_verify import verify
from storage_node.blockstore.interface import BlockClass
from storage_node.blockstore.store import Store, open_store
from storage_node.blockstore.verify import verify as verify_store
from storage_node.errors import BackupRefused, DamagedBackup, LockHeld, SnapshotNotFound
from storage_node.meta import Meta, Table
from storage_node.pins import Pins

PACK_BYTES = 20_000  # many packs out of few blocks


def blocks_of(seed: int, count: int, size_bytes: int = 1000) -> dict[bytes, bytes]:
    chance = random.Random(seed)
    made = (chance.randbytes(chance.randrange(size_bytes)) for _ in range(count))
    return {mh.digest(data): data for data in made}


@dataclass
class Place:
    """A home, a folder of backups, and a clock."""

    path: Path
    store: Store
    meta: Meta
    folder: BackupFolder
    now_ms: int = 1_700_000_000_000

    def save(self, *, thin_out: bool = False) -> BackupReport:
        self.now_ms += 1000
        source = Source(self.path / "home", self.store, self.meta)
        with self.folder.lock(alone=True):
            return back_up(source, self.folder, self.now_ms, thin_out=thin_out, pack_bytes=PACK_BYTES)

    def restored(self, name: str, where: str = "new", *, partial: bool = False) -> tuple[Store, Meta, Lost]:
        home, lost = self.path / where, Lost()
        home.mkdir(exist_ok=True)
        snapshot = snapshots.load(self.folder, name)
        store = open_store(home / "blocks", reserve_bytes=0)
        restore_blocks(self.folder, snapshot, store, lost, partial=partial)
        restore_records(self.folder, snapshot, home, lost, partial=partial)
        return store, Meta(home / "meta"), lost


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "home").mkdir()
    store = open_store(tmp_path / "home" / "blocks", reserve_bytes=0)
    yield Place(tmp_path, store, Meta(tmp_path / "home" / "meta"), make_folder(tmp_path / "backup"))
    store.close()


def content(store: Store) -> dict[bytes, bytes]:
    return {multihash: store.get(multihash) for multihash in store}


def everything(meta: Meta) -> list[tuple[bytes, bytes]]:
    with meta.snapshot() as pairs:
        return list(pairs)


def packs(folder: BackupFolder) -> list[Path]:
    return sorted(folder.packs.glob("*.car"))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_restored_store_and_its_records_are_those_that_were_saved(place: Place) -> None:
    blocks = blocks_of(1, 200)
    for code in (mh.SHA2_512, mh.BLAKE2B_256, mh.SHA1):  # multihashes of several lengths in one index
        data = b"hashed by %d" % code
        blocks[mh.digest(data, code)] = data
    place.store.put_many(blocks.items())
    cids = [CID(1, RAW, multihash) for multihash in blocks]
    for number, cid in enumerate(cids[:50]):
        Pins(place.meta, lambda: 7).add(cid, name=f"pin {number}")
    place.store.begin_collection()

    report = place.save()

    assert (report.new_blocks, report.snapshot.blocks) == (len(blocks), len(blocks))
    assert len(packs(place.folder)) > 3
    store, meta, lost = place.restored(report.snapshot.name)
    assert content(store) == blocks
    assert not verify_store(store).damaged
    assert everything(meta) == everything(place.meta)
    assert not lost.problems
    assert verify(place.folder).problems == ()


def test_a_pack_is_an_archive_that_other_readers_take(place: Place) -> None:
    blocks = blocks_of(2, 30)
    place.store.put_many(blocks.items())
    place.save()
    found: dict[bytes, bytes] = {}
    for path in packs(place.folder):
        decoder = CarDecoder()
        decoder.feed(path.read_bytes())
        header = decoder.next()
        assert isinstance(header, CarHeader)
        assert header.version == 1
        while isinstance(block := decoder.next(), Block):
            found[block.cid.multihash] = block.data
        decoder.finish()
    assert found == blocks


def test_a_second_snapshot_writes_only_what_is_new_and_both_can_be_restored(place: Place) -> None:
    old, new = blocks_of(3, 100), blocks_of(4, 20)
    place.store.put_many(old.items())
    place.meta.put(Table.RECORDS, b"root", b"first")
    first = place.save().snapshot
    gone = list(old)[:40]
    place.store.delete_many(gone)
    place.store.put_many(new.items())
    place.meta.put(Table.RECORDS, b"root", b"second")

    report = place.save()

    assert report.new_blocks == len(new)
    now = {multihash: data for multihash, data in {**old, **new}.items() if multihash not in gone}
    store, meta, _ = place.restored(report.snapshot.name, "second")
    assert content(store) == now
    assert meta.get(Table.RECORDS, b"root") == b"second"
    store, meta, _ = place.restored(first.name, "first")
    assert content(store) == old
    assert meta.get(Table.RECORDS, b"root") == b"first"


def test_classes_come_back_and_what_is_only_cached_is_left_out(place: Place) -> None:
    sets = {block_class: blocks_of(10 + block_class, 20) for block_class in BlockClass}
    for block_class, blocks in sets.items():
        place.store.put_many(blocks.items(), block_class)
    store, _, _ = place.restored(place.save().snapshot.name)
    del sets[BlockClass.CACHE]
    rows = {multihash: row.block_class for multihash, row in store.rows()}
    assert rows == {multihash: block_class for block_class, blocks in sets.items() for multihash in blocks}


def test_one_more_record_changes_one_part_of_many(place: Place) -> None:
    chance = random.Random(5)
    records = [(b"\x04" + chance.randbytes(20), chance.randbytes(300)) for _ in range(20_000)]
    place.meta.load(records)
    before = set(place.save().snapshot.records)
    place.meta.put(Table.RECORDS, b"\x80 in the middle", b"x")
    after = place.save().snapshot.records
    assert len(before) > 4
    assert len(set(after) - before) == 1
    assert all(part.size_bytes <= 4 << 20 for part in after)


def test_a_damaged_block_of_the_store_is_named_and_all_else_is_saved(place: Place) -> None:
    blocks = blocks_of(6, 60)
    bad = next(iter(blocks))
    place.store.put_many([*blocks.items()])
    place.store.replace(bad, b"not what it was")  # nobody checks on replace: the caller has
    report = place.save()
    assert report.damaged == (bad,)
    assert report.snapshot.damaged == (bad.hex(),)
    assert verify(place.folder).problems == ()
    store, _, _ = place.restored(report.snapshot.name)
    del blocks[bad]
    assert content(store) == blocks


def test_what_was_saved_before_it_was_damaged_stays_in_later_snapshots(place: Place) -> None:
    blocks = blocks_of(7, 60)
    bad = list(blocks)[7]
    place.store.put_many(blocks.items())
    place.save()
    place.store.replace(bad, b"rotten")
    store, _, _ = place.restored(place.save().snapshot.name)
    assert content(store) == blocks


def test_a_damaged_block_survives_that_its_pack_is_thinned_out(place: Place) -> None:
    blocks = blocks_of(8, 100)
    place.store.put_many(blocks.items())
    place.save()
    left = dict(list(blocks.items())[::5])
    place.store.delete_many(blocks.keys() - left.keys())
    place.store.replace(next(iter(left)), b"rotten")
    report = place.save(thin_out=True)
    assert report.new_blocks >= len(left) - 1
    assert report.damaged == ()
    prune(place.folder, 1)
    store, _, _ = place.restored(report.snapshot.name)
    assert content(store) == left
    assert verify(place.folder).problems == ()


def test_keeping_few_snapshots_gives_the_room_of_the_others_back(place: Place) -> None:
    blocks = blocks_of(9, 200)
    place.store.put_many(blocks.items())
    place.save()
    left = dict(list(blocks.items())[:20])
    place.store.delete_many(blocks.keys() - left.keys())
    second = place.save(thin_out=True).snapshot
    before = sum(path.stat().st_size for path in packs(place.folder))

    pruned = prune(place.folder, 1)

    assert len(pruned.snapshots) == 1
    assert sum(path.stat().st_size for path in packs(place.folder)) < before / 4
    assert snapshots.names(place.folder) == [second.name]
    store, _, _ = place.restored(second.name)
    assert content(store) == left
    assert prune(place.folder).bytes == 0


def test_nothing_is_pruned_while_a_snapshot_that_stays_cannot_be_read(place: Place) -> None:
    place.store.put_many(blocks_of(11, 20).items())
    names = [place.save().snapshot.name for _ in range(3)]
    flip(snapshots.snapshot_path(place.folder, names[2]), 30)
    with pytest.raises(DamagedBackup, match=names[2]):
        prune(place.folder, 1)
    assert snapshots.names(place.folder) == names
    assert verify(place.folder).damaged_snapshots == (names[2],)
    snapshots.snapshot_path(place.folder, names[2]).unlink()
    assert prune(place.folder, 1).snapshots == (names[0],)


def test_every_flipped_byte_of_a_pack_and_its_index_is_found(place: Place) -> None:
    place.store.put_many(blocks_of(12, 12, 60).items())
    place.save()
    (pack,) = packs(place.folder)
    index = pack.with_suffix(".index")
    data = pack.read_bytes()
    for at in range(len(data)):
        flip(pack, at)
        assert verify(place.folder).problems, f"byte {at}"
        flip(pack, at)
    pack.write_bytes(data + b"x")
    assert verify(place.folder).problems, "something behind the blocks"
    pack.write_bytes(data)
    assert verify(place.folder).problems == ()
    saved = index.read_bytes()
    for at in range(0, len(saved), 7):
        flip(index, at)
        assert verify(place.folder).problems == (), "the index is made again out of the pack"
        flip(pack, len(data) - 1)
        assert verify(place.folder).problems, "but not out of a damaged one"
        flip(pack, len(data) - 1)
        flip(index, at)


def test_a_restore_from_a_damaged_pack_ends_and_a_partial_one_gives_the_rest(place: Place) -> None:
    blocks = blocks_of(13, 100)
    place.store.put_many(blocks.items())
    name = place.save().snapshot.name
    flip(packs(place.folder)[1], 5000)
    with pytest.raises(DamagedBackup, match=rf"{packs(place.folder)[1]} is damaged.*--partial"):
        place.restored(name)
    store, _, lost = place.restored(name, partial=True)  # goes on where the other one ended
    assert len(lost.blocks) == 1
    assert content(store) == {m: data for m, data in blocks.items() if m != lost.blocks[0]}
    assert str(packs(place.folder)[1]) in lost.problems[0]


def test_a_missing_pack_is_written_anew_and_completes_older_snapshots_too(place: Place) -> None:
    blocks = blocks_of(14, 100)
    place.store.put_many(blocks.items())
    first = place.save().snapshot.name
    lost = packs(place.folder)[2]
    lost.unlink()
    assert str(lost) in verify(place.folder).problems[0]
    report = place.save()
    assert str(lost) in report.notes[0]
    assert 0 < report.new_blocks < len(blocks)
    assert verify(place.folder, report.snapshot.name).problems == ()
    for where, name in (("first", first), ("second", report.snapshot.name)):
        store, _, _ = place.restored(name, where)
        assert content(store) == blocks


def test_a_damaged_part_names_its_file(place: Place) -> None:
    place.store.put_many(blocks_of(15, 5).items())
    place.meta.put(Table.RECORDS, b"root", b"x")
    name = place.save().snapshot.name
    (part,) = place.folder.parts.iterdir()
    flip(part, 3)
    assert str(part) in verify(place.folder).problems[0]
    with pytest.raises(DamagedBackup, match=str(part)):
        place.restored(name)
    _, meta, lost = place.restored(name, partial=True)
    assert str(part) in lost.problems[0]
    assert everything(meta) == []
    place.save()  # saves it again
    assert verify(place.folder).problems == ()


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


def test_a_backup_that_is_stopped_anywhere_goes_on_and_leaves_earlier_snapshots_whole(place: Place) -> None:
    old, blocks = blocks_of(16, 40), blocks_of(17, 300)
    place.store.put_many(old.items())
    first = place.save().snapshot.name
    place.store.put_many(blocks.items())
    source = Source(place.path / "home", place.store, place.meta)
    written = 0
    for stop_at in (10_000, 60_000, 110_000):
        done = 0

        def progress(size_bytes: int, stop_at: int = stop_at) -> None:
            nonlocal done
            done += size_bytes
            if done > stop_at:
                raise Killed

        with place.folder.lock(alone=True), pytest.raises(Killed):
            back_up(source, place.folder, 1, pack_bytes=PACK_BYTES, progress=progress)
        assert snapshots.names(place.folder) == [first]
        assert verify(place.folder).problems == ()
        assert len(packs(place.folder)) >= written
        written = len(packs(place.folder))
    (place.folder.packs / "9.part").write_bytes(b"left by a killed one")
    report = place.save()
    assert 0 < report.new_blocks < len(blocks) - 100
    assert not list(place.folder.packs.glob("*.part"))
    store, _, _ = place.restored(report.snapshot.name)
    assert content(store) == {**old, **blocks}


def test_snapshots_of_one_moment_keep_their_order(place: Place) -> None:
    source = Source(place.path / "home", place.store, place.meta)
    made = [back_up(source, place.folder, moment).snapshot.name for moment in (5_000, 5_000, 1_000)]
    assert snapshots.names(place.folder) == made
    assert snapshots.find(place.folder, "") == made[-1]
    assert snapshots.find(place.folder, made[0]) == made[0]
    with pytest.raises(SnapshotNotFound, match="several"):
        snapshots.find(place.folder, made[0][:8])
    with pytest.raises(SnapshotNotFound, match="no snapshot"):
        snapshots.find(place.folder, "2")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("keys/self.key", True),
        ("config.toml", True),
        ("../evil", False),
        ("keys/../../evil.key", False),
        ("/etc/passwd", False),
        ("blocks/format.json", False),
        ("keys/.key", False),
    ],
)
def test_a_snapshot_cannot_name_files_outside_the_home(place: Place, path: str, allowed: bool) -> None:
    good = place.save().snapshot
    document = json.loads(snapshots.snapshot_path(place.folder, good.name).read_bytes())
    data = json.dumps({**document, "files": {path: []}}).encode()
    name = f"20200101T000000000Z-{hashlib.sha256(data).hexdigest()[:16]}"
    snapshots.snapshot_path(place.folder, name).write_bytes(data)
    if allowed:
        assert snapshots.load(place.folder, name).files[0].path == path
    else:
        with pytest.raises(DamagedBackup):
            snapshots.load(place.folder, name)


def test_only_one_writes_into_a_folder(place: Place) -> None:
    with place.folder.lock(alone=False):
        with place.folder.lock(alone=False):
            pass
        with pytest.raises(LockHeld), place.folder.lock(alone=True):
            pass


def test_a_copy_without_the_empty_lock_is_whole(place: Place) -> None:
    place.store.put_many(blocks_of(3, 3, 60).items())
    place.save()
    (place.folder.path / "lock").unlink()
    with place.folder.lock(alone=False):
        assert verify(place.folder).problems == ()


def test_a_folder_that_cannot_be_one_of_backups_is_refused_without_a_walk(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(BackupRefused, match="not a folder"):
        make_folder(tmp_path / "circle")
    (tmp_path / "disk" / "packs").mkdir(parents=True)
    (tmp_path / "disk" / "packs" / "suitcase").touch()
    with pytest.raises(BackupRefused, match="suitcase"):
        make_folder(tmp_path / "disk")


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(BackupRefused, match=r"one\.jpg"):
        make_folder(tmp_path / "photos")
    with pytest.raises(SnapshotNotFound, match="no such folder"):
        make_folder(tmp_path / "not mounted" / "backup")
