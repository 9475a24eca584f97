"""Every byte of a proof counts: other values, deletion, insertion; no second proof answers a challenge."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag import dag_cbor
from proofs.challenge import Challenge
from proofs.errors import InvalidProof
from proofs.merkle_proof import verify
from tests.proofs.datasets import Dataset, Holder, Taken, Tree, as_proof, both_say, random_dataset


def refused(challenge: Challenge, proof: bytes) -> bool:
    try:
        verify(challenge, proof)
    except InvalidProof:
        return True
    return False


@pytest.fixture(scope="module")
def small() -> tuple[Challenge, bytes]:
    """All that a proof can have, in 500 bytes: empty slots, pieces of odd length, short and empty blocks."""
    holder = Holder()
    rows = [holder.add(bytes([n]) * n * 3) for n in range(7)]
    two_leaves = holder.add(random.Random(1).randbytes(1024 + 20))
    data = Tree(3, {1: rows[:3], 2: [two_leaves], 6: rows})
    dataset = Dataset(holder, data, Tree(1, {0: rows[4:6]}))
    for period in range(100):
        challenge = dataset.challenge(k=5, meta_k=1, period=period)
        proof = dataset.prove(challenge)
        if len(proof) < 900 and two_leaves.multihash in proof and rows[0].multihash in proof:
            return challenge, proof
    raise AssertionError("no draw shows the short leaf of the longer block")


@pytest.fixture(scope="module")
def large() -> tuple[Challenge, bytes]:
    """A default draw over 32 pieces of blocks of up to 300 KiB."""
    dataset = random_dataset(random.Random(21), depth=6, pieces=32, rows=6, max_bytes=300_000)
    challenge = dataset.challenge()
    return challenge, dataset.prove(challenge)


def with_byte(proof: bytes, at: int, value: int) -> bytes:
    return proof[:at] + bytes([value]) + proof[at + 1 :]


def test_no_byte_of_a_small_proof_can_have_another_value(small: tuple[Challenge, bytes]) -> None:
    """Each byte with bits turned, as 0, as 255, one more and one less."""
    challenge, proof = small
    assert both_say(challenge, proof)
    for at, value in enumerate(proof):
        others = {value ^ 0x80, value ^ 0x20, 0, 255, (value + 1) % 256, (value - 1) % 256}
        for other in others - {value}:
            assert refused(challenge, with_byte(proof, at, other)), (at, other)
        assert not both_say(challenge, with_byte(proof, at, value ^ 0xFF))


def test_no_byte_can_be_left_out_doubled_put_in_or_moved(small: tuple[Challenge, bytes]) -> None:
    challenge, proof = small
    for extra in (b"\0", b"\xf6", proof, bytes(challenge.max_proof_bytes())):
        assert not both_say(challenge, proof + extra)
        assert not both_say(challenge, extra + proof)
    for at in range(len(proof)):
        rest = proof[at + 1 :]
        own = proof[at : at + 1]
        others = [proof[:at] + rest, proof[:at], proof[: at + 1] * 2, proof[:at] + own * 2 + rest]
        others += [proof[:at] + bytes([value]) + proof[at:] for value in (0, 1, 0x20, 0x40, 0x58, 0xFF)]
        others += [proof[:at] + rest[:1] + own + rest[1:], proof[at:] + proof[:at]]
        for other in others:
            assert other == proof or refused(challenge, other), at


def mutations(rng: random.Random, proof: bytes, positions: Iterator[int]) -> Iterator[bytes]:
    for at in positions:
        yield with_byte(proof, at, (proof[at] + rng.randint(1, 255)) % 256)


def test_no_item_of_a_large_proof_can_be_altered(large: tuple[Challenge, bytes]) -> None:
    """One byte in each item that the verifier takes, and every 211th byte of the whole."""
    challenge, proof = large
    rng = random.Random(5)
    taken = Taken.apart(challenge, proof)
    starts = [proof.index(b"\x64data") + 5 + 3]
    assert proof[starts[0] : starts[0] + 200] == b"".join(found for _, found in taken.data)[:200]
    for _, found in taken.data:
        starts.append(starts[-1] + len(found))
    places = {rng.randrange(start, end) for start, end in itertools.pairwise(starts) if end > start}
    places |= set(range(0, len(proof), 211))
    assert len(places) > len(taken.data)
    for altered in mutations(rng, proof, iter(sorted(places))):
        assert refused(challenge, altered)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_byte_of_a_large_proof_can_be_altered(large: tuple[Challenge, bytes]) -> None:
    challenge, proof = large
    for at, altered in enumerate(mutations(random.Random(6), proof, iter(range(len(proof))))):
        assert refused(challenge, altered), at


@pytest.mark.parametrize("seed", range(8))
def test_what_is_accepted_encodes_to_itself(seed: int) -> None:
    rng = random.Random(seed)
    dataset = random_dataset(rng, depth=seed % 4, pieces=1, rows=5, max_bytes=4000)
    challenge = dataset.challenge(k=rng.randint(1, 20))
    proof = dataset.prove(challenge)
    assert dag_cbor.encode(dag_cbor.decode(proof)) == proof
    assert Taken.apart(challenge, proof).proof() == proof
    assert both_say(challenge, proof)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_second_proof_is_found(small: tuple[Challenge, bytes], data: st.DataObject) -> None:
    """Bytes moved within and between the parts, cut and joined anew: only the one proof is accepted."""
    challenge, proof = small
    content = dag_cbor.decode(proof)
    parts = [content["data"], content["meta"]]
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(0, 1))
        part = parts[which]
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(part))] * 2)))
        piece, rest = part[start:end], part[:start] + part[end:]
        match data.draw(st.sampled_from(["move", "copy", "across", "turn", "drop", "fill"])):
            case "move":
                to = data.draw(st.integers(0, len(rest)))
                parts[which] = rest[:to] + piece + rest[to:]
            case "copy":
                parts[which] = part[:end] + piece + part[end:]
            case "across":
                parts[which], parts[1 - which] = rest, parts[1 - which] + piece
            case "turn":
                parts[which] = part[:start] + piece[::-1] + part[end:]
            case "drop":
                parts[which] = rest
            case _:
                parts[which] = part[:start] + bytes(len(piece)) + part[end:]
    altered = as_proof(*parts)
    assert both_say(challenge, altered) is (altered == proof)


def test_an_empty_dataset_has_one_proof_of_millions() -> None:
    """Nothing is drawn, so nothing hashes to anything: here only the encoding keeps a second one out."""
    none = Tree(0, {})
    challenge = Dataset(Holder(), none, none).challenge()
    proof = as_proof(b"")
    assert both_say(challenge, proof)
    assert len(proof) < challenge.max_proof_bytes()
    for at in range(len(proof)):
        for value in range(256):
            assert value == proof[at] or refused(challenge, with_byte(proof, at, value))
            assert refused(challenge, proof[:at] + bytes([value]) + proof[at:])
    for length in range(challenge.max_proof_bytes()):
        assert length == len(proof) or refused(challenge, proof[:length].ljust(length, b"\0"))
