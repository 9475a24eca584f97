"""Every decoder, with a fixed budget of inputs; `python -m tests.fuzz TARGET` goes on."""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Callable

import pytest

from tests.fuzz import mutations
from tests.fuzz.registry import TARGETS
from tests.fuzz.target import Finding, Refused, Target, Unsure, run

INPUTS = {"genesis": 150, "manifest": 400, "path": 800, "dag-json": 1_000, "hamt": 600, "car-find": 600}
USUAL_INPUTS = 1_500
SEED = 4
MAX_GROWTH_BYTES = 256 * 1024 * 1024


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_takes_what_it_must_and_nothing_else(name: str) -> None:
    before = peak_bytes()
    outcome = run(TARGETS[name], SEED, inputs=INPUTS.get(name, USUAL_INPUTS))
    # Else the inputs would say nothing: neither all garbage, nor all as they were encoded.
    assert 0 < outcome.accepted < outcome.inputs
    assert peak_bytes() - before < MAX_GROWTH_BYTES


def sloppy(data: bytes) -> int:
    """A decoder with a fault: it takes numbers with a needless last byte."""
    if not data or data[-1] & 0x80 or any(byte < 0x80 for byte in data[:-1]) or len(data) > 9:
        raise ValueError("no varint")
    return sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(data))


def test_a_fault_is_found_and_told_in_few_bytes() -> None:
    right = TARGETS["varint"]
    wrong = Target("sloppy", right.make, sloppy, right.oracle, (ValueError,))
    with pytest.raises(
        Finding, match=r"sloppy: accepted \d+, and must not: not minimal\nseed 4, .*: \w{4,6}$"
    ):
        run(wrong, SEED, inputs=1_000)


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError is no documented error"),
        (lambda data: data, "read as b'"),
        (lambda data: int(data), "is valid"),  # a ValueError
    ],
)
def test_every_kind_of_fault_is_told(decode: Callable[[bytes], object], message: str) -> None:
    right = TARGETS["varint"]
    wrong = Target("wrong", lambda _: b"\x05", decode, right.oracle, (ValueError,))
    with pytest.raises(Finding, match=message):
        wrong.check(b"\x05")


def test_an_input_follows_from_its_seed() -> None:
    for target in TARGETS.values():
        first, second = (target.make(random.Random("a seed")) for _ in range(2))
        assert first == second


def test_the_oracles_know_every_valid_encoding() -> None:
    """Values made by the dice, encoded by us and not changed, are what an oracle reads."""
    for kind in ("dag-cbor", "dag-json", "dag-pb", "unixfs", "hamt", "car", "car-index"):
        target, known = TARGETS[kind], 0
        for seed in range(200):
            data = target.make(random.Random(f"{kind} {seed}"))
            try:
                target.oracle(data)
            except (Refused, Unsure):
                continue
            known += 1
        assert known > 20, kind
    assert mutations.varint(300) == b"\xac\x02"
