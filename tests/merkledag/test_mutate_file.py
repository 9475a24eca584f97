"""Writing into files gives the CID of the result added afresh, and reads only the chunks it must."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import dag_pb
from merkledag.block import Block
from merkledag.builder import Link, build_file
from merkledag.chunker import FixedSize
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.errors import DecodeError, LimitExceeded, NoSuchLink, NotADirectory, NotAFile
from merkledag.mutate_file import MAX_CHUNKS, rewrite, survey
from merkledag.mutate_tree import find, is_directory, put, remove
from merkledag.profile import UNIXFS_V0_2015, UNIXFS_V1_2025, ImportProfile
from merkledag.reader import read_file
from merkledag.steps import iterate, run
from merkledag.unixfs import Data, Kind, Mtime
from tests.merkledag.support import Blocks

V1 = replace(UNIXFS_V1_2025, chunker=FixedSize(4), max_links=3)
V0 = replace(UNIXFS_V0_2015, chunker=FixedSize(4), max_links=3)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def built(profile: ImportProfile, data: bytes, blocks: Blocks, **stat: Any) -> Link:
    link, made = build_file(profile, cut(data, profile.chunker.max_bytes), **stat)
    blocks.add(made)
    return link


def written(
    profile: ImportProfile, blocks: Blocks, cid: CID | None, offset: int, data: bytes, **options: Any
) -> Link:
    old = None if cid is None else run(survey(profile, cid), blocks.get)
    items = list(iterate(rewrite(profile, old, offset, cut(data, 3), **options), blocks.get))
    blocks.add(item for item in items if isinstance(item, Block))
    link = items[-1]
    assert isinstance(link, Link)
    return link


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=70),
    st.lists(st.tuples(st.integers(0, 90), st.binary(max_size=20), st.booleans()), min_size=1, max_size=4),
    st.sampled_from([V1, V0, replace(V1, chunker=FixedSize(7)), replace(V1, hash_code=0x1E)]),
    st.sampled_from([V1, V0]),
    st.sampled_from([{}, {"mode": 0o600, "mtime": Mtime(1, 2)}]),
)
def test_the_result_is_the_file_added_afresh(
    data: bytes,
    writes: list[tuple[int, bytes, bool]],
    profile: ImportProfile,
    first: ImportProfile,
    stat: dict[str, Any],
) -> None:
    """Whatever wrote the file before, at any offset, with holes, truncated or not."""
    blocks = Blocks()
    link = built(first, data, blocks, **stat)
    for offset, piece, truncate in writes:
        link = written(profile, blocks, link.cid, offset, piece, truncate=truncate, **stat)
        base = b"" if truncate else data
        data = base[:offset].ljust(offset, b"\0") + piece + base[offset + len(piece) :]
        assert link == built(profile, data, Blocks(), **stat)
        fresh = Blocks()
        built(profile, data, fresh, **stat)
        assert fresh.by_cid.keys() <= blocks.by_cid.keys()


def test_only_what_is_written_is_read() -> None:
    blocks = Blocks()
    profile = replace(V1, max_links=10)
    data = bytes(range(250)) * 4
    link = built(profile, data, blocks)
    leaves = {cid for cid in blocks.by_cid if cid.codec == RAW}
    blocks.asked.clear()
    written(profile, blocks, link.cid, 402, b"xy")
    assert len(leaves & set(blocks.asked)) == 1
    blocks.asked.clear()
    written(profile, blocks, link.cid, len(data), b"more")
    assert not leaves & set(blocks.asked)


def test_an_empty_write_changes_nothing() -> None:
    blocks = Blocks()
    link = built(V1, b"0123456789", blocks)
    assert written(V1, blocks, link.cid, 3, b"") == link
    assert written(V1, blocks, None, 0, b"") == built(V1, b"", blocks)


def test_a_wide_gap_costs_one_chunk_of_zeros() -> None:
    """Sparse: 40 GB of zeros are hashed once."""
    blocks = Blocks()
    profile = replace(V1, chunker=FixedSize(1 << 20))
    offset = 40_000 * (1 << 20) + 5
    link = written(profile, blocks, None, offset, b"end")
    assert link.size_bytes == offset + 3
    assert [cid.codec for cid in blocks.by_cid].count(RAW) == 2
    assert (
        b"".join(bytes(x) for x in iterate(read_file(link.cid, offset - 2, None), blocks.get)) == b"\0\0end"
    )


def test_a_file_over_the_limit_is_refused_at_once() -> None:
    size_bytes = MAX_CHUNKS * V1.chunker.max_bytes
    with pytest.raises(LimitExceeded):
        list(rewrite(V1, None, size_bytes + 1, []))
    with pytest.raises(LimitExceeded):
        list(rewrite(V1, None, 2**63, [b"x"]))


def test_what_is_no_file_cannot_be_written() -> None:
    blocks = Blocks()
    for cid in (
        blocks.put_node([], Data(Kind.DIRECTORY)),
        blocks.put_node([], None),
        blocks.put(b"\xa0", 0x71),
    ):
        with pytest.raises(NotAFile):
            run(survey(V1, cid), blocks.get)
    lying = blocks.put_file([(blocks.put(b"abcd", RAW), 3)])
    old = run(survey(V1, lying), blocks.get)
    with pytest.raises(DecodeError):
        list(iterate(rewrite(V1, old, 1, [b"x"]), blocks.get))


class TestTrees:
    def setup_method(self) -> None:
        self.blocks = Blocks()
        self.root = self.blocks.put_node([], Data(Kind.DIRECTORY))
        self.leaf = self.blocks.put(b"leaf", RAW)

    def put(self, path: str, cid: CID | None = None, *, parents: bool = False) -> None:
        target = self.leaf if cid is None else cid
        link, made = run(put(V1, self.root, path.split("/"), target, 4, parents=parents), self.blocks.get)
        self.blocks.add(made)
        self.root = link.cid
        node = dag_pb.decode(self.blocks.by_cid[link.cid])
        assert link.tsize == len(self.blocks.by_cid[link.cid]) + sum(each.tsize or 0 for each in node.links)

    def find(self, path: str) -> CID:
        return run(find(self.root, path.split("/")), self.blocks.get)

    def test_folders_on_the_way_are_made_when_asked(self) -> None:
        with pytest.raises(NoSuchLink):
            self.put("a/b/c")
        self.put("a/b/c", parents=True)
        self.put("a/d")
        assert self.find("a/b/c") == self.find("a/d") == self.leaf
        assert run(is_directory(self.find("a/b")), self.blocks.get)
        assert not run(is_directory(self.leaf), self.blocks.get)
        with pytest.raises(NotADirectory):
            self.put("a/d/e", parents=True)

    def test_what_is_removed_leaves_the_tree_as_if_it_never_was(self) -> None:
        self.put("a/x", parents=True)
        before = self.root
        self.put("a/b/c", parents=True)
        link, made = run(remove(V1, self.root, ["a", "b"]), self.blocks.get)
        self.blocks.add(made)
        assert link.cid == before
        with pytest.raises(NoSuchLink):
            run(remove(V1, before, ["a", "b"]), self.blocks.get)
        link, _ = run(remove(V1, before, ["a"]), self.blocks.get)
        assert link.cid == CID.of(b"\x0a\2\x08\1", 0x70)
