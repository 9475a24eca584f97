"""The beacon: a chain of values that only the proposer can extend, in one way."""

from __future__ import annotations

import hashlib

import pytest

from proofs.beacon import message, next_value, verify_step
from proofs.bls import BlsSigner
from proofs.errors import InvalidBeacon

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


def test_values_of_the_wrong_size_are_refused() -> None:
    for previous, signature in ((START[:-1], bytes(96)), (START, bytes(95))):
        with pytest.raises(ValueError, match="32 bytes"):
            next_value(previous, signature)
