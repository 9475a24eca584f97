"""Rules at their edges, to the second and to the unit; both ledgers run every block."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import limits
from ledger.genesis import HOLD
from ledger.records import Phase, ShardStatus
from ledger.result import Code
from ledger.rules_datasets import Clock, identify
from ledger.transactions import Accept, Ask, EndDeal, HandOver, Register
from merkledag.cid import CID
from proofs.kinds import ProofKind
from tests.ledger.naive.twin import TwinWorld
from tests.ledger.world import GIB, PARAMS, key, kinds, last

PRICE = 100_000
PERIOD_S = PARAMS.period_s
ONE_FAULT = replace(PARAMS, terminate_after=1, max_step_s=300)


def make(params: object = ONE_FAULT) -> TwinWorld:
    world = TwinWorld(params)  # type: ignore[arg-type]
    world.fund("client")
    world.provider("node")
    return world


def offset_of(provider: str) -> int:
    """When the periods of the client's dataset on a provider begin, in seconds after a multiple of theirs."""
    dataset = identify(key("client"), key(provider), ProofKind.MERKLE, PARAMS.challenges, 1)
    return Clock.of(dataset, PARAMS).starts_at(9) % PERIOD_S


def beside(provider: str, seconds: int) -> str:
    """The name of a provider whose periods begin so many seconds after those of another one."""
    wanted = (offset_of(provider) + seconds) % PERIOD_S
    return next(name for name in (f"n{number}" for number in range(9_999)) if offset_of(name) == wanted)


def lost(world: TwinWorld, periods: int) -> tuple[CID, int]:
    """A shard that its provider has just lost in the first of its periods, with a second of which is left."""
    deal, dataset = world.active("client", "node", periods=periods, price=PRICE)
    ends_at = world.shard(deal).ends_at
    world.do("node", Ask(0, 0, GIB, False))  # it does not come back
    world.open_window(dataset)
    world.pass_until(world.dataset(dataset).closes_at)
    world.block(step=1)
    assert (world.shard(deal).status, world.shard(deal).ends_at) == (ShardStatus.REPAIR, ends_at)
    assert ends_at - world.app.time == (periods - 1) * PERIOD_S
    return deal, ends_at


# Stake.


@pytest.mark.parametrize("missing", [0, 1])
def test_stake_for_the_collateral_to_the_unit(missing: int) -> None:
    """Who has exactly as much is drawn and may accept; a unit less is not enough for either."""
    world = make()
    world.do("node", Ask(0, 0, GIB, False))
    collateral = HOLD * PARAMS.collateral_periods
    world.provider("exact", stake=collateral - missing)
    deal = world.deal("client", price=HOLD)
    named = world.deal("client", price=HOLD, providers=["exact"])
    world.block(step=1)
    assert world.shard(deal).provider == (b"" if missing else key("exact"))
    if missing:
        world.refuses("exact", Accept(named, 0), Code.INSUFFICIENT_STAKE)
        world.do("exact", Register("http://exact.example", GIB, key("exact"), 1))
    world.do("exact", Accept(named, 0))
    provider = world.app.provider(key("exact"))
    assert provider is not None
    assert (provider.locked, provider.unlocked) == (collateral, 0)


# A repair, at the second where a whole period is left.


@pytest.mark.parametrize("late", [0, 1])
def test_a_repair_is_sought_as_long_as_a_period_is_left_when_it_is_drawn(late: int) -> None:
    world = make()
    world.provider("second")
    deal, ends_at = lost(world, 3)
    world.block(step=ends_at - PERIOD_S + late - world.app.time)
    assert world.shard(deal).status is (ShardStatus.TERMINATED if late else ShardStatus.REPAIR)
    assert world.shard(deal).provider == (b"" if late else key("second"))


@pytest.mark.parametrize(("seconds", "code"), [(-1, Code.OK), (0, Code.OK), (1, Code.OFFER_EXPIRED)])
def test_a_repair_is_accepted_if_a_whole_period_can_be_served(seconds: int, code: Code) -> None:
    """By a provider whose periods begin a second earlier, at the same time, or a second later."""
    world = make()
    name = beside("node", seconds)
    world.provider(name)
    deal, ends_at = lost(world, 3)
    world.block(step=1)
    assert world.shard(deal).provider == key(name)
    assert world.try_(name, Accept(deal, 0)).code is code
    if code is Code.OK:
        world.pass_until(ends_at - PERIOD_S)
        shard = world.shard(deal)
        assert (shard.status, shard.first, shard.ends_at) == (ShardStatus.ACTIVE, shard.last, ends_at)


