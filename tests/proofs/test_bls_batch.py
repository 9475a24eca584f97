"""Many signatures verified together: the verdict of one by one, whatever they were made to sum to."""

from __future__ import annotations

import random
from typing import Any

import pytest
from py_arkworks_bls12381 import G1Point, G2Point, Scalar

from proofs.bls import backend_arkworks
from proofs.bls import signatures as bls
from proofs.bls.points import R
from proofs.bls.signatures import Backend, BlsSigner, Signed, backend, count_valid, verify

FAST, REFERENCE = backend("arkworks"), backend("py_ecc")
BOTH = pytest.mark.parametrize("using", [FAST, REFERENCE], ids=lambda using: str(using.NAME))
ALICE, BOB = BlsSigner.from_seed(b"a" * 32), BlsSigner.from_seed(b"b" * 32)
DELTA = G2Point.hash_to_curve(b"any point of the subgroup", b"test")
G2_COFACTOR = int(
    "05d543a95414e7f1091d50792876a202cd91de4547085abaa68a205b2e5a7ddfa628f1cb4d9e82ef21537e293a6691ae"
    "1616ec6e786f0c70cf1c38e31c7238e5",
    16,
)


def times(point: Any, number: int) -> Any:
    """number · point for any point of the curve: the library's own product reduces modulo r."""
    found = point - point
    for bit in f"{number:b}":
        found = found + found
        if bit == "1":
            found = found + point
    return found


