"""What proofs cost, counted: flat for datasets of any size, bounded for bytes that nobody honest sends."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import pytest

from merkledag.multihash import Buffer
from proofs import commitment, tags
from proofs.challenge import MAX_DRAWN, Challenge
from proofs.commitment import (
    EMPTY,
    MAX_SUM,
    SUBTREE_BYTES,
    BlockCommitment,
    PieceRow,
    PieceTree,
    SumNode,
    commit_block,
    sum_node,
)
from proofs.errors import InvalidProof
from proofs.merkle_proof import prove, verify
from proofs.slot_tree import MAX_DEPTH
from proofs.walk import DatasetView, TreeView
from tests.proofs.datasets import as_proof, both_say

MIB = 2**20
BLOCK = random.Random(1).randbytes(MIB)
DRAWN = 34


class Counts:
    """Hashes made, reads and their bytes, and nodes looked up, since the last `reset`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.hashes = self.reads = self.read_bytes = self.nodes = 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    counts = Counts()

    class Counted:
        """The start of a hash; a copy of it is a hash."""

        def __init__(self, data: Buffer) -> None:
            self.start = hashlib.sha256(data)

        def copy(self) -> object:
            counts.hashes += 1
            return self.start.copy()

    def sha256(data: Buffer) -> object:
        return Counted(data).copy()

    starts = [Counted(tags.LEAF + index.to_bytes(4, "big")) for index in range(commitment.MAX_BLOCK_LEAVES)]
    monkeypatch.setattr(commitment, "_sha256", sha256)
    monkeypatch.setattr(commitment, "_new_inner", Counted(tags.INNER).copy)
    monkeypatch.setattr(commitment, "_leaf_starts", lambda: starts)
    return counts


@cache
def piece(rows: int) -> tuple[BlockCommitment, PieceTree]:
    """A piece of `rows` times the block, each under a name of its own."""
    made = commit_block(BLOCK)
    names = (b"\x12\x20" + n.to_bytes(32, "big") for n in range(rows))
    return made, PieceTree([PieceRow(name, made.leaves, made.root) for name in names])


class Uniform:
    """A slot tree of 2^depth times the same piece, of which no node is kept; implements `NodeStore`."""

    def __init__(self, counts: Counts, depth: int, rows: int) -> None:
        self.counts = counts
        self.tree = piece(rows)[1]
        self.levels = [self.tree.root]
        for _ in range(depth):
            self.levels.append(sum_node(self.levels[-1], self.levels[-1]))

    def get(self, level: int, index: int) -> SumNode:
        self.counts.nodes += 1
        return self.levels[level] if 0 <= index < 1 << len(self.levels) - 1 - level else EMPTY

    def put(self, level: int, index: int, node: SumNode) -> None:
        raise AssertionError("a prover changes nothing")

    @property
    def view(self) -> TreeView:
        return TreeView(self, lambda _: self.tree)


class World:
    """A dataset of 2^depth GiB and 2^depth MiB of metadata, and what its prover reads."""

    def __init__(self, counts: Counts, depth: int, number: int = 0, k: int = 30) -> None:
        self.counts = counts
        data, meta = Uniform(counts, depth, 1024), Uniform(counts, depth, 1)
        self.view = DatasetView(data.view, meta.view)
        seed = hashlib.sha256(b"world %d" % number).digest()
        self.challenge = Challenge(seed, data.levels[-1], depth, meta.levels[-1], depth, k)

    def read(self, _: bytes, offset: int, length: int) -> bytes:
        self.counts.reads += 1
        self.counts.read_bytes += length
        return BLOCK[offset : offset + length]

    def prove(self) -> bytes:
        return prove(self.challenge, self.view, self.read, lambda _: piece(1024)[0].subtrees)


def test_a_tebibyte_and_a_pebibyte_cost_what_a_gibibyte_does(counts: Counts) -> None:
    """The data is not there: the callbacks answer for it. Only lookups and path hashes grow, by level."""
    proven: dict[int, tuple[int, ...]] = {}
    checked: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for depth in (0, 10, 20):
        world = World(counts, depth)
        counts.reset()
        proof = world.prove()
        proven[depth] = (counts.hashes, counts.reads, counts.read_bytes, counts.nodes)
        counts.reset()
        verify(world.challenge, proof)
        checked[depth], sizes[depth] = counts.hashes, len(proof)
        assert both_say(world.challenge, proof)
        assert proven[depth][1] <= 2 * DRAWN  # the drawn subtree, and the last leaf for the length
        assert proven[depth][2] <= DRAWN * (SUBTREE_BYTES + 1024)
        # A subtree's 128 leaves and 127 nodes, the 7 above the block's 8 subtrees, and the proof root.
        assert proven[depth][0] <= DRAWN * (128 + 127 + 7 + 1)
        assert counts.nodes == 0
    assert proven[10][0] == proven[20][0]
    for level in (10, 20):
        assert checked[level] - checked[level - 10] <= 11 * DRAWN  # and paths meet a little less early
        assert sizes[level] - sizes[level - 10] <= 10 * DRAWN * 40
        assert proven[level][3] - proven[level - 10][3] <= 2 * 11 * DRAWN