@pytest.mark.parametrize("turning", [True, False])
def test_what_is_accepted_during_a_turn_joins_in_it(
    monkeypatch: pytest.MonkeyPatch, *, turning: bool
) -> None:
    """A repair for which just that period is left may be accepted as long as the turn runs, and no longer."""
    world = make()
    name = beside("node", 0)
    world.provider(name)
    others = [world.deal("client", providers=[name], periods=1, blocks=1) for _ in range(9)]
    for other in others:
        world.do(name, Accept(other, 0))
    dataset = world.shard(others[0]).dataset
    deal, old = world.active("client", "node", periods=2, price=PRICE)
    assert world.dataset(dataset).record.pieces == 9  # at the same second
    ends_at = world.shard(deal).ends_at
    world.do("node", Ask(0, 0, GIB, False))
    world.open_window(old)
    world.do(name, world.proof(dataset))
    world.pass_until(world.dataset(old).closes_at)
    if turning:
        monkeypatch.setattr(limits, "MAX_TURN_STEP", 1)
        monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 6)
    world.block(step=1)
    while not world.shard(deal).provider or world.shard(deal).provider == key("node"):
        world.block()
    assert world.app.time + PERIOD_S == ends_at
    found = world.app.dataset(dataset)
    assert (found is not None and found.record.phase is Phase.TURNING) is turning
    assert world.try_(name, Accept(deal, 0)).code is (Code.OK if turning else Code.OFFER_EXPIRED)
    if turning:
        monkeypatch.undo()
        world.block()
        shard = world.shard(deal)
        assert (shard.status, shard.first, shard.ends_at) == (ShardStatus.ACTIVE, shard.last, ends_at)


