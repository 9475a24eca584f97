"""Signatures that validators count and our strict rule refuses."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256, sha512

import pytest

from ledger.engine.cometbft.light import verify as light_verify
from ledger.engine.cometbft.light import zip215
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.cometbft.light.verify import Rules, verify
from merkledag import ed25519
from tests.ledger.cometbft.light_chain import START_NS, block_of, signer
from tests.merkledag.edwards import BASE, TORSION, L, P, add, encode, times

FOUR = {"a": 10, "b": 10, "c": 10, "d": 10}
NOW_NS = START_NS + 20 * 10**9
OF_ORDER_8 = TORSION[1]


def odd_signature(name: str, message: bytes, twist: int = 1) -> bytes:
    """A signature whose R has a part of small order: the equation holds with the cofactor alone."""
    seed = sha256(name.encode()).digest()
    secret = int.from_bytes(sha512(seed).digest()[:32], "little") & (1 << 254) - 8 | 1 << 254
    nonce = int.from_bytes(sha512(seed + message).digest(), "little") % L
    r = encode(add(times(nonce, BASE), times(twist, OF_ORDER_8)))
    public_key = signer(name).public_key
    k = int.from_bytes(sha512(r + public_key + message).digest(), "little") % L
    return r + ((nonce + k * secret) % L).to_bytes(32, "little")


@pytest.mark.parametrize("twist", [0, 1, 4, 7])
def test_what_holds_with_the_cofactor_is_good_and_nothing_else(twist: int) -> None:
    key, message = signer("a").public_key, b"a vote"
    signature = odd_signature("a", message, twist)
    assert ed25519.verify(key, signature, message) is (twist == 0)
    assert zip215.verify(key, signature, message)
    assert zip215.verify(key, signer("a").sign(message), message)
    assert not zip215.verify(key, signature, b"another vote")
    assert not zip215.verify(signer("b").public_key, signature, message)
    for at in (0, 31, 32, 63):
        changed = bytearray(signature)
        changed[at] ^= 1
        assert not zip215.verify(key, bytes(changed), message)
    larger = int.from_bytes(signature[32:], "little") + L
    assert not zip215.verify(key, signature[:32] + larger.to_bytes(32, "little"), message)
    for junk in (b"", signature[:63], signature + b"\0"):
        assert not zip215.verify(key, junk, message)
    assert not zip215.verify(key[:31], signature, message)


def test_all_encodings_of_points_of_small_order_are_taken() -> None:
    """With S = 0 every pair of them is a signature of everything, as ZIP 215 says."""
    small = {encode(point) for point in TORSION}
    odd = {
        (y | sign << 255).to_bytes(32, "little")
        for y, signs in ((0, ()), (1, (1,)), (P - 1, (1,)), (P, (0, 1)), (P + 1, (0, 1)))
        for sign in signs
    }
    assert (len(small), len(odd), len(small | odd)) == (8, 6, 14)
    for number, key in enumerate(sorted(small | odd)):
        for r in sorted(small | odd)[number % 3 :: 3]:
            assert zip215.verify(key, r + bytes(32), b"Zcash")
            assert not ed25519.verify(key, r + bytes(32), b"Zcash")
    no_point = next(
        raw for raw in (y.to_bytes(32, "little") for y in range(2, 40)) if not ed25519.is_usable_key(raw)
    )
    assert not zip215.verify(no_point, bytes(64), b"Zcash")


def odd_votes(block: LightBlock, names: set[str]) -> LightBlock:
    """The same block, of which these sign so."""
    votes = list(block.commit.signatures)
    for index, (vote, each) in enumerate(zip(votes, block.validators.validators, strict=True)):
        for name in names:
            if each.public_key == signer(name).public_key:
                signed = block.commit.sign_bytes(block.header.chain, vote)
                votes[index] = replace(vote, signature=odd_signature(name, signed))
    return replace(block, commit=replace(block.commit, signatures=tuple(votes)))


def test_what_decides_a_block_is_what_a_client_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One validator of four must not keep clients from headers, also while another one is away."""
    first, later = block_of(1, FOUR), odd_votes(block_of(9, FOUR, absent={"a"}), {"b"})
    verify(first, later, NOW_NS, Rules())
    verify(first, odd_votes(block_of(2, FOUR), {"a", "b", "c", "d"}), NOW_NS, Rules())
    # No more of them are looked at than any chain has.
    monkeypatch.setattr(light_verify, "MAX_SLOW", 0)
    with pytest.raises(InvalidLightBlock, match="at most power 20"):
        verify(first, later, NOW_NS, Rules())
