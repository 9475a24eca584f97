"""Validators that resign: what is kept of them, for how long, and what comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import keys
from ledger.result import Code
from ledger.transactions import Propose, Resign, Vote, Withdraw
from tests.ledger.test_validators import TERMS, TWO_PERIODS_S, Electorate, bodies
from tests.ledger.world import all_of, key, last, signer


def traces(world: Electorate, name: str) -> list[bytes]:
    """The state's keys that have something to do with an account as a validator."""
    prefixes = (keys.VALIDATOR, keys.SEATED, keys.MOVING, keys.CONSENSUS, keys.BLS, keys.DUE)
    found = [each for each, raw in world.app.items() if each.startswith(prefixes) and key(name) in each + raw]
    return [
        *found,
        *[each for each, raw in world.app.items() if each.startswith(keys.BLS) and raw == key(name)],
    ]


def test_who_resigns_answers_for_a_while_and_is_then_forgotten() -> None:
    world = Electorate("a", "b")
    world.grant({"a": 6, "b": 6})
    world.move()
    world.do("a", Resign())
    world.move()
    assert world.powers() == {"operator": 1, "b": 6}
    left_at, before = world.record("a").left_at, world.balance("a")
    world.refuses("a", Resign(), Code.NOTHING_TO_DO)
    world.refuses("a", bodies("a", "a's second", "a"), Code.RESIGNED)
    world.refuses("b", Propose({}, 0, "", {key("a"): 6}), Code.INVALID_TERMS)
    world.refuses("a", Withdraw(1), Code.STAKE_LOCKED)
    world.pass_until(left_at + TERMS.unbonding_s - 1)
    world.accused = (key("a"),)
    assert last(list(world.block().events), "validator_jailed")["forfeited"]
    world.refuses("a", Withdraw(1), Code.STAKE_LOCKED)
    world.pass_time(10)
    assert last(world.events, "validator_forgotten")["deposit"] == TERMS.deposit
    assert world.app.validator(key("a")) is None
    assert world.balance("a") == before + TERMS.deposit
    assert not traces(world, "a")
    assert world.app.proposer_of(keys.address(signer("a's").public_key)) is None
    world.accused = (key("a"),)
    assert not all_of(list(world.block().events), "validator_jailed")
    world.do("a", Withdraw(1))
    # Its keys are anybody's again, and it begins anew itself.
    world.do("b", bodies("b", "a's", "a"))
    world.do("a", bodies("a", "a's second", "a's second"))
    world.check_restores()


def test_whoever_never_had_power_is_forgotten_at_once() -> None:
    world = Electorate()
    world.do("a", bodies("a", "a's", "a"))
    world.grant({"a": 9})  # in force, and without effect before its key counts
    world.do("a", Resign())
    world.do("a", Withdraw(1))
    world.pass_time(5)
    assert world.app.validator(key("a")) is None
    assert not traces(world, "a")
    world.pass_time(TWO_PERIODS_S)


@pytest.mark.parametrize("rotates", [False, True])
def test_keys_on_their_way_go_with_the_rest(rotates: bool) -> None:
    world = Electorate("a")
    world.grant({"a": 6})
    world.move()
    world.do("a", bodies("a", "a's second", "a"))
    world.do("a", bodies("a", "a's third" if rotates else "a's second", "another"))
    assert world.record("a").keys == 2 + rotates
    world.block(world.tx("a", Resign()))
    world.move()
    world.pass_time(TERMS.unbonding_s + 20)
    assert not traces(world, "a")


def test_the_last_one_does_not_resign_nor_who_makes_all_blocks() -> None:
    world = Electorate("a", "b")
    world.refuses("operator", Resign(), Code.LAST_VALIDATOR)
    world.refuses("c", Resign(), Code.NOTHING_TO_DO)
    world.grant({"a": 6, "b": 6, "operator": 0})
    world.move()
    world.refuses("operator", Resign(), Code.LAST_VALIDATOR)  # an embedded ledger's operator signs on
    result = world.block(world.tx("a", Resign()), world.tx("b", Resign()))
    assert [each.code for each in result.tx_results[1:]] == [Code.OK, Code.LAST_VALIDATOR]
    world.move()
    assert world.powers() == {"b": 6}


def test_who_waits_for_its_key_replaces_nobody() -> None:
    world = Electorate("a")
    world.grant({"a": 6, "operator": 0})
    world.move()
    world.do("b", bodies("b", "b's", "b"))
    world.grant({"b": 6})
    world.refuses("a", Resign(), Code.LAST_VALIDATOR)
    world.pass_time(TWO_PERIODS_S)
    world.do("a", Resign())
    world.move()
    assert world.powers() == {"b": 6}


def test_a_vote_about_others_holds_though_one_that_it_names_has_resigned() -> None:
    world = Electorate("a", "b", "c")
    for gone in ("left", "forgotten"):
        proposal = world.do("a", Propose({}, 0, gone, {key("b"): 5, key("c"): 6}))
        world.block(*(world.tx(name, Vote(proposal, True)) for name in "abcd"))
        if gone == "left":
            world.do("b", Resign())
        world.pass_time(TERMS.vote_s + TERMS.timelock_s)
        assert last(world.events, "proposal_closed")["status"] == "active"
        world.move()
        assert world.powers() == {"operator": 1, "c": 6}
        if gone == "left":
            assert world.app.validator(key("b")) is None
            world.do("b", bodies("b", "b's second", "b"))  # candidates again, and then not any more
            proposal = world.do("d", Propose({}, 0, "", {key("b"): 5}))
            world.block(*(world.tx(name, Vote(proposal, True)) for name in "abcd"))
            world.do("b", Resign())
            world.pass_time(TERMS.vote_s + TERMS.timelock_s)
            assert last(world.events, "proposal_closed")["status"] == "active"
            world.do("b", bodies("b", "b's third", "b"))


def test_a_longer_time_to_answer_holds_for_who_has_left() -> None:
    world = Electorate("a")
    world.grant({"a": 6})
    world.move()
    world.do("a", Resign())
    world.move()
    left_at = world.record("a").left_at
    world.govern(replace(TERMS, unbonding_s=2 * TERMS.unbonding_s))
    world.plain.versions[world.plain.next_version + 1] = world.params
    world.plain.next_version += 1
    world.pass_until(left_at + 2 * TERMS.unbonding_s - 1)
    assert world.record("a").resigned
    world.pass_time(10)
    assert world.app.validator(key("a")) is None
