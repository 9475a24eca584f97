"""Scopes and byte ranges of DAGs: which blocks a client needs to verify what it asked for (IPIP-402)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from merkledag import dag_cbor
from merkledag.builder import build_file
from merkledag.chunker import fixed_chunks
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, RAW
from merkledag.directory import DirEntry, build_directory
from merkledag.multihash import IDENTITY
from merkledag.profile import UNIXFS_V1_2025
from merkledag.scope import EntityBytes, file_blocks, parse_entity_bytes, walk_scope
from merkledag.steps import iterate
from merkledag.traverse import walk_dag
from tests.merkledag.support import Blocks

TINY = replace(UNIXFS_V1_2025, max_links=3)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0:*", (0, 1026)),
        ("512:1023", (512, 1024)),
        ("512:-256", (512, 771)),
        ("-5:*", (1021, 1026)),
        ("-9999:*", (0, 1026)),
        ("-9999:-3", (0, 1024)),
        ("0:0", (0, 1)),
        ("5000:*", (0, 0)),
    ],
)
def test_entity_bytes(text: str, span: tuple[int, int]) -> None:
    assert parse_entity_bytes(text).span(1026) == span


@pytest.mark.parametrize(
    "text", ["", "5", ":", "a:b", "*:5", "5:4", "--1:*", "-:*", "1:2:3", "9" * 40 + ":*", "١:*", "1_0:*"]
)
def test_wrong_entity_bytes(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not from:to|ends before"):
        parse_entity_bytes(text)


def test_entity_bytes_from_the_end_may_reverse() -> None:
    assert EntityBytes(-1, -5).span(100) == (0, 0)


@pytest.fixture
def file() -> tuple[Blocks, CID, list[CID]]:
    """A file of three levels over 15 different chunks of 4 bytes."""
    chunks = list(fixed_chunks([bytes(range(60))], 4))
    link, made = build_file(TINY, chunks)
    return Blocks(made), link.cid, [CID.of(bytes(chunk)) for chunk in chunks]


def order(blocks: Blocks, cid: CID, text: str | None, *, dedupe: bool = True) -> list[CID]:
    part = None if text is None else parse_entity_bytes(text)
    return [block.cid for block in iterate(walk_scope(cid, "all", part, dedupe=dedupe), blocks.get)]


class TestScopes:
    def test_without_a_range_it_is_the_walk_of_that_scope(self, file: tuple[Blocks, CID, list[CID]]) -> None:
        blocks, cid, _ = file
        for scope in ("all", "entity", "block"):
            there = list(iterate(walk_scope(cid, scope), blocks.get))
            assert there == list(iterate(walk_dag(cid, scope=scope), blocks.get))

    def test_the_whole_file_by_its_bytes_is_the_entity(self, file: tuple[Blocks, CID, list[CID]]) -> None:
        blocks, cid, _ = file
        assert order(blocks, cid, "0:*") == [b.cid for b in iterate(walk_dag(cid), blocks.get)]

    @pytest.mark.parametrize(
        ("text", "first", "last"),
        [
            ("0:0", 0, 0),
            ("3:4", 0, 1),
            ("4:7", 1, 1),
            ("-1:*", 14, 14),
            ("-9999:0", 0, 0),
            ("59:9999", 14, 14),
        ],
    )
    def test_a_part_takes_its_chunks_and_the_nodes_above(
        self, file: tuple[Blocks, CID, list[CID]], text: str, first: int, last: int
    ) -> None:
        blocks, cid, chunks = file
        found = order(blocks, cid, text)
        assert [each for each in found if each.codec == RAW] == chunks[first : last + 1]
        assert found[0] == cid
        assert 2 <= sum(each.codec != RAW for each in found) <= 3

    @pytest.mark.parametrize("text", ["60:*", "5000:6000", "50:-30"])
    def test_a_part_outside_is_the_root_alone(self, file: tuple[Blocks, CID, list[CID]], text: str) -> None:
        blocks, cid, _ = file
        assert order(blocks, cid, text) == [cid]

    def test_what_is_no_file_has_no_parts(self) -> None:
        blocks = Blocks()
        leaf = blocks.put(b"leaf", RAW)
        folder, made = build_directory(TINY, [DirEntry(f"f{n}", leaf, 4) for n in range(9)], hamt="always")
        blocks.add(made)
        shards = [block.cid for block in iterate(walk_dag(folder.cid, scope="entity"), blocks.get)]
        assert order(blocks, folder.cid, "0:1") == shards
        value = blocks.put(dag_cbor.encode([leaf]), DAG_CBOR)
        assert order(blocks, value, "0:1") == [value]
        assert order(blocks, leaf, "0:1") == order(blocks, leaf, "9:*") == [leaf]

    def test_blocks_come_once_or_each_time(self) -> None:
        blocks = Blocks()
        same = blocks.put(b"same", RAW)
        inline = CID.of(b"in", RAW, IDENTITY)
        cid = blocks.put_file([(same, 4), (inline, 2), (same, 4)])
        assert order(blocks, cid, "0:*") == [cid, same]
        assert order(blocks, cid, "0:*", dedupe=False) == [cid, same, same]
        assert [b.cid for b in iterate(file_blocks(cid), blocks.get)] == [cid, same]
