"""Datasets of every shape and proofs changed in every way: both verifiers of Merkle proofs say the same."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from merkledag import dag_cbor
from proofs import slot_tree
from proofs.challenge import Challenge
from proofs.commitment import EMPTY
from tests.proofs.datasets import Dataset, Holder, Tree, both_say

SIZES = [0, 1, 1023, 1024, 1025, 2048, 5000, 131_072, 131_073]
VALUES: list[object] = [None, True, False, 0, 1, 2, 2.0, -2, 2**63, "merkle", "kzg", b"", [], {}]


def any_tree(rng: random.Random, holder: Holder, depth: int) -> Tree:
    """No piece, one of one leaf, or some; some of which were taken out again."""
    slots = range(1 << depth)
    some = rng.choice([[], [rng.choice(slots)], [slot for slot in slots if rng.random() < 0.6], slots])
    tree = Tree(
        depth,
        {
            slot: [holder.add(rng.randbytes(rng.choice(SIZES))) for _ in range(rng.choice([1, 1, 2, 3, 9]))]
            for slot in some
        },
    )
    for slot in [slot for slot in some if rng.random() < 0.2]:
        slot_tree.set_slot(tree.nodes, depth, slot, EMPTY)
        del tree.pieces[slot]
    return tree


def changed(rng: random.Random, proof: bytes) -> bytes:
    """Another value, a byte more or less, or the parts cut, joined, swapped, or of another type."""
    at, content = rng.randrange(len(proof)), dag_cbor.decode(proof)
    part = rng.choice(["data", "meta"])
    start, end = sorted(rng.randint(0, len(content[part])) for _ in range(2))
    match rng.randrange(7):
        case 0 | 1:
            return proof[:at] + rng.randbytes(1) + proof[at + 1 :]
        case 2:
            return proof[:at] + rng.randbytes(rng.randint(0, 2)) + proof[at + rng.randint(0, 2) :]
        case 3:
            content["data"], content["meta"] = content["meta"], content["data"]
        case 4:
            content[rng.choice(["data", "kind", "meta", "version", "more"])] = rng.choice(VALUES)
        case 5:
            del content[rng.choice(list(content))]
        case _:
            content[part] = content[part][:start] + rng.choice([b"", b"\0", b"\xff"]) + content[part][end:]
    return dag_cbor.encode(content)


def others(rng: random.Random, challenge: Challenge) -> list[Challenge]:
    data, meta = challenge.data, challenge.meta
    return [
        replace(challenge, seed=rng.randbytes(32)),
        replace(challenge, data=data._replace(hash=rng.randbytes(32))),
        replace(challenge, data=data._replace(sum=data.sum + 1)),
        replace(challenge, meta=meta._replace(sum=meta.sum + 1)),
        replace(challenge, k=challenge.k + 1),
        replace(challenge, meta_k=challenge.meta_k + 1),
        replace(challenge, data_depth=challenge.data_depth + 1),
    ]


@pytest.mark.parametrize("number", range(20))
def test_any_shape_and_any_change_have_one_verdict(number: int) -> None:
    rng = random.Random(number)
    holder, depth = Holder(), rng.randint(0, 4)
    dataset = Dataset(holder, any_tree(rng, holder, depth), any_tree(rng, holder, depth))
    k, meta_k = rng.choice([0, 1, 5, 30, 511]), rng.choice([0, 1, 4])
    challenge = dataset.challenge(k, meta_k, seed=rng.randbytes(32))
    proof = dataset.prove(challenge)
    assert both_say(challenge, proof)
    for _ in range(25):
        another = changed(rng, proof)
        assert both_say(challenge, another) is (another == proof)
    for other in others(rng, challenge):
        both_say(other, proof)
