"""Editing folders: after any edits the CID is that of the folder built afresh, from few blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import dag_pb, unixfs
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.dag_pb import PBLink
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import DecodeError, LimitExceeded, NoSuchLink, NotADirectory
from merkledag.folder import entries
from merkledag.hamt import HASH_BITS, Item, build, hash_name
from merkledag.mutate import edit
from merkledag.profile import UNIXFS_V0_2015, UNIXFS_V1_2025, ImportProfile
from merkledag.steps import iterate, run
from merkledag.unixfs import HASH_MURMUR3, Data, Kind, Mtime
from tests.merkledag.support import Blocks

LEAVES = [CID.of(bytes([n]) * n, RAW) for n in range(1, 6)]
NAMES = [f"{n}" for n in range(40)] + ["ü", "a b", "long" * 40]
EDIT = st.tuples(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 4)), max_size=12),
                 st.lists(st.integers(0, 99), max_size=10))  # fmt: skip


def entry(name: str, leaf: int) -> DirEntry:
    return DirEntry(name, LEAVES[leaf], leaf + 1)


def is_hamt(blocks: Blocks, root: CID) -> bool:
    return unixfs.decode(dag_pb.payload(blocks.by_cid[root]) or b"").kind is Kind.HAMT


@settings(max_examples=150, deadline=None)
@given(
    st.lists(EDIT, min_size=1, max_size=8),
    st.sampled_from([8, 16, 64, 256, 1024]),
    st.sampled_from([0, 1, 60, 400, 1500, 4000]),
    st.sampled_from(["links", "block"]),
    st.sampled_from([(None, None), (0o755, Mtime(-5, 7))]),
    st.sampled_from([UNIXFS_V0_2015, UNIXFS_V1_2025]),
    st.sampled_from([None, None, 1, 3, 10]),
)
def test_edits_end_in_the_folder_built_afresh(
    edits: list[tuple[list[tuple[str, int]], list[int]]],
    fanout: int,
    threshold: int,
    estimate: Literal["links", "block"],
    stat: tuple[int | None, Mtime | None],
    base: ImportProfile,
    limit: int | None,
) -> None:
    """Batches of additions, replacements and removals, in and out of HAMTs."""
    profile = replace(base, hamt_fanout=fanout, hamt_threshold_bytes=threshold, hamt_estimate=estimate,
                      max_directory_links=limit)  # fmt: skip
    model: dict[str, DirEntry] = {}
    link, made = build_directory(profile, [], *stat)
    blocks = Blocks(made)
    for puts, picks in edits:
        present = sorted(model)
        gone = {present[pick % len(present)] for pick in picks} if present else set()
        put = [entry(name, leaf) for name, leaf in puts]
        link, made = run(edit(profile, link.cid, put, gone), blocks.get)
        blocks.add(made)
        for name in gone:
            del model[name]
        model.update((each.name, each) for each in put)
        afresh, all_blocks = build_directory(profile, model.values(), *stat)
        assert link == afresh
        assert {block.cid for block in all_blocks} <= blocks.by_cid.keys()
        assert made[-1].cid == link.cid


def big(count: int, profile: ImportProfile = UNIXFS_V1_2025) -> tuple[CID, Blocks, list[DirEntry]]:
    all_entries = [entry(f"file {n}", n % 5) for n in range(count)]
    link, made = build_directory(profile, all_entries)
    return link.cid, Blocks(made), all_entries


def test_one_addition_touches_one_path_of_shards() -> None:
    root, blocks, before = big(20_000)
    new = entry("new", 0)
    link, made = run(edit(UNIXFS_V1_2025, root, [new]), blocks.get)
    assert link == build_directory(UNIXFS_V1_2025, [*before, new])[0]
    assert len(blocks.asked) <= 3
    assert len(made) <= 3


def test_a_batch_reads_and_writes_each_shard_once() -> None:
    root, blocks, before = big(20_000)
    new = [entry(f"new {n}", 1) for n in range(500)]
    link, made = run(edit(UNIXFS_V1_2025, root, new), blocks.get)
    assert link == build_directory(UNIXFS_V1_2025, [*before, *new])[0]
    assert len(set(blocks.asked)) == len(blocks.asked)
    assert len({block.cid for block in made}) == len(made)


def test_a_removal_from_a_large_hamt_reads_no_more_than_the_threshold_needs() -> None:
    profile = replace(UNIXFS_V1_2025, hamt_threshold_bytes=32 * 1024)
    root, blocks, before = big(10_000, profile)
    link, _ = run(edit(profile, root, remove=["file 77"]), blocks.get)
    assert link == build_directory(profile, [e for e in before if e.name != "file 77"])[0]
    assert len(blocks.asked) < len(blocks.by_cid) / 8


@pytest.mark.parametrize("estimate", ["links", "block"])
def test_the_form_changes_above_the_threshold_and_not_at_it(estimate: Literal["links", "block"]) -> None:
    """One byte decides, both ways."""
    rows = [entry(f"{n:04}", 0) for n in range(50)]
    size = 50 * (4 + 36) if estimate == "links" else len(build_directory(UNIXFS_V1_2025, rows)[1][0].data)
    profile = replace(UNIXFS_V1_2025, hamt_estimate=estimate, hamt_threshold_bytes=size)
    link, made = build_directory(profile, rows[:49])
    blocks = Blocks(made)

    def step(put: Iterable[DirEntry] = (), remove: Iterable[str] = ()) -> bool:
        nonlocal link
        link, made = run(edit(profile, link.cid, put, remove), blocks.get)
        blocks.add(made)
        return is_hamt(blocks, link.cid)

    assert not step(rows[49:])
    assert step([entry("x", 0)])
    assert not step(remove=["x"])
    assert step([entry("00000", 0)], ["0000"])
    assert not step([entry("0000", 0)], ["00000"])


def test_the_last_but_one_entry_of_a_shard_collapses_it() -> None:
    """Two names that share 32 bits hang deep; without one, the other is an entry of the root again."""
    profile = replace(UNIXFS_V1_2025, hamt_threshold_bytes=1, hamt_fanout=8)
    by_prefix: dict[int, str] = {}
    for n in range(400_000):
        twin = by_prefix.setdefault(hash_name(b"%d" % n) >> (HASH_BITS - 33), f"{n}")
        if twin != f"{n}":
            break
    pair = [entry(twin, 0), entry(f"{n}", 1)]
    link, made = build_directory(profile, pair)
    assert len(made) >= 12
    blocks = Blocks(made)
    link, made = run(edit(profile, link.cid, remove=[twin]), blocks.get)
    assert link == build_directory(profile, pair[1:])[0]
    assert [block.cid for block in made] == [link.cid]


def test_a_hamt_without_entries_has_no_bitfield() -> None:
    """As boxo writes it; one is made only on demand, and an edit that empties a HAMT ends flat."""
    link, made = build_directory(UNIXFS_V1_2025, [], hamt="always")
    message = unixfs.decode(dag_pb.payload(made[-1].data) or b"")
    assert (message.kind, message.data) == (Kind.HAMT, None)
    assert list(iterate(entries(link.cid), Blocks(made).get)) == []
    profile = replace(UNIXFS_V1_2025, hamt_threshold_bytes=1)
    link, made = build_directory(profile, [entry("a", 0)])
    emptied = run(edit(profile, link.cid, remove=["a"]), Blocks(made).get)
    assert emptied.link == build_directory(UNIXFS_V1_2025, [])[0]


@pytest.mark.parametrize("fanout", [8, 16, 256, 1024])
def test_names_part_where_their_hashes_do_or_never(fanout: int) -> None:
    """Hashes that differ in the last bit that a level reads make the deepest trie; equal ones make none."""
    profile = replace(UNIXFS_V1_2025, hamt_fanout=fanout)
    bits = fanout.bit_length() - 1
    unused = HASH_BITS % bits
    twins = [Item(0, b"a", LEAVES[0], 1), Item(1 << unused, b"b", LEAVES[1], 2)]
    made = list(build(profile, [twins]))
    assert len(made) == HASH_BITS // bits
    below = Item((1 << unused) - 1, b"c", LEAVES[2], 3)  # differs from the first in bits that no level reads
    for last in (Item(0, b"c", LEAVES[2], 3), *([below] if unused else [])):
        with pytest.raises(LimitExceeded, match="deeper than the 64 bits"):
            list(build(profile, [[twins[0], last]]))


def test_a_hamt_keeps_its_own_fanout() -> None:
    narrow = replace(UNIXFS_V1_2025, hamt_fanout=16, hamt_threshold_bytes=100)
    link, made = build_directory(narrow, [entry(name, 0) for name in NAMES])
    edited = run(edit(replace(narrow, hamt_fanout=256), link.cid, [entry("x", 1)]), Blocks(made).get)
    assert edited.link == build_directory(narrow, [*(entry(n, 0) for n in NAMES), entry("x", 1)])[0]


def test_what_is_not_there_cannot_be_removed() -> None:
    for count in (3, 6_000):
        root, blocks, _ = big(count)
        with pytest.raises(NoSuchLink, match="no link named 'nobody'"):
            run(edit(UNIXFS_V1_2025, root, remove=["nobody"]), blocks.get)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "x" * 1025])
def test_names_that_no_folder_can_hold(name: str) -> None:
    root, blocks, _ = big(1)
    with pytest.raises(ValueError, match="cannot be a name"):
        run(edit(UNIXFS_V1_2025, root, [DirEntry(name, LEAVES[0], 1)]), blocks.get)


def test_only_directories_can_be_edited() -> None:
    blocks = Blocks()
    for cid in (blocks.put(b"x", RAW), blocks.put_node([], None), blocks.put_node([], Data(Kind.FILE))):
        with pytest.raises(NotADirectory):
            run(edit(UNIXFS_V1_2025, cid, [entry("a", 0)]), blocks.get)


def test_a_foreign_folder_keeps_what_was_not_named() -> None:
    """Names we would not write ourselves and absent sizes survive; links come sorted."""
    blocks = Blocks()
    odd = [PBLink(LEAVES[0], "z", None), PBLink(LEAVES[1], "..", 3), PBLink(LEAVES[2], "b", 9)]
    root = blocks.put_node(odd, Data(Kind.DIRECTORY, mode=0o700))
    _, made = run(edit(UNIXFS_V1_2025, root, [entry("m", 3)], ["b"]), blocks.get)
    node = dag_pb.decode(made[-1].data)
    assert [(link.name, link.tsize) for link in node.links] == [("..", 3), ("m", 4), ("z", None)]
    assert unixfs.decode(node.data or b"").mode == 0o700


def hamt_root(blocks: Blocks, links: list[PBLink], bucket: int | None, fanout: int = 256) -> CID:
    """A shard with any links whose bitfield says that one bucket is occupied, or none."""
    bitfield = b"" if bucket is None else (1 << bucket).to_bytes(bucket // 8 + 1, "big")
    return blocks.put_node(links, Data(Kind.HAMT, bitfield, hash_type=HASH_MURMUR3, fanout=fanout))


NAME = "file 1"
BUCKET = hash_name(NAME.encode()) >> (HASH_BITS - 8)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda b: hamt_root(b, [], None), id="empty"),
        pytest.param(lambda b: hamt_root(b, [PBLink(LEAVES[0], "0x", 1)], 0, fanout=8), id="another fanout"),
        pytest.param(lambda b: b.put_node([], Data(Kind.DIRECTORY)), id="flat"),
        pytest.param(lambda b: LEAVES[0], id="raw"),
        pytest.param(
            lambda b: hamt_root(b, [PBLink(LEAVES[0], "04other", 1)], 3),
            id="bitfield",
        ),
    ],
)  # fmt: skip
def test_shards_that_lie_are_refused(lie: Callable[[Blocks], CID]) -> None:
    """A sub-shard that is none, on the way of an edit and of a listing."""
    blocks = Blocks([Block(LEAVES[0], b"\1")])
    root = hamt_root(blocks, [PBLink(lie(blocks), f"{BUCKET:02X}", 9)], BUCKET)
    with pytest.raises(DecodeError):
        run(edit(UNIXFS_V1_2025, root, [entry(NAME, 0)]), blocks.get)
    with pytest.raises(DecodeError):
        list(iterate(entries(root), blocks.get))
