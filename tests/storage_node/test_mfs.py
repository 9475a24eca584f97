"""The mutable tree against a plain model, under collections, and with several writers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from merkledag.builder import build_file
from merkledag.chunker import FixedSize
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import InvalidPath, NoSuchLink, NotADirectory, NotAFile, PathError
from merkledag.folder import entries
from merkledag.profile import UNIXFS_V1_2025
from merkledag.reader import read_file
from merkledag.steps import Buffer, iterate
from merkledag.unixfs import Mtime
from storage_node.blockstore.interface import PutResult
from storage_node.blockstore.store import Store, open_store
from storage_node.errors import IncompleteDag
from storage_node.gc import collect
from storage_node.meta import Meta, Table
from storage_node.mfs import ROOT_KEY, Mfs, parse, roots
from storage_node.mfs_partial import PartialNodes, path_to
from storage_node.mfs_view import Segments
from storage_node.pins import Pins

PROFILE = replace(UNIXFS_V1_2025, chunker=FixedSize(8), max_links=3, hamt_threshold_bytes=150, hamt_fanout=8)

Model = dict[str, "Model | bytes"]


class Tree:
    """A store with its mutable tree."""

    def __init__(self, folder: Path) -> None:
        (folder / "blocks").mkdir(parents=True)
        (folder / "meta").mkdir()
        self.store: Store = open_store(folder / "blocks", reserve_bytes=0)
        self.meta = Meta(folder / "meta")
        self.mfs = self.another()

    def another(self) -> Mfs:
        return Mfs(
            self.store, self.meta, PROFILE, lambda cid: self.store.get(cid.multihash), lambda: 5_250_000_000
        )

    def collect(self) -> None:
        collect(
            self.store,
            Pins(self.meta, lambda: 0.0),
            roots=roots(self.meta),
            is_partial=PartialNodes(self.meta),
        )

    def read(self, path: str) -> bytes:
        view = self.mfs.view()
        return b"".join(iterate(read_file(view.find(parse(path))), view.get))

    def content(self, path: str = "/") -> Model:
        view = self.mfs.view()
        found: Model = {}
        for entry in iterate(entries(view.find(parse(path))), view.get):
            inner = f"{path}{entry.name}"
            found[entry.name] = self.content(inner + "/") if view.is_folder(entry.cid) else self.read(inner)
        return found


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    made = Tree(tmp_path)
    yield made
    made.store.close()


def afresh(content: Model | bytes) -> DirEntry:
    """What building everything from scratch gives."""
    if isinstance(content, bytes):
        link, _ = build_file(PROFILE, [content[at : at + 8] for at in range(0, len(content), 8)])
        return DirEntry("", link.cid, link.tsize)
    rows = [afresh(inner)._replace(name=name) for name, inner in content.items()]
    link, _ = build_directory(PROFILE, rows)
    return DirEntry("", link.cid, link.tsize)


NAMES = st.sampled_from(["a", "b", "c", "longer name", "ü"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)


def _machine(tree: Tree) -> type[RuleBasedStateMachine]:
    class Machine(RuleBasedStateMachine):
        """Every operation on the tree and on dicts: the same content, the same refusals."""

        def __init__(self) -> None:
            super().__init__()
            for name in list(tree.content()):
                tree.mfs.remove((name,), recursive=True)
            self.model: Model = {}

        def at(self, path: tuple[str, ...]) -> Model | bytes | None:
            here: Model | bytes | None = self.model
            for name in path:
                here = here.get(name) if isinstance(here, dict) else None
            return here

        def folder(self, path: tuple[str, ...], parents: bool) -> Model | None:
            """The model's folder that holds a path, None if it cannot be."""
            here: Model | bytes = self.model
            for name in path[:-1]:
                if not isinstance(here, dict):
                    return None
                if name not in here:
                    if not parents:
                        return None
                    here = {}
                    continue
                here = here[name]
            if not isinstance(here, dict):
                return None
            here = self.model
            for name in path[:-1]:
                assert isinstance(here, dict)
                here = here.setdefault(name, {})
            assert isinstance(here, dict)
            return here

        def refused(
            self,
            path: tuple[str, ...],
            operation: Callable[..., object],
            *arguments: object,
            **options: object,
        ) -> None:
            with pytest.raises(PathError):
                operation(path, *arguments, **options)

        @rule(path=PATHS, parents=st.booleans())
        def mkdir(self, path: Segments, parents: bool) -> None:
            there = self.at(path)
            if there is not None and not (parents and isinstance(there, dict)):
                self.refused(path, tree.mfs.mkdir, parents=parents)
                return
            folder = self.folder(path, parents)
            if folder is None:
                self.refused(path, tree.mfs.mkdir, parents=parents)
                return
            tree.mfs.mkdir(path, parents=parents)
            folder.setdefault(path[-1], {})

        @rule(
            path=PATHS,
            data=st.binary(max_size=30),
            offset=st.integers(0, 40),
            flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
        )
        def write(self, path: Segments, data: bytes, offset: int, flags: tuple[bool, bool, bool]) -> None:
            create, parents, truncate = flags
            options: Any = {"offset": offset, "create": create, "parents": parents, "truncate": truncate}
            there = self.at(path)
            if isinstance(there, dict) or (there is None and not create):
                self.refused(path, tree.mfs.write, [data], **options)
                return
            folder = self.folder(path, parents)
            if folder is None:
                self.refused(path, tree.mfs.write, [data], **options)
                return
            tree.mfs.write(path, [data], **options)
            base = b"" if truncate or there is None else there
            folder[path[-1]] = base[:offset].ljust(offset, b"\0") + data + base[offset + len(data) :]

        @rule(path=PATHS, recursive=st.booleans())
        def remove(self, path: Segments, recursive: bool) -> None:
            there = self.at(path)
            if there is None or (isinstance(there, dict) and not recursive):
                self.refused(path, tree.mfs.remove, recursive=recursive)
                return
            tree.mfs.remove(path, recursive=recursive)
            folder = self.at(path[:-1])
            assert isinstance(folder, dict)
            del folder[path[-1]]

        @rule(source=PATHS, to=PATHS)
        def copy(self, source: Segments, to: Segments) -> None:
            there, folder = self.at(source), self.at(to[:-1])
            if there is None or self.at(to) is not None or not isinstance(folder, dict):
                self.refused(source, tree.mfs.copy, to)
                return
            tree.mfs.copy(source, to)
            folder[to[-1]] = _clone(there)

        @rule(source=PATHS, to=PATHS)
        def move(self, source: Segments, to: Segments) -> None:
            there = self.at(source)
            place = (*to, source[-1]) if isinstance(self.at(to), dict) else to
            before, after = self.at(source[:-1]), self.at(place[:-1])
            lost = there is None or not isinstance(after, dict)
            if not lost and place == source:
                tree.mfs.move(source, to)
                return
            into_itself = place[: len(source)] == source
            if lost or into_itself or (place != to and isinstance(self.at(place), dict)):
                self.refused(source, tree.mfs.move, to)
                return
            tree.mfs.move(source, to)
            assert isinstance(before, dict)
            assert isinstance(after, dict)
            assert there is not None
            del before[source[-1]]
            after[place[-1]] = there

        @rule()
        def collect(self) -> None:
            tree.collect()

        @invariant()
        def is_the_model_built_afresh(self) -> None:
            assert tree.mfs.view().root == afresh(self.model).cid

        def teardown(self) -> None:
            assert tree.content() == self.model

    return Machine


