"""Differences of trees: the same as two listings compared name by name, read only where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import dag_pb
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.diff import Change, ChangeKind, diff
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import DecodeError, LimitExceeded
from merkledag.folder import entries
from merkledag.mutate import edit
from merkledag.profile import UNIXFS_V1_2025, ImportProfile
from merkledag.steps import iterate, run
from merkledag.unixfs import Data, Kind
from tests.merkledag.support import Blocks

NARROW = replace(UNIXFS_V1_2025, hamt_threshold_bytes=150, hamt_fanout=8)
PROFILES = [UNIXFS_V1_2025, NARROW, replace(NARROW, hamt_fanout=64), replace(NARROW, hamt_fanout=1024)]

names = st.sampled_from([f"{n}" for n in range(12)])
trees = st.recursive(
    st.integers(0, 3),
    lambda inner: st.dictionaries(names, inner, max_size=9),
    max_leaves=25,
).filter(lambda tree: isinstance(tree, dict))


def build(tree: Any, profile: ImportProfile, blocks: Blocks) -> DirEntry:
    """A tree of dicts; numbers are files (0 and 1 raw, others dag-pb)."""
    if isinstance(tree, int):
        data = b"%d" % tree
        if tree < 2:
            return DirEntry("", blocks.put(data, RAW), 1)
        return DirEntry("", blocks.put_node([], Data(Kind.FILE, data, len(data))), 9)
    rows = [build(inner, profile, blocks)._replace(name=name) for name, inner in tree.items()]
    link, made = build_directory(profile, rows)
    blocks.add(made)
    return DirEntry("", link.cid, link.tsize)


def naive(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What differs between two trees of dicts."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        if before != after:
            yield "changed", path
        return
    for name in before.keys() | after.keys():
        if name not in after:
            yield "removed", (*path, name)
        elif name not in before:
            yield "added", (*path, name)
        else:
            yield from naive(before[name], after[name], (*path, name))


@settings(max_examples=120, deadline=None)
@given(trees, trees, st.sampled_from(PROFILES), st.sampled_from(PROFILES), st.data())
def test_a_diff_is_what_two_listings_say(
    before: Any, after: Any, first: ImportProfile, second: ImportProfile, data: st.DataObject
) -> None:
    if data.draw(st.booleans(), "shares a part"):
        after = {**before, **after}
    blocks = Blocks()
    old, new = build(before, first, blocks).cid, build(after, second, blocks).cid
    found = list(iterate(diff(old, new), blocks.get))
    assert len({change.path for change in found}) == len(found)
    assert {(str(change.kind), change.path) for change in found} == set(naive(before, after))
    if first is second is UNIXFS_V1_2025:
        assert [change.path for change in found] == sorted(change.path for change in found)
    for change in found:
        assert (change.before is None) == (change.kind is ChangeKind.ADDED)
        assert (change.after is None) == (change.kind is ChangeKind.REMOVED)


def big(count: int) -> tuple[CID, Blocks]:
    leaf = CID.of(b"leaf", RAW)
    link, made = build_directory(UNIXFS_V1_2025, [DirEntry(f"file {n}", leaf, 4) for n in range(count)])
    return link.cid, Blocks(made)


def test_the_cost_is_that_of_the_difference() -> None:
    """Five changes in a folder of 30,000 read a few shards of its hundreds."""
    root, blocks = big(30_000)
    other = CID.of(b"other", RAW)
    link, made = run(
        edit(UNIXFS_V1_2025, root, [DirEntry("file 7", other, 5), DirEntry("new", other, 5)], ["file 99"]),
        blocks.get,
    )
    blocks.add(made)
    blocks.asked.clear()
    found = {(change.kind, change.path[0]) for change in iterate(diff(root, link.cid), blocks.get)}
    assert found == {("changed", "file 7"), ("added", "new"), ("removed", "file 99")}
    assert len(blocks.asked) <= 2 * 3 * 3
    blocks.asked.clear()
    assert list(iterate(diff(root, root), blocks.get)) == []
    assert blocks.asked == []


def test_a_diff_streams() -> None:
    """The first change of thousands comes after a few shards; nothing else was read."""
    root, blocks = big(30_000)
    empty, made = build_directory(UNIXFS_V1_2025, [])
    blocks.add(made)
    walk = iterate(diff(empty.cid, root), blocks.get)
    assert next(walk).kind is ChangeKind.ADDED
    assert len(blocks.asked) <= 5
    assert sum(1 for _ in walk) == 29_999


def test_what_is_no_folder_is_one_change() -> None:
    blocks = Blocks()
    file, other = blocks.put(b"a", RAW), blocks.put(b"b", RAW)
    folder = build_directory(UNIXFS_V1_2025, [DirEntry("a", file, 1)])
    blocks.add(folder[1])
    plain = blocks.put_node([dag_pb.PBLink(file, "a", 1)], None)
    for before, after in ((file, other), (file, folder[0].cid), (folder[0].cid, plain), (plain, file)):
        found = list(iterate(diff(before, after), blocks.get))
        assert found == [Change(ChangeKind.CHANGED, (), before, after)]


def test_attributes_of_folders_count_and_their_form_does_not() -> None:
    blocks = Blocks()
    rows = [DirEntry(f"{n}", CID.of(b"x", RAW), 1) for n in range(50)]
    (flat, a), (sharded, b) = (build_directory(UNIXFS_V1_2025, rows, hamt=f) for f in ("never", "always"))
    (private, c) = build_directory(UNIXFS_V1_2025, rows[1:], mode=0o700)
    blocks.add([*a, *b, *c])
    assert list(iterate(diff(flat.cid, sharded.cid), blocks.get)) == []
    assert {change.path for change in iterate(diff(flat.cid, private.cid), blocks.get)} == {(), ("0",)}


def nested(depth: int, leaf: bytes, blocks: Blocks) -> CID:
    cid = blocks.put(leaf, RAW)
    for _ in range(depth):
        link, made = build_directory(UNIXFS_V1_2025, [DirEntry("d", cid, 1)])
        blocks.add(made)
        cid = link.cid
    return cid


def test_depth_has_a_bound() -> None:
    blocks = Blocks()
    deep = [nested(1_000, leaf, blocks) for leaf in (b"a", b"b")]
    assert [len(change.path) for change in iterate(diff(*deep), blocks.get)] == [1_000]
    deeper = [nested(1_100, leaf, blocks) for leaf in (b"a", b"b")]
    with pytest.raises(LimitExceeded, match="deeper than"):
        list(iterate(diff(*deeper), blocks.get))


def test_a_lying_shard_is_refused() -> None:
    root, blocks = big(10_000)
    shard = next(cid for cid in blocks.by_cid if cid != root)
    link = next(each for each in dag_pb.decode(blocks.by_cid[root]).links if each.cid == shard)
    wrong = [
        each._replace(cid=root) if each == link else each for each in dag_pb.decode(blocks.by_cid[root]).links
    ]
    data = dag_pb.payload(blocks.by_cid[root])
    lying = blocks.put(dag_pb.encode(dag_pb.PBNode(tuple(wrong), data)))
    with pytest.raises(DecodeError):
        list(iterate(diff(root, lying), blocks.get))
    assert sum(1 for _ in iterate(entries(root), blocks.get)) == 10_000
