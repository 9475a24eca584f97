"""Light blocks as CometBFT's own light client judges them, and what only ours refuses or lets pass."""

from __future__ import annotations

import base64
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.engine.cometbft.light.block import MAX_LIGHT_BLOCK_BYTES, LightBlock
from ledger.engine.cometbft.light.canonical import SECOND_NS
from ledger.engine.cometbft.light.errors import InvalidLightBlock, NotEnoughTrust, TrustExpired
from ledger.engine.cometbft.light.header import data_hash
from ledger.engine.cometbft.light.validators import Validator, ValidatorSet
from ledger.engine.cometbft.light.verify import Rules, verify, verify_alone, verify_backwards
from ledger.engine.cometbft.light.votes import Flag
from merkledag import ed25519
from tests.conftest import load_vectors
from tests.ledger.cometbft.light_chain import CHAIN, START_NS, block_of, chain_of, signed

VECTORS = load_vectors("light")
BLOCKS: dict[str, dict[str, Any]] = {each["name"]: each for each in VECTORS["blocks"]}
# What the Go client would call each of our errors.
RAISED = {"expired": TrustExpired, "untrusted": NotEnoughTrust, "invalid": InvalidLightBlock}
FOUR = {"a": 10, "b": 10, "c": 10, "d": 10}
RULES = Rules()


def raw(value: str | None) -> bytes:
    return base64.b64decode(value or "")


def decoded(name: str) -> LightBlock:
    return LightBlock.decode(raw(BLOCKS[name]["raw"]))


@pytest.mark.parametrize("name", BLOCKS)
def test_hashes_and_signed_bytes_are_those_of_cometbft(name: str) -> None:
    vector, block = BLOCKS[name], decoded(name)
    assert block.header.hash() == raw(vector["hash"])
    assert block.validators.hash() == raw(vector["validators_hash"])
    assert block.commit.hash() == raw(vector["commit_hash"])
    for vote, expected in zip(block.commit.signatures, vector["sign_bytes"], strict=True):
        if vote.flag is not Flag.ABSENT:
            assert block.commit.sign_bytes(block.header.chain, vote) == raw(expected)
    assert LightBlock.decode(block.encode()) == block


def test_all_kinds_of_votes_and_verdicts_are_among_the_vectors() -> None:
    flags = {vote.flag for name in BLOCKS for vote in decoded(name).commit.signatures}
    assert flags == set(Flag)
    assert {case["outcome"] for case in VECTORS["cases"]} == {"ok", *RAISED}


@pytest.mark.parametrize(
    "case", VECTORS["cases"], ids=lambda case: f"{case['trusted']}-{case['new']}-{case['level']}"
)
def test_verdicts_are_those_of_cometbft(case: dict[str, Any]) -> None:
    rules = Rules(trusting_period_s=case["period_s"], trust_level=Fraction(*case["level"]))
    trusted = decoded(case["trusted"])
    if case["outcome"] == "ok":
        return verify(trusted, decoded(case["new"]), case["now_ns"], rules)
    with pytest.raises(RAISED[case["outcome"]]):
        verify(trusted, decoded(case["new"]), case["now_ns"], rules)
    return None


def test_a_data_hash_is_over_the_digests_of_the_transactions() -> None:
    digests = [sha256(each).digest() for each in (b"one", b"two", b"three")]
    assert data_hash(digests) == decoded("first").header.data_hash


@pytest.mark.parametrize("level", [Fraction(6, 5), Fraction(0), Fraction(1, 4)])
def test_a_trust_level_is_a_third_at_least(level: Fraction) -> None:
    with pytest.raises(ValueError, match="trust level"):
        Rules(trust_level=level)


