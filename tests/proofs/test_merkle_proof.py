"""Proofs of a period: made, checked, altered in every way."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import dag_cbor
from proofs import slot_tree
from proofs.challenge import MAX_DRAWN, Challenge
from proofs.commitment import (
    EMPTY,
    MAX_SUM,
    SUBTREE_BYTES,
    PieceTree,
    SumNode,
)
from proofs.errors import BlockChanged, InvalidProof, ViewMismatch
from proofs.kinds import ProofKind
from proofs.merkle_proof import prove, verify
from proofs.slot_tree import MAX_DEPTH
from tests.proofs.datasets import Dataset, Holder, Taken, Tree, both_say, random_dataset


@pytest.mark.parametrize("seed", range(25))
def test_an_honest_proof_is_accepted_by_both_verifiers(seed: int) -> None:
    rng = random.Random(seed)
    depth = rng.randint(0, 5)
    dataset = random_dataset(
        rng,
        depth=depth,
        pieces=rng.randint(1, 1 << depth),
        rows=rng.choice([1, 2, 7, 20]),
        max_bytes=rng.choice([1, 1024, 5000, 300_000]),
    )
    for keeps in (True, False):
        dataset.holder.keeps_subtrees = keeps
        challenge = dataset.challenge(k=rng.choice([1, 5, 30]), period=seed)
        proof = dataset.prove(challenge)
        assert both_say(challenge, proof)
        assert len(proof) <= challenge.max_proof_bytes()


def test_all_leaves_are_shown_where_there_are_fewer_than_k() -> None:
    dataset = random_dataset(random.Random(1), depth=1, pieces=2, rows=2, max_bytes=3000)
    challenge = dataset.challenge(k=500, meta_k=500)
    proof = dataset.prove(challenge)
    assert both_say(challenge, proof)
    shown = b"".join(found for name, found in Taken.apart(challenge, proof).data if name == "leaf")
    whole = [row for piece in dataset.data.pieces.items() for row in piece[1].rows if piece[1].rows]
    assert len(shown) == sum(len(dataset.holder.blocks[row.multihash]) for row in whole)


def test_a_dataset_without_metadata_or_without_data() -> None:
    holder = Holder()
    full, none = Tree(2, {3: [holder.add(b"x" * 5000)]}), Tree(2, {})
    for data, meta in ((full, none), (none, full), (none, none)):
        dataset = Dataset(holder, data, meta)
        challenge = dataset.challenge()
        assert both_say(challenge, dataset.prove(challenge))


def test_only_drawn_subtrees_are_read() -> None:
    holder = Holder()
    rows = [holder.add(random.Random(n).randbytes(1024 * 1024 - 100)) for n in range(3)]
    dataset = Dataset(holder, Tree(0, {0: rows}), Tree(0, {0: [holder.add(b"meta")]}))
    challenge = dataset.challenge(k=6)
    subtrees = {(leaf // 1024, leaf % 1024 // 128) for leaf in challenge.data_leaves()}
    proof = dataset.prove(challenge)
    assert both_say(challenge, proof)
    big = [read for read in holder.reads if read[2] == SUBTREE_BYTES]
    small = [read for read in holder.reads if read[2] != SUBTREE_BYTES]
    assert len(big) == len(subtrees)
    assert all(length <= 1024 for _, _, length in small)  # last leaves, for the length, and the metadata
    holder.keeps_subtrees = False
    holder.reads.clear()
    assert dataset.prove(challenge) == proof
    assert sorted({read[2] for read in holder.reads}) == [1024, 1024 * 1024]


def test_kept_subtrees_that_do_not_fit_are_not_trusted() -> None:
    dataset = random_dataset(random.Random(3), depth=1, pieces=2, rows=3, max_bytes=400_000)
    challenge = dataset.challenge()
    proof = dataset.prove(challenge)
    for wrong in (b"", bytes(32), bytes(32 * 3), bytes(32 * 4), bytes(5)):
        assert prove(challenge, dataset.view, dataset.holder.read, lambda _, wrong=wrong: wrong) == proof  # type: ignore[misc]


def test_a_damaged_block_is_named() -> None:
    dataset = random_dataset(random.Random(4), depth=0, pieces=1, rows=1, max_bytes=300_000)
    name = dataset.data.pieces[0].rows[0].multihash
    whole = dataset.holder.blocks[name]
    for damaged in (whole[:-1] + b"x", whole[:-1], whole + b"\0", b"", whole[: len(whole) // 2]):
        for keeps in (True, False):
            dataset.holder.keeps_subtrees = keeps
            dataset.holder.blocks[name] = damaged
            with pytest.raises(BlockChanged) as caught:
                dataset.prove(dataset.challenge(k=500))
            assert caught.value.multihash == name


def test_a_stale_mirror_is_noticed() -> None:
    dataset = random_dataset(random.Random(5), depth=2, pieces=3, rows=3, max_bytes=3000)
    challenge = dataset.challenge()
    slot = next(iter(dataset.data.pieces))
    rows = dataset.data.pieces[slot].rows
    dataset.data.pieces[slot] = PieceTree([*rows, dataset.holder.add(b"new")])
    with pytest.raises(ViewMismatch, match="slot"):
        dataset.prove(dataset.challenge(k=500))
    slot_tree.set_slot(dataset.data.nodes, 2, slot, dataset.data.pieces[slot].root)
    with pytest.raises(ViewMismatch, match="ledger"):
        dataset.prove(challenge)
    assert both_say(dataset.challenge(), dataset.prove(dataset.challenge()))


def test_what_a_read_raises_passes_through() -> None:
    dataset = random_dataset(random.Random(6), depth=0, pieces=1, rows=1, max_bytes=3000)
    dataset.holder.blocks.clear()
    with pytest.raises(KeyError):
        dataset.prove(dataset.challenge())


@pytest.fixture(scope="module")
def small() -> tuple[Challenge, bytes]:
    """A proof of few bytes with everything in it: slots, an odd piece, a short leaf, metadata."""
    dataset = random_dataset(random.Random(11), depth=2, pieces=3, rows=5, max_bytes=2600)
    challenge = dataset.challenge(k=3, meta_k=1)
    return challenge, dataset.prove(challenge)


Edit = Callable[[dict[str, Any]], object]
EDITS: dict[str, Edit] = {
    "no data": lambda c: c.pop("data"),
    "one key more": lambda c: c.update(more=1),
    "another kind": lambda c: c.update(kind="kzg"),
    "kind as bytes": lambda c: c.update(kind=b"merkle"),
    "version 1": lambda c: c.update(version=1),
    "version 3": lambda c: c.update(version=3),
    "version true": lambda c: c.update(version=True),
    "version 2.0": lambda c: c.update(version=2.0),
    "data is null": lambda c: c.update(data=None),
    "data is a list": lambda c: c.update(data=[c["data"]]),
    "data is text": lambda c: c.update(data="x" * len(c["data"])),
    "data is empty": lambda c: c.update(data=b""),
    "parts swapped": lambda c: c.update(data=c["meta"], meta=c["data"]),
    "parts joined": lambda c: c.update(data=c["data"] + c["meta"], meta=b""),
    "metadata left out": lambda c: c.update(meta=b""),
    "metadata twice": lambda c: c.update(meta=c["meta"] * 2),
}


@pytest.mark.parametrize("name", EDITS)
def test_other_envelopes_are_refused(small: tuple[Challenge, bytes], name: str) -> None:
    challenge, proof = small
    content = dag_cbor.decode(proof)
    EDITS[name](content)
    assert not both_say(challenge, dag_cbor.encode(content))


@pytest.mark.parametrize("what", ["sum", "hash", "multihash length", "multihash", "length", "leaf"])
def test_every_item_can_be_altered_in_no_way(small: tuple[Challenge, bytes], what: str) -> None:
    """Each that the verifier takes: other values, left out, doubled, and exchanged with each of its kind."""
    challenge, proof = small
    places = Taken.apart(challenge, proof).places(what)
    assert places
    for place in places:
        found = Taken.apart(challenge, proof).data[place][1]
        value, size = int.from_bytes(found, "big"), len(found)
        numbers = {0, 1, value - 1, value + 1, 2**63 - 1, 2**64 - 1, 256**size - 1, value // 2}
        others = {(number % 256**size).to_bytes(size, "big") for number in numbers}
        others |= {b"", found + found, found[:-1], found + b"\0", b"\0" + found, found[1:], found[::-1]}
        others |= {Taken.apart(challenge, proof).data[other][1] for other in places}
        for other in others - {found}:
            taken = Taken.apart(challenge, proof)
            taken.put(place, other)
            assert not both_say(challenge, taken.proof()), (place, other)


def test_items_in_another_order_are_refused(small: tuple[Challenge, bytes]) -> None:
    challenge, proof = small
    count = len(Taken.apart(challenge, proof).data)
    for first in range(count):
        for second in range(first + 1, count):
            taken = Taken.apart(challenge, proof)
            taken.data[first], taken.data[second] = taken.data[second], taken.data[first]
            altered = taken.proof()
            assert altered == proof or not both_say(challenge, altered), (first, second)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_both_verifiers_agree_on_random_damage(small: tuple[Challenge, bytes], data: st.DataObject) -> None:
    challenge, proof = small
    taken = Taken.apart(challenge, proof)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(taken.data) - 1))
        size = len(taken.data[place][1])
        taken.put(place, data.draw(st.binary(min_size=size, max_size=size) | st.binary(max_size=64)))
    altered = taken.proof()
    assert both_say(challenge, altered) is (altered == proof)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_answered(small: tuple[Challenge, bytes], junk: bytes) -> None:
    assert not both_say(small[0], junk)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x81" * 10_000,
        b"\xa1" * 5000,
        b"\x9f" * 100,
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xbb\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\xd8\x2a\x58\x25\x00\x01\x71\x12\x20" + bytes(32),
        b"\xc2\x58\xff" + b"\xff" * 255,
        b"\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    ],
)
def test_hostile_cbor_is_refused(small: tuple[Challenge, bytes], junk: bytes) -> None:
    assert not both_say(small[0], junk)


def test_a_proof_is_not_canonical_in_two_ways(small: tuple[Challenge, bytes]) -> None:
    challenge, proof = small
    assert proof[0] == 0xA4
    first_key = proof.index(b"\x64data")
    assert first_key == 1
    for other in (
        b"\xb8\x04" + proof[1:],  # a longer head
        b"\xbf" + proof[1:] + b"\xff",  # an indefinite map
        proof.replace(b"\x64kind\x66merkle", b"\x64kind\x78\x06merkle"),
        proof.replace(b"\x67version\x02", b"\x67version\x18\x02"),
    ):
        assert other != proof
        assert not both_say(challenge, other)


def test_the_length_is_bounded_first(monkeypatch: pytest.MonkeyPatch, small: tuple[Challenge, bytes]) -> None:
    challenge, _ = small

    def never(_: object) -> object:
        raise AssertionError("parsed")

    monkeypatch.setattr(dag_cbor, "decode", never)
    with pytest.raises(InvalidProof, match="at most"):
        verify(challenge, bytes(challenge.max_proof_bytes() + 1))
    most = SumNode(bytes(32), MAX_SUM)
    for kind in ProofKind:
        largest = Challenge(bytes(32), most, MAX_DEPTH, most, MAX_DEPTH, MAX_DRAWN, MAX_DRAWN, kind)
        assert largest.max_proof_bytes() <= 4 * 1024 * 1024


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": b""},
        {"data_depth": 21},
        {"meta_depth": -1},
        {"k": 513},
        {"meta_k": -1},
        {"data": SumNode(bytes(31), 1)},
        {"meta": SumNode(bytes(32), 2**63)},
    ],
)
def test_challenges_that_no_ledger_has_are_refused(changes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "seed": bytes(32),
        "data": EMPTY,
        "data_depth": 0,
        "meta": EMPTY,
        "meta_depth": 0,
        "k": 30,
    }
    with pytest.raises(ValueError, match=r"seed|depth|draw|root"):
        Challenge(**(fields | changes))
