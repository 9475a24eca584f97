"""The draw as chance: uniform, jointly uniform, unbiased up to 2⁶³, finding losses as often as computed."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable

import pytest

from proofs.challenge import detection, meta_seed, period_seed, sample
from proofs.commitment import MAX_SUM
from tests.proofs.significance import binomial_tails, chi_square_tail, uniform_tail

DATASET, NODE = b"\x01" * 32, b"\x02" * 32
SURE = 1e-4  # below this, an outcome is not put down to chance; the seeds are fixed, so a test never flickers


def seed_of(period: int, chain: str = "draw") -> bytes:
    return period_seed(chain, DATASET, NODE, period, hashlib.sha256(b"%d" % period).digest())


def test_the_yardsticks_measure() -> None:
    """Values from tables, so that the tests below rest on something."""
    for statistic, freedom, tail in (
        (3.841, 1, 0.05),
        (18.307, 10, 0.05),
        (149.449, 100, 0.001),
        (67.3, 99, 0.994),
    ):
        assert abs(chi_square_tail(statistic, freedom) - tail) < 0.0005
    below, above = binomial_tails(3, 10, 0.5)
    assert below == pytest.approx(176 / 1024)
    assert above == pytest.approx(968 / 1024)
    assert binomial_tails(10, 10, 1.0) == (1.0, 1.0)
    assert binomial_tails(9, 10, 1.0) == (0.0, 1.0)
    assert uniform_tail([100, 100, 100]) == 1.0
    assert uniform_tail([200, 100, 100]) < 1e-9


@pytest.mark.parametrize(
    ("total", "k"), [(2, 1), (7, 3), (31, 30), (100, 5), (128, 64), (1000, 30), (997, 30)]
)
def test_each_number_is_drawn_as_often(total: int, k: int) -> None:
    counts = [0] * total
    for number in range(2000):
        for leaf in sample(seed_of(number), total, k):
            counts[leaf] += 1
    # Numbers of one draw are distinct, which makes the counts more even than those of independent draws.
    assert uniform_tail(counts, (total - 1) / (total - k)) > SURE
    assert uniform_tail(counts, (total - 1) / (total - k)) < 1 - SURE


@pytest.mark.parametrize(("total", "k"), [(12, 2), (7, 3), (6, 4), (9, 8)])
def test_each_set_is_drawn_as_often(total: int, k: int) -> None:
    """Jointly: every pair, triple, … of numbers, as the docstring of `sample` promises."""
    places = {drawn: place for place, drawn in enumerate(itertools.combinations(range(total), k))}
    counts = [0] * len(places)
    for number in range(50 * len(places)):
        counts[places[sample(seed_of(number), total, k)]] += 1
    assert uniform_tail(counts) > SURE


def bins(draw: Callable[[bytes, int, int], tuple[int, ...]], total: int, seeds: int = 800) -> list[int]:
    """How many leaves fall into each twelfth of the numbers."""
    counts = [0] * 12
    for number in range(seeds):
        for leaf in draw(seed_of(number), total, 16):
            counts[leaf * 12 // total] += 1
    return counts


def careless(seed: bytes, total: int, k: int) -> tuple[int, ...]:
    """The draw as it must not be: words are reduced without passing over those beyond the last multiple."""
    stream = b"".join(hashlib.sha256(b"careless" + seed + bytes([i])).digest() for i in range(-(-k // 4)))
    return tuple(int.from_bytes(stream[8 * i : 8 * i + 8], "big") % total for i in range(k))


@pytest.mark.parametrize(
    "total",
    [2**62 + 2**61, 2**63 - 1, 2**62 + 1, 2**63 - 2**40, 2**61 + 2**60, 2**53 + 1, 2**32 - 5, 3 * 2**20],
)
def test_no_total_is_biased(total: int) -> None:
    assert uniform_tail(bins(sample, total)) > SURE


def test_a_biased_draw_would_be_noticed() -> None:
    """At ¾ of 2⁶³ the lower two thirds come up three times for every two: reduced words do not pass."""
    counts = bins(careless, 2**62 + 2**61)
    assert uniform_tail(counts) < 1e-30
    assert sum(counts[:8]) / sum(counts[8:]) == pytest.approx(3, rel=0.1)


def test_words_beyond_the_last_multiple_are_passed_over() -> None:
    """At just over a quarter of 2⁶⁴, a quarter of the words; those that follow take their places."""
    total = 2**62 + 1
    for number in range(200):
        seed, words = seed_of(number), []
        for i in range(4):
            stream = hashlib.sha256(b"holdfast/sample/1\0" + seed + i.to_bytes(8, "big")).digest()
            words += [int.from_bytes(stream[at : at + 8], "big") for at in range(0, 32, 8)]
        kept = [word % total for word in words if word < 3 * total]
        assert sample(seed, total, 6) == tuple(sorted(kept[:6]))


def test_neighbouring_draws_know_nothing_of_each_other() -> None:
    """Jointly uniform: one period's leaf and the next one's, the data tree's and the metadata tree's."""
    following, both = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
    drawn = [sample(seed_of(period), 10, 1)[0] for period in range(5001)]
    for period, (one, other) in enumerate(itertools.pairwise(drawn)):
        following[one, other] += 1
        both[one, sample(meta_seed(seed_of(period)), 10, 1)[0]] += 1
    cells = list(itertools.product(range(10), repeat=2))
    assert uniform_tail([following[cell] for cell in cells]) > SURE
    assert uniform_tail([both[cell] for cell in cells]) > SURE


@pytest.mark.parametrize("total", [40, 1000, 65_537, 2**30, 2**40 - 7, MAX_SUM])
def test_losses_are_found_as_often_as_computed(total: int) -> None:
    """Red team 1: shares of the leaves lost in one run, at either end, and spread; at K = 30."""
    periods = 2000
    draws = [sample(seed_of(period, "loss"), total, 30) for period in range(periods)]
    for share in (0.01, 0.05, 0.10):
        lost = max(1, round(total * share))
        step = total // lost
        spread = {i * step for i in range(lost)} if lost <= 10_000 else None
        expected = detection(total, lost, 30)
        layouts: dict[str, Callable[[int], bool]] = {
            "first": lambda leaf, lost=lost: leaf < lost,  # type: ignore[misc]
            "last": lambda leaf, lost=lost: leaf >= total - lost,  # type: ignore[misc]
            "middle": lambda leaf, lost=lost: 0 <= leaf - total // 3 < lost,  # type: ignore[misc]
            "spread": lambda leaf, lost=lost, step=step, spread=spread: (  # type: ignore[misc]
                leaf in spread if spread is not None else leaf % step == 0 and leaf // step < lost
            ),
        }
        for name, is_lost in layouts.items():
            found = sum(any(map(is_lost, draw)) for draw in draws)
            assert min(binomial_tails(found, periods, expected)) > SURE, (name, share, found, expected)


def test_one_percent_lost_is_found_in_26_percent_of_the_periods() -> None:
    """The figure of the documentation's table, at its own 95 % interval."""
    total, lost, periods = 10**6, 10**4, 8000
    found = sum(any(leaf % 100 == 7 for leaf in sample(seed_of(n, "26"), total, 30)) for n in range(periods))
    assert min(binomial_tails(found, periods, 1 - 0.99**30)) > 0.025
    assert detection(total, lost, 30) == pytest.approx(1 - math.comb(total - lost, 30) / math.comb(total, 30))
