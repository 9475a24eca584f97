"""docs/beacon.md: what a coalition makes of CometBFT's rounds and block times, and what shares would cost."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py_arkworks_bls12381 import G2Point

from bench.beacon import COALITIONS, LEAVES, LOST, MOST_TOGETHER, NETWORKS, K, every_order
from bench.beacon_model import LAGGED, LATE, Order, formula
from bench.beacon_rounds import Game, Rule, Shift, Timing, block_time, detection, moved, turns
from bench.beacon_threshold import Group, dealing_bytes, holds, scalar
from proofs.bls import signatures as bls
from proofs.bls.signatures import SIGN_DST

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "beacon.md").read_text()
STILL = Timing(4, 0)


def percent(order: str, network: str, rule: Rule, span: int = 0) -> float:
    """How often a loss is found, as the page has it."""
    return round(100 * detection(order, NETWORKS[network], LOST / LEAVES, K, rule, span), 1)


@pytest.mark.parametrize("validators", [4, 7])
@pytest.mark.parametrize("q", [0.1, 0.5, 0.74])
def test_with_times_that_nobody_moves_it_is_the_other_model(validators: int, q: float) -> None:
    order, p = turns(validators - 1, 1), 1 / validators
    late = Timing(4, 0, own=Shift(0, 4))  # its own block may be a whole interval later
    assert Game(order, STILL, q, Rule.FIRST).success() == pytest.approx(formula(Order.TURNS, p, q))
    assert Game(order, STILL, q, Rule.NEXT).success() == pytest.approx(formula(Order.TURNS, p, q))
    assert Game(order, late, q, Rule.FIRST).success() == pytest.approx(formula(Order.TURNS, p, q, LATE))
    assert Game(order, late, q, Rule.NEXT).success() == pytest.approx(formula(Order.TURNS, p, q, LAGGED))


@pytest.mark.parametrize("rule", Rule)
def test_who_has_no_turn_gains_nothing(rule: Rule) -> None:
    for order in ("H", "HHA", "HAHAHH"):
        assert Game(order, NETWORKS["wan"], 0.3, rule).success() == pytest.approx(0.3)


def test_nobody_honest_is_no_game() -> None:
    with pytest.raises(ValueError, match="nobody is honest"):
        Game("CCA", STILL, 0.5)


@pytest.mark.parametrize("rule", [Rule.FIRST, Rule.NEXT])
def test_who_steers_has_two_values_for_every_window(rule: Rule) -> None:
    for q in (0.1, 0.5):
        assert Game("CHHH", NETWORKS["lan"], q, rule).success() == pytest.approx(1 - (1 - q) ** 2)


def steered(windows: int, seed: int, q: float) -> float:
    """A plain play of CHHH on the LAN, by the rule of the next block: be slow so that one's turn counts."""
    rng, timing, good = random.Random(seed), NETWORKS["lan"], 0
    for window in range(windows):
        turn, at = rng.randrange(4), -60 - rng.randrange(timing.interval)
        opened = False
        while True:
            if opened:
                values = [hashlib.sha256(f"{seed} {window} {each}".encode()).digest() for each in range(2)]
                wanted = [int.from_bytes(value, "big") < q * 2**256 for value in values]
                good += wanted[0] or (wanted[1] and turn % 4 == 0)  # its own, or what comes when it withholds
                break
            opened = at >= 0
            slow = 0
            if turn % 4 == 0:
                # The block before its next turn should be the window's first one, if that can be.
                reach = [at + 3 * timing.interval + each for each in range(timing.slow + 1)]
                fits = [each for each, end in enumerate(reach) if 0 <= end < timing.interval]
                slow = fits[0] if fits else timing.slow * (reach[0] >= timing.interval and at < 0)
            at += timing.interval + slow
            turn += 1
    return good / windows


def test_a_plain_play_gains_no_more_than_the_best_one() -> None:
    q, windows = 0.5, 3_000
    best = Game("CHHH", NETWORKS["lan"], q, Rule.NEXT).success()
    played = steered(windows, 1, q)
    noise = 3 * (0.25 / windows) ** 0.5
    assert (formula(Order.TURNS, 0.25, q) or 1) + noise < played < best + noise


def test_the_drawn_block_is_not_the_turn_of_the_first_ones_proposer() -> None:
    for order, all_n, but_one in (("CHHH", 17.6, 19.6), ("CCHHHHH", 4.6, 10.4)):
        found = (percent(order, "wan", Rule.DRAWN, span) for span in (len(order), len(order) - 1))
        assert list(found) == [all_n, but_one]
    assert "17.6 in place of 19.6 of one of 4, 4.6 in place of 10.4 of CCHHHHH" in PAGE


