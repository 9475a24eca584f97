"""docs/proofs.md, "Beacon": formulas for what proposers gain by withholding, against a game played."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest

from bench.beacon_model import (
    LAGGED,
    LATE,
    TIMELY,
    Order,
    Rule,
    formula,
    known,
    leaves_to_draw,
    no_lost_leaf,
    own_shards,
    periods_to_find,
    play,
    share_of_values,
    withheld_formula,
)
from proofs.challenge import detection

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "proofs.md").read_text()
SHARES = {"1/10": 0.1, "1/3": 1 / 3, "1/2": 0.5}
RULES = {"timely": TIMELY, "late": LATE, "lagged": LAGGED}
WITH_FORMULA = (Order.TURNS, Order.ONE_KEY)
WINDOWS = 1_500
HONEST = detection(100_000, 1_000, 30)


def is_near(found: float, expected: float, windows: int) -> bool:
    """Within 4 standard deviations."""
    return abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / windows)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("order", WITH_FORMULA)
def test_the_game_ends_as_the_formula_says(order: Order, rule: Rule) -> None:
    for p, q in product((0.25, 0.5), (0.1, 0.5, 0.75)):
        expected = formula(order, p, q, rule)
        assert expected is not None
        assert is_near(play(order, p, share_of_values(q), WINDOWS, 7, rule).success, expected, WINDOWS)


@pytest.mark.parametrize("order", WITH_FORMULA)
def test_a_withheld_proposal_buys_one_draw(order: Order) -> None:
    for p, q in product((0.25, 0.5), (0.1, 0.5)):
        expected = withheld_formula(order, p, q)
        played = play(order, p, share_of_values(q), WINDOWS, 7)
        assert abs(played.withheld - expected) < 0.1 * expected + 0.01


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_many_keys_gain_more_than_one(rule: Rule) -> None:
    played = play(Order.MANY_KEYS, 0.5, share_of_values(0.5), 2 * WINDOWS, 3, rule).success
    assert played > (formula(Order.ONE_KEY, 0.5, 0.5, rule) or 1) + 0.02


@pytest.mark.parametrize("order", WITH_FORMULA)
def test_a_lag_takes_most_of_what_being_late_gave(order: Order) -> None:
    for p, q in product((0.05, 0.1, 0.3), (0.01, 0.1, 0.5, 0.9)):
        timely, late, lagged = (formula(order, p, q, rule) or 0 for rule in RULES.values())
        assert q < timely <= lagged < late
        assert lagged - timely < 0.4 * (late - timely)


def test_without_a_share_nothing_is_gained() -> None:
    for order, rule in product(WITH_FORMULA, RULES.values()):
        found = formula(order, 0.0, 0.3, rule)
        assert found == pytest.approx(0.3)


def test_the_draw_of_leaves_is_that_of_proofs() -> None:
    windows = 500
    wanted = no_lost_leaf(100_000, 1_000, 30)
    for p, rule in ((0.0, TIMELY), (0.5, LATE)):
        expected = formula(Order.ONE_KEY, p, 1 - HONEST, rule)
        assert expected is not None
        assert is_near(play(Order.ONE_KEY, p, wanted, windows, 5, rule).success, expected, windows)


def test_a_coalition_has_one_value_for_each_way_of_letting_its_keys_propose() -> None:
    found = list(known(bytes(32), [2, 1, 3], [2]))
    assert len(found) == len({value for value, _ in found}) == 6
    assert sorted(cost for _, cost in found) == [0, 1, 1, 2, 2, 3]
    assert found == list(known(bytes(32), [2, 1, 3], [2]))  # nothing that it puts into blocks is asked for
    assert not {value for value, _ in found} & {value for value, _ in known(b"\1" * 32, [2, 1, 3], [2])}
    assert len(list(known(bytes(32), [1, 1], [0, 1]))) == 2


def test_one_shard_is_as_the_formula_for_one() -> None:
    for p in SHARES.values():
        assert own_shards(p, 0.1, 1) == pytest.approx(formula(Order.ONE_KEY, p, 0.1))
    assert own_shards(0.0, 0.1, 16) == pytest.approx(1.6)


@pytest.mark.parametrize("order", WITH_FORMULA)
@pytest.mark.parametrize("name", SHARES)
def test_the_page_has_these_figures(order: Order, name: str) -> None:
    p = SHARES[name]
    cells = [order.value, name]
    for q in (0.5, 1 - HONEST, 0.1):
        each = []
        for rule in RULES.values():
            found = formula(order, p, q, rule)
            assert found is not None
            each.append(f"{100 * (1 - found if q == 1 - HONEST else found):.1f}")
        cells.append(" / ".join(each))
    assert f"| {' | '.join(cells)} |" in PAGE


def test_the_page_has_the_figures_that_follow() -> None:
    for count in (4, 7, 10, 25, 100):
        found = [formula(Order.TURNS, 1 / count, 1 - HONEST, rule) for rule in RULES.values()]
        cells = " / ".join(f"{100 * (1 - (each or 0)):.1f}" for each in found)
        assert f"| {count} | {cells} |" in PAGE
    third = [formula(Order.ONE_KEY, 1 / 3, 1 - HONEST, rule) or 0 for rule in (TIMELY, LATE)]
    k = [round(leaves_to_draw(Order.ONE_KEY, 1 / 3, 0.01, 30, rule)) for rule in (TIMELY, LATE)]
    periods = [math.ceil(periods_to_find(each)) for each in (HONEST, *(1 - one for one in third))]
    assert f"K = {k[0]} instead of 30 ({k[1]} if it can be late)" in " ".join(PAGE.split())
    assert f"after {periods[0]} periods, {periods[1]} or {periods[2]} with" in " ".join(PAGE.split())
    assert f"{own_shards(1 / 3, 0.1, 16):.2f} of 16 shards instead of 1.60" in " ".join(PAGE.split())