def test_one_bad_signature_does_not_spoil_a_commit_that_has_enough_without() -> None:
    """CometBFT refuses the commit where the bad one comes first; ours counts what is good."""
    first, good = block_of(1, FOUR), block_of(2, FOUR)
    for index in range(4):
        votes = list(good.commit.signatures)
        votes[index] = replace(votes[index], signature=bytes(64))
        one_bad = replace(good, commit=replace(good.commit, signatures=tuple(votes)))
        verify(first, one_bad, START_NS + 5 * SECOND_NS, RULES)
        other = (index + 1) % 4
        votes[other] = replace(votes[other], signature=bytes(64))
        two_bad = replace(good, commit=replace(good.commit, signatures=tuple(votes)))
        with pytest.raises(InvalidLightBlock, match="power 20 signed"):
            verify(first, two_bad, START_NS + 5 * SECOND_NS, RULES)


def test_no_more_signatures_are_checked_than_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def counted(key: bytes, signature: bytes, message: bytes) -> bool:
        checked.append(signature)
        return original(key, signature, message)

    original = ed25519.verify
    monkeypatch.setattr(ed25519, "verify", counted)
    many = {f"v{number}": 1 for number in range(30)}
    first, later = block_of(1, many), block_of(9, many)
    verify(first, later, START_NS + 20 * SECOND_NS, RULES)
    assert len(checked) == 21  # more than two thirds; those that showed the trusted third are among them
    votes = tuple(replace(each, signature=bytes(64)) for each in later.commit.signatures)
    forged = replace(later, commit=replace(later.commit, signatures=votes))
    checked.clear()
    with pytest.raises(NotEnoughTrust):
        verify(first, forged, START_NS + 20 * SECOND_NS, RULES)
    assert len(checked) == 20  # after these the other ten could not make up for them
    checked.clear()
    other = signed(replace(later.header, validators_hash=bytes(32)), many)
    with pytest.raises(InvalidLightBlock, match="of other validators"):
        verify(first, other, START_NS + 20 * SECOND_NS, RULES)
    assert not checked


def test_a_validator_that_is_twice_in_a_set_counts_not_twice() -> None:
    first = block_of(1, FOUR)
    once = first.validators.validators
    for twice in ((*once, once[0]), (once[0], Validator(once[0].public_key, 500))):
        with pytest.raises(InvalidLightBlock, match="twice"):
            ValidatorSet(twice).check()


def test_a_pinned_block_stands_on_two_thirds_of_its_own() -> None:
    verify_alone(block_of(3, FOUR, absent={"a"}), CHAIN)
    with pytest.raises(InvalidLightBlock, match="more than 26"):
        verify_alone(block_of(3, FOUR, absent={"a"}, nil={"b"}), CHAIN)
    with pytest.raises(InvalidLightBlock, match="not of"):
        verify_alone(block_of(3, FOUR), "another")


def test_headers_are_verified_backwards_by_their_hashes() -> None:
    blocks = chain_of([FOUR] * 4)
    verify_backwards(blocks[1].header, blocks[2].header)
    for older, trusted in ((0, 2), (2, 2), (3, 2)):
        with pytest.raises(InvalidLightBlock):
            verify_backwards(blocks[older].header, blocks[trusted].header)
    with pytest.raises(InvalidLightBlock, match="another header"):
        verify_backwards(replace(blocks[1].header, app_hash=bytes(32)), blocks[2].header)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_light_block_are_refused(junk: bytes) -> None:
    try:
        block = LightBlock.decode(junk)
        verify_alone(block, CHAIN)
    except InvalidLightBlock:
        return
    pytest.fail("junk was believed")


def test_a_light_block_is_bounded() -> None:
    with pytest.raises(InvalidLightBlock, match="at most"):
        LightBlock.decode(bytes(MAX_LIGHT_BLOCK_BYTES + 1))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_changed_byte_is_believed_to_be_another_header(data: st.DataObject) -> None:
    """Flipping a bit gives an error, or the very same header (fields that nobody signs)."""
    first, good = block_of(1, FOUR), block_of(2, FOUR)
    encoded = bytearray(good.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        changed = LightBlock.decode(bytes(encoded))
        verify(first, changed, START_NS + 5 * SECOND_NS, RULES)
    except InvalidLightBlock:
        return
    assert changed.header == good.header