def spread(count: int, bits: int) -> list[int]:
    """`count` leaves of 2^bits as far apart as can be, so that their paths share as little as can be."""
    return sorted(int(format(leaf, f"0{bits}b")[::-1], 2) for leaf in range(count))


def part_bytes(leaves: list[int], slots: int, rows: int, units: int) -> int:
    """The length of a part over 2^slots pieces of 2^rows blocks of 2^units leaves, by the documentation."""

    def width(most: int) -> int:
        return -(-most.bit_length() // 8)

    def below(level: int, first: int, some: list[int]) -> int:
        if level == units:
            size = width(1 << level) + 1 + 34 + width(1024 << level)
            return size + 1024 * len(some) + inside(level, first, some)
        return width(1 << level) + fork(below, level, first, some)

    def inside(level: int, first: int, some: list[int]) -> int:
        return fork(inside, level, first, some) if level else 0

    def fork(down: Callable[[int, int, list[int]], int], level: int, first: int, some: list[int]) -> int:
        middle = first + (1 << level - 1)
        left, right = [leaf for leaf in some if leaf < middle], [leaf for leaf in some if leaf >= middle]
        size = 32 if not left or not right else 0
        size += down(level - 1, first, left) if left else 0
        return size + (down(level - 1, middle, right) if right else 0)

    return below(slots + rows + units, 0, leaves)


def test_no_proof_of_a_tebibyte_is_longer_than_64_000_bytes(counts: Counts) -> None:
    """The formula, checked on real proofs, for the worst draw that there is, with 512 MiB of metadata."""
    envelope = len(as_proof(bytes(30_000), bytes(30_000)))
    longest = 0
    for number in range(5):
        world = World(counts, 10, number)
        data, meta = list(world.challenge.data_leaves()), list(world.challenge.meta_leaves())
        expected = part_bytes(data, 10, 10, 10) + part_bytes(meta, 10, 0, 10) + envelope - 60_000
        assert len(world.prove()) == expected
        longest = max(longest, expected)
    for slots, rows, units in ((10, 10, 10), (0, 20, 10), (20, 0, 10), (10, 9, 11)):
        worst = part_bytes(spread(30, 30), slots, rows, units) + part_bytes(spread(4, 19), 10, 3, 6)
        assert longest < worst + envelope - 60_000 <= 64_000


def test_the_prover_holds_one_block_at_a_time(counts: Counts) -> None:
    """Beyond the proof itself: never more than a drawn subtree, however many leaves there are."""
    piece(1024)  # what the node has anyhow
    peaks: dict[tuple[int, int], int] = {}
    for depth, k in ((0, 30), (20, 30), (20, 120)):
        world = World(counts, depth, k=k)
        tracemalloc.start()
        proof = world.prove()
        peaks[depth, k] = tracemalloc.get_traced_memory()[1] - 3 * len(proof)
        tracemalloc.stop()
    assert max(peaks.values()) < 5 * SUBTREE_BYTES
    assert peaks[20, 30] < peaks[0, 30] + SUBTREE_BYTES


# --- bytes that nobody honest sends


def lie(rng: random.Random, depth: int, total: int, leaves: list[int]) -> Iterator[bytes]:
    """A part that a verifier can follow to its end, with sums, rows and hashes made up; also deep ones."""

    def number(value: int, most: int) -> bytes:
        return value.to_bytes((most.bit_length() + 7) // 8, "big")

    def node(level: int, total: int, some: list[int]) -> Iterator[bytes]:
        if level <= 0 and (total == 1 or level == -32 or (total <= 2048 and rng.random() < 0.05)):
            yield from row(total, some)
            return
        if level <= 0 and total > 2048:  # what is drawn last, and up to 2,048 leaves around it, in one step
            left = rng.choice([max(1, some[-1] - 5), min(total - 1, some[-1] + 1), total // 2])
        else:
            left = rng.choice([some[0], some[-1] + 1, total // 2, total - 1, 1])
        if level <= 0:
            left = min(max(left, 1), total - 1)
        yield number(left, total)
        parts = [leaf for leaf in some if leaf < left], [leaf - left for leaf in some if leaf >= left]
        for side, size in zip(parts, (left, total - left), strict=True):
            if size and not side:
                yield rng.randbytes(32)
        for side, size in zip(parts, (left, total - left), strict=True):
            if side:
                yield from node(level - 1, size, side)

    def row(total: int, some: list[int]) -> Iterator[bytes]:
        yield number(0, total) + b"\x22\x12\x20" + rng.randbytes(32)
        yield number(min(total, 2048) * 1024, total * 1024)
        yield from (bytes(1024) for _ in some)
        yield from inside(0, total, some)

    def inside(first: int, count: int, some: list[int]) -> Iterator[bytes]:
        if count == 1:
            return
        split = 1 << (count - 1).bit_length() - 1
        left = [leaf for leaf in some if leaf < first + split]
        right = some[len(left) :]
        if not left or not right:
            yield rng.randbytes(32)
        if left:
            yield from inside(first, split, left)
        if right:
            yield from inside(first + split, count - split, right)

    return node(depth, total, leaves)


def most_hashes(challenge: Challenge) -> int:
    """What the documentation says under "Limits"."""
    data = min(challenge.k, challenge.data.sum) * (14 + challenge.data_depth + 32)
    return data + min(challenge.meta_k, challenge.meta.sum) * (14 + challenge.meta_depth + 32)


@pytest.mark.parametrize("seed", range(60))
def test_lies_cost_no_more_than_the_challenge_allows(counts: Counts, seed: int) -> None:
    rng = random.Random(seed)
    root = SumNode(rng.randbytes(32), rng.choice([1, 40, 2500, 10**6, 2**30, MAX_SUM]))
    depth = rng.choice([0, 3, 20])
    challenge = Challenge(rng.randbytes(32), root, depth, root, depth, rng.choice([1, 30]))
    drawn = list(challenge.data_leaves()), list(challenge.meta_leaves())
    proof = as_proof(*(b"".join(lie(rng, depth, root.sum, leaves)) for leaves in drawn))
    assert len(proof) <= challenge.max_proof_bytes()
    with pytest.raises(InvalidProof):
        verify(challenge, proof)
    assert counts.hashes <= most_hashes(challenge)
    assert not both_say(challenge, proof)


def test_the_bound_is_no_wider_than_it_must_be(counts: Counts) -> None:
    """One drawn leaf below 20 levels of slots, 32 of a piece and a block of 2,048 leaves needs all of it."""
    part, node = b"", EMPTY
    data = random.Random(2).randbytes(2 * MIB)
    made = commit_block(data)
    row = PieceRow(b"\x12\x20" + bytes(32), made.leaves, made.root)
    node = PieceTree([row]).root
    levels = []
    for level in range(32 + MAX_DEPTH):
        beside = SumNode(level.to_bytes(32, "big"), 1)
        levels.append((node.sum, beside.hash))
        node = sum_node(node, beside)
    challenge = Challenge(bytes(32), node, MAX_DEPTH, EMPTY, 0, k=1)
    challenge = next(
        tried
        for tried in (replace(challenge, seed=n.to_bytes(32, "big")) for n in range(99))
        if tried.data_leaves()[0] < 2048
    )
    leaf = challenge.data_leaves()[0]
    for total, beside_hash in reversed(levels):
        part += total.to_bytes(2, "big") + beside_hash
    part += bytes(2) + b"\x22" + row.multihash + len(data).to_bytes(3, "big")
    part += data[leaf * 1024 : leaf * 1024 + 1024]
    leaves = commitment.leaf_hashes(data, 0)
    for level in range(10, -1, -1):
        start = (leaf >> level ^ 1) << level
        part += commitment.fold(leaves[start : start + (1 << level)])
    counts.reset()
    verify(challenge, as_proof(part))
    assert counts.hashes == most_hashes(challenge) == 66
    assert both_say(challenge, as_proof(part))


@pytest.mark.parametrize("filler", ["zeros", "ones", "random", "lists", "maps", "texts", "bytes of all"])
def test_junk_is_refused_without_being_taken_apart(counts: Counts, filler: str) -> None:
    """At the largest challenge that there is, the longest bytes are neither copied often nor parsed."""
    root = SumNode(bytes(32), MAX_SUM)
    challenge = Challenge(bytes(32), root, MAX_DEPTH, root, MAX_DEPTH, MAX_DRAWN, MAX_DRAWN)
    size = challenge.max_proof_bytes()
    half = (size - 60) // 2
    junk = {
        "zeros": as_proof(bytes(half), bytes(half)),
        "ones": as_proof(b"\xff" * half, b"\xff" * half),
        "random": as_proof(random.Random(3).randbytes(half), random.Random(4).randbytes(half)),
        "lists": b"\x80" * size,
        "maps": b"\xa1\x60" * (size // 2),
        "texts": b"\x9a" + (size - 5).to_bytes(4, "big") + b"\x60" * (size - 5),
        "bytes of all": b"\x5a" + (size - 5).to_bytes(4, "big") + bytes(size - 5),
    }[filler]
    tracemalloc.start()
    with pytest.raises(InvalidProof):
        verify(challenge, junk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.hashes <= most_hashes(challenge)
    assert peak < 4 * size