def _clone(content: Model | bytes) -> Model | bytes:
    return content if isinstance(content, bytes) else {name: _clone(inner) for name, inner in content.items()}


def test_the_tree_is_what_a_plain_model_says(tree: Tree) -> None:
    """Its root is at every moment the CID of the same content built from scratch."""
    run_state_machine_as_test(
        _machine(tree),
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_long_write_goes_into_what_the_file_is_by_then(tree: Tree) -> None:
    """Somebody writes while our data is still coming: both writes are in the file."""
    path = ("f",)
    tree.mfs.write(path, [b"0" * 20], create=True)

    def slow() -> Iterator[Buffer]:
        yield b"aa"
        tree.another().write(path, [b"bbb"], offset=10)
        tree.another().mkdir(("beside",))
        yield b"aa"

    tree.mfs.write(path, slow(), offset=2)
    assert tree.read("/f") == b"00aaaa0000bbb0000000"
    assert tree.mfs.view().is_folder(tree.mfs.view().find(("beside",)))


def test_a_change_that_was_overtaken_is_made_again(tree: Tree) -> None:
    """The second writer comes between the first one's reading and its swap of the root."""
    other = tree.another()
    put_many = tree.store.put_many
    rivals = iter(["x", "y"])

    def put_many_late(*arguments: Any, **options: Any) -> PutResult:
        result = put_many(*arguments, **options)
        name = next(rivals, None)
        if name is not None:
            other.mkdir((name,))
        return result

    tree.store.put_many = put_many_late  # type: ignore[method-assign]
    tree.mfs.mkdir(("mine",))
    assert sorted(tree.content()) == ["mine", "x", "y"]


def test_blocks_that_only_an_old_root_had_may_vanish_under_a_change(tree: Tree) -> None:
    """Another writer replaces the root, and a collection frees the old one, while it is being looked at."""
    tree.mfs.write(("docs", "a"), [b"a"], create=True, parents=True)
    other = tree.another()
    root = tree.mfs.view().root

    def get(cid: CID) -> Buffer:
        if cid == root and tree.mfs.view().root == root:
            other.write(("docs", "b"), [b"b"], create=True)
            tree.store.delete_many([root.multihash])
        return tree.store.get(cid.multihash)

    mfs = Mfs(tree.store, tree.meta, PROFILE, get, lambda: 0)
    mfs.write(("docs", "c"), [b"c"], create=True)
    assert tree.content("/docs/") == {"a": b"a", "b": b"b", "c": b"c"}


def test_a_collection_keeps_the_tree_and_nothing_it_lost(tree: Tree) -> None:
    tree.mfs.write(("kept",), [b"k" * 100], create=True)
    tree.mfs.write(("gone",), [b"g" * 100], create=True)
    gone = tree.mfs.view().find(("gone",))
    tree.mfs.remove(("gone",))
    tree.collect()
    assert not tree.store.has(gone.multihash)
    assert tree.read("/kept") == b"k" * 100


def test_content_that_is_not_here_can_be_linked(tree: Tree) -> None:
    """Its root alone is fetched; a collection passes over what is missing."""
    absent = CID.of(b"elsewhere", RAW)
    link, (block,) = build_directory(PROFILE, [DirEntry("far", absent, 9)])
    mfs = Mfs(tree.store, tree.meta, PROFILE, lambda cid: block.data if cid == link.cid else b"", lambda: 0)
    mfs.link(link.cid, ("there",))
    tree.collect()
    assert tree.mfs.view().find(("there", "far")) == absent
    assert tree.mfs.view().stat(link.cid).cumulative_bytes == link.tsize


def lost(tree: Tree, path: str) -> CID:
    """Deletes the block of what is at a path."""
    cid = tree.mfs.view().find(parse(path))
    tree.store.delete_many([cid.multihash])
    return cid


@pytest.mark.parametrize("path", ["/", "/d", "/d/e", "/d/e/f"])
def test_nothing_is_freed_while_a_part_of_the_tree_is_lost(tree: Tree, path: str) -> None:
    """What hangs below it is unknown; it can be put again, or let go of."""
    tree.mfs.write(("d", "e", "f"), [b"x" * 100], create=True, parents=True)
    leaves = [key for key, row in tree.store.rows() if row.length == 8]
    block = tree.store.get(tree.mfs.view().find(parse(path)).multihash)
    cid = lost(tree, path)
    with pytest.raises(IncompleteDag, match=str(cid)) as caught:
        tree.collect()
    assert caught.value.cid == cid
    where = path_to(tree.store, tree.mfs.view().root, cid, PartialNodes(tree.meta))
    assert where == parse(path)
    assert all(tree.store.has(leaf) for leaf in leaves)
    tree.store.put_many([(cid.multihash, block)])
    tree.collect()
    assert tree.read("/d/e/f") == b"x" * 100
    lost(tree, path)
    tree.mfs.remove(parse(path), recursive=True)
    tree.collect()
    assert not any(tree.store.has(leaf) for leaf in leaves)


class Elsewhere:
    """A folder `far` with a folder and a file in it, which others have; a tree that can fetch from them."""

    def __init__(self, tree: Tree) -> None:
        self.blocks: dict[CID, Buffer] = {}
        file, made = build_file(PROFILE, [b"12345678", b"abcdefgh"])
        inner, more = build_directory(PROFILE, [DirEntry("file", file.cid, file.tsize)])
        self.outer, most = build_directory(PROFILE, [DirEntry("inner", inner.cid, inner.tsize)])
        self.blocks = {block.cid: block.data for block in (*made, *more, *most)}
        self.inner, self.file = inner.cid, file.cid
        self.mfs = Mfs(tree.store, tree.meta, PROFILE, self.get, lambda: 0)
        self.tree = tree

    def get(self, cid: CID) -> Buffer:
        view = self.tree.store.find(cid.multihash)
        if view is None:
            return self.blocks[cid]
        with view as block:
            return bytes(block)

    def fetch(self) -> None:
        self.tree.store.put_many((cid.multihash, data) for cid, data in self.blocks.items())


Change = Callable[[Mfs], None]


@pytest.mark.parametrize(
    "change",
    [
        lambda mfs: mfs.write(("far", "inner", "file"), [b"new"], offset=3),
        lambda mfs: mfs.write(("far", "inner", "new"), [b"new"], create=True),
        lambda mfs: mfs.mkdir(("far", "inner", "deep", "er"), parents=True),
        lambda mfs: mfs.copy(("far", "inner"), ("copy",)),
        lambda mfs: mfs.copy(("far", "inner", "file"), ("copy",)),
        lambda mfs: mfs.move(("far", "inner"), ("moved",)),
        lambda mfs: mfs.move(("far",), ("moved",)),
        lambda mfs: mfs.remove(("far", "inner", "file")),
        lambda mfs: mfs.write(("strict",), [b"x"], create=True),
    ],
)
def test_what_is_made_of_lazily_linked_content_need_not_be_whole_either(tree: Tree, change: Change) -> None:
    elsewhere = Elsewhere(tree)
    tree.mfs.write(("whole", "f"), [b"w" * 50], create=True, parents=True)
    elsewhere.mfs.link(elsewhere.outer.cid, ("far",))
    change(elsewhere.mfs)
    tree.collect()
    lost(tree, "/whole/f")
    with pytest.raises(IncompleteDag):
        tree.collect()


def test_content_that_is_all_here_is_whole_from_then_on(tree: Tree) -> None:
    elsewhere = Elsewhere(tree)
    elsewhere.mfs.link(elsewhere.outer.cid, ("far",))
    elsewhere.fetch()
    above, (block,) = build_directory(PROFILE, [DirEntry("x", elsewhere.outer.cid, 1)])
    tree.store.put_many([(block.cid.multihash, block.data)])
    elsewhere.mfs.link(above.cid, ("above",))
    tree.store.delete_many([elsewhere.inner.multihash])
    with pytest.raises(IncompleteDag, match=str(elsewhere.inner)):
        tree.collect()


def test_what_a_truncating_write_makes_is_whole(tree: Tree) -> None:
    elsewhere = Elsewhere(tree)
    elsewhere.mfs.link(elsewhere.file, ("file",))
    elsewhere.mfs.write(("file",), [b"0" * 30], truncate=True)
    tree.store.delete_many([CID.of(b"0" * 8, RAW).multihash])
    tree.collect()  # a leaf has nothing below it
    lost(tree, "/file")
    with pytest.raises(IncompleteDag):
        tree.collect()


def test_nodes_that_left_the_tree_are_forgotten(tree: Tree) -> None:
    elsewhere = Elsewhere(tree)
    elsewhere.mfs.link(elsewhere.outer.cid, ("far",))
    for number in range(5):
        elsewhere.mfs.write(("far", "inner", f"{number}"), [b"new"], create=True)
    noted = [key for key, _ in tree.meta.items(Table.RECORDS, b"mfs-partial/")]
    assert len(noted) == 6
    partial = PartialNodes(tree.meta)
    before = tree.meta.get(Table.RECORDS, ROOT_KEY)
    collect(tree.store, Pins(tree.meta, lambda: 0), roots=roots(tree.meta), is_partial=partial)
    tree.mfs.mkdir(("late",))
    assert partial.forget_unseen(before, ROOT_KEY) == 0
    collect(tree.store, Pins(tree.meta, lambda: 0), roots=roots(tree.meta), is_partial=partial)
    assert partial.forget_unseen(tree.meta.get(Table.RECORDS, ROOT_KEY), ROOT_KEY) == 5
    tree.collect()


@pytest.mark.parametrize(
    "path", ["", "a", "ipfs/x", "/a\0b", "/" + "x" * 1100, "/a" * 1025, "/" + "x/" * 10_000]
)
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(InvalidPath):
        parse(path)


def test_paths_are_cleaned() -> None:
    assert parse("/a/./b//../c/") == ("a", "c")
    assert parse("/../..") == ()


def test_the_kinds_of_refusal(tree: Tree) -> None:
    mfs = tree.mfs
    mfs.write(("f",), [b"x"], create=True)
    mfs.mkdir(("d",))
    with pytest.raises(NotADirectory, match="/f is no folder"):
        mfs.mkdir(("f", "x"))
    with pytest.raises(NoSuchLink, match="no link named 'q' under /d"):
        mfs.view().find(("d", "q", "r"))
    with pytest.raises(NotAFile, match="/d is a folder"):
        mfs.write(("d",), [b""])
    with pytest.raises(PathError, match="root"):
        mfs.remove((), recursive=True)
    with pytest.raises(PathError, match="into itself"):
        mfs.move((), ("d",))
    with pytest.raises(NotADirectory):
        mfs.move(("d",), ("new",), into=True)
    with pytest.raises(PathError, match="exists already"):
        mfs.link(CID.parse("bafkqaaa"), ())


def test_attributes_survive_a_write(tree: Tree) -> None:
    link, made = build_file(PROFILE, [b"12345678", b"9"], mode=0o640, mtime=Mtime(1))
    tree.store.put_many((block.cid.multihash, block.data) for block in made)
    tree.mfs.link(link.cid, ("f",))
    tree.mfs.write(("f",), [b"ab"], offset=8)
    view = tree.mfs.view()
    node = view.stat(view.find(("f",))).node
    assert (node.mode, node.mtime, node.size_bytes) == (0o640, Mtime(5, 250_000_000), 10)
