"""docs/economics.md: strategies lose against the real ledger, and the models behind its tables are right."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import comb
from pathlib import Path

import pytest

from bench import economics
from bench.economics_honest import Misses, expect
from bench.economics_play import CLOCK, STRATEGIES, Case, Outcome, corners, draw_params
from bench.economics_prices import capture, flood
from ledger import rules_periods
from ledger.genesis import Params
from ledger.records import DatasetRecord
from ledger.rules_faults import _is_one_too_many
from tests.ledger.world import key

PAGE = Path(__file__).resolve().parents[2] / "docs" / "economics.md"
DEFAULTS = replace(Params(), **CLOCK)
LEAST = corners()[-2]  # every parameter at its lower bound


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_strategy_gains_where_all_is_as_low_as_it_may_be(strategy: Callable[[Case], Outcome]) -> None:
    outcome = strategy(Case(LEAST, 4))
    assert outcome.holds, outcome


@pytest.mark.parametrize("strategy", [Case.repair_oneself, Case.give_notice])
def test_nor_under_the_defaults(strategy: Callable[[Case], Outcome]) -> None:
    outcome = strategy(Case(DEFAULTS, 3))
    assert outcome.holds, outcome


def test_the_play_finds_a_rule_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what notice pays for the acceptance a client harms its provider, as the play says."""
    case = Case(DEFAULTS, 1)
    case.periods, case.price = 1_000, DEFAULTS.proof_fee + 3
    assert case.give_notice().holds
    monkeypatch.setattr(rules_periods, "cover_acceptance", lambda ctx, deal, index: None)
    assert not case.give_notice().holds


def test_parameters_are_drawn_from_both_ends_of_their_bounds() -> None:
    drawn = [draw_params(random.Random(seed)) for seed in range(60)]
    assert {0, 500} <= {params.fault_fee_percent for params in drawn}
    assert {1, 1_000} <= {params.collateral_periods for params in drawn}
    assert {1, 64} <= {params.challenges for params in drawn}


def test_lost_leaves_are_met_as_often_as_their_share_at_least() -> None:
    """The theorem's one inequality: 1 − C(n−d, K) / C(n, K) ≥ d / n, equal for K = 1 and d = n alone."""
    for leaves, drawn in product(range(1, 16), range(1, 17)):
        for lost in range(1, leaves + 1):
            k = min(drawn, leaves)
            caught = 1 - Fraction(comb(leaves - lost, k), comb(leaves, k))
            share = Fraction(lost, leaves)
            assert caught > share or (caught == share and (k == 1 or lost == leaves))


def test_what_an_honest_node_may_expect_is_exact() -> None:
    """Against all courses of nine periods, judged by the ledger's own rule."""
    params = replace(DEFAULTS, terminate_after=3, fault_limit=3, fault_window=6, grace_periods=2)
    share, periods = 0.3, 9
    total = dict.fromkeys(("faults", "free", "terminated", "any_fault"), 0.0)
    for course in product([False, True], repeat=periods):
        odds = 1.0
        for missed in course:
            odds *= share if missed else 1 - share
        faults, free, terminated = judge(params, course)
        total["faults"] += odds * faults
        total["free"] += odds * free
        total["terminated"] += odds * terminated
        total["any_fault"] += odds * (faults > 0)
    found = expect(Misses.alone(share), params, periods)
    for name, value in total.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9)


def judge(params: Params, course: tuple[bool, ...]) -> tuple[int, int, bool]:
    """Faults, those without a fee, and whether the dataset is terminated; nothing counts after that."""
    record = DatasetRecord(key("client"), key("a"), 1, 1, 0)
    faults = free = 0
    for missed in course:
        if not missed:
            record = replace(record, in_a_row=0, clean=record.clean + 1, faults=record.faults << 1)
            continue
        faults += 1
        free += record.clean >= params.grace_periods
        if _is_one_too_many(record, params):
            return faults, free, True
        record = replace(record, in_a_row=record.in_a_row + 1, clean=0, faults=record.faults << 1 | 1)
    return faults, free, False


def test_outages_miss_the_windows_that_they_cover() -> None:
    params = Params()
    assert Misses.outages(0.01, 1, params).runs == ()  # shorter than a window
    ((length, odds),) = Misses.outages(0.01, 24, params).runs
    assert length == 1
    assert odds == pytest.approx(0.01 * 22 / 24)
    runs = dict(Misses.outages(0.03, 72, params).runs)
    assert set(runs) == {2, 3}
    assert sum(runs.values()) == pytest.approx(0.01)


def test_the_least_stake_that_passes_a_proposal_is_two_ninths() -> None:
    assert min(map(capture, range(101))) == pytest.approx(2 / 9, abs=0.005)
    assert capture(0) == pytest.approx(1 / 3, abs=1e-5)
    assert capture(100) == pytest.approx(2 / 3, abs=1e-5)


def test_the_page_says_what_it_costs_to_fill_a_block() -> None:
    page = PAGE.read_text()
    found = flood(Params())
    for name in ("bytes", "places", "spots", "deal_changes", "draws"):
        assert f"| {round(found[name]):,}" in page, name


def test_the_page_has_the_tables_of_the_bench(capsys: pytest.CaptureFixture[str]) -> None:
    economics.table("client", economics.client())
    economics.table("exits", economics.exits(Params()))
    page = PAGE.read_text()
    rows = [line for line in capsys.readouterr().err.splitlines() if line.startswith("| ")]
    assert len(rows) > 13
    assert [row for row in rows if row not in page and "---" not in row] == []
