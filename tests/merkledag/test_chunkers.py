"""Content-defined chunkers against plain loops over bytes, and against what boxo cuts."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from merkledag.chunker import (
    MAX_CHUNK_BYTES,
    Buzhash,
    Chunker,
    FixedSize,
    Rabin,
    Uncut,
    parse_chunker,
)
from merkledag.chunker_buzhash import _WORDS
from merkledag.chunker_scan import cut_chunks
from merkledag.errors import LimitExceeded

POLYNOMIAL = 17437180132763653
KIB = 1024


def naive_rabin(data: bytes, low: int, average: int, high: int) -> list[int]:
    """Lengths of chunks: the fingerprint of the last 16 bytes, bit by bit, at every position."""
    mask = 2 ** (average.bit_length() - 1) - 1
    lengths = []
    start = 0
    while start < len(data):
        end = min(start + low, len(data))
        while end < min(start + high, len(data)):
            rest = int.from_bytes(data[end - 16 : end], "big")
            while rest.bit_length() > 53:
                rest ^= POLYNOMIAL << rest.bit_length() - 54
            if rest & mask == 0:
                break
            end += 1
        lengths.append(end - start)
        start = end
    return lengths


def naive_buzhash(
    data: bytes, low: int = 128 * KIB, high: int = 512 * KIB, mask: int = 2**17 - 1
) -> list[int]:
    """Lengths of chunks: the hash of the last 32 bytes, rolled byte by byte."""
    words = [int.from_bytes(_WORDS[4 * n : 4 * n + 4], "big") for n in range(256)]

    def left(word: int) -> int:
        return (word << 1 | word >> 31) & 0xFFFFFFFF

    lengths = []
    start = 0
    while start < len(data):
        end = min(start + low, len(data))
        state = 0
        for byte in data[end - 32 : end]:
            state = left(state) ^ words[byte]
        while end < min(start + high, len(data)) and state & mask:
            state = left(state) ^ words[data[end - 32]] ^ words[data[end]]
            end += 1
        lengths.append(end - start)
        start = end
    return lengths


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    """The data in pieces of random lengths, some of them empty."""
    chance = random.Random(seed)
    at = 0
    while at < len(data):
        size = chance.choice([0, 1, 15, 16, 17, 1000, 16 * KIB, 100_000, 1_500_000])
        yield data[at : at + size]
        at += size


def lengths(chunker: Chunker, data: bytes, seed: int = 0) -> list[int]:
    chunks = list(chunker.split(pieces(data, seed)))
    assert b"".join(chunks) == data
    return [len(chunk) for chunk in chunks]


inputs = st.one_of(
    st.builds(
        lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 999), st.integers(1, 20_000)
    ),
    st.builds(bytes, st.integers(1, 5_000)),
    st.builds(lambda period, times: period * times, st.binary(min_size=1, max_size=40), st.integers(1, 200)),
    st.lists(st.binary(max_size=300) | st.builds(bytes, st.integers(0, 300)), min_size=1).map(b"".join),
).filter(len)
bounds = st.tuples(st.integers(16, 200), st.integers(1, 3_000), st.integers(1, 4_000)).map(
    lambda three: (three[0], three[0] + three[1], three[0] + three[1] + three[2])
)


@settings(max_examples=80)
@given(inputs, bounds, st.integers(0, 99))
@example(bytes(100), (16, 17, 18), 0)
@example(b"\x80" * 3_000, (16, 300, 900), 1)
def test_rabin_cuts_as_the_plain_loop(data: bytes, limits: tuple[int, int, int], seed: int) -> None:
    assert lengths(Rabin(*limits), data, seed) == naive_rabin(data, *limits)


@pytest.mark.parametrize(
    "data",
    [
        random.Random(1).randbytes(1_200_000),
        bytes(700_000),
        random.Random(2).randbytes(37) * 20_000,
        random.Random(3).randbytes(128 * KIB),
        random.Random(3).randbytes(128 * KIB + 1),
        random.Random(3).randbytes(128 * KIB - 1),
        bytes(512 * KIB),
        b"x",
    ],
    ids=["random", "zeros", "periodic", "the minimum", "one more", "one less", "the maximum", "one byte"],
)
def test_buzhash_cuts_as_the_plain_loop(data: bytes) -> None:
    assert lengths(Buzhash(), data) == naive_buzhash(data)


@settings(max_examples=60)
@given(inputs, st.integers(32, 100), st.integers(1, 3_000))
def test_the_scan_cuts_as_the_plain_loop_for_any_bounds(data: bytes, low: int, more: int) -> None:
    """The hash of buzhash with few bits and small bounds, so that there are many ends to find."""

    def marker(block: bytes, count: int) -> bytearray:
        words = [int.from_bytes(_WORDS[4 * n : 4 * n + 4], "big") for n in range(256)]
        marks = bytearray()
        for at in range(count):
            state = 0
            for byte in block[at : at + 32]:
                state = (state << 1 | state >> 31) & 0xFFFFFFFF ^ words[byte]
            marks.append(state & 63 != 0)
        return marks

    data = data[:4_000]
    chunks = list(cut_chunks(pieces(data, more), low, low + more, 32, marker))
    assert [len(chunk) for chunk in chunks] == naive_buzhash(data, low, low + more, 63)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rabin", [393216, 393216, 393216, 320352]),
        (
            "rabin-1000-200000-300000",
            [
                5313, 177896, 300000, 60644, 127689, 39348, 34332, 22333, 159175, 13458, 300000, 133067,
                126745,
            ],
        ),
        ("buzhash", [524288, 190127, 383394, 221698, 141711, 38782]),
    ],
)  # fmt: skip
def test_cuts_are_those_of_boxo(name: str, expected: list[int]) -> None:
    """The lengths that boxo v0.39.0 gives for these bytes."""
    assert lengths(parse_chunker(name), random.Random(7).randbytes(1_500_000)) == expected


@pytest.mark.parametrize("name", ["size-1000", "rabin-100", "rabin-16-32-64", "buzhash", "rabin-40"])
def test_no_input_is_one_empty_chunk(name: str) -> None:
    assert list(parse_chunker(name).split([])) == [b""]
    assert list(parse_chunker(name).split([b"", b""])) == [b""]
    assert list(parse_chunker(name).split([memoryview(b"a")])) == [b"a"]


@pytest.mark.parametrize(
    ("text", "chunker"),
    [
        ("", FixedSize(262144)), ("default", FixedSize(262144)), ("size-1", FixedSize(1)),
        ("size-2096896", FixedSize(MAX_CHUNK_BYTES)), ("size-+07", FixedSize(7)),
        ("rabin", Rabin(87381, 262144, 393216)), ("rabin-48", Rabin(16, 48, 72)),
        ("rabin-1397931", Rabin(465977, 1397931, 2096896)), ("rabin-47", Uncut()), ("rabin-0", Uncut()),
        ("rabin-16-32-64", Rabin(16, 32, 64)), ("rabin-min:16-avg:32-max:64", Rabin(16, 32, 64)),
        ("rabin-16-avg:32-64", Rabin(16, 32, 64)), ("buzhash", Buzhash()), ("buzhash-1-2", Buzhash()),
    ],
)  # fmt: skip
def test_names_are_boxos(text: str, chunker: Chunker) -> None:
    assert parse_chunker(text) == chunker
    assert parse_chunker(str(chunker)) == chunker


@pytest.mark.parametrize(
    "text",
    [
        "size-0", "size--1", "size-", "size", "size-1-2", "size-x", "size-1_0", "size-\u0661", "size-2096897",
        "size-" + "9" * 5_000, "rabin-x", "rabin-1-2", "rabin-1-2-3-4", "rabin-15-32-64", "rabin-32-32-64",
        "rabin-16-64-64", "rabin-16-32-2096897", "rabin-1397932", "rabin-max:16-32-64", "rabin-16-min:32-64",
        "Rabin", "buz", "x-1", " size-1",
    ],
)  # fmt: skip
def test_what_boxo_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_chunker(text)


def test_what_never_cuts_must_fit_into_a_block() -> None:
    assert [len(chunk) for chunk in Uncut().split([bytes(MAX_CHUNK_BYTES)])] == [MAX_CHUNK_BYTES]
    with pytest.raises(LimitExceeded, match="never cuts"):
        list(Uncut().split(bytes(1000) for _ in range(10**9)))


@pytest.mark.parametrize("name", ["buzhash", "rabin"])
def test_memory_is_bounded_by_a_chunk_and_a_piece(name: str) -> None:
    import tracemalloc

    chunker = parse_chunker(name)
    data = random.Random(5).randbytes(64 * KIB)
    tracemalloc.start()
    for _ in chunker.split(data for _ in range(80)):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2**20  # of 5 MiB
