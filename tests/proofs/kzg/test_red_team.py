"""What an attacker tries against KZG proofs; the numbers are those of `tests/proofs/test_red_team.py`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import pytest

from merkledag import dag_cbor
from proofs import walk
from proofs.bls.points import R
from proofs.challenge import Challenge, period_seed
from proofs.commitment import PieceRow
from proofs.errors import BlockChanged
from proofs.kinds import ProofKind
from proofs.kzg.backend import backend
from proofs.kzg.blob_commitments import BlobCommitments, OpenedBlobs
from proofs.kzg.polynomial import combine
from proofs.kzg.proof import coefficients, point
from tests.proofs.datasets import BEACON, CHAIN, DATASET, NODE
from tests.proofs.kzg.datasets import BLOB, Dataset, Holder, Tree, both_say, setup, sparse

OWN = period_seed(CHAIN, DATASET, NODE, 7, BEACON)


@cache
def three_blobs() -> Dataset:
    """All of a dataset of three blobs is drawn in every period."""
    rng = random.Random(6)
    holder = Holder()
    rows = [holder.add(sparse(rng, length)) for length in (2 * BLOB, 4_000)]
    return Dataset(holder, Tree(0, {0: rows}), Tree(0, {}))


def drawn_blobs(dataset: Dataset) -> list[bytes]:
    """The blobs of `three_blobs` in the order of the draw."""
    blocks = [dataset.holder.blocks[row.multihash] for row in dataset.data.pieces[0].rows]
    return [block[at : at + BLOB] for block in blocks for at in range(0, len(block), BLOB)]


@cache
def proven() -> bytes:
    """The right proof of `three_blobs`."""
    return three_blobs().prove(three_blobs().challenge())


def cheat(dataset: Dataset, challenge: Challenge, values: Sequence[int]) -> bytes:
    """A proof whose paths are right and whose opening, at the right point, is of any polynomial."""

    def open_block(row: PieceRow, drawn: list[int]) -> OpenedBlobs:
        return OpenedBlobs(dataset.holder.commitments[row.multihash], drawn)

    data, meta = walk.show(challenge, dataset.view, open_block)
    y, pi = backend().open(setup(), values, point(challenge.seed))
    parts = {"data": data, "kind": "kzg", "meta": meta, "version": 1}
    return dag_cbor.encode({**parts, "pi": pi, "y": y.to_bytes(32, "big")})


def test_the_cheat_would_pass_if_it_had_the_data() -> None:
    dataset = three_blobs()
    challenge = dataset.challenge()
    values = combine(drawn_blobs(dataset), coefficients(OWN, 3))
    assert cheat(dataset, challenge, values) == proven()
    assert both_say(challenge, proven())


@pytest.mark.parametrize("kept", ["last period's", "plain sum", "one blob", "zeros", "scaled"])
def test_6_one_fixed_combination_instead_of_the_data_fails(kept: str) -> None:
    """ν and z are fresh: what was right for one seed, or is the same for all, is wrong for the next."""
    dataset = three_blobs()
    challenge, blobs = dataset.challenge(), drawn_blobs(three_blobs())
    last = coefficients(period_seed(CHAIN, DATASET, NODE, 6, BEACON), 3)
    now = coefficients(OWN, 3)
    factor = sum(now) * pow(sum(last), -1, R) % R
    values = {
        "last period's": lambda: combine(blobs, last),
        "plain sum": lambda: combine(blobs, [1, 1, 1]),
        "one blob": lambda: combine(blobs[:1], now[:1]),
        "zeros": lambda: [0] * 4096,
        "scaled": lambda: combine(blobs, [number * factor % R for number in last]),
    }[kept]()
    assert not both_say(challenge, cheat(dataset, challenge, values))


def test_6_what_is_prepared_at_another_point_fails() -> None:
    """The right combination opened where last period's point was."""
    dataset = three_blobs()
    challenge = dataset.challenge()
    values = combine(drawn_blobs(dataset), coefficients(OWN, 3))
    z = point(period_seed(CHAIN, DATASET, NODE, 6, BEACON))
    y, pi = backend().open(setup(), values, z)
    proof = dag_cbor.decode(proven())
    assert not both_say(challenge, dag_cbor.encode({**proof, "pi": pi, "y": y.to_bytes(32, "big")}))


def test_6_a_blob_that_lacks_one_byte_fails() -> None:
    dataset = three_blobs()
    challenge = dataset.challenge()
    blobs = drawn_blobs(dataset)
    blobs[1] = blobs[1][:-1] + bytes([blobs[1][-1] ^ 1])
    values = combine(blobs, coefficients(OWN, 3))
    assert not both_say(challenge, cheat(dataset, challenge, values))


