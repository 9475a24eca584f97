"""Live deals keep the terms that they were made under; what comes after takes the new ones."""

from __future__ import annotations

from dataclasses import replace

from ledger.genesis import HOLD
from ledger.records import ShardStatus
from ledger.result import Code
from ledger.transactions import Accept
from tests.ledger.world import PARAMS, Piece, World, all_of, key, last

PRICE = 100_000
NEW = replace(
    PARAMS,
    period_s=60,
    window_s=10,
    challenges=8,
    meta_challenges=1,
    accept_timeout_s=100,
    max_rounds=1,
    deposit=7,
    collateral_periods=3,
    fault_fee_percent=10,
    terminate_after=1,
    repair_reward_periods=1,
    retention_periods=2,
)


def locked(world: World, name: str = "node") -> int:
    found = world.app.provider(key(name))
    assert found is not None
    return found.locked


def miss(world: World, dataset: bytes) -> int:
    """Lets the next window pass without a proof; returns the fee."""
    world.open_window(dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    fee = last(world.events, "fault")["fee"]
    assert isinstance(fee, int)
    return fee


def test_a_live_deal_keeps_its_terms_and_a_new_one_has_the_new(world: World) -> None:
    old, before = world.active("client", "node", periods=30, price=PRICE)
    world.govern(NEW)
    assert world.app.params == NEW
    new, after = world.active("client", "node", periods=30, price=PRICE)
    assert before != after
    assert [world.dataset(each).record.terms for each in (before, after)] == [1, 2]
    assert [world.shard(deal).collateral for deal in (old, new)] == [20 * PRICE, 3 * PRICE]
    spans = [world.dataset(each).closes_at + 1 - world.dataset(each).opens_at for each in (before, after)]
    assert spans == [PARAMS.window_s, NEW.window_s]
    assert [world.dataset(each).record.deposit for each in (before, after)] == [PARAMS.deposit, 7]
    asked = world.open_window(before).challenge
    assert asked is not None
    assert asked.meta_k == 4
    world.do("node", world.proof(before))
    asked = world.open_window(after).challenge
    assert asked is not None
    assert asked.meta_k == 1
    world.pass_until(world.dataset(after).closes_at + 1)
    assert all_of(world.events, "fault")[-1]["fee"] == PRICE // 10
    assert world.shard(new).status is ShardStatus.REPAIR
    assert last(world.events, "shard_terminated")["reward"] == PRICE
    assert miss(world, before) == PRICE
    assert world.shard(old).status is ShardStatus.ACTIVE
    world.check_restores()


def test_a_shard_is_offered_and_redrawn_under_its_own_terms(world: World) -> None:
    """Old: 15 s an offer, 8 rounds. New: 100 s, one round."""
    deal = world.deal("client", price=PRICE)
    world.govern(NEW)
    world.block(step=1)
    for round_ in (1, 2, 3):
        assert world.shard(deal).round == round_
        assert world.shard(deal).expires_at <= world.app.time + PARAMS.accept_timeout_s
        world.pass_until(world.shard(deal).expires_at + 1)
    assert world.shard(deal).status is ShardStatus.OFFERED
    world.do("node", Accept(deal, 0))
    assert locked(world) == 20 * PRICE
    other = world.deal("client", price=PRICE)
    world.block(step=1)
    assert world.shard(other).expires_at == world.app.time + NEW.accept_timeout_s


def test_what_concerns_no_deal_follows_the_parameters_in_force(world: World) -> None:
    world.govern(replace(PARAMS, min_stake=5 * HOLD, account_minimum=50_000, challenges=40))
    body = world.deal_body([Piece.random(world.rng)])
    world.refuses("client", replace(body, challenges=39), Code.INVALID_TERMS)
    world.provider("late", stake=5 * HOLD)
    found = world.app.provider(key("late"))
    assert found is not None
    assert found.registered_at == world.app.time


def test_an_ended_deal_is_kept_as_long_as_its_terms_say(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=1, price=PRICE)
    world.govern(NEW)
    world.prove("node", dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    assert world.shard(deal).status is ShardStatus.ENDED
    world.pass_time(PARAMS.retention_periods * PARAMS.period_s - 1)
    assert world.app.deal(deal) is not None
    world.pass_time(1)
    assert world.app.deal(deal) is None


def test_a_provider_has_a_history(world: World) -> None:
    """Its age, proofs and faults over all its datasets, and the shard-periods that it was paid for."""
    world.fund("other")
    first, dataset = world.active("client", "node", periods=9, price=PRICE)
    more = world.deal("client", providers=("node",), periods=9, price=PRICE)
    world.do("node", Accept(more, 0))
    world.prove("node", dataset)
    world.prove("node", dataset)
    miss(world, dataset)
    found = world.app.provider(key("node"))
    assert found is not None
    assert (found.proven_total, found.fault_total, found.terminated_total, found.served) == (2, 1, 0, 0)
    assert world.settle("node", first) == 2 * PRICE
    assert world.settle("node", more) == PRICE
    found = world.app.provider(key("node"))
    assert found is not None
    assert found.served == 3
