"""What an attacker tries against proofs (the numbers are those of the red-team list in docs/proofs.md)."""

from __future__ import annotations

import hashlib
import random

import pytest

from proofs import slot_tree
from proofs.challenge import Challenge, detection, period_seed, sample
from proofs.commitment import (
    PieceRow,
    PieceTree,
    SumNode,
    commit_block,
    inner_hash,
    leaf_hashes,
    proof_root,
    sum_node,
)
from proofs.errors import InvalidProof
from proofs.merkle_proof import prove, verify
from tests.proofs.datasets import (
    BEACON,
    CHAIN,
    DATASET,
    NODE,
    Dataset,
    Holder,
    Taken,
    Tree,
    as_proof,
    both_say,
    cheat,
    random_dataset,
)
from tests.proofs.significance import binomial_tails


def accepted(challenge: Challenge, proof: bytes) -> bool:
    try:
        verify(challenge, proof)
    except InvalidProof:
        return False
    return True


def test_1_lost_leaves_are_caught_as_often_as_computed() -> None:
    """A node keeps every hash and lost 1 % of the leaves, in a run or spread, over thousands of periods."""
    holder = Holder()
    rows = [holder.add(random.Random(n).randbytes(25 * 1024)) for n in range(80)]
    dataset = Dataset(holder, Tree(0, {0: rows}), Tree(0, {}))
    caught, periods = 0, 2000
    for period in range(periods):
        places = range(730, 750) if period % 2 else range(7, 2000, 100)
        challenge = dataset.challenge(period=period)
        is_lost = any(leaf in places for leaf in challenge.data_leaves())
        caught += is_lost
        if period % (3 if is_lost else 20) == 0:
            lost = {(rows[place // 25].multihash, place % 25) for place in places}
            assert accepted(challenge, cheat(dataset, challenge, lost)) is not is_lost
    assert detection(2000, 20, 30) == pytest.approx(0.26, abs=0.005)
    assert min(binomial_tails(caught, periods, detection(2000, 20, 30))) > 0.001


def test_2_what_a_window_rarely_draws_a_spot_challenge_and_the_metadata_draw_find() -> None:
    """A small deal among large ones, and the interior nodes, which are few beside the data."""
    holder = Holder()
    large = [holder.add(random.Random(n).randbytes(600_000)) for n in range(4)]
    small = [holder.add(b"a small deal's only block")]
    interior = [holder.add(random.Random(90 + n).randbytes(700)) for n in range(3)]
    dataset = Dataset(holder, Tree(2, {0: large, 2: small}), Tree(2, {0: interior}))
    lost = {(small[0].multihash, 0)}
    missed = sum(
        accepted(challenge, cheat(dataset, challenge, lost))
        for challenge in (dataset.challenge(period=period) for period in range(40))
    )
    assert missed >= 38
    spot = Dataset(holder, Tree(0, {0: small}), Tree(0, {}))
    lost_nodes = {(row.multihash, 0) for row in interior}
    for period in range(10):
        assert not accepted(spot.challenge(period=period), cheat(spot, spot.challenge(period=period), lost))
        challenge = dataset.challenge(period=period)
        assert not accepted(challenge, cheat(dataset, challenge, lost_nodes))
        assert accepted(challenge, cheat(dataset, challenge, set()))


@pytest.mark.parametrize(
    "seed",
    [
        period_seed(CHAIN, DATASET, NODE, 6, BEACON),
        period_seed(CHAIN, DATASET, NODE, 8, BEACON),
        period_seed(CHAIN, DATASET, b"\x09" * 32, 7, BEACON),
        period_seed(CHAIN, b"\x09" * 32, NODE, 7, BEACON),
        period_seed("another-chain", DATASET, NODE, 7, BEACON),
        period_seed(CHAIN, DATASET, NODE, 7, b"\x09" * 32),
    ],
    ids=[
        "last period",
        "next period",
        "another node",
        "another dataset",
        "another chain",
        "guessed beacon",
    ],
)
def test_3_4_a_proof_for_another_seed_is_refused(seed: bytes) -> None:
    dataset = random_dataset(random.Random(2), depth=2, pieces=4, rows=6, max_bytes=40_000)
    own, other = dataset.challenge(), dataset.challenge(seed=seed)
    assert own.data_leaves() != other.data_leaves()
    proof = dataset.prove(other)
    assert both_say(other, proof)
    assert not both_say(own, proof)


def test_3_every_part_of_a_seed_decides_about_the_proof() -> None:
    """Each bit of dataset, node and beacon, the period, and each way to cut the chain's name otherwise."""
    dataset = random_dataset(random.Random(3), depth=0, pieces=1, rows=6, max_bytes=60_000)
    own = dataset.challenge(k=6)
    proof = dataset.prove(own)
    seeds = set()
    for part in range(3):
        for bit in range(256):
            parts = [DATASET, NODE, BEACON]
            parts[part] = (int.from_bytes(parts[part], "big") ^ 1 << bit).to_bytes(32, "big")
            seeds.add(period_seed(CHAIN, parts[0], parts[1], 7, parts[2]))
    seeds |= {period_seed(CHAIN, DATASET, NODE, 7 ^ 1 << bit, BEACON) for bit in range(63)}
    seeds |= {
        period_seed(chain, DATASET, NODE, 7, BEACON) for chain in (CHAIN[:-1], CHAIN + "t", CHAIN.upper())
    }
    assert len(seeds) == 3 * 256 + 63 + 3
    assert not any(accepted(dataset.challenge(k=6, seed=seed), proof) for seed in seeds)
    assert accepted(own, proof)


def test_3_the_same_data_in_another_dataset_has_other_challenges() -> None:
    holder = Holder()
    rows = [holder.add(random.Random(n).randbytes(100_000)) for n in range(4)]
    one = Dataset(holder, Tree(1, {0: rows}), Tree(0, {}))
    two = Dataset(holder, Tree(1, {1: rows}), Tree(0, {}))
    assert not both_say(two.challenge(), one.prove(one.challenge()))


@pytest.mark.parametrize("instead", ["zeros", "hashes", "another leaf"])
def test_5_the_tree_without_the_leaves_is_worth_nothing(instead: str) -> None:
    dataset = random_dataset(random.Random(5), depth=1, pieces=2, rows=4, max_bytes=30_000)
    challenge = dataset.challenge(k=4)
    taken = Taken.apart(challenge, dataset.prove(challenge))
    places = taken.places("leaf")
    leaves = [taken.data[place][1] for place in places]
    forged = {
        "zeros": [bytes(len(leaf)) for leaf in leaves],
        "hashes": [(hashlib.sha256(leaf).digest() * 32)[: len(leaf)] for leaf in leaves],
        "another leaf": leaves[1:] + leaves[:1],
    }
    for place, leaf in zip(places, forged[instead], strict=True):
        taken.put(place, leaf)
    assert not both_say(challenge, taken.proof())


def one_block_challenge(data: bytes, seed: bytes = bytes(32)) -> tuple[Challenge, PieceRow]:
    commitment = commit_block(data)
    row = PieceRow(b"\x12\x20" + hashlib.sha256(data).digest(), commitment.leaves, commitment.root)
    empty = slot_tree.empty_node(0)
    return Challenge(seed, PieceTree([row]).root, 0, empty, 0, k=1), row


def number(value: int, most: int) -> bytes:
    return value.to_bytes((most.bit_length() + 7) // 8, "big")


def one_row(total: int, multihash: bytes, length: int, shown: bytes, hashes: bytes) -> bytes:
    """The proof that shows this of a dataset of one row."""
    return as_proof(row_part(total, multihash, length) + shown + hashes)


def row_part(total: int, multihash: bytes, length: int) -> bytes:
    return number(0, total) + bytes([len(multihash)]) + multihash + number(length, total * 1024)


def test_9_an_inner_node_is_no_leaf() -> None:
    """A block whose leaf is the preimage of another block's inner node has another root: the tags differ."""
    data = random.Random(9).randbytes(2048)
    left, right = leaf_hashes(data, 0)
    challenge, row = one_block_challenge(data)
    for posed in (left + right, b"\x01" + left + right, inner_hash(left, right)):
        for length in (len(posed), 1024, 1025, 2048):
            assert not both_say(challenge, one_row(row.leaves, row.multihash, length, posed, b""))
    # Nor is a whole piece's node a row, or a slot's sum node a piece's leaf.
    rows = [PieceRow(b"\x12\x20" + bytes([n]) * 32, 1, bytes([n]) * 32) for n in range(2)]
    root = PieceTree(rows).root
    posing = Challenge(bytes(32), root, 0, SumNode(bytes(32), 0), 0, k=1)
    assert not both_say(posing, one_row(2, rows[0].multihash, 2048, data[:1024], left))


def test_9_a_prover_may_not_choose_the_length_of_a_block() -> None:
    data = random.Random(9).randbytes(1500)
    challenge, row = one_block_challenge(data)
    leaves = leaf_hashes(data, 0)
    drawn = challenge.data_leaves()[0]
    shown = data[drawn * 1024 : drawn * 1024 + 1024]
    honest = one_row(2, row.multihash, 1500, shown, leaves[1 - drawn])
    assert both_say(challenge, honest)
    for length in (0, 1024, 1025, 1499, 1501, 2048, 2049):
        for bytes_shown in (shown, shown[: max(0, length - 1024)], shown.ljust(1024, b"\0")):
            forged = one_row(2, row.multihash, length, bytes_shown, leaves[1 - drawn])
            assert not both_say(challenge, forged)


def test_9_a_wrong_depth_is_refused() -> None:
    dataset = random_dataset(random.Random(6), depth=3, pieces=5, rows=4, max_bytes=10_000)
    challenge = dataset.challenge()
    proof = dataset.prove(challenge)
    assert both_say(challenge, proof)
    for depth in (0, 1, 2, 4, 20):
        other = Challenge(
            challenge.seed, challenge.data, depth, challenge.meta, challenge.meta_depth, challenge.k
        )
        assert not both_say(other, proof)


def test_9_a_piece_is_not_deeper_than_its_bound() -> None:
    """A chain of 33 sum nodes above one row, each with one more leaf on its right."""
    data = b"deep"
    commitment = commit_block(data)
    row = PieceRow(b"\x12\x20" + hashlib.sha256(data).digest(), 1, commitment.root)
    for levels, accepted in ((32, True), (33, False)):
        node, part = PieceTree([row]).root, row_part(1, row.multihash, 4) + data
        for _ in range(levels):
            part = number(node.sum, node.sum + 1) + bytes(32) + part
            node = sum_node(node, SumNode(bytes(32), 1))
        seed = next(
            seed for seed in map(bytes, ([n] * 32 for n in range(256))) if sample(seed, node.sum, 1) == (0,)
        )
        challenge = Challenge(seed, node, 0, SumNode(bytes(32), 0), 0, k=1)
        assert both_say(challenge, as_proof(part)) is accepted


def test_9_a_leaf_shown_for_another_position_is_refused() -> None:
    """Two equal leaves in one block have different hashes, so one cannot stand for the other."""
    data = bytes(2048)
    challenge, row = one_block_challenge(data)
    drawn = challenge.data_leaves()[0]
    leaves = leaf_hashes(data, 0)
    assert leaves[0] != leaves[1]
    assert both_say(challenge, one_row(2, row.multihash, 2048, bytes(1024), leaves[1 - drawn]))
    assert not both_say(challenge, one_row(2, row.multihash, 2048, bytes(1024), leaves[drawn]))


def test_9_sums_that_move_leaves_about_are_refused() -> None:
    """Shifting a leaf from one side's sum to the other's would make a kept leaf answer for a lost one."""
    dataset = random_dataset(random.Random(8), depth=2, pieces=4, rows=4, max_bytes=5000)
    challenge = dataset.challenge(k=2)
    proof = dataset.prove(challenge)
    for place in Taken.apart(challenge, proof).places("sum"):
        taken = Taken.apart(challenge, proof)
        found = taken.data[place][1]
        value = int.from_bytes(found, "big")
        for other in {0, 1, value - 1, value + 1, challenge.data.sum} - {value, -1}:
            taken.put(place, (other % 256 ** len(found)).to_bytes(len(found), "big"))
            assert taken.proof() == proof or not both_say(challenge, taken.proof())


def test_a_provider_that_relays_passes_and_the_documentation_says_so() -> None:
    """Red team 31: only trees kept, leaves fetched from elsewhere in the window. This is not excluded."""
    dataset = random_dataset(random.Random(31), depth=1, pieces=2, rows=4, max_bytes=50_000)
    challenge = dataset.challenge()
    elsewhere = dict(dataset.holder.blocks)
    dataset.holder.blocks.clear()
    relayed = prove(
        challenge,
        dataset.view,
        lambda name, offset, length: elsewhere[name][offset : offset + length],
        dataset.holder.subtrees,
    )
    assert both_say(challenge, relayed)


def test_roots_bind_the_length() -> None:
    assert proof_root(1, bytes(32)) != proof_root(2, bytes(32))
