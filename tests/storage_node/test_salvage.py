"""Files whose pages are damaged: noticed without LMDB, and everything that is intact comes back."""

from __future__ import annotations

import gc
import json
import random
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from merkledag import multihash as mh
from merkledag.cid import CID
from storage_node.blockstore import replacing
from storage_node.blockstore.check import Kind, check, repair
from storage_node.blockstore.interface import BlockClass, BlockRow
from storage_node.blockstore.page_entries import Trust, entries
from storage_node.blockstore.page_survey import survey, survey_in_use
from storage_node.blockstore.pages import Big, Damage, PageFile
from storage_node.blockstore.store import Store, open_store
from storage_node.blockstore.verify import verify
from storage_node.errors import CorruptStore, FileInUse, StoreFull
from storage_node.gc_home import Collector
from storage_node.meta import Meta, Table
from storage_node.pin_jobs import PinJobs
from storage_node.pins import Pins
from storage_node.salvage import FileSalvage, damaged_files, salvage
from storage_node.scrub import Damaged, heal_listed
from tests.storage_node.processes import start_python

PAGE = 4096
SIZES = (10, 100, 1000, 3000, 5000, 20_000)


@dataclass
class Home:
    """A closed home: what is in its blocks and records, by heart."""

    folder: Path
    blocks: dict[bytes, bytes] = field(default_factory=dict)
    rows: dict[bytes, BlockRow] = field(default_factory=dict)
    epoch: int = 0
    pins: dict[CID, str] = field(default_factory=dict)
    records: dict[bytes, bytes] = field(default_factory=dict)

    def files(self, kind: str = "blocks") -> list[Path]:
        return sorted((self.folder / kind).glob("*.mdb"))

    def mine(self, file: Path) -> set[bytes]:
        """The blocks of one shard."""
        number = int(file.name[6:8])
        return {multihash for multihash in self.blocks if multihash[-1] % 4 == number}

    def salvage(self) -> list[FileSalvage]:
        found = damaged_files(self.folder / "blocks", self.folder / "meta")
        return [salvage(each, self.folder / "meta", 1000) for each in found]

    def store(self) -> Store:
        return open_store(self.folder / "blocks", reserve_bytes=0)

    def meta(self) -> Meta:
        return Meta(self.folder / "meta")

    def copy(self, folder: Path) -> Home:
        shutil.copytree(self.folder, folder)
        return Home(folder, self.blocks, self.rows, self.epoch, self.pins, self.records)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a past: deleted blocks, rewritten rows, removed pins, free pages."""
    chance = random.Random("pristine")
    home = Home(tmp_path_factory.mktemp("pristine") / "home")
    store, pins = home.store(), Pins(home.meta(), lambda: 7)
    meta = home.meta()
    for turn in range(8):
        data = [chance.randbytes(chance.choice(SIZES)) for _ in range(120)]
        items = [(mh.digest(each), each) for each in [*data, chance.randbytes(1 << 18)]]
        store.put_many(items, (BlockClass.OWN, BlockClass.CACHE, BlockClass.DEAL)[turn % 3])
        home.blocks.update(items)
        gone = chance.sample(sorted(home.blocks), 40)
        store.delete_many(gone)
        home.blocks = {key: value for key, value in home.blocks.items() if key not in gone}
        store.begin_collection()
        for number, (multihash, _) in enumerate(items[:60]):
            cid = CID(1, 0x55, multihash)
            home.pins[cid] = f"pin {number}" if number % 2 else ""
            pins.add(cid, name=home.pins[cid])
        for cid in chance.sample(sorted(home.pins), 20):
            pins.rm(cid)
            del home.pins[cid]
        for number in range(40):
            key, value = b"name %d" % number, chance.randbytes(chance.choice((20, 100, 6000)))
            meta.put(Table.RECORDS, key, value)
            home.records[key] = value
    home.rows, home.epoch = dict(store.rows()), store.epoch()
    assert set(home.rows) == set(home.blocks)
    store.close()
    return home


@pytest.fixture
def home(pristine: Home, tmp_path: Path) -> Home:
    return pristine.copy(tmp_path / "home")


def pages_of(path: Path) -> dict[str, list[int]]:
    """The pages of a file by what they are."""
    with PageFile(path) as file:
        found = survey(file)
        assert not found.damaged
        values = [entry.value for entry in entries(file, found, Trust.NOW)]
        runs = [value.page for value in values if isinstance(value, Big)]
        inner = [page for page in found.used if page not in found.leaves and page not in runs]
        return {
            "meta": [0, 1],
            "leaf": list(found.leaves),
            "branch": [page for page in inner if file.page(page)[10:12] == b"\1\0"],
            "run": runs,
            "any": list(range(file.pages)),
        }


def spoil(path: Path, pages: list[int], how: str, chance: random.Random) -> bytes:
    """What a disk does to pages; returns the file."""
    data = bytearray(path.read_bytes())
    for page in pages:
        at = page * PAGE
        if how == "flip":
            # Where LMDB keeps the structure: a flip in a block's bytes is `verify`'s to find.
            data[at + chance.randrange(16)] ^= 1 << chance.randrange(8)
        elif how == "zero":
            data[at : at + PAGE] = bytes(PAGE)
        elif how == "sector":
            data[at : at + 512] = bytes(512)
        else:
            data[at + 512 : at + PAGE] = chance.randbytes(PAGE - 512)
    path.write_bytes(data)
    return bytes(data)


def intact(file: Path) -> set[bytes]:
    """Blocks whose bytes are whole in some readable leaf, or in a run with its first page."""
    held = set()
    with PageFile(file) as pages:
        found = survey(pages)
        for trust in Trust:
            for entry in entries(pages, found, trust):
                with suppress(Damage):
                    value = entry.value
                    held.add(mh.digest(pages.big_value(value) if isinstance(value, Big) else value))
    return held


KINDS = ("meta", "leaf", "branch", "run", "any")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_intact_comes_back(seed: int, home: Home) -> None:
    """Given pages that are flipped, zeroed or torn, when the file is salvaged, then every block whose bytes
    are still there is back, right, in a class at least as strong, and the others are named."""
    chance = random.Random(f"salvage {seed}")
    path = chance.choice(home.files())
    kind, how = KINDS[seed % len(KINDS)], chance.choice(("flip", "zero", "sector", "tear"))
    pages = pages_of(path)[kind]
    spoil(path, chance.sample(pages, min(len(pages), chance.choice((1, 1, 1, 5)))), how, chance)
    whole = intact(path) & home.mine(path)
    done = home.salvage()
    store = home.store()
    report = repair(store)
    damaged = set(verify(store).damaged)
    assert whole <= {multihash for multihash in store if multihash not in damaged}
    for multihash in whole:
        row, before = store.row(multihash), home.rows[multihash]
        assert store.get(multihash) == home.blocks[multihash]
        assert row is not None
        assert row.block_class in (before.block_class, BlockClass.OWN)
    assert store.epoch() >= home.epoch
    assert set(report.counts) <= {Kind.LOST, Kind.ASIDE}
    named = damaged | {each for each, row in home.rows.items() if row.block_class is BlockClass.CACHE}
    unaccounted = sum(each.blocks.unaccounted for each in done if each.blocks is not None)
    silent = home.mine(path) - set(store) - named
    assert bool(silent) <= bool(unaccounted) or not done, "who misses a block is told"
    assert set(home.blocks) - home.mine(path) <= set(store)
    store.delete_many(damaged)
    store.put_many(home.blocks.items())
    assert verify(store).damaged == ()
    assert check(store).counts.keys() <= {Kind.ASIDE}


@pytest.mark.parametrize("kind", ["leaf", "branch", "meta"])
def test_damage_to_the_tree_alone_loses_no_block(kind: str, pristine: Home, tmp_path: Path) -> None:
    """Given pages of the tree in turn, when one is zeroed, then all that it did not hold itself is back."""
    pages = pages_of(pristine.files()[2])[kind]
    for page in pages if kind != "leaf" else pages[:: max(1, len(pages) // 6)]:
        home = pristine.copy(tmp_path / str(page))
        path = home.files()[2]
        spoil(path, [page], "zero", random.Random(page))
        whole = intact(path) & home.mine(path)
        if kind != "leaf":
            assert whole == home.mine(path)
        (done,) = home.salvage()
        assert done.blocks is not None
        store = home.store()
        assert all(store.get(multihash) == home.blocks[multihash] for multihash in whole)
        if kind == "branch":  # what hung below it is in use, and known to be as it was
            assert {key: store.row(key) for key in whole} == {key: home.rows[key] for key in whole}
            assert set(store) == set(home.blocks)
        store.close()


def test_a_store_in_order_is_not_touched(home: Home) -> None:
    before = {path: path.read_bytes() for path in (*home.files(), *home.files("meta"))}
    assert home.salvage() == []
    assert {path: path.read_bytes() for path in before} == before


def test_missing_and_empty_files_are_made_anew(home: Home) -> None:
    missing, empty = home.files()[:2]
    missing.unlink()
    empty.write_bytes(b"")
    done = home.salvage()
    assert [each.replaced.aside is None for each in done] == [True, False]
    store = home.store()
    assert set(store) == set(home.blocks) - home.mine(missing) - home.mine(empty)
    assert store.epoch() > home.epoch, "epochs only rise, also where the old one is not known"
    store.put_many(home.blocks.items())
    assert check(store).counts == {Kind.ASIDE: 1}


def test_lost_blocks_are_listed_and_healed(home: Home) -> None:
    path = home.files()[1]
    runs = pages_of(path)["run"]
    spoil(path, runs, "tear", random.Random(1))
    with PageFile(path) as file:
        assert not survey(file).damaged, "bytes alone are no matter of pages"
    spoil(path, pages_of(path)["branch"], "zero", random.Random(1))
    (done,) = home.salvage()
    assert done.blocks is not None
    lost = set(done.blocks.lost)
    kept = {each for each, row in home.rows.items() if row.block_class is not BlockClass.CACHE}
    assert lost == {each for each in home.mine(path) & kept if len(home.blocks[each]) > 2000}
    assert len(lost) == done.blocks.lost_count
    store, damaged = home.store(), Damaged(home.meta())
    assert set(verify(store).damaged) == lost
    damaged.add(lost, 1)
    healed = heal_listed(store, damaged, lambda wanted: {each: home.blocks[each] for each in wanted})
    assert (healed.healed, healed.lost) == (len(lost), ())
    assert verify(store).damaged == ()


HOLD = """
import sys
from pathlib import Path
from storage_node.blockstore.store import open_store
store = open_store(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_nobody_salvages_a_file_that_others_have_open(home: Home) -> None:
    holder = start_python(HOLD, str(home.folder / "blocks"))
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        path = home.files()[1]
        spoil(path, pages_of(path)["branch"], "zero", random.Random(1))
        with pytest.raises(FileInUse, match="stop the servers"):
            home.salvage()
        assert sorted(home.files()) == sorted(each for each in home.files() if ".1." in each.name)
    finally:
        holder.communicate()
    assert len(home.salvage()) == 1


def test_without_room_the_damaged_file_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.files()[1]
    spoil(path, pages_of(path)["branch"], "zero", random.Random(1))
    monkeypatch.setattr("storage_node.blockstore.replacing.free_bytes", lambda _: 1 << 20)
    with pytest.raises(StoreFull, match="are free"):
        home.salvage()
    assert [each.name for each in home.files()] == [f"shard-0{n}.1.mdb" for n in range(4)]


def test_a_survey_beside_a_writer_finds_no_damage(home: Home) -> None:
    """Given somebody who writes, when the file is looked at, then pages that change are no damage."""
    store = home.store()
    path = home.files()[0]
    with PageFile(path) as file:
        for turn in range(20):
            store.put_many([(mh.digest(b"%d" % turn), b"%d" % turn)])
            store.delete_many(list(home.blocks)[turn * 3 : turn * 3 + 3])
            assert survey_in_use(file).damage == []
    store.close()


# --- records ---


def pin_names(meta: Meta) -> dict[CID, str]:
    return {pin.cid: pin.name for pin in Pins(meta, lambda: 0).ls()}


@pytest.mark.parametrize("kind", ["meta", "branch"])
def test_records_below_damaged_branches_are_as_they_were(kind: str, home: Home) -> None:
    (path,) = home.files("meta")
    spoil(path, pages_of(path)[kind][-1:], "zero", random.Random(3))
    (done,) = home.salvage()
    meta = home.meta()
    found, records = pin_names(meta), dict(meta.items(Table.RECORDS, b"name "))
    assert done.records is not None
    assert home.pins.items() <= found.items()
    if kind == "branch":
        assert (found, records) == (home.pins, home.records)
        assert not done.records.may_lack
    assert set(records) == set(home.records)
    pins = Pins(meta, lambda: 0)
    assert pins.count() == len(found)
    assert {pin.cid for pin in pins.ls(name="pin 3")} == {
        cid for cid, name in found.items() if name == "pin 3"
    }


@pytest.mark.parametrize("seed", range(5))
def test_what_a_damaged_leaf_of_records_held_comes_back_as_it_was_once(seed: int, home: Home) -> None:
    (path,) = home.files("meta")
    chance = random.Random(f"records {seed}")
    spoil(path, [chance.choice(pages_of(path)["leaf"])], chance.choice(("zero", "sector", "tear")), chance)
    done = home.salvage()
    meta = home.meta()
    found = pin_names(meta)
    assert all(found.get(cid, name) == name for cid, name in home.pins.items())
    missing = len(home.pins.keys() - found.keys())
    assert missing <= 60, "no more than a page held"
    assert Pins(meta, lambda: 0).count() == len(found)
    may_lack = any(each.records is not None and each.records.may_lack for each in done)
    assert may_lack or not missing
    if may_lack:
        store = home.store()
        collector = Collector(
            store, meta, Pins(meta, lambda: 0), home.folder / "x", home.folder / "gc", lambda: 1
        )
        with pytest.raises(CorruptStore, match="--accept-loss"):
            collector.collect()
        collector.accept_loss()
        collector.collect()


def test_pins_that_cannot_be_read_go_on_by_their_keys(home: Home) -> None:
    from storage_node.meta_salvage import damaged_pins, repair_pins

    meta = home.meta()
    cid = sorted(home.pins)[5]
    with meta.write() as write:
        write.put(Table.PINS, bytes(cid), b"\xff\xff")
    assert damaged_pins(meta) == [bytes(cid)]
    repair_pins(meta, damaged_pins(meta))
    assert set(pin_names(meta)) == set(home.pins)
    assert Pins(meta, lambda: 0).recount()[0] == Pins(meta, lambda: 0).counts()


def test_the_record_of_a_loss_names_the_file(home: Home) -> None:
    (path,) = home.files("meta")
    path.write_bytes(b"")
    (done,) = home.salvage()
    assert done.records is not None
    assert done.records.may_lack
    meta = home.meta()
    assert list(PinJobs(meta, lambda: 0).ls()) == []
    assert json.loads(meta.get(Table.RECORDS, b"records-lost") or b"") == {"at_s": 1000, "file": path.name}


def test_a_salvage_that_was_killed_begins_anew(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a new file beside the damaged one, when it is salvaged again, then that comes to its end."""
    path = home.files()[1]
    spoil(path, pages_of(path)["branch"], "zero", random.Random(1))
    with monkeypatch.context() as killed:
        killed.setattr(replacing, "_put_aside", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            home.salvage()
    assert {each.name for each in home.files()} >= {"shard-01.1.mdb", "shard-01.2.mdb"}
    (done,) = home.salvage()
    assert done.damage.file == "shard-01.1.mdb"
    store = home.store()
    assert set(store) == set(home.blocks)
    assert check(store).counts == {Kind.ASIDE: 1}


def test_a_retired_file_that_was_damaged_does_not_stand_for_its_successor(home: Home, tmp_path: Path) -> None:
    """Given a compaction that was killed before it unlinked the old file, when that is damaged, then what was
    put since is not lost."""
    path = home.files()[1]
    shutil.copy(path, tmp_path / "old")
    store = home.store()
    store.compact()
    late = [(mh.digest(b"%d" % n), b"%d" % n) for n in range(20)]
    store.put_many(late)
    store.close()
    del store
    gc.collect()
    shutil.copy(tmp_path / "old", path)
    spoil(path, list(range(2, 40)), "zero", random.Random(1))
    (done,) = home.salvage()
    assert done.damage.file == path.name
    store = home.store()
    assert set(store) == set(home.blocks) | {multihash for multihash, _ in late}
    assert check(store).counts.keys() <= {Kind.ASIDE, Kind.STRAY}
