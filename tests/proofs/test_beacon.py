"""The beacon: a chain of values that only the proposer can extend, in one way."""

from __future__ import annotations

import hashlib

import pytest

from proofs.beacon import chain as beacon
from proofs.beacon.chain import message, next_value, values, verify_history, verify_step
from proofs.bls.signatures import BlsSigner
from proofs.errors import InvalidBeacon
from tests.proofs.simple_files import next_beacon
from tests.proofs.simple_verifier import No

SIGNER = BlsSigner.from_seed(bytes(range(32)))
START = b"\x05" * 32


def test_the_message_binds_chain_height_and_previous_value() -> None:
    base = message("chain", 7, START)
    assert base == b"holdfast/beacon-message/1\0" + b"\x05chain" + (7).to_bytes(8, "big") + START
    assert (
        len({base, message("chaim", 7, START), message("chain", 8, START), message("chain", 7, bytes(32))})
        == 4
    )


@pytest.mark.parametrize(
    ("chain", "height", "previous"),
    [("", 1, START), ("x" * 256, 1, START), ("c", -1, START), ("c", 2**63, START), ("c", 1, START[:31])],
)
def test_messages_that_cannot_be_are_refused(chain: str, height: int, previous: bytes) -> None:
    with pytest.raises(ValueError, match="no beacon message"):
        message(chain, height, previous)


def test_a_chain_of_values() -> None:
    value = START
    for height in range(1, 5):
        signature = SIGNER.sign(message("chain", height, value))
        following = verify_step(SIGNER.public_key, "chain", height, value, signature)
        assert following == next_value(value, signature)
        assert following == next_beacon(SIGNER.public_key, "chain", height, value, signature)
        assert following == hashlib.sha256(b"holdfast/beacon-value/1\0" + value + signature).digest()
        value = following


def test_any_other_step_is_refused() -> None:
    signature = SIGNER.sign(message("chain", 1, START))
    other = BlsSigner.from_seed(bytes(32)).public_key
    for key, chain, height, previous, signed in (
        (other, "chain", 1, START, signature),
        (SIGNER.public_key, "other", 1, START, signature),
        (SIGNER.public_key, "chain", 2, START, signature),
        (SIGNER.public_key, "chain", 1, bytes(32), signature),
        (SIGNER.public_key, "chain", 1, START, signature[:-1] + bytes([signature[-1] ^ 1])),
        (SIGNER.public_key, "chain", 1, START, b""),
    ):
        with pytest.raises(InvalidBeacon, match=f"block {height}"):
            verify_step(key, chain, height, previous, signed)
        with pytest.raises(No):
            next_beacon(key, chain, height, previous, signed)


def test_values_of_the_wrong_size_are_refused() -> None:
    for previous, signature in ((START[:-1], bytes(96)), (START, bytes(95))):
        with pytest.raises(ValueError, match="32 bytes"):
            next_value(previous, signature)


OTHER = BlsSigner.from_seed(b"other proposer".ljust(32))


def history(count: int, first: int = 1) -> tuple[list[bytes], list[bytes]]:
    """(keys, signatures) of consecutive blocks whose proposers take turns, unevenly."""
    signers = [OTHER if height % 3 == 0 else SIGNER for height in range(first, first + count)]
    value, signatures = START, []
    for height, signer in enumerate(signers, first):
        signatures.append(signer.sign(message("chain", height, value)))
        value = next_value(value, signatures[-1])
    return [signer.public_key for signer in signers], signatures


def step_by_step(keys: list[bytes], signatures: list[bytes]) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for height, (key, signature) in enumerate(zip(keys, signatures, strict=True), 1):
        try:
            found.append(verify_step(key, "chain", height, found[-1] if found else START, signature))
        except InvalidBeacon:
            break
    return tuple(found)


@pytest.mark.parametrize("batch", [3, 4, 256])
def test_a_whole_history_has_the_values_of_its_steps(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(beacon, "BATCH", batch)
    keys, signatures = history(8)
    found = verify_history(keys, "chain", 1, START, signatures)
    assert found == step_by_step(keys, signatures) == tuple(values(START, signatures))
    assert len(found) == 8
    assert verify_history(keys[:4], "chain", 1, START, signatures[:4]) == found[:4]
    assert verify_history(keys[4:], "chain", 5, found[3], signatures[4:]) == found[4:]
    assert verify_history([], "chain", 1, START, []) == ()


@pytest.mark.parametrize("batch", [3, 256])
@pytest.mark.parametrize("place", [0, 2, 3, 7])
def test_a_history_ends_before_its_first_wrong_signature(
    monkeypatch: pytest.MonkeyPatch, batch: int, place: int
) -> None:
    monkeypatch.setattr(beacon, "BATCH", batch)
    keys, signatures = history(8)
    before = list(values(START, signatures))[:place]
    for wrong in (
        signatures[place - 1],
        SIGNER.sign(message("other", place + 1, [START, *before][-1])),
        SIGNER.sign(message("chain", place, [START, *before][-1])),
        signatures[place][:-1],
        b"",
    ):
        changed = [*signatures[:place], wrong, *signatures[place + 1 :]]
        assert verify_history(keys, "chain", 1, START, changed) == tuple(before)
        assert step_by_step(keys, changed) == tuple(before)
    other = [*keys[:place], SIGNER.public_key if keys[place] == OTHER.public_key else OTHER.public_key]
    assert verify_history([*other, *keys[place + 1 :]], "chain", 1, START, signatures) == tuple(before)


def test_another_chain_height_or_beginning_gives_no_value_at_all() -> None:
    keys, signatures = history(3)
    for chain, first, previous in (("chaim", 1, START), ("chain", 2, START), ("chain", 1, bytes(32))):
        assert verify_history(keys, chain, first, previous, signatures) == ()


def test_a_history_that_cannot_be_is_an_error_of_the_caller() -> None:
    keys, signatures = history(2)
    with pytest.raises(ValueError, match="1 keys for 2"):
        verify_history(keys[:1], "chain", 1, START, signatures)
    with pytest.raises(ValueError, match="no beacon message"):
        verify_history(keys, "chain", 2**63 - 1, START, signatures)
