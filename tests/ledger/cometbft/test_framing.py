"""Frames on the ABCI socket: however they are cut they give the same messages, and none too large is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.engine.cometbft.abci.framing import FrameReader, frame
from ledger.engine.cometbft.errors import AbciProtocolError


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_messages_come_out_however_the_bytes_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, sent))
    reader, found, at, turn = FrameReader(300), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        found += reader.feed(stream[at : at + step])
        at, turn = at + step, turn + 1
    assert found == sent


@pytest.mark.parametrize(
    ("length", "head"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (16_384, "808001"),
        (2_097_152, "80808001"),
    ],
)
def test_a_length_is_an_unsigned_varint(length: int, head: str) -> None:
    made = frame(bytes(length))
    assert made[: len(made) - length].hex() == head
    assert FrameReader().feed(made) == [bytes(length)]


def test_a_frame_that_is_too_large_is_refused_by_its_length() -> None:
    reader = FrameReader(max_bytes=1_000)
    assert reader.feed(frame(bytes(1_000))) == [bytes(1_000)]
    with pytest.raises(AbciProtocolError, match="1001 bytes; at most 1000"):
        reader.feed(frame(bytes(1_001))[:2])


@pytest.mark.parametrize("head", ["ffffffff7f", "ffffffffff", "ffffffffffffffffff01", "8080808080"])
def test_a_length_that_no_frame_has_is_refused(head: str) -> None:
    with pytest.raises(AbciProtocolError):
        FrameReader().feed(bytes.fromhex(head))


def test_a_length_that_is_not_whole_yet_is_waited_for() -> None:
    reader = FrameReader()
    assert reader.feed(b"\xac") == []
    assert reader.feed(b"\x02") == []
    assert reader.feed(bytes(300)) == [bytes(300)]
