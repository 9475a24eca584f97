"""The index of pinned DAGs says what walking all of them would say, whatever came and went meanwhile."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, RAW
from storage_node.blockstore.memory import MemoryStore
from storage_node.meta import Meta, Table
from storage_node.pin_index import PinIndex
from storage_node.pins import PinMode, Pins
from storage_node.reach import reachable
from tests.storage_node.dags import leaf, node, pairs, tree


class Home:
    """Pins, blocks and their index."""

    def __init__(self, folder: Path) -> None:
        self.meta = Meta(folder / "meta")
        self.pins = Pins(self.meta, lambda: 0)
        self.store = MemoryStore()
        self.index = PinIndex(self.meta, self.pins, self.store)

    def put(self, blocks: list[Block]) -> None:
        self.store.put_many(pairs(blocks))

    def holders(self, cid: CID) -> list[CID]:
        found = [pin.cid for pin in self.index.holders(cid)]
        assert len(found) == len(set(found))
        return sorted(found)

    def walked(self, cid: CID) -> list[CID]:
        """The same answer without an index."""
        found = []
        for pin in self.pins.ls():
            if pin.mode is PinMode.DIRECT:
                below = {pin.cid.multihash}
            else:
                below = {each.multihash for each in reachable(self.store, [pin.cid], lambda _: None)}
            if cid.multihash in below:
                found.append(pin.cid)
        return sorted(found)

    def queued(self) -> int:
        return sum(1 for _ in self.meta.items(Table.PIN_QUEUE))

    def rows(self) -> int:
        return sum(1 for table in (Table.PIN_EDGES, Table.PIN_NODES) for _ in self.meta.items(table))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_pins_around_a_block_are_found_at_any_depth(home: Home) -> None:
    one, two, shared = tree("one"), tree("two"), leaf("shared")
    root, other = node(one[-1].cid, shared.cid), node(two[-1].cid, shared.cid)
    home.put([*one, *two, shared, root, other])
    home.pins.add_many([root.cid, other.cid])
    home.pins.add(one[0].cid, recursive=False)
    assert home.queued() == 2
    assert home.holders(one[0].cid) == sorted([root.cid, one[0].cid])
    assert home.queued() == 0
    assert home.holders(shared.cid) == sorted([root.cid, other.cid])
    assert home.holders(root.cid) == [root.cid]
    assert home.holders(leaf("elsewhere").cid) == []
    home.pins.rm(root.cid)
    assert home.holders(one[0].cid) == [one[0].cid]


def test_looking_up_reads_no_block_that_was_walked_before(home: Home) -> None:
    dag, shared = tree("dag"), leaf("shared")
    home.put([*dag, shared])
    home.pins.add(dag[-1].cid)
    assert home.holders(dag[0].cid) == [dag[-1].cid]
    above = node(dag[-1].cid, shared.cid)
    home.put([above])
    home.pins.add(above.cid)
    home.store.delete_many(each.cid.multihash for each in dag)
    assert home.holders(dag[0].cid) == sorted([dag[-1].cid, above.cid])


def test_a_block_under_several_codecs_holds_what_each_says(home: Home) -> None:
    inner = node(leaf("x").cid)
    as_bytes = CID(1, RAW, inner.cid.multihash)
    around = node(as_bytes, label="knows the bytes alone")
    home.put([leaf("x"), inner, around])
    home.pins.add(around.cid)
    assert home.holders(inner.cid) == home.holders(as_bytes) == [around.cid]
    assert home.holders(leaf("x").cid) == []
    whole = node(inner.cid, label="knows the node")
    home.put([whole])
    home.pins.add(whole.cid)
    assert home.holders(leaf("x").cid) == [whole.cid]
    assert home.holders(as_bytes) == sorted([around.cid, whole.cid])


def test_nodes_inside_cids_are_climbed_through(home: Home) -> None:
    below = leaf("below an identity CID")
    inner = node(below.cid)
    carried = CID(1, DAG_CBOR, b"\0" + bytes([len(inner.data)]) + inner.data)
    top = node(carried)
    home.put([below, top])
    home.pins.add(top.cid)
    assert home.holders(below.cid) == [top.cid]


def test_what_is_missing_is_walked_when_it_has_come(home: Home) -> None:
    dag = tree("dag")
    home.put([*dag[:4], *dag[5:]])
    home.pins.add(dag[-1].cid)
    assert home.holders(dag[5].cid) == [dag[-1].cid]
    assert home.holders(dag[4].cid) == [dag[-1].cid]
    assert home.holders(dag[0].cid) == []  # nobody knows yet
    assert home.queued() == 1
    home.put([dag[4]])
    assert home.holders(dag[0].cid) == [dag[-1].cid]
    assert home.queued() == 0


def test_a_lattice_with_a_hole_is_walked_once(home: Home) -> None:
    """Every level links twice to the one below, so the DAG has 2⁶⁰ paths; its end is missing."""
    level = node(leaf("a").cid, label="missing")
    hole = level
    for number in range(60):
        level = node(level.cid, level.cid, label=str(number))
        twin = node(level.cid, label=f"twin {number}")
        home.put([level, twin])
        level = node(level.cid, twin.cid, label=f"top {number}")
        home.put([level])
    home.pins.add(level.cid)
    assert home.holders(hole.cid) == [level.cid]
    assert home.index.catch_up() == (1, None)


def test_a_deep_dag_needs_no_deep_stack(home: Home) -> None:
    chain = [leaf("end")]
    for depth in range(3000):
        chain.append(node(chain[-1].cid, label=str(depth)))
    home.put(chain)
    home.pins.add(chain[-1].cid)
    assert home.holders(chain[0].cid) == [chain[-1].cid]


def test_pins_from_before_there_was_an_index_are_found(home: Home) -> None:
    dag = tree("dag")
    home.put(dag)
    home.pins.add(dag[-1].cid)
    with home.meta.write() as write:  # as an older version of the program left it
        write.delete(Table.RECORDS, b"pin-counts")
        write.delete(Table.PIN_QUEUE, bytes(dag[-1].cid))
    assert home.holders(dag[0].cid) == [dag[-1].cid]
    assert home.pins.counts() == (1, 0)


def test_a_walk_that_was_stopped_goes_on(home: Home) -> None:
    dag = tree("dag")
    home.put(dag)
    home.pins.add(dag[-1].cid)
    asked = iter([False] * 3)
    assert home.index.catch_up(stop=lambda: next(asked, True)) == (0, b"")
    assert home.queued() == 1
    assert home.holders(dag[0].cid) == [dag[-1].cid]


def test_slices_come_past_pins_that_lack_blocks(home: Home) -> None:
    dags = [tree(str(number)) for number in range(10)]
    for number, dag in enumerate(dags):
        home.put(dag if number % 2 else [each for each in dag if each is not dag[4]])
    home.pins.add_many([dag[-1].cid for dag in dags])
    after: bytes | None = b""
    lacking = slices = 0
    while after is not None:
        asked = iter([False] * 10)
        caught = home.index.catch_up(partial(next, asked, True), after)
        after = caught.after
        lacking += caught.unfinished
        slices += 1
        assert slices < 100
    assert slices > 5
    assert lacking == home.queued() == 5


def test_cleaning_forgets_what_was_collected_and_nothing_else(home: Home) -> None:
    kept, gone, shared = tree("kept"), tree("gone"), tree("shared")
    first, second = node(kept[-1].cid, shared[-1].cid), node(gone[-1].cid, shared[-1].cid)
    home.put([*kept, *gone, *shared, first, second])
    home.pins.add_many([first.cid, second.cid])
    home.index.catch_up()
    assert home.index.clean() == 0
    before = home.rows()
    home.pins.rm(second.cid)
    home.store.delete_many(each.cid.multihash for each in [*gone, second])
    assert home.index.clean() == before - home.rows() == 2 + 20 + 6
    assert home.holders(shared[0].cid) == [first.cid]
    assert home.holders(gone[0].cid) == []
    home.put([*gone, second])
    home.pins.add(second.cid)
    assert home.holders(gone[0].cid) == [second.cid]
    assert home.holders(shared[0].cid) == sorted([first.cid, second.cid])


def test_a_part_that_was_lost_cleaned_and_healed_is_found_again(home: Home) -> None:
    dag = tree("dag")
    home.put(dag)
    home.pins.add(dag[-1].cid)
    home.index.catch_up()
    home.store.delete_many([dag[4].cid.multihash])
    assert home.index.clean() > 0
    home.put([dag[4]])
    assert home.holders(dag[0].cid) == [dag[-1].cid]


def test_cleaning_in_the_middle_of_a_walk_loses_nothing(home: Home) -> None:
    old, new = tree("old"), tree("new")
    top = node(old[-1].cid, new[-1].cid)
    home.put([*old, *new, top])
    home.pins.add(old[-1].cid)
    home.index.catch_up()
    home.pins.add(top.cid)
    calls = 0

    def meanwhile() -> bool:
        """Part of what the walk believes to be known is collected, cleaned and put again."""
        nonlocal calls
        calls += 1
        if calls == 4:
            home.store.delete_many([old[4].cid.multihash])
            home.index.clean()
            home.put([old[4]])
        return False

    home.index.catch_up(stop=meanwhile)
    assert calls > 4
    assert home.holders(old[0].cid) == sorted([old[-1].cid, top.cid])


@pytest.mark.parametrize("seed", range(4))
def test_it_says_what_walking_says(home: Home, seed: int) -> None:
    chance = random.Random(seed)
    blocks = [leaf(str(number)) for number in range(12)]
    for number in range(60):
        children = chance.sample(blocks, chance.randrange(4))
        blocks.append(node(*(each.cid for each in children), label=str(number)))
    home.put(blocks)
    for _ in range(60):
        chosen = chance.choice(blocks)
        doing = chance.randrange(6)
        if doing < 3:
            if home.pins.get(chosen.cid) is not None:
                home.pins.rm(chosen.cid)
            home.pins.add(chosen.cid, recursive=chance.random() < 0.8)
        elif doing == 3 and (pinned := list(home.pins.ls())):
            home.pins.rm(chance.choice(pinned).cid)
        elif doing == 4:
            live = {
                each.multihash for pin in home.pins.ls() for each in reachable(home.store, [pin.cid], print)
            }
            home.store.delete_many(each.cid.multihash for each in blocks if each.cid.multihash not in live)
            home.index.clean()
            home.put(blocks)
        assert home.holders(chosen.cid) == home.walked(chosen.cid)
    assert home.pins.counts() == home.pins.recount()[1]