def test_where_a_rule_is_worse_than_the_one_before_it_the_page_says_so() -> None:
    first, following, drawn = Rule
    assert [percent("CHHHHAH", "lan", rule) for rule in (first, following)] == [20.0, 11.2]
    assert [percent("CHHHHAH", "rounds", rule) for rule in (first, following)] == [23.3, 11.2]
    assert [percent("CAHH", "rounds", rule) for rule in (following, drawn)] == [21.2, 19.6]
    assert [percent("CCHHHHA", "no time", rule) for rule in (following, drawn)] == [15.1, 9.5]
    for said in (
        "11.2 in place of 20.0",
        "11.2 in place of 23.3",
        "19.6 in place of 21.2",
        "9.5 in place of 15.1",
    ):
        assert said in PAGE
    assert f"the {len(every_order(8))} orders" in PAGE


def test_of_a_short_window_fewer_blocks_are_drawn_from() -> None:
    spans = (1, 2, 3, 4, 8, 9, 16, 24)
    for count in (4, 10, 25):
        order = turns(count - 1, 1)
        found = [f"{percent(order, 'lan', Rule.DRAWN, span):.1f}" if span < count else "" for span in spans]
        assert f"| {count} | {' | '.join(found)} |".replace("  ", " ") in PAGE


@pytest.mark.parametrize(("honest", "coalition"), [(3, 1), (7, 3)])
def test_drawing_the_block_takes_back_most_of_what_steering_gives(honest: int, coalition: int) -> None:
    order = turns(honest, coalition)
    first, following, drawn = (
        detection(order, NETWORKS["lan"], LOST / LEAVES, K, rule)
        for rule in (Rule.FIRST, Rule.NEXT, Rule.DRAWN)
    )
    assert first == pytest.approx(following)
    assert drawn > following + 0.11


def test_behind_an_absent_proposer_one_validator_has_two_heights() -> None:
    alone, behind = (Game(order, STILL, 0.5, Rule.NEXT).success() for order in ("CHHH", "CHHA"))
    assert alone == pytest.approx(formula(Order.TURNS, 0.25, 0.5))
    assert behind > alone + 0.09


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 10**6), min_size=7, max_size=40),
    st.integers(2, 50),
    st.data(),
)
def test_a_block_time_is_one_of_an_honest_validator_or_between_two(
    times: list[int], power: int, data: st.DataObject
) -> None:
    """Powers of at least 2 and a coalition of less than half of what is counted."""
    liars = (len(times) - 1) // 2
    lies = data.draw(st.lists(st.integers(-(10**9), 10**9), min_size=liars, max_size=liars))
    honest = times[liars:]
    found = block_time([(time, power) for time in honest + lies])
    assert min(honest) <= found <= max(honest)


def test_with_a_power_of_one_the_median_may_be_a_liars() -> None:
    honest, lie = [100, 101], [-5]
    assert block_time([(time, 1) for time in honest + lie]) == -5
    assert block_time([(time, 2) for time in honest + lie]) == 100
    assert "power of at least 2" in PAGE


def test_times_move_within_what_honest_precommits_say() -> None:
    for honest, coalition in ((3, 1), (7, 3), (17, 8)):
        found = moved(honest, coalition, 100, 2_000, 1)
        assert 0 < found.others_early <= found.own_early < 100
        assert 0 < found.others_late <= found.own_late < 100
        own = f"{found.own_early:.0f}, {found.own_late:.0f} ms"
        others = f"{found.others_early:.0f}, {found.others_late:.0f} ms"
        assert f"| {coalition} of {honest + coalition} | {own} | {others} |" in PAGE
    with pytest.raises(ValueError, match="a third"):
        moved(2, 1, 100, 1, 1)


@pytest.mark.parametrize(("honest", "coalition", "absent"), COALITIONS[:-1])
def test_the_page_has_these_figures(honest: int, coalition: int, absent: int) -> None:
    together = {False, coalition + absent > 1 and coalition < MOST_TOGETHER}  # three of them take long
    for order in (turns(honest, coalition, absent, together=each) for each in together):
        cells = [order if len(order) < 20 else f"C and {honest} H"]
        for network in NETWORKS:
            cells += [" / ".join(f"{percent(order, network, rule):.1f}" for rule in Rule)]
        assert f"| {' | '.join(cells)} |" in PAGE


def test_any_shares_that_are_enough_make_the_one_signature() -> None:
    group = Group.make(7, 5, 1)
    hashed = G2Point.hash_to_curve(b"message", SIGN_DST)
    signed = {number: hashed * scalar(share) for number, share in group.shares.items()}
    made = {
        bytes(group.combine({number: signed[number] for number in numbers}).to_compressed_bytes())
        for numbers in ((1, 2, 3, 4, 5), (3, 4, 5, 6, 7), (1, 3, 5, 6, 7))
    }
    assert made == {bls.BlsSigner(group.secret[0]).sign(b"message")}
    assert all(holds(group.share_key(number), hashed, each) for number, each in signed.items())
    few = group._replace(needed=4).combine(signed)
    assert not holds(group.commitments[0], hashed, few)
    assert dealing_bytes(25) == 2_064