@pytest.mark.parametrize(
    "seed",
    [
        period_seed(CHAIN, DATASET, NODE, 6, BEACON),
        period_seed(CHAIN, DATASET, b"\x09" * 32, 7, BEACON),
        period_seed(CHAIN, b"\x09" * 32, NODE, 7, BEACON),
        period_seed("another-chain", DATASET, NODE, 7, BEACON),
        period_seed(CHAIN, DATASET, NODE, 7, b"\x09" * 32),
    ],
    ids=["last period", "another node", "another dataset", "another chain", "guessed beacon"],
)
def test_3_4_a_proof_for_another_seed_is_refused_though_it_shows_the_same_leaves(seed: bytes) -> None:
    """Every leaf is drawn by either seed, so the paths are the same: the opening alone tells them apart."""
    dataset = three_blobs()
    own, other = dataset.challenge(), dataset.challenge(seed=seed)
    assert own.data_leaves() == other.data_leaves()
    assert both_say(own, proven())
    assert not both_say(other, proven())


def test_7_a_wrong_commitment_is_met_by_whoever_has_the_bytes() -> None:
    """A client's piece with a wrong commitment has another root than the bytes, and no proof of it is made.

    Who accepts a piece computes it anew (storage_node's tests); this is what would await one that did not.
    """
    block = sparse(random.Random(7), 2 * BLOB)
    honest = Holder()
    row = honest.add(block)
    right = honest.commitments[row.multihash]
    swapped = BlobCommitments(right.length, right.commitments[48:] + right.commitments[:48])
    other = BlobCommitments(right.length, backend().commit(setup(), b"other") + right.commitments[48:])
    assert other.row(row.multihash) != row != swapped.row(row.multihash)
    honest.commitments[row.multihash] = swapped
    dataset = Dataset(honest, Tree(0, {0: [swapped.row(row.multihash)]}), Tree(0, {}))
    with pytest.raises(BlockChanged):
        dataset.prove(dataset.challenge())
    scalars = coefficients(OWN, 2)
    forged = cheat(dataset, dataset.challenge(), combine([block[:BLOB], block[BLOB:]], scalars))
    assert not both_say(dataset.challenge(), forged)


# Points that must not pass, wherever they stand. They would do in place of infinity if bytes under its flag,
# or what the pairing does not see of a point off the subgroup, were overlooked.
BAD_POINTS = {
    "infinity with bytes": b"\xc0" + bytes(46) + b"\x01",
    "infinity with a sign": b"\xe0" + bytes(47),
    "infinity, not compressed": b"\x40" + bytes(47),
    "no flags": bytes(48),
    "x = p": bytes.fromhex(
        "9a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab"
    ),
    "off the curve": b"\x80" + bytes(46) + b"\x01",
    "off the subgroup": b"\x80" + bytes(46) + b"\x04",
    "r times that, which pairs to 1 with all": bytes.fromhex(
        "accd40884cb1834492efbd0149a414535890f30477f9535103082ff438ca13d7f7e36e2f1d15dd8ca30397f12170831a"
    ),
}


@pytest.mark.parametrize("name", BAD_POINTS)
def test_8_malformed_points_are_refused_as_commitment_and_as_proof(name: str) -> None:
    """Even where the ledger has such a commitment, for client and node may have agreed on it.

    Data and opening are zeros, so that both are right for the infinity that stands in the bad one's place.
    """
    holder, zeros = Holder(), bytes(500)
    row = holder.add(zeros)
    right = Dataset(holder, Tree(0, {0: [row]}), Tree(0, {}))
    challenge = right.challenge()
    proof = cheat(right, challenge, [0] * 4096)
    assert both_say(challenge, proof)
    bad = BAD_POINTS[name]
    assert not both_say(challenge, dag_cbor.encode({**dag_cbor.decode(proof), "pi": bad}))
    holder.commitments[row.multihash] = BlobCommitments(len(zeros), bad)
    agreed = holder.commitments[row.multihash].row(row.multihash)
    dataset = Dataset(holder, Tree(0, {0: [agreed]}), Tree(0, {}))
    assert not both_say(dataset.challenge(), cheat(dataset, dataset.challenge(), [0] * 4096))


def test_9_depths_repetitions_and_other_kinds_are_refused() -> None:
    dataset = three_blobs()
    rows = list(dataset.data.pieces[0].rows)
    challenge, proof = dataset.challenge(), proven()
    deeper = Dataset(dataset.holder, Tree(1, {0: rows}), Tree(0, {})).challenge()
    assert not both_say(deeper, proof)
    twice = Dataset(dataset.holder, Tree(0, {0: [rows[0], rows[0]]}), Tree(0, {}))
    of_twice = twice.prove(twice.challenge())
    assert both_say(twice.challenge(), of_twice)  # the same block may count twice
    assert not both_say(challenge, of_twice)
    content = dag_cbor.decode(proof)
    assert not both_say(challenge, dag_cbor.encode({**content, "kind": ProofKind.MERKLE.value}))
    assert not both_say(challenge, dag_cbor.encode({**content, "meta": content["data"]}))
