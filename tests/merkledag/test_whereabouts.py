"""Where blocks stand in files: against the bytes that the files were made of, for every shape of DAG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from merkledag import dag_cbor
from merkledag.builder import build_file
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, RAW
from merkledag.dag_pb import PBLink
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import LimitExceeded
from merkledag.profile import UNIXFS_V0_2015, UNIXFS_V1_2025, ImportProfile, Layout
from merkledag.steps import Walk, Want, iterate
from merkledag.unixfs import Data, Kind
from merkledag.whereabouts import MAX_NAMES, Place, find_blocks
from tests.merkledag.support import Blocks

CHUNK = 1_000
FILES: dict[str, Any] = {
    "a": bytes(n * n % 251 for n in range(10_000)),
    "deep": {"b": b"tiny", "c": b"\x0a\x08\x12" * 700, "none": b"", "again": b"tiny"},
}


def build(tree: Any, profile: ImportProfile, blocks: Blocks) -> DirEntry:
    """A tree of dicts; bytes are files."""
    if isinstance(tree, bytes):
        link, parts = build_file(profile, [tree[at : at + CHUNK] for at in range(0, len(tree), CHUNK)])
        blocks.add(parts)
        return DirEntry("", link.cid, link.tsize)
    rows = [build(inner, profile, blocks)._replace(name=name) for name, inner in tree.items()]
    link, made = build_directory(profile, rows)
    blocks.add(made)
    return DirEntry("", link.cid, link.tsize)


def places_of(root: CID, blocks: Blocks) -> dict[bytes, Place]:
    """Where every block is found; each once."""
    wanted = {cid.multihash: len(data) for cid, data in blocks.by_cid.items()}
    places = list(iterate(find_blocks(root, wanted), blocks.get))
    found = {place.multihash: place for place in places}
    assert len(found) == len(places)
    return found


@pytest.mark.parametrize("profile", [UNIXFS_V0_2015, UNIXFS_V1_2025])
@pytest.mark.parametrize("layout", ["balanced", "trickle"])
@pytest.mark.parametrize("threshold_bytes", [1, 1 << 18])
def test_each_block_of_a_file_has_the_bytes_that_are_said(
    profile: ImportProfile, layout: Layout, threshold_bytes: int
) -> None:
    chosen = replace(profile, max_links=3, layout=layout, hamt_threshold_bytes=threshold_bytes)
    blocks = Blocks()
    root = build(FILES, chosen, blocks).cid
    found = places_of(root, blocks)
    assert found.keys() == {cid.multihash for cid in blocks.by_cid}
    covered = dict.fromkeys(("a", "deep/b", "deep/again", "deep/c"), 0)
    for cid, block in blocks.by_cid.items():
        place = found[cid.multihash]
        if place.size:
            content = FILES[place.names[0]] if len(place.names) == 1 else FILES["deep"][place.names[1]]
            assert content[place.start : place.start + place.size] == block[place.at : place.at + place.size]
            covered["/".join(place.names)] += place.size
    # What comes again is told once: the same small file, and the same parts of a file.
    assert covered["a"] == 10_000
    assert covered["deep/b"] + covered["deep/again"] == 4
    assert 0 < covered["deep/c"] <= 2_100
    assert {place.names for place in found.values() if place.what == "folder"} == {(), ("deep",)}


def test_it_ends_with_the_last_block_and_fetches_no_raw_one() -> None:
    blocks = Blocks()
    root = build({"a": b"first", "b": b"x" * 5_000}, UNIXFS_V1_2025, blocks)
    first = CID.of(b"first", RAW)
    [place] = iterate(find_blocks(root.cid, {first.multihash: 5}), blocks.get)
    assert place == Place(first.multihash, ("a",), "file", 0, 0, 5)
    assert blocks.asked == [root.cid]


def test_what_cannot_be_had_is_passed_over() -> None:
    blocks = Blocks()
    root = build({"a": {"x": b"lost"}, "b": {"y": b"there"}}, UNIXFS_V1_2025, blocks)
    gone = build({"x": b"lost"}, UNIXFS_V1_2025, Blocks()).cid
    wanted = {CID.of(name, RAW).multihash: len(name) for name in (b"lost", b"there")}
    assert list(partly(find_blocks(root.cid, wanted), blocks, gone)) == [("b", "y")]


def partly(walk: Walk[Place], blocks: Blocks, gone: CID) -> Iterator[tuple[str, ...]]:
    """The names of what is found where one block cannot be had."""
    item: Want | Place | None = next(walk)
    while item is not None:
        data = None
        if isinstance(item, Want):
            data = None if item.cid == gone else blocks.get(item.cid)
        else:
            yield item.names
        try:
            item = walk.send(data)
        except StopIteration:
            item = None


def test_nodes_that_are_no_files_have_numbers_for_names() -> None:
    blocks = Blocks()
    leaf = blocks.put(b"leaf", RAW)
    wrong = blocks.put_node([PBLink(leaf, "", 4)], Data(Kind.FILE, b"own", 99, (1, 2, 3)))
    root = blocks.put(dag_cbor.encode({"x": [wrong, 7]}), DAG_CBOR)
    junk = blocks.put(b"\xff\xff", 0x70)
    top = blocks.put(dag_cbor.encode([junk, root]), DAG_CBOR)
    found = places_of(top, blocks)
    assert found[leaf.multihash].names == ("#1", "#0", "#0")
    assert found[wrong.multihash].what == found[junk.multihash].what == "node"


def test_a_link_and_a_symlink_are_what_they_are() -> None:
    blocks = Blocks()
    link = blocks.put_node([], Data(Kind.SYMLINK, b"target"))
    link_, made = build_directory(UNIXFS_V1_2025, [DirEntry("l", link, 9)])
    blocks.add(made)
    assert places_of(link_.cid, blocks)[link.multihash] == Place(link.multihash, ("l",), "symlink")


def test_paths_and_walks_are_bounded() -> None:
    blocks = Blocks()
    cid = blocks.put(b"bottom", RAW)
    for _ in range(MAX_NAMES + 1):
        cid = blocks.put(dag_cbor.encode([cid]), DAG_CBOR)
    with pytest.raises(LimitExceeded):
        list(iterate(find_blocks(cid, {CID.of(b"bottom", RAW).multihash: 6}), blocks.get))
    # A DAG that has 2^200 paths has 200 blocks.
    cid = blocks.put(b"bottom", RAW)
    for _ in range(200):
        cid = blocks.put(dag_cbor.encode([cid, cid]), DAG_CBOR)
    [place] = iterate(find_blocks(cid, {CID.of(b"bottom", RAW).multihash: 6}), blocks.get)
    assert len(place.names) == 200
