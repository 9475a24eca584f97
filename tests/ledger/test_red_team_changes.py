"""What an attacker tries with changes of running deals (numbered as the attacks are), on both ledgers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import limits
from ledger.events import Event
from ledger.genesis import HOLD
from ledger.records import ShardRecord, ShardStatus
from ledger.result import Code
from ledger.transactions import (
    Accept,
    Body,
    DeclareFault,
    EndDeal,
    GiveUp,
    HandOver,
    Renew,
    Settle,
    Spot,
    TopUp,
    Transaction,
    Withdraw,
    decode,
)
from merkledag.cid import CID
from tests.ledger.naive.twin import TwinWorld
from tests.ledger.world import FEE, PARAMS, all_of, key, last

PRICE = 100_000
HUGE = limits.MAX_UINT


@pytest.fixture
def world() -> TwinWorld:
    world = TwinWorld()
    world.fund("client")
    world.provider("node")
    return world


def handed(world: TwinWorld, deal: CID) -> ShardRecord:
    """`node` hands its shard over to `next`, who has accepted it."""
    world.provider("next")
    world.do("node", HandOver(deal, 0))
    world.block()
    world.do("next", Accept(deal, 0))
    return world.shard(deal)


def run_out(world: TwinWorld) -> list[Event]:
    """Nobody does anything any more until every deal is over."""
    start = len(world.events)
    while world.app.has_live_deals():
        world.pass_time(PARAMS.accept_timeout_s)
    return world.events[start:]


def test_10_a_handover_pays_each_for_its_own_periods_and_once(world: TwinWorld) -> None:
    deal, dataset = world.active("client", "node", periods=6)
    world.prove("node", dataset)
    world.prove("node", dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    handed(world, deal)
    world.prove("node", dataset)
    closes_at = world.dataset(dataset).closes_at
    before = world.balance("node")
    world.pass_until(closes_at + 1)
    assert world.balance("node") == before + 3 * PRICE + PARAMS.deposit
    world.refuses("node", Settle(deal, 0), Code.NOTHING_DUE)
    later = world.shard(deal).dataset
    assert later != dataset
    assert world.app.dataset(dataset) is None
    world.pass_until(world.dataset(later).closes_at + 1)
    world.prove("next", later)
    assert world.settle("node", deal) == PRICE
    world.refuses("next", Settle(deal, 0), Code.NOTHING_DUE)
    assert world.shard(deal).paid == 4 * PRICE
    assert world.shard(deal).escrow == 2 * PRICE


def test_11_what_a_successor_has_locked_stays(world: TwinWorld) -> None:
    deal, _ = world.active("client", "node", periods=6, price=HOLD)
    shard = handed(world, deal)
    assert shard.next_collateral == 20 * HOLD
    world.refuses("next", Withdraw(80 * HOLD + 1), Code.STAKE_LOCKED)
    world.do("next", Withdraw(80 * HOLD))
    world.refuses("node", Withdraw(80 * HOLD + 1), Code.STAKE_LOCKED)


def test_12_amounts_of_changes_that_nobody_has_are_refused(world: TwinWorld) -> None:
    deal, _ = world.active("client", "node", price=3 * HOLD)
    world.refuses("client", Renew(deal, limits.MAX_DEAL_PERIODS), Code.INVALID_TERMS)
    world.refuses("client", Renew(deal, PARAMS.renewal_periods - 3), Code.INSUFFICIENT_FUNDS)
    world.refuses("client", TopUp(deal, 0, HUGE), Code.NOT_OFFERED)
    for body in (Settle, HandOver, GiveUp, Accept):
        world.refuses("node", body(deal, HUGE), Code.UNKNOWN_SHARD)
        world.refuses("node", body(CID.of(b"none"), 0), Code.UNKNOWN_DEAL)


def test_16_changes_of_deals_count_among_those_that_a_block_may_make(
    world: TwinWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    deal, other = world.deal("client"), world.deal("client")
    monkeypatch.setattr(limits, "MAX_SHARDS_PER_BLOCK", 2)
    nonce = world.app.account(key("client")).nonce
    bodies: list[Body] = [Renew(deal, 1), EndDeal(other), EndDeal(deal)]
    txs = [world.tx("client", body, nonce=nonce + i) for i, body in enumerate(bodies)]
    assert world.propose(txs) == txs[:2]
    assert not world.app.dropped
    codes = [result.code for result in world.block(*txs).tx_results]
    assert codes == [Code.OK, Code.OK, Code.OK, Code.BLOCK_FULL]


def test_17_a_piece_leaves_after_the_window_however_its_provider_leaves(world: TwinWorld) -> None:
    given, dataset = world.active("client", "node", periods=9)
    passed = world.deal("client", periods=9, providers=["node"])
    world.do("node", Accept(passed, 0))
    world.pass_until(world.dataset(dataset).closes_at + 1)
    roots = world.open_window(dataset).record.data
    world.do("node", GiveUp(given, 0))
    handed(world, passed)
    world.do("client", EndDeal(passed))
    assert world.dataset(dataset).record.data == roots
    world.refuses("node", DeclareFault(dataset, world.dataset(dataset).record.period), Code.TOO_LATE)
    world.do("node", world.proof(dataset))
    world.pass_until(world.dataset(dataset).closes_at + 1)
    assert world.app.dataset(dataset) is None
    assert world.shard(given).status is ShardStatus.REPAIR
    assert world.shard(passed).provider == key("next")


def test_19_lost_data_can_not_be_given_up_instead_of_faulted(world: TwinWorld) -> None:
    deal, _ = world.active("client", "node", periods=9, price=HOLD)
    world.do("node", GiveUp(deal, 0))
    before = world.app.provider(key("node"))
    events = run_out(world)
    after = world.app.provider(key("node"))
    assert before is not None
    assert after is not None
    assert not all_of(events, "shard_given_up")
    assert len(all_of(events, "fault")) == 3
    assert after.stake == before.stake - 3 * HOLD - 20 * HOLD  # full fees and all of the collateral


def test_19_garbage_parity_ends_the_shard_and_profits_nobody(world: TwinWorld) -> None:
    """A client whose pieces nobody can rebuild gets back its own escrow, others what they were fool enough to
    add; the reward is burned."""
    world.fund("fool")
    rich = world.balance("client")
    deal, _ = world.active("client", "node", periods=9, price=HOLD)
    world.provider("next")  # is drawn, can not rebuild the piece and so does not accept
    while world.shard(deal).status is not ShardStatus.REPAIR:
        world.pass_time(PARAMS.period_s)
    reward = world.shard(deal).reward
    assert reward == 10 * HOLD
    world.do("fool", TopUp(deal, 0, HOLD))
    burned = world.app.totals().burned
    run_out(world)
    assert world.shard(deal).status is ShardStatus.TERMINATED
    assert world.balance("client") == rich - FEE
    assert world.balance("fool") == rich - FEE
    assert world.app.totals().burned == burned + reward


def test_19_a_handover_to_oneself_costs_fees_and_mints_nothing(world: TwinWorld) -> None:
    """Both nodes in one hand, and the client too."""
    world.provider("next")
    world.fund("hand")
    every = ("client", "node", "next")
    stakes = dict.fromkeys(every[1:], 100 * HOLD)
    before = sum(map(world.balance, every))
    deal, _ = world.active("client", "node", periods=4)
    world.do("node", HandOver(deal, 0))
    world.block()
    world.do("next", Accept(deal, 0))
    run_out(world)
    assert sum(map(world.balance, every)) <= before - 4 * FEE
    for name, stake in stakes.items():
        found = world.app.provider(key(name))
        assert found is not None
        assert found.stake <= stake
        assert found.locked == found.used_bytes == 0


def test_22_a_successor_can_not_fault_before_the_shard_is_its_own(world: TwinWorld) -> None:
    deal, _ = world.active("client", "node", periods=9)
    handed(world, deal)
    ready = len(world.events)
    while world.shard(deal).provider != key("next"):
        world.pass_time(5)
    while world.shard(deal).status is ShardStatus.ACCEPTED:
        world.pass_time(5)
    faults = all_of(world.events[ready:], "fault")
    assert {fault["provider"] for fault in faults} <= {key("node")}
    before = world.shard(deal)
    assert before.first == world.dataset(before.dataset).record.period


@pytest.mark.parametrize("late_s", [0, 1])
def test_23_a_fault_is_declared_before_the_window_or_not_at_all(world: TwinWorld, late_s: int) -> None:
    _, dataset = world.active("client", "node", periods=9)
    info = world.dataset(dataset)
    world.pass_until(info.opens_at - 1)
    raw = world.tx("node", DeclareFault(dataset, info.record.period))
    result = world.block(raw, step=late_s).tx_results[1]
    assert result.code is (Code.TOO_LATE if late_s else Code.OK)


def test_a_deal_that_ends_and_is_renewed_in_one_block_ends(world: TwinWorld) -> None:
    deal, _ = world.active("client", "node", periods=9)
    nonce = world.app.account(key("client")).nonce
    bodies: list[Body] = [EndDeal(deal), Renew(deal, 5)]
    raws = [world.tx("client", body, nonce=nonce + i) for i, body in enumerate(bodies)]
    codes = [result.code for result in world.block(*raws).tx_results[1:]]
    assert codes == [Code.OK, Code.INVALID_TERMS]
    run_out(world)
    assert world.shard(deal).status is ShardStatus.ENDED


def test_changes_of_a_deal_are_their_clients_and_providers_alone(world: TwinWorld) -> None:
    deal, dataset = world.active("client", "node", periods=9)
    world.provider("thief")
    period = world.dataset(dataset).record.period
    for body in (Renew(deal, 1), EndDeal(deal), HandOver(deal, 0), GiveUp(deal, 0)):
        world.refuses("thief", body, Code.NOT_YOURS)
    world.refuses("thief", DeclareFault(dataset, period), Code.NOT_YOURS)
    forged = replace(world_tx(world, EndDeal(deal)), account=key("client"))
    assert world.app.check_tx(forged.encode()).code is Code.BAD_SIGNATURE


def world_tx(world: TwinWorld, body: EndDeal) -> Transaction:
    return decode(world.tx("thief", body))


@pytest.mark.parametrize("late_s", [0, 1, 5])
def test_17_what_ends_in_a_block_is_not_judged_in_it_any_more(world: TwinWorld, late_s: int) -> None:
    """A shard's last period and a challenge of it end in one second: the block can be made."""
    deal, dataset = world.active("client", "node", periods=1)
    info = world.dataset(dataset)
    world.pass_until(info.opens_at - 1)
    before = world.balance("client")
    world.do("client", Spot(deal, 0))
    world.block()
    assert last(world.events, "spot_opened")["closes_at"] == info.closes_at
    world.pass_until(info.closes_at)
    world.block(step=1 + late_s)
    assert world.shard(deal).status is ShardStatus.ENDED
    assert not all_of(world.events, "spot_missed")
    assert world.balance("client") > before - FEE  # what was prepaid is back
