"""KZG proofs: made, verified alone and together, by both verifiers; every changed byte is refused."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import dag_cbor
from proofs import proof as any_proof
from proofs import slot_tree
from proofs.bls.points import G1_INFINITY, R
from proofs.challenge import Challenge
from proofs.commitment import PieceTree
from proofs.errors import BlockChanged, InvalidProof, ViewMismatch
from proofs.kinds import ProofKind
from proofs.kzg.backend import backend
from proofs.kzg.blob_commitments import BlobCommitments
from proofs.kzg.proof import coefficients, point, prove, verify, verify_many
from tests.proofs.kzg.datasets import BLOB, Dataset, Holder, Tree, both_say, random_dataset, setup, sparse


@cache
def proven() -> tuple[Dataset, Challenge, bytes]:
    dataset = random_dataset(random.Random(1), depth=2, pieces=3, rows=3, blobs=4)
    challenge = dataset.challenge()
    return dataset, challenge, dataset.prove(challenge)


def refused(challenge: Challenge, proof: bytes, why: str | None = None) -> None:
    with pytest.raises(InvalidProof, match=why):
        verify(challenge, proof)


def changed(proof: bytes, **values: object) -> bytes:
    return dag_cbor.encode({**dag_cbor.decode(proof), **values})


@cache
def several() -> list[tuple[Challenge, bytes]]:
    """Three challenges to the same dataset, with their proofs."""
    dataset, _, _ = proven()
    asked = [dataset.challenge(k=2, seed=bytes([number]) * 32) for number in range(3)]
    return [(each, dataset.prove(each)) for each in asked]


@pytest.mark.parametrize("seed", range(3))
def test_both_verifiers_accept_what_the_prover_made(seed: int) -> None:
    rng = random.Random(seed)
    dataset = random_dataset(rng, depth=rng.randint(0, 4), pieces=1, rows=4, blobs=rng.choice([1, 3, 17]))
    challenge = dataset.challenge(k=rng.randint(1, 8), meta_k=rng.randint(0, 2), seed=rng.randbytes(32))
    proof = dataset.prove(challenge)
    assert len(proof) <= challenge.max_proof_bytes()
    assert both_say(challenge, proof)
    shown = any_proof.verify(challenge, proof)
    assert len(shown) == len(challenge.data_leaves()) + len(challenge.meta_leaves())
    for unit in shown:
        assert unit.data == dataset.holder.commitments[unit.multihash].each()[unit.unit]
        assert unit.length == len(dataset.holder.blocks[unit.multihash])


def test_the_prover_reads_the_drawn_blobs_and_nothing_else() -> None:
    dataset, challenge, proof = proven()
    dataset.holder.reads.clear()
    assert dataset.prove(challenge) == proof
    drawn = [(unit.multihash, unit.unit * BLOB, BLOB) for unit in verify(challenge, proof)]
    assert dataset.holder.reads == drawn


def test_a_tebibyte_costs_what_its_drawn_blobs_cost() -> None:
    """1,024 pieces of 1,024 blocks of 1 MiB, which are one block: only the paths are longer."""
    holder = Holder()
    row = holder.add(sparse(random.Random(5), 1 << 20))
    pieces = dict.fromkeys(range(1024), PieceTree([row] * 1024, kind=ProofKind.KZG))
    dataset = Dataset(holder, Tree(10, {}), Tree(0, {0: [row]}))
    for slot, piece in pieces.items():
        slot_tree.set_slot(dataset.data.nodes, 10, slot, piece.root)
    dataset.data.pieces = pieces
    challenge = dataset.challenge(k=30, meta_k=4)
    assert challenge.data.sum == 9 * 2**20
    proof = dataset.prove(challenge)
    assert len(holder.reads) == 34
    assert len(proof) <= 24_000
    assert len(verify(challenge, proof)) == 34


def test_the_bytes_of_a_proof_are_fixed() -> None:
    """A known answer: a change of the format would show here, and needs a new version and new tags."""
    holder = Holder()
    rows = [holder.add(bytes(range(256)) * times) for times in (1, 2, 500)]
    dataset = Dataset(holder, Tree(1, {0: rows[:2], 1: rows[2:]}), Tree(0, {0: rows[:1]}))
    challenge = dataset.challenge(k=3, meta_k=1, seed=bytes(range(32)))
    assert (challenge.data.hash.hex(), challenge.data.sum) == (
        "23db302500f5181ce1d0292676ecc1f78c9ac4a4ad339958b2e892c4506d9380",
        4,
    )
    proof = dataset.prove(challenge)
    assert both_say(challenge, proof)
    content = dag_cbor.decode(proof)
    assert content["y"].hex() == "64500a7965478a27b7d1bf22b90eaeda57732044a896441cb13ea64800463c70"
    assert content["pi"].hex() == (
        "8b25423376c678dcd363680de179bbfb1288184d23c4ed2115b81834f85d6d0727cf496e1c49725001f0e328486abad7"
    )
    assert (len(proof), hashlib.sha256(proof).hexdigest()) == (
        505,
        "187a5cb1fbf8c8e2ee4c81f0bf63a953645c138a24c318056dfccb66f1fdd3ba",
    )


def test_a_change_of_any_byte_is_refused() -> None:
    _, challenge, proof = proven()
    rng = random.Random(8)
    for index in range(len(proof)):
        mutant = bytearray(proof)
        mutant[index] ^= rng.randint(1, 255)
        refused(challenge, bytes(mutant))
        if index % 4 == 0:
            assert not both_say(challenge, bytes(mutant)), index


def test_bytes_added_taken_away_or_swapped_are_refused() -> None:
    _, challenge, proof = proven()
    rng = random.Random(9)
    assert not both_say(challenge, proof + b"\x00")
    for _ in range(150):
        cut, end = sorted(rng.sample(range(len(proof) + 1), 2))
        for other in (proof[:cut], proof[:cut] + proof[end:], proof[:end] + proof[cut:]):
            assert other == proof or not both_say(challenge, other)


@given(st.binary(max_size=200) | st.just(proven()[2]).flatmap(lambda proof: st.sampled_from([proof])))
@settings(max_examples=60, deadline=None)
def test_any_bytes_have_a_verdict(raw: bytes) -> None:
    _, challenge, proof = proven()
    assert both_say(challenge, raw) is (raw == proof)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.binary(max_size=50) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(["data", "kind", "meta", "pi", "version", "y", "more"]), VALUES)
@settings(max_examples=40, deadline=None)
def test_any_value_in_any_place_has_a_verdict(name: str, value: object) -> None:
    _, challenge, proof = proven()
    other = changed(proof, **{name: value})
    assert both_say(challenge, other) is (other == proof)


def test_every_form_of_y_and_pi_but_one_is_refused() -> None:
    """Canonical: a number has 32 bytes and is below r, a point one compressed form."""
    _, challenge, proof = proven()
    content = dag_cbor.decode(proof)
    y, pi = int.from_bytes(content["y"], "big"), content["pi"]
    for wrong in (content["y"][1:], b"\x00" + content["y"], b"", 5, None, [content["y"]]):
        assert not both_say(challenge, changed(proof, y=wrong))
    for number in ((y + 1) % R, y + R, R, 2**256 - 1):
        if number < 2**256:
            assert not both_say(challenge, changed(proof, y=number.to_bytes(32, "big")))
    flags = [bytes([pi[0] ^ flag]) + pi[1:] for flag in (0x80, 0x40, 0x20, 0xC0, 0xE0)]
    for other in (
        *flags,
        G1_INFINITY,
        G1_INFINITY[:1] + b"\x01" + G1_INFINITY[2:],
        pi[:-1],
        pi + b"\x00",
        b"",
        0,
    ):
        assert not both_say(challenge, changed(proof, pi=other))


def test_nothing_is_parsed_of_bytes_that_are_too_long() -> None:
    _, challenge, proof = proven()
    refused(challenge, changed(proof, more=bytes(challenge.max_proof_bytes())), "at most")


class Counting:
    """A backend that counts what it is asked."""

    NAME = "counting"
    commit = staticmethod(backend().commit)
    open = staticmethod(backend().open)

    def __init__(self) -> None:
        self.alone = self.together = 0

    def verify(self, commitments: object, scalars: object, z: object, y: object, proof: object) -> bool:
        self.alone += 1
        return backend().verify(commitments, scalars, z, y, proof)  # type: ignore[arg-type]

    def verify_many(self, openings: object) -> bool:
        self.together += 1
        return backend().verify_many(openings)  # type: ignore[arg-type]


def test_no_curve_arithmetic_is_done_for_what_the_hashes_refuse() -> None:
    """Cost is bounded before work starts: forms and hashes come first, and points no more than were drawn."""
    dataset, challenge, proof = proven()
    counting = Counting()
    part = dag_cbor.decode(proof)["data"]
    for other in (part + part[-48:], part[:-1], bytes(len(part)), part[48:] + part[:48], [part]):
        with pytest.raises(InvalidProof):
            verify(challenge, changed(proof, data=other), counting)
    assert counting.alone == 0
    verify(challenge, proof, counting)
    assert counting.alone == 1
    assert dataset is proven()[0]


def test_many_together_have_the_verdicts_that_each_has_alone() -> None:
    _, challenge, proof = proven()
    right = several()
    challenges = [each for each, _ in right]
    counting = Counting()
    assert verify_many([*right, (challenge, proof)], counting) == [None] * 4
    assert (counting.alone, counting.together) == (0, 1)
    wrong_y = changed(right[1][1], y=bytes(32))
    claims = [
        right[0],
        (challenges[1], wrong_y),
        (challenges[0], right[1][1]),  # of another seed
        (challenges[2], b"\xa0"),
        right[2],
        (replace(challenges[2], kind=ProofKind.MERKLE), right[2][1]),
    ]
    verdicts = verify_many(claims, counting)
    assert [verdict is None for verdict in verdicts] == [True, False, False, False, True, False]
    for (asked, given_), verdict in zip(claims, verdicts, strict=True):
        if verdict is not None:
            refused(asked, given_, re.escape(str(verdict)))
    assert verify_many([]) == []


def test_errors_that_cancel_out_are_found() -> None:
    """Two wrong openings whose plain sum would hold: the weights of a batch are not known beforehand."""
    claims = []
    for (each, proof), by in zip(several()[:2], (1, -1), strict=True):
        y = int.from_bytes(dag_cbor.decode(proof)["y"], "big")
        claims.append((each, changed(proof, y=((y + by) % R).to_bytes(32, "big"))))
    assert None not in verify_many(claims)


def test_a_dataset_without_leaves_is_shown_by_nothing() -> None:
    dataset = Dataset(Holder(), Tree(0, {}), Tree(0, {}))
    challenge = dataset.challenge()
    proof = dataset.prove(challenge)
    assert dag_cbor.decode(proof)["pi"] == G1_INFINITY
    assert verify(challenge, proof) == []
    assert verify_many([(challenge, proof)]) == [None]
    refused(challenge, changed(proof, y=bytes(31) + b"\x01"))
    refused(challenge, changed(proof, pi=b"\x80" + bytes(47)))


def test_blocks_of_zeros_are_proven_like_others() -> None:
    """The commitment is infinity, and so may the proof be: both are points like others."""
    holder = Holder()
    rows = [holder.add(bytes(length)) for length in (0, 5, BLOB + 1)]
    dataset = Dataset(holder, Tree(0, {0: rows}), Tree(0, {}))
    challenge = dataset.challenge(k=4)
    proof = dataset.prove(challenge)
    assert dag_cbor.decode(proof)["pi"] == G1_INFINITY
    assert both_say(challenge, proof)


def test_a_changed_block_is_named_and_so_is_one_that_was_cut() -> None:
    rng = random.Random(4)
    holder = Holder()
    rows = [holder.add(sparse(rng, 2 * BLOB + 500)) for _ in range(2)]
    dataset = Dataset(holder, Tree(0, {0: rows}), Tree(0, {}))
    challenge = dataset.challenge(k=6)
    name = rows[1].multihash
    good = holder.blocks[name]
    holder.blocks[name] = good[:BLOB] + bytes([good[BLOB] ^ 1]) + good[BLOB + 1 :]
    with pytest.raises(BlockChanged) as raised:
        dataset.prove(challenge)
    assert raised.value.multihash == name
    holder.blocks[name] = good[:-1]
    kept = holder.commitments.pop(name)
    with pytest.raises(BlockChanged) as raised:
        dataset.prove(challenge)
    assert raised.value.multihash == name
    holder.blocks[name] = good  # healed, and what was kept of it is gone or wrong: made anew
    proof = dataset.prove(challenge)
    holder.commitments[name] = BlobCommitments(kept.length, kept.commitments[48:] + kept.commitments[:48])
    assert dataset.prove(challenge) == proof
    assert both_say(challenge, proof)


def test_a_view_of_other_trees_and_a_challenge_of_another_kind_are_not_answered() -> None:
    dataset, challenge, proof = proven()
    other = random_dataset(random.Random(2), depth=2, pieces=1, rows=1, blobs=1)
    with pytest.raises(ViewMismatch):
        other.prove(challenge)
    merkle = replace(challenge, kind=ProofKind.MERKLE)
    refused(merkle, proof, "merkle")
    with pytest.raises(ValueError, match="merkle"):
        prove(merkle, dataset.view, dataset.holder.read, lambda _: None, setup(), backend())
    with pytest.raises(InvalidProof):
        any_proof.verify(merkle, proof)


def test_coefficients_and_point_follow_from_the_seed_and_are_fresh() -> None:
    seeds = [random.Random(number).randbytes(32) for number in range(50)]
    assert len({point(seed) for seed in seeds}) == 50
    assert all(0 <= point(seed) < R for seed in seeds)
    many = coefficients(seeds[0], 1024)
    assert len(set(many)) == 1024
    assert max(many) < 2**128
    assert max(number.bit_length() for number in many) == 128
    assert coefficients(seeds[0], 5) == many[:5]
    assert not set(many) & set(coefficients(seeds[1], 1024))
