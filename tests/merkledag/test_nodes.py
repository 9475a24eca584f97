"""Nodes kept for later look-ups: the same answers as from the blocks, fewer blocks, within a bound."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import dag_pb
from merkledag.block import Block
from merkledag.builder import build_file
from merkledag.cid import CID
from merkledag.directory import DirEntry, build_directory
from merkledag.errors import DecodeError, NoSuchLink
from merkledag.nodes import Nodes
from merkledag.profile import UNIXFS_V1_2025
from merkledag.reader import read_file
from merkledag.resolve import resolve
from merkledag.steps import Want

LEAF = CID.of(b"leaf")
ROOM_BYTES = 1 << 20
names = st.sampled_from(["", "a", "b", "ab", "x" * 127, "x" * 128, "é"])
links = st.builds(dag_pb.PBLink, st.just(LEAF), st.none() | names, st.none() | st.integers(0, 1 << 40))
nodes = st.builds(dag_pb.PBNode, st.lists(links, max_size=6).map(tuple), st.none() | st.binary(max_size=9))


def counted(steps: Generator[Any, Any, Any], blocks: dict[CID, bytes]) -> tuple[Any, list[CID]]:
    """What `steps` returns or yields, and the blocks that it wanted."""
    wanted: list[CID] = []
    items: list[bytes] = []
    try:
        item = next(steps)
        while True:
            if isinstance(item, Want):
                wanted.append(item.cid)
                item = steps.send(blocks[item.cid])
            else:
                items.append(bytes(item))
                item = steps.send(None)
    except StopIteration as stop:
        return (b"".join(items) if stop.value is None else stop.value), wanted


def outcome(find: Any, *wanted: bytes) -> Any:
    try:
        return find(*wanted)
    except DecodeError:
        return DecodeError


@given(nodes, st.lists(names, min_size=1, max_size=2))
def test_an_index_finds_what_find_finds(node: dag_pb.PBNode, wanted: list[str]) -> None:
    block = dag_pb.encode(node)
    encoded = [name.encode() for name in wanted]

    assert dag_pb.Index(block).find(*encoded) == dag_pb.find(block, *encoded)


@settings(max_examples=300)
@given(nodes, st.lists(names, min_size=1, max_size=2), st.data())
def test_an_index_of_a_broken_node_is_refused_or_finds_the_same(
    node: dag_pb.PBNode, wanted: list[str], data: st.DataObject
) -> None:
    block = bytearray(dag_pb.encode(node)) or bytearray(b"\x12")
    block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    encoded = [name.encode() for name in wanted]
    try:
        index = dag_pb.Index(bytes(block))
    except DecodeError:
        return  # whoever asks looks into the block instead

    assert outcome(index.find, *encoded) == outcome(partial(dag_pb.find, bytes(block)), *encoded)


def folder(entry_count: int) -> tuple[CID, dict[CID, bytes]]:
    entries = [DirEntry(f"file-{number}", LEAF, 4) for number in range(entry_count)]
    link, blocks = build_directory(UNIXFS_V1_2025, entries)
    return link.cid, as_dict(blocks)


def as_dict(blocks: Iterable[Block]) -> dict[CID, bytes]:
    return {block.cid: bytes(block.data) for block in blocks}


def test_a_folder_is_wanted_once() -> None:
    root, blocks = folder(50)
    kept = Nodes.bounded(ROOM_BYTES)

    first = counted(resolve(root, ["file-1"], nodes=kept), blocks)
    second = counted(resolve(root, ["file-2"], nodes=kept), blocks)

    assert first[1] == [root]
    assert second[1] == []
    assert second[0] == counted(resolve(root, ["file-2"]), blocks)[0]
    with pytest.raises(NoSuchLink):
        counted(resolve(root, ["file-50"], nodes=kept), blocks)


def test_the_shards_of_a_large_folder_are_wanted_once() -> None:
    root, blocks = folder(8_000)
    assert len(blocks) > 2
    kept = Nodes.bounded(8 * ROOM_BYTES)
    some = [f"file-{number}" for number in range(0, 8_000, 400)]
    plain = [counted(resolve(root, [name]), blocks) for name in some]

    kept_first = [counted(resolve(root, [name], nodes=kept), blocks) for name in some]
    kept_again = [counted(resolve(root, [name], nodes=kept), blocks) for name in some]

    assert [found for found, _ in kept_first] == [found for found, _ in kept_again] == [f for f, _ in plain]
    assert sum(len(wanted) for _, wanted in kept_first) == len({cid for _, wanted in plain for cid in wanted})
    assert not any(wanted for _, wanted in kept_again)


def test_the_inner_nodes_of_a_file_are_wanted_once() -> None:
    data = bytes(range(256)) * 40
    link, made = build_file(UNIXFS_V1_2025, [data[at : at + 100] for at in range(0, len(data), 100)])
    blocks = as_dict(made)
    kept = Nodes.bounded(ROOM_BYTES)
    assert counted(read_file(link.cid, 0, 150, nodes=kept), blocks)[0] == data[:150]

    found, wanted = counted(read_file(link.cid, 5_000, 5_300, nodes=kept), blocks)

    assert found == data[5_000:5_300]
    assert link.cid not in wanted
    assert len(wanted) == 3


def test_what_was_not_asked_for_the_longest_goes() -> None:
    folders = [folder(count) for count in (40, 41, 42, 43, 44)]
    blocks = {cid: data for _, some in folders for cid, data in some.items()}
    one_bytes = dag_pb.Index(blocks[folders[-1][0]]).kept_bytes
    kept = Nodes.bounded(2 * 4 * one_bytes)  # four of them

    for root, _ in [*folders[:4], folders[0], folders[4]]:
        counted(resolve(root, ["file-1"], nodes=kept), blocks)

    assert kept.folders.bytes <= 4 * one_bytes
    assert kept.folders.get(folders[0][0]) is not None
    assert kept.folders.get(folders[1][0]) is None


def test_a_large_node_is_not_kept() -> None:
    root, blocks = folder(1_000)
    kept = Nodes.bounded(4 * len(blocks[root]))

    counted(resolve(root, ["file-1"], nodes=kept), blocks)

    assert kept.folders.bytes == 0