def test_a_repair_that_a_long_turn_keeps_from_joining_is_not_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A turn that goes on for more than a period: what counts is the period that it is by now."""
    world = make(replace(ONE_FAULT, accept_timeout_s=100))
    name = beside("node", 1)
    world.provider(name)
    others = [world.deal("client", providers=[name], periods=1, blocks=1) for _ in range(12)]
    for other in others:
        world.do(name, Accept(other, 0))
    dataset = world.shard(others[0]).dataset
    deal, old = world.active("client", "node", periods=3, price=PRICE)
    ends_at = world.shard(deal).ends_at
    world.do("node", Ask(0, 0, GIB, False))
    world.open_window(old)
    world.pass_until(world.dataset(dataset).opens_at)
    world.do(name, world.proof(dataset))
    world.pass_until(world.dataset(old).closes_at + 1)
    monkeypatch.setattr(limits, "MAX_TURN_STEP", 1)
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 6)
    world.block(step=1)
    assert world.shard(deal).provider == key(name)
    world.block(step=PERIOD_S)
    assert world.dataset(dataset).record.phase is Phase.TURNING
    assert world.app.time == ends_at - PERIOD_S + 1
    assert world.try_(name, Accept(deal, 0)).code is Code.OFFER_EXPIRED


def test_notice_shortens_no_last_period() -> None:
    """Of a repair for which one period is left its one period and its end stay."""
    world = make()
    name = beside("node", -1)
    world.provider(name)
    deal, ends_at = lost(world, 3)
    world.block(step=1)
    world.do(name, Accept(deal, 0))
    world.do("client", EndDeal(deal))
    world.pass_until(ends_at - PERIOD_S)
    shard = world.shard(deal)
    assert (shard.status, shard.first, shard.ends_at) == (ShardStatus.ACTIVE, shard.last, ends_at)


# A handover.


def test_a_handover_is_not_accepted_when_the_old_turn_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(replace(ONE_FAULT, accept_timeout_s=100, terminate_after=3))
    name = beside("node", 0)
    world.provider(name)
    others = [world.deal("client", providers=["node"], periods=1, blocks=1) for _ in range(12)]
    for other in others:
        world.do("node", Accept(other, 0))
    deal, dataset = world.active("client", "node", periods=3)
    ends_at = world.shard(deal).ends_at
    world.do("node", HandOver(deal, 0))
    world.block(step=1)
    assert world.shard(deal).successor == key(name)
    world.pass_until(world.dataset(dataset).closes_at)
    monkeypatch.setattr(limits, "MAX_TURN_STEP", 1)
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 6)
    world.block(step=1)
    world.block(step=PERIOD_S)
    assert world.dataset(dataset).record.phase is Phase.TURNING
    assert world.app.time == ends_at - PERIOD_S
    assert world.try_(name, Accept(deal, 0)).code is Code.OFFER_EXPIRED


@pytest.mark.parametrize("late", [0, 1])
def test_a_handover_is_drawn_as_long_as_two_periods_are_left(late: int) -> None:
    world = make()
    world.provider("second")
    deal, dataset = world.active("client", "node", periods=4, price=PRICE)
    world.prove("node", dataset)
    ends_at = world.shard(deal).ends_at
    world.do("node", HandOver(deal, 0))
    world.block(step=ends_at - 2 * PERIOD_S + late - world.app.time)
    assert world.shard(deal).successor == (b"" if late else key("second"))
    assert ("handover_failed" in kinds(world.events)) is bool(late)


@pytest.mark.parametrize(("seconds", "begins", "code"), [(0, 1, Code.OK), (1, 2, Code.OFFER_EXPIRED)])
def test_a_handover_is_accepted_if_a_whole_period_can_be_served(
    seconds: int, begins: int, code: Code
) -> None:
    """The successor joins at the first start of a period after the old provider's turn, as the last period
    begins or, having accepted a period later, a second after that."""
    world = make()
    name = beside("node", seconds)
    world.provider(name)
    deal, _ = world.active("client", "node", periods=3, price=PRICE)
    ends_at = world.shard(deal).ends_at
    world.do("node", HandOver(deal, 0))
    turn = ends_at - 2 * PERIOD_S
    world.block(step=turn - world.app.time - (1 if begins == 1 else 0))
    assert world.shard(deal).successor == key(name)
    assert world.try_(name, Accept(deal, 0)).code is code
    if code is Code.OK:
        world.pass_until(ends_at - PERIOD_S)
        shard = world.shard(deal)
        assert (shard.provider, shard.status, shard.ends_at) == (key(name), ShardStatus.ACTIVE, ends_at)
        assert shard.first == shard.last


# Notice.


@pytest.mark.parametrize(("periods", "served"), [(1, 1), (2, 2), (3, 2), (9, 2)])
def test_notice_leaves_this_period_and_one_more_if_there_is_one(periods: int, served: int) -> None:
    world = make()
    deal, dataset = world.active("client", "node", periods=periods, price=PRICE)
    begins = world.app.time
    world.do("client", EndDeal(deal))
    shard = world.shard(deal)
    assert (shard.last - shard.first + 1, shard.ends_at) == (served, begins + served * PERIOD_S)
    for _ in range(served):
        world.prove("node", dataset)
        world.pass_until(world.dataset(dataset).closes_at)
        assert world.shard(deal).status is ShardStatus.ACTIVE
        world.block(step=1)
    assert world.shard(deal).status is ShardStatus.ENDED
    assert world.shard(deal).paid == served * PRICE
    assert last(world.events, "shard_closed")["refund"] == (periods - served) * PRICE


@pytest.mark.parametrize(("periods", "served"), [(1, 1), (2, 1), (9, 1)])
def test_notice_before_a_shard_joins_leaves_one_period(periods: int, served: int) -> None:
    world = make()
    deal = world.deal("client", providers=["node"], periods=periods, price=PRICE)
    world.do("node", Accept(deal, 0))
    world.do("client", EndDeal(deal))
    dataset = world.shard(deal).dataset
    world.pass_until(world.dataset(dataset).closes_at + 1)
    shard = world.shard(deal)
    assert (shard.last, shard.ends_at) == (shard.first, world.app.time + served * PERIOD_S)
    world.prove("node", dataset)
    world.pass_until(shard.ends_at)
    assert (world.shard(deal).status, world.shard(deal).paid) == (ShardStatus.ENDED, PRICE)