# On the curve, off the subgroup (ethereum/bls12-381-tests, deserialization_fails_not_in_G1 and _G2).
ODD_G1 = bytes.fromhex("8123456789abcdef" + "0123456789abcdef" * 5)
ODD_G2 = bytes.fromhex("8123456789abcdef" + "0123456789abcdef" * 11)
# Of orders that share nothing with r, the second's is 13: no pairing sees the first.
SMALL_G1 = times(G1Point.from_compressed_bytes_unchecked(ODD_G1), R)
SMALL_G2 = times(G2Point.from_compressed_bytes_unchecked(ODD_G2), R * (G2_COFACTOR // 13**2))


def signed(signer: BlsSigner, message: bytes) -> Signed:
    return Signed(signer.public_key, message, signer.sign(message))


def moved(one: Signed, by: Any) -> Signed:
    """The signature, another point added to it."""
    point = G2Point.from_compressed_bytes(one.signature) + by
    return one._replace(signature=bytes(point.to_compressed_bytes()))


def many(count: int) -> list[Signed]:
    return [signed((ALICE, BOB)[index % 2], b"message %d" % index) for index in range(count)]


def one_by_one(batch: list[Signed]) -> int:
    for index, each in enumerate(batch):
        if not verify(*each):
            return index
    return len(batch)


def test_sound_ones_take_one_check_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[int] = []
    holds = backend_arkworks.holds

    def counted(statements: list[backend_arkworks.Statement], weights: list[int]) -> bool:
        products.append(len(statements))
        return holds(statements, weights)

    monkeypatch.setattr(backend_arkworks, "holds", counted)
    batch = many(40)
    assert count_valid(batch) == 40
    assert products == [40]
    assert count_valid([]) == 0
    assert products == [40]  # an empty product would be true whatever was asked
    batch[25] = batch[25]._replace(signature=batch[24].signature)
    products.clear()
    assert count_valid(batch) == 25
    assert len(products) <= 1 + 6  # a bisection


@pytest.mark.parametrize("seed", range(12))
def test_the_verdict_is_that_of_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    batch = many(rng.randint(1, 9))
    for _ in range(rng.randint(0, 2)):
        place, other = rng.randrange(len(batch)), rng.randrange(len(batch))
        one = batch[place]
        batch[place] = rng.choice(
            [
                one,
                moved(one, DELTA),
                moved(one, SMALL_G2),
                one._replace(message=one.message + b"!"),
                one._replace(signature=batch[other].signature),
                one._replace(public_key=batch[other].public_key),
                one._replace(signature=one.signature[:-1]),
                one._replace(signature=b"\xc0" + bytes(95)),
                one._replace(signature=ODD_G2),
                one._replace(public_key=b""),
                one._replace(public_key=ODD_G1),
            ]
        )
    assert count_valid(batch) == one_by_one(batch)


@BOTH
def test_wrong_signatures_that_cancel_in_the_sum_are_found(using: Backend) -> None:
    """Without weights these two would pass together."""
    batch = [moved(signed(ALICE, b"one"), DELTA), moved(signed(BOB, b"two"), -DELTA)]
    statements = [using.statement(*each, bls.SIGN_DST) for each in batch]
    assert using.holds(statements, [1, 1])
    assert not using.holds(statements, bls._weights(batch))
    assert count_valid(batch) == 0


def test_weights_are_fixed_by_everything_that_is_checked() -> None:
    batch = many(5)
    weights = bls._weights(batch)
    assert weights == bls._weights(list(batch))
    assert len(set(weights)) == 5
    assert all(0 < weight <= 1 << 128 for weight in weights)
    assert max(weights).bit_length() > 120
    for place in range(5):
        one = batch[place]
        for changed in (
            one._replace(public_key=ALICE.sign(b"")[:48]),
            one._replace(message=one.message + b"\0"),
            one._replace(signature=bytes(96)),
        ):
            other = bls._weights([*batch[:place], changed, *batch[place + 1 :]])
            assert not set(other) & set(weights)
    assert not set(bls._weights(batch[:4])) & set(weights)


@pytest.mark.parametrize("sign", [1, -1])
def test_points_of_small_order_are_refused_although_a_pairing_may_not_see_them(sign: int) -> None:
    one = signed(ALICE, b"message")
    small_1, small_2 = (SMALL_G1, SMALL_G2) if sign == 1 else (-SMALL_G1, -SMALL_G2)
    key = G1Point.from_compressed_bytes(one.public_key) + small_1
    sound = backend_arkworks.statement(*one, bls.SIGN_DST)
    assert sound is not None
    assert backend_arkworks.holds([sound._replace(key=key)], [1])
    odd_key = bytes(key.to_compressed_bytes())
    odd_signature = moved(one, small_2).signature
    assert odd_signature != one.signature
    for using in (FAST, REFERENCE):
        assert using.statement(odd_key, b"message", one.signature, bls.SIGN_DST) is None
        assert using.statement(one.public_key, b"message", odd_signature, bls.SIGN_DST) is None
    assert not verify(odd_key, b"message", one.signature)
    assert not verify(one.public_key, b"message", odd_signature)
    assert count_valid([one, one._replace(signature=odd_signature)]) == 1
    assert count_valid([one, one._replace(public_key=odd_key)]) == 1


def test_a_signature_is_the_only_one() -> None:
    """No other 96 bytes verify: else a proposer could choose among beacon values."""
    one = signed(ALICE, b"message")
    for bit in range(8 * 96):
        changed = bytearray(one.signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify(one.public_key, b"message", bytes(changed))
    point = G2Point.from_compressed_bytes(one.signature)
    uncompressed = bytes(point.to_xy_bytes_be())
    for other in (
        bytes((-point).to_compressed_bytes()),
        uncompressed,
        uncompressed[:96],
        one.signature + one.signature,
        bytes((point + point).to_compressed_bytes()),
    ):
        assert not verify(one.public_key, b"message", other)
    order = times(point, R + 1)  # the same point by another way is the same bytes
    assert bytes(order.to_compressed_bytes()) == one.signature


def test_points_are_refused_alike_on_both_backends() -> None:
    """Random bytes under every flag, and what is near a signature."""
    rng = random.Random(8)
    one = signed(ALICE, b"message")
    refused = 0
    for _ in range(12):
        flags = rng.choice([0x80, 0xA0, 0x80, 0xA0, 0xC0, 0xE0, 0x00, 0x40, 0x20])
        raw = bytearray(rng.randbytes(96))
        raw[0] = flags | raw[0] & 0x1F % (1 + rng.randrange(0x1F))
        raw[48] &= 0x1F >> rng.randrange(3)
        signature, key = bytes(raw), bytes(raw[:48])
        for given in ((one.public_key, signature), (key, one.signature)):
            verdicts = {
                bls._statement(given[0], b"message", given[1], bls.SIGN_DST, using) is None
                for using in (FAST, REFERENCE)
            }
            assert len(verdicts) == 1, given
            refused += True in verdicts
    assert refused == 24  # none is of the subgroup


def test_a_rogue_key_signs_for_two_and_has_no_proof_of_possession() -> None:
    """Mallory registers M − Alice: the two keys together are hers, and alone she signs "for both"."""
    mallory = 12345
    point = G1Point() * Scalar(mallory)
    rogue = bytes((point - G1Point.from_compressed_bytes(ALICE.public_key)).to_compressed_bytes())
    hashed = G2Point.hash_to_curve(b"pay", bls.SIGN_DST)
    for_both = hashed * Scalar(mallory)
    together = bytes(
        (
            G1Point.from_compressed_bytes(rogue) + G1Point.from_compressed_bytes(ALICE.public_key)
        ).to_compressed_bytes()
    )
    assert verify(together, b"pay", bytes(for_both.to_compressed_bytes()))
    proofs = [
        BlsSigner(mallory).prove_possession(),
        ALICE.prove_possession(),
        bytes((G2Point.hash_to_curve(rogue, bls.POSSESSION_DST) * Scalar(mallory)).to_compressed_bytes()),
        bytes((-G2Point.from_compressed_bytes(ALICE.prove_possession())).to_compressed_bytes()),
        ALICE.sign(rogue),
    ]
    for proof in proofs:
        assert not bls.verify_possession(rogue, proof)
    # A batch does not add them up: shares of that one signature would pass without weights.
    share = bytes(DELTA.to_compressed_bytes())
    rest = bytes((for_both - DELTA).to_compressed_bytes())
    batch = [Signed(ALICE.public_key, b"pay", share), Signed(rogue, b"pay", rest)]
    assert FAST.holds([FAST.statement(*each, bls.SIGN_DST) for each in batch], [1, 1])
    assert count_valid(batch) == 0
