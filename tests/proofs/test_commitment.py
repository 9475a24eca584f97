"""Commitments to blocks and pieces, held against the formulas written out naively."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag.block import MAX_BLOCK_BYTES
from proofs.commitment import (
    EMPTY,
    MAX_SUM,
    SUBTREE_BYTES,
    PieceRow,
    PieceTree,
    SumNode,
    commit_block,
    fold,
    leaf_count,
    path_levels,
    path_top,
    sum_node,
    unit_hash,
)
from proofs.errors import SumOverflow
from proofs.kinds import ProofKind

KNOWN = Path(__file__).parent / "vectors.json"


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def naive_top(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha(b"\x01", naive_top(leaves[:half]), naive_top(leaves[half:]))


def naive_leaves(data: bytes) -> list[bytes]:
    chunks = [data[i : i + 1024] for i in range(0, len(data), 1024)] or [b""]
    return [sha(b"\x00", index.to_bytes(4, "big"), chunk) for index, chunk in enumerate(chunks)]


def naive_root(data: bytes) -> bytes:
    return sha(b"\x02", len(data).to_bytes(4, "big"), naive_top(naive_leaves(data)))


def naive_piece(rows: list[PieceRow]) -> SumNode:
    if len(rows) == 1:
        row = rows[0]
        return SumNode(sha(b"\x03", row.multihash, row.leaves.to_bytes(4, "big"), row.root), row.leaves)
    half = 1
    while half * 2 < len(rows):
        half *= 2
    left, right = naive_piece(rows[:half]), naive_piece(rows[half:])
    joined = sha(b"\x04", left.sum.to_bytes(8, "big"), left.hash, right.sum.to_bytes(8, "big"), right.hash)
    return SumNode(joined, left.sum + right.sum)


def some_rows(count: int, seed: int = 1) -> list[PieceRow]:
    rng = random.Random(seed)
    return [PieceRow(rng.randbytes(34), rng.randint(1, 2048), rng.randbytes(32)) for _ in range(count)]


EDGES = [0, 1, 1023, 1024, 1025, 2048, 2049, 3 * 1024, SUBTREE_BYTES - 1, SUBTREE_BYTES, SUBTREE_BYTES + 1]
EDGES += [3 * SUBTREE_BYTES, 3 * SUBTREE_BYTES + 5000, 1024 * 1024, MAX_BLOCK_BYTES - 1, MAX_BLOCK_BYTES]


@pytest.mark.parametrize("length", EDGES)
def test_a_blocks_commitment_is_the_formula(length: int) -> None:
    data = random.Random(length).randbytes(length)
    commitment = commit_block(data)
    leaves = naive_leaves(data)
    assert commitment.root == naive_root(data)
    assert (commitment.length, commitment.leaves) == (length, len(leaves))
    assert commitment.leaves == leaf_count(length)
    assert commitment.subtrees == b"".join(naive_top(leaves[i : i + 128]) for i in range(0, len(leaves), 128))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=6000))
def test_any_buffer_gives_the_same_commitment(data: bytes) -> None:
    assert commit_block(memoryview(data)) == commit_block(bytearray(data)) == commit_block(data)
    assert commit_block(data).root == naive_root(data)


def test_length_and_position_are_bound() -> None:
    assert commit_block(b"").root != commit_block(b"\0").root
    assert commit_block(b"a" * 1024).root != commit_block(b"a" * 1024 + b"\0").root
    assert unit_hash(ProofKind.MERKLE, 0, b"x") != unit_hash(ProofKind.MERKLE, 1, b"x")


def naive_path(leaves: list[bytes], index: int) -> list[bytes]:
    """The hashes beside the path of one leaf, the highest first (RFC 6962 §2.1.1, turned round)."""
    if len(leaves) == 1:
        return []
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    if index < half:
        return [naive_top(leaves[half:]), *naive_path(leaves[:half], index)]
    return [naive_top(leaves[:half]), *naive_path(leaves[half:], index - half)]


@pytest.mark.parametrize("count", [*range(1, 36), 127, 128, 129, 1000, 2047, 2048])
def test_a_path_leads_to_the_top(count: int) -> None:
    leaves = [sha(b"leaf", n.to_bytes(4, "big")) for n in range(count)]
    top = fold(leaves)
    for index in range(count) if count < 36 else (0, 1, count // 2, count - 2, count - 1):
        beside = naive_path(leaves, index)
        assert path_levels(index, count) == len(beside)
        assert path_top(leaves[index], index, count, b"".join(beside)) == top
        if beside:
            assert path_top(leaves[index], index, count, b"".join(beside)[:-1]) != top
            assert path_top(leaves[index], index, count, b"".join(beside[:-1])) != top


def test_a_block_over_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        commit_block(bytes(MAX_BLOCK_BYTES + 1))


def test_known_answers() -> None:
    known = json.loads(KNOWN.read_text())
    for data, entry in zip((b"", b"holdfast", bytes(300_000)), known["proof_root"], strict=True):
        assert commit_block(data).root.hex() == entry["root"]
    rows = [PieceRow(b"\x12\x20" + bytes([i]) * 32, i + 1, bytes([i]) * 32) for i in range(5)]
    assert PieceTree(rows).root.hash.hex() == known["piece"]["hash"]
    assert PieceTree(rows).root.sum == known["piece"]["sum"]


@pytest.mark.parametrize("count", [*range(1, 20), 31, 32, 33, 100])
def test_a_pieces_tree_is_that_of_rfc_6962_with_sums(count: int) -> None:
    rows = some_rows(count)
    tree = PieceTree(rows)
    assert tree.root == naive_piece(rows)
    assert tree.top == max(0, count - 1).bit_length()


@pytest.mark.parametrize("count", [1, 2, 5, 16, 21])
def test_a_path_leads_from_each_row_to_the_root(count: int) -> None:
    rows = some_rows(count)
    tree = PieceTree(rows)
    for row in range(count):
        node, siblings = tree.node(0, row), iter(tree.path(row))
        for level in range(tree.top):
            index = row >> level
            if index ^ 1 < tree.width(level):
                sibling = next(siblings)
                node = sum_node(sibling, node) if index & 1 else sum_node(node, sibling)
        assert node == tree.root
        assert next(siblings, None) is None


def test_kept_levels_stand_for_hashing() -> None:
    rows = some_rows(11)
    tree = PieceTree(rows)
    places = [(level, index) for level in range(tree.top + 1) for index in range(tree.width(level))]
    for low in range(tree.top + 1):  # those below are made from the rows
        again = PieceTree(rows, [memoryview(level) for level in tree.levels[low:]])
        assert (again.root, again.top) == (tree.root, tree.top)
        assert [again.node(*place) for place in places] == [tree.node(*place) for place in places]
        assert [again.width(level) for level in range(tree.top)] == [11, 6, 3, 2]
    fewer, others = PieceTree(rows[:-1]).levels, PieceTree(rows + rows).levels
    for wrong in (tree.levels[:-1], tree.levels[:1], fewer, others, ()):
        with pytest.raises(ValueError, match="levels"):
            PieceTree(rows, wrong)


def test_a_piece_without_rows_is_empty() -> None:
    assert PieceTree([]).root == EMPTY


@pytest.mark.parametrize(
    "row",
    [
        PieceRow(b"\x12\x20" + bytes(32), 0, bytes(32)),
        PieceRow(b"\x12\x20" + bytes(32), 2049, bytes(32)),
        PieceRow(b"\x12\x20" + bytes(32), 1, bytes(31)),
        PieceRow(b"", 1, bytes(32)),
        PieceRow(bytes(140), 1, bytes(32)),
    ],
)
def test_rows_that_no_block_has_are_refused(row: PieceRow) -> None:
    with pytest.raises(ValueError, match=r"row|multihash"):
        PieceTree([row])


def test_sums_stop_at_63_bits() -> None:
    half = SumNode(bytes(32), MAX_SUM // 2)
    assert sum_node(half, SumNode(bytes(32), MAX_SUM - half.sum)).sum == MAX_SUM
    with pytest.raises(SumOverflow):
        sum_node(half, SumNode(bytes(32), MAX_SUM - half.sum + 1))


def test_both_sums_are_bound() -> None:
    a, b = SumNode(b"a" * 32, 5), SumNode(b"b" * 32, 7)
    moved = sum_node(a._replace(sum=6), b._replace(sum=6))
    assert moved.sum == sum_node(a, b).sum
    assert moved.hash != sum_node(a, b).hash != sum_node(b, a).hash
