"""The availability tables: the model against closed forms and a simulation, the page against the model."""

from __future__ import annotations

import random
from math import comb, exp, log, sqrt
from pathlib import Path

import pytest

from bench.availability import TABLES, YEAR_DAYS, Code, chance, lost_within_a_year, unreadable

SEED = 3
RUNS = 6_000


@pytest.mark.parametrize(("k", "m"), [(1, 1), (1, 3), (3, 3), (4, 6), (10, 16)])
@pytest.mark.parametrize("failure", [0.01, 0.5])
def test_without_repair_it_is_a_binomial(k: int, m: int, failure: float) -> None:
    expected = sum(
        comb(m, lost) * failure**lost * (1 - failure) ** (m - lost) for lost in range(m - k + 1, m + 1)
    )
    assert lost_within_a_year(Code(k, m), failure, None) == pytest.approx(expected, rel=1e-9)
    assert unreadable(Code(k, m), 1 - failure) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("failure", [0.001, 0.2, 0.9])
@pytest.mark.parametrize("days", [0.1, 5.0, 400.0])
def test_two_copies_have_a_closed_form(failure: float, days: float) -> None:
    """The chain 0 → 1 → end with a way back has two eigenvalues."""
    fails, repairs = -log(1 - failure), YEAR_DAYS / days
    middle, spread = 3 * fails + repairs, sqrt((3 * fails + repairs) ** 2 - 8 * fails**2)
    # The smaller root by the product of both, 2 · fails², as their difference would lose digits.
    fast = (middle + spread) / 2
    slow = 2 * fails**2 / fast
    expected = 1 - (fast * exp(-slow) - slow * exp(-fast)) / (fast - slow)
    assert lost_within_a_year(Code(1, 2), failure, days) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("k", "m", "failure", "days"), [(2, 3, 0.5, 20.0), (4, 6, 0.9, 60.0), (1, 3, 0.9, 90.0)]
)
def test_nodes_that_fail_and_are_repaired_one_by_one_agree(
    k: int, m: int, failure: float, days: float
) -> None:
    """A simulation of the nodes themselves, each with times of its own."""
    rng = random.Random(SEED)
    fails = -log(1 - failure) / YEAR_DAYS

    def is_lost() -> bool:
        changes = [
            (rng.expovariate(fails), True) for _ in range(m)
        ]  # per node: when, and whether it fails then
        while True:
            node = min(range(m), key=lambda each: changes[each])
            day, failed = changes[node]
            if day > YEAR_DAYS:
                return False
            after = rng.expovariate(1 / days if failed else fails)
            changes[node] = (day + after, not failed)
            if sum(not fails_next for _, fails_next in changes) > m - k:
                return True

    expected = lost_within_a_year(Code(k, m), failure, days)
    seen = sum(is_lost() for _ in range(RUNS)) / RUNS
    assert abs(seen - expected) < 4 * sqrt(expected * (1 - expected) / RUNS), f"seed {SEED}"


def test_parts_are_lost_each_by_itself() -> None:
    one = lost_within_a_year(Code(1, 2), 0.2, 5)
    assert lost_within_a_year(Code(1, 2, 10), 0.2, 5) == pytest.approx(1 - (1 - one) ** 10)
    assert unreadable(Code(1, 2, 10), 0.9) == pytest.approx(1 - 0.99**10)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "50 %"), (0.0123, "1.2 %"), (1.04e-5, "0.001 %"), (9.6e-6, "1 · 10⁻⁵"), (4e-9, "4 · 10⁻⁹"),
     (9.99e-13, "< 10⁻¹²"), (0.0, "< 10⁻¹²")],
)  # fmt: skip
def test_chances_are_written_for_people(value: float, text: str) -> None:
    assert chance(value) == text


@pytest.mark.parametrize("title", TABLES)
def test_the_page_has_the_tables(title: str) -> None:
    """`python -m bench.availability` prints them anew."""
    assert TABLES[title]() in Path("docs/proofs.md").read_text()
