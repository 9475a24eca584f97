"""The seed of a period and the draw of its leaves."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proofs.challenge import detection, meta_seed, period_seed, sample, spot_seed
from tests.proofs import simple_files, simple_verifier

VECTORS = Path(__file__).parent.parent / "vectors" / "proofs.json"
A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


def seed(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def test_every_part_is_bound_into_the_seed() -> None:
    base = period_seed("chain", A, B, 5, C)
    others = [
        period_seed("chaim", A, B, 5, C),
        period_seed("chain2", A, B, 5, C),
        period_seed("chain", B, A, 5, C),
        period_seed("chain", A, C, 5, C),
        period_seed("chain", A, B, 6, C),
        period_seed("chain", A, B, 5, A),
        meta_seed(base),
    ]
    assert len({base, *others}) == len(others) + 1


def test_the_seed_is_the_formula() -> None:
    preimage = b"holdfast/period-seed/1\0" + b"\x05chain" + A + B + (5).to_bytes(8, "big") + C
    assert period_seed("chain", A, B, 5, C) == hashlib.sha256(preimage).digest()


WORDS = st.binary(min_size=32, max_size=32)


@settings(max_examples=40, deadline=None)
@given(
    st.text(min_size=1, max_size=60), WORDS, WORDS, st.integers(0, 2**63 - 1),
    st.binary(min_size=1, max_size=255), st.integers(0, 2**16 - 1),
)  # fmt: skip
def test_seeds_are_those_of_the_second_verifier(
    chain: str, node: bytes, beacon: bytes, number: int, deal: bytes, shard: int
) -> None:
    of_period = simple_files.period_seed(chain, deal[:1] * 32, node, number, beacon)
    assert period_seed(chain, deal[:1] * 32, node, number, beacon) == of_period
    of_spot = simple_files.spot_seed(chain, deal, shard, node, number, beacon)
    assert spot_seed(chain, deal, shard, node, number, beacon) == of_spot


@pytest.mark.parametrize(
    "parts",
    [("", A, B, 5, C), ("x" * 256, A, B, 5, C), ("c", A[:31], B, 5, C), ("c", A, B + b"b", 5, C),
     ("c", A, B, -1, C), ("c", A, B, 2**63, C), ("c", A, B, 0, b"")],
)  # fmt: skip
def test_parts_of_the_wrong_size_are_refused(parts: tuple[str, bytes, bytes, int, bytes]) -> None:
    with pytest.raises(ValueError, match=r"chain|32 bytes|period"):
        period_seed(*parts)


@settings(max_examples=80, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**63 - 1), st.integers(0, 64))
def test_a_draw_is_distinct_sorted_in_range_and_repeatable(seed: bytes, total: int, k: int) -> None:
    drawn = sample(seed, total, k)
    assert len(drawn) == len(set(drawn)) == min(total, k)
    assert list(drawn) == sorted(drawn) == simple_verifier.draw(seed, total, k)
    assert all(0 <= leaf < total for leaf in drawn)


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(0, 600), st.integers(0, 512))
def test_small_totals_are_drawn_to_the_last(seed: bytes, total: int, k: int) -> None:
    assert list(sample(seed, total, k)) == simple_verifier.draw(seed, total, k)


def test_known_answers() -> None:
    known = json.loads((Path(__file__).parent / "vectors.json").read_text())
    entry = known["period_seed"]
    parts = [bytes.fromhex(entry[name]) for name in ("dataset_id", "node", "beacon", "seed")]
    assert period_seed(entry["chain_id"], parts[0], parts[1], entry["period"], parts[2]) == parts[3]
    for entry in known["sample"]:
        assert list(sample(bytes.fromhex(entry["seed"]), entry["total"], entry["k"])) == entry["drawn"]


def test_no_number_is_favoured() -> None:
    """A total just over half the words' range would show a bias of two to one without rejection."""
    total = 2**62 + 2**61
    low = sum(leaf < total // 3 for number in range(400) for leaf in sample(seed(number), total, 10))
    assert abs(low / 4000 - 1 / 3) < 4 * math.sqrt(2 / 9 / 4000)


def test_every_number_is_drawn_as_often() -> None:
    counts = [0] * 20
    for number in range(4000):
        for leaf in sample(seed(number), 20, 5):
            counts[leaf] += 1
    assert all(abs(count - 1000) < 5 * math.sqrt(4000 * 0.25 * 0.75) for count in counts)


@pytest.mark.parametrize(
    ("size", "total", "k"), [(31, 5, 1), (33, 5, 1), (32, -1, 1), (32, 2**63, 1), (32, 5, -1), (32, 5, 513)]
)
def test_draws_that_cannot_be_are_refused(size: int, total: int, k: int) -> None:
    with pytest.raises(ValueError, match="cannot draw"):
        sample(bytes(size), total, k)


def test_the_detection_table() -> None:
    table = json.loads(VECTORS.read_text())["detection"]
    for key, expected in table.items():
        if key == "what":
            continue
        k, percent = int(key.split(",")[0][2:]), int(key.split(",")[1][:-1])
        assert abs(detection(10**7, 10**5 * percent, k) - expected) < 0.001, key
    assert detection(100, 100, 1) == 1.0
    assert detection(100, 0, 30) == 0.0
    assert detection(10, 1, 30) == 1.0
    assert abs(detection(50, 3, 7) - (1 - math.comb(47, 7) / math.comb(50, 7))) < 1e-12
    assert 1 - (1 - detection(10**9, 10**7, 30)) ** 30 > 0.9998


def test_one_percent_lost_is_caught_in_a_quarter_of_the_periods() -> None:
    """Red team 1: drop 1 % of the leaves, K = 30."""
    total, lost, periods = 50_000, 500, 3000
    caught = sum(any(leaf % 100 == 37 for leaf in sample(seed(n), total, 30)) for n in range(periods))
    expected = detection(total, lost, 30)
    assert abs(expected - 0.26) < 0.002
    assert abs(caught / periods - expected) < 3 * math.sqrt(expected * (1 - expected) / periods)
