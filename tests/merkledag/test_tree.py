"""Walking folders, files and symlinks by their paths."""

from __future__ import annotations

from itertools import islice

import pytest

from merkledag.builder import build_symlink
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.dag_pb import PBLink
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import LimitExceeded
from merkledag.profile import UNIXFS_V1_2025
from merkledag.steps import Want, iterate
from merkledag.tree import AHEAD, TreeItem, stays_inside, walk_tree
from merkledag.unixfs import Data, Kind
from tests.merkledag.support import Blocks


def folder(blocks: Blocks, *entries: tuple[str, CID]) -> CID:
    return blocks.put_node([PBLink(cid, name, 1) for name, cid in entries], Data(Kind.DIRECTORY))


def test_folders_come_before_what_is_in_them() -> None:
    blocks = Blocks()
    a, b = blocks.put(b"a", RAW), blocks.put_file([], b"bb")
    link, block = build_symlink(UNIXFS_V1_2025, "../a")
    blocks.add([block])
    sub = folder(blocks, ("b", b), ("l", link.cid))
    root = folder(blocks, ("sub", sub), ("a", a), ("..", a))
    found = list(iterate(walk_tree(root), blocks.get))
    assert [("/".join(item.names), item.stat.kind) for item in found] == [
        ("", "directory"), ("sub", "directory"), ("sub/b", "file"), ("sub/l", "symlink"),
        ("a", "raw"), ("..", "raw"),
    ]  # fmt: skip
    assert found[1].cid == sub
    assert [item.stat.size_bytes for item in found[2:]] == [2, 4, 1, 1]
    (file,) = iterate(walk_tree(a), blocks.get)
    assert (file.names, file.stat.kind) == ((), "raw")


def test_raw_blocks_are_not_fetched_where_sizes_do_not_matter() -> None:
    blocks = Blocks()
    absent = CID.of(b"absent")
    root = folder(blocks, ("a", absent), ("b", blocks.put_file([])))
    found = list(iterate(walk_tree(root, sized=False), blocks.get))
    assert [(item.names, item.stat.size_bytes) for item in found[1:]] == [(("a",), 0), (("b",), 0)]
    with pytest.raises(KeyError):
        list(iterate(walk_tree(root), blocks.get))


def test_wants_and_items_announce_the_next_entries() -> None:
    blocks = Blocks()
    files = [blocks.put_file([], b"%d" % n) for n in range(40)]
    root = folder(blocks, *((str(n), cid) for n, cid in enumerate(files)))
    walk = walk_tree(root)
    wants: list[Want] = []
    items: list[TreeItem] = []
    step: Want | TreeItem = next(walk)
    while len(items) < 12:
        if isinstance(step, Want):
            wants.append(step)
            step = walk.send(blocks.get(step.cid))
        else:
            items.append(step)
            step = walk.send(None)
    for want, item in zip([w for w in wants if w.cid in files], items[1:], strict=False):
        at = files.index(want.cid)
        assert (item.cid, item.ahead) == (want.cid, want.ahead)
        assert AHEAD // 2 <= len(want.ahead) <= AHEAD
        assert want.ahead == tuple(files[at + 1 : at + 1 + len(want.ahead)])


def test_a_large_folder_begins_at_once() -> None:
    blocks = Blocks()
    leaf = blocks.put(b"leaf", RAW)
    link, made = build_directory(
        UNIXFS_V1_2025, [DirEntry(f"file {n}", leaf, 4) for n in range(5000)], hamt="always"
    )
    blocks.add(made)
    items = iterate(walk_tree(link.cid, sized=False), blocks.get)
    assert len(list(islice(items, 2))) == 2
    assert len(blocks.asked) <= 5
    assert 2 + sum(1 for _ in items) == 5001


def test_bottomless_nesting_ends() -> None:
    blocks = Blocks()
    cid = folder(blocks)
    for _ in range(300):
        cid = folder(blocks, ("d", cid))
    with pytest.raises(LimitExceeded, match="more than 256 deep"):
        list(iterate(walk_tree(cid), blocks.get))
    assert len(blocks.asked) < 2 * 260


def test_shared_folders_come_as_often_as_they_are_linked() -> None:
    blocks = Blocks()
    cid = folder(blocks)
    for _ in range(60):
        cid = folder(blocks, ("a", cid), ("b", cid))
    first = list(islice(iterate(walk_tree(cid), blocks.get), 1000))
    assert len({item.names for item in first}) == 1000


@pytest.mark.parametrize(
    ("target", "depth", "inside"),
    [
        ("a", 0, True), ("../a", 0, False), ("../a", 1, True), ("../../a", 1, False), ("./a/./b", 0, True),
        ("a/..", 1, False), ("", 1, False), ("/", 5, False), ("a\0b", 0, False), (".", 0, True),
    ],
)  # fmt: skip
def test_which_symlinks_stay_inside(target: str, depth: int, inside: bool) -> None:
    assert stays_inside(target, depth) is inside
