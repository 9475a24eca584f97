"""A deal that is live changes: renewed, ended early by notice, a repair's reward raised by others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import limits
from ledger.fees import small_fee
from ledger.genesis import HOLD
from ledger.records import DealStatus, ShardStatus
from ledger.result import Code
from ledger.rules_providers import price_floor
from ledger.transactions import Accept, Ask, Body, EndDeal, GiveUp, HandOver, Renew, TopUp
from ledger.views import DealInfo
from merkledag.cid import CID
from tests.ledger.world import GIB, MANIFEST, PARAMS, World, all_of, key, kinds, last

PRICE = 100_000
FEE = small_fee(PARAMS)


def info(world: World, deal: CID) -> DealInfo:
    found = world.app.deal(deal)
    assert found is not None
    return found


def miss(world: World, dataset: bytes) -> None:
    world.open_window(dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)


def finish(world: World, deal: CID, dataset: bytes, name: str = "node") -> int:
    """Proves until the first shard closes; returns in how many periods."""
    count = 0
    while world.shard(deal).status is ShardStatus.ACTIVE:
        world.prove(name, dataset)
        count += 1
        world.pass_until(world.dataset(dataset).closes_at + 1)
    return count


# Renewal.


def test_a_renewal_locks_more_escrow_and_the_deal_is_served_longer(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=2, price=PRICE)
    before, client = world.shard(deal), world.balance("client")
    fee = world.app.totals().burned
    world.do("client", Renew(deal, 3))
    fee = world.app.totals().burned - fee
    after = world.shard(deal)
    assert (after.last, after.ends_at) == (before.last + 3, before.ends_at + 3 * PARAMS.period_s)
    assert after.escrow == before.escrow + 3 * PRICE
    assert world.balance("client") == client - 3 * PRICE - fee
    assert info(world, deal).record.periods == 5
    assert last(world.events, "deal_renewed")["shards"] == 1
    assert finish(world, deal, dataset) == 5
    assert world.shard(deal).paid == 5 * PRICE
    world.check_restores()


def test_a_renewal_in_the_last_period_still_counts(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=1, price=PRICE)
    world.open_window(dataset)
    assert world.shard(deal).last == world.dataset(dataset).record.period
    world.pass_until(world.dataset(dataset).closes_at)
    world.do("client", Renew(deal, 1))
    world.pass_time(1)
    assert world.shard(deal).status is ShardStatus.ACTIVE
    assert finish(world, deal, dataset) == 1
    assert info(world, deal).record.status is DealStatus.ENDED


def test_a_deal_that_is_over_or_ending_is_not_renewed(world: World) -> None:
    deal, _ = world.active("client", "node", periods=1, price=PRICE)
    ending, _ = world.active("client", "node", periods=9, price=PRICE)
    world.do("client", EndDeal(ending))
    world.refuses("client", Renew(ending, 1), Code.INVALID_TERMS)
    world.pass_until(world.shard(deal).ends_at)
    assert info(world, deal).record.status is DealStatus.ENDED
    world.refuses("client", Renew(deal, 1), Code.INVALID_TERMS)
    world.refuses("client", Renew(MANIFEST, 1), Code.UNKNOWN_DEAL)


def test_only_the_client_renews_and_only_what_it_can_pay_within_the_bound(world: World) -> None:
    deal, _ = world.active("client", "node", periods=3, price=PRICE)
    world.refuses("node", Renew(deal, 1), Code.NOT_YOURS)
    world.refuses("client", Renew(deal, limits.MAX_DEAL_PERIODS - 2), Code.INVALID_TERMS)
    world.fund("poor", amount=3 * HOLD)
    rich, _ = world.active("poor", "node", periods=3, price=HOLD // 2)
    world.refuses("poor", Renew(rich, 9), Code.INSUFFICIENT_FUNDS)


@pytest.mark.parametrize(
    "ask", [Ask(0, 0, GIB, False), Ask(GIB * 100_001, 0, GIB, True)], ids=["closed", "asks more"]
)
def test_a_provider_that_closed_or_asks_more_has_not_consented(world: World, ask: Ask) -> None:
    deal, _ = world.active("client", "node", periods=3, price=PRICE)
    world.do("node", ask)
    world.refuses("client", Renew(deal, 1), Code.TERMS_NOT_TAKEN)
    world.do("node", Ask(1, 0, 1, True))  # sizes are of new pieces: this one is there already
    world.do("client", Renew(deal, 1))


def test_a_provider_that_leaves_the_shard_has_not_consented(world: World) -> None:
    deal, _ = world.active("client", "node", periods=9, price=PRICE)
    other, _ = world.active("client", "node", periods=9, price=PRICE)
    world.do("node", HandOver(deal, 0))
    world.do("node", GiveUp(other, 0))
    world.refuses("client", Renew(deal, 1), Code.TERMS_NOT_TAKEN)
    world.refuses("client", Renew(other, 1), Code.TERMS_NOT_TAKEN)


def test_shards_that_wait_are_renewed_and_closed_ones_stay_closed() -> None:
    """One shard is refused by its named provider and refunded, one accepted, one lost and up for repair."""
    world = World(replace(PARAMS, accept_timeout_s=500))
    world.fund("client")
    world.provider("node", "second", "third")
    deal = world.deal("client", shards=3, providers=("node", "second", "third"), periods=9, price=PRICE)
    world.do("node", Accept(deal, 0))
    dataset = world.shard(deal).dataset
    for _ in range(PARAMS.terminate_after):
        world.pass_until(world.dataset(dataset).closes_at + 1)
        world.open_window(dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    assert world.shard(deal, 0).status is ShardStatus.REPAIR
    world.do("second", Accept(deal, 1))
    world.pass_until(world.shard(deal, 2).expires_at + 1)
    assert world.shard(deal, 2).status is ShardStatus.REFUNDED
    before = info(world, deal).shards
    world.do("client", Renew(deal, 4))
    after = info(world, deal).shards
    assert last(world.events, "deal_renewed")["shards"] == 2
    assert [b.escrow - a.escrow for a, b in zip(before, after, strict=True)] == [4 * PRICE, 4 * PRICE, 0]
    assert after[0].ends_at == before[0].ends_at + 4 * PARAMS.period_s
    assert after[2] == before[2]
    assert after[1].ends_at in (0, before[1].ends_at + 4 * PARAMS.period_s)


def test_a_block_changes_a_bounded_number_of_deals(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    deal, _ = world.active("client", "node", periods=5, price=PRICE)
    monkeypatch.setattr(limits, "MAX_SHARDS_PER_BLOCK", 2)
    nonce = world.app.account(key("client")).nonce
    bodies: list[Body] = [Renew(deal, 1), Renew(deal, 1), Renew(deal, 1), EndDeal(deal)]
    txs = [world.tx("client", body, nonce=nonce + min(i, 2)) for i, body in enumerate(bodies)]
    codes = [result.code for result in world.block(*txs).tx_results[1:]]
    assert codes == [Code.OK, Code.OK, Code.BLOCK_FULL, Code.BLOCK_FULL]


def test_nobody_is_bound_further_ahead_than_a_renewal_may_reach(world: World) -> None:
    """To the period and the second; whoever wants more renews again when some of it is over."""
    world.provider("next")
    deal = world.deal("client", providers=("node", "next"), shards=2, periods=4, price=PRICE)
    most = PARAMS.renewal_periods
    world.refuses("client", Renew(deal, most - 3), Code.INVALID_TERMS)  # nothing runs yet
    world.do("node", Accept(deal, 0))
    world.do("next", Accept(deal, 1))
    world.do("client", Renew(deal, 1))
    while ShardStatus.ACCEPTED in [shard.status for shard in info(world, deal).shards]:
        world.pass_time(1)
    last_end = max(shard.ends_at for shard in info(world, deal).shards)
    left = last_end - world.app.time
    more = most - -(-left // PARAMS.period_s)
    world.pass_time(left % PARAMS.period_s)
    world.refuses("client", Renew(deal, more + 2), Code.INVALID_TERMS)
    world.do("client", Renew(deal, more + 1 if left % PARAMS.period_s else more))
    assert max(shard.ends_at for shard in info(world, deal).shards) == world.app.time + most * PARAMS.period_s
    world.refuses("client", Renew(deal, 1), Code.INVALID_TERMS)
    world.pass_time(PARAMS.period_s - 1)
    world.refuses("client", Renew(deal, 1), Code.INVALID_TERMS)
    world.pass_time(1)
    world.do("client", Renew(deal, 1))


# Notice.


def test_notice_serves_this_period_and_one_more_then_the_rest_goes_back(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=20, price=PRICE)
    world.prove("node", dataset)
    period = world.dataset(dataset).record.period
    client = world.balance("client")
    fee = world.app.totals().burned
    world.do("client", EndDeal(deal))
    fee = world.app.totals().burned - fee
    assert info(world, deal).record.ending
    assert "deal_ending" in kinds(world.events)
    assert world.shard(deal).last == period + 1
    assert world.shard(deal).status is ShardStatus.ACTIVE
    world.refuses("client", EndDeal(deal), Code.NOTHING_TO_DO)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    world.prove("node", dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    assert world.shard(deal).status is ShardStatus.ENDED
    assert world.shard(deal).paid == 2 * PRICE
    assert world.balance("client") == client - fee + 18 * PRICE + 2 * PARAMS.deposit
    provider = world.app.provider(key("node"))
    assert provider is not None
    assert provider.locked == 0
    world.refuses("client", EndDeal(deal), Code.NOTHING_TO_DO)
    world.check_restores()


def test_notice_does_not_lengthen_a_deal_in_its_last_period(world: World) -> None:
    deal, _ = world.active("client", "node", periods=1, price=PRICE)
    before = world.shard(deal)
    world.do("client", EndDeal(deal))
    assert (world.shard(deal).last, world.shard(deal).ends_at) == (before.last, before.ends_at)


@pytest.mark.parametrize("is_active", [False, True])
def test_notice_after_acceptance_leaves_no_provider_with_its_fees(world: World, is_active: bool) -> None:
    """At the least price, which spreads what an acceptance costs over all periods."""
    price = price_floor(PARAMS, 1_000)
    before = world.balance("node")
    deal = world.deal("client", providers=("node",), periods=1_000, price=price)
    world.do("node", Accept(deal, 0))
    dataset = world.shard(deal).dataset
    if not is_active:
        world.do("client", EndDeal(deal))
    world.prove("node", dataset)
    if is_active:
        world.do("client", EndDeal(deal))
        world.prove("node", dataset)
    client = world.balance("client")
    escrow = world.shard(deal).escrow
    world.pass_until(world.dataset(dataset).closes_at + 1)
    served = 2 if is_active else 1
    assert world.shard(deal).status is ShardStatus.ENDED
    assert world.balance("node") == before
    assert world.shard(deal).paid == served * PARAMS.proof_fee + FEE
    assert last(world.events, "paid")["amount"] == FEE - served * (price - PARAMS.proof_fee)
    assert world.balance("client") == client + escrow - world.shard(deal).paid + 2 * PARAMS.deposit


def test_a_provider_that_proves_nothing_gains_nothing_by_notice(world: World) -> None:
    before = world.balance("node")
    deal = world.deal("client", providers=("node",), periods=1_000, price=price_floor(PARAMS, 1_000))
    world.do("node", Accept(deal, 0))
    world.do("client", EndDeal(deal))
    world.pass_time(3 * PARAMS.period_s)
    assert world.shard(deal).status is ShardStatus.ENDED
    assert world.balance("node") < before


def test_a_price_that_no_longer_covers_a_proof_is_not_renewed(world: World) -> None:
    deal, _ = world.active("client", "node", periods=9, price=PRICE)
    world.govern(replace(PARAMS, proof_fee=PRICE + 1))
    world.refuses("client", Renew(deal, 1), Code.PRICE_TOO_LOW)
    world.govern(replace(PARAMS, proof_fee=PRICE))
    world.do("client", Renew(deal, 1))


def test_only_the_client_ends_a_deal(world: World) -> None:
    deal, _ = world.active("client", "node", periods=5, price=PRICE)
    world.refuses("node", EndDeal(deal), Code.NOT_YOURS)
    world.refuses("client", EndDeal(MANIFEST), Code.UNKNOWN_DEAL)


def test_notice_ends_what_nobody_keeps_at_once_and_nothing_is_drawn_for_it(world: World) -> None:
    """One shard is offered, one waits for somebody who takes it: the deal is over with the notice."""
    before, burned = world.balance("client"), world.app.totals().burned
    deal = world.deal("client", shards=2, price=PRICE)
    world.block(step=1)
    offered = next(index for index in (0, 1) if world.shard(deal, index).provider)
    world.do("client", EndDeal(deal))
    assert {shard.status for shard in info(world, deal).shards} == {ShardStatus.REFUNDED}
    assert info(world, deal).record.status is DealStatus.ENDED
    assert info(world, deal).record.holders == (b"", b"")
    assert world.balance("client") == before - (world.app.totals().burned - burned)
    world.refuses("node", Accept(deal, offered), Code.NOT_YOURS)
    later = world.pass_time(3 * PARAMS.accept_timeout_s)
    assert "shard_assigned" not in kinds(later)


def test_notice_before_the_draw_leaves_nothing_to_draw(world: World) -> None:
    deal = world.deal("client", price=PRICE)
    world.do("client", EndDeal(deal))
    happened = world.pass_time(5)
    assert world.shard(deal).status is ShardStatus.REFUNDED
    assert "shard_assigned" not in kinds(happened)


def test_an_accepted_shard_serves_one_period_after_notice(world: World) -> None:
    deal = world.deal("client", providers=("node",), periods=20, price=PRICE)
    world.do("node", Accept(deal, 0))
    dataset = world.shard(deal).dataset
    world.do("client", EndDeal(deal))
    assert world.shard(deal).status is ShardStatus.ACCEPTED
    world.pass_until(world.dataset(dataset).closes_at + 1)
    shard = world.shard(deal)
    assert (shard.status, shard.last) == (ShardStatus.ACTIVE, shard.first)
    assert finish(world, deal, dataset) == 1
    assert world.shard(deal).paid == PRICE


def test_a_shard_lost_while_the_deal_ends_is_not_repaired(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=20, price=PRICE)
    world.provider("second")
    miss(world, dataset)
    miss(world, dataset)
    world.do("client", EndDeal(deal))
    client, burned = world.balance("client"), world.app.totals().burned
    miss(world, dataset)
    assert last(world.events, "shard_terminated")["forfeited"] == 20 * PRICE
    assert world.shard(deal).status is ShardStatus.TERMINATED
    assert world.app.totals().burned == burned + PRICE + 20 * PRICE  # the fee, and all of the collateral
    assert world.balance("client") == client + 20 * PRICE + 2 * PARAMS.deposit


def test_notice_ends_a_repair_and_gives_back_escrow_and_bounty(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=20, price=PRICE)
    for _ in range(PARAMS.terminate_after):
        miss(world, dataset)
    world.fund("friend")
    world.do("friend", TopUp(deal, 0, 5 * PRICE))
    client, burned = world.balance("client"), world.app.totals().burned
    world.do("client", EndDeal(deal))
    fee = world.app.totals().burned - burned - 10 * PRICE  # the reward is burned
    assert world.shard(deal).status is ShardStatus.TERMINATED
    assert last(world.events, "shard_closed")["refund"] == 20 * PRICE
    assert world.balance("client") == client - fee + 20 * PRICE + 2 * PARAMS.deposit
    assert world.balance("friend") == 1_000 * HOLD - FEE  # no notice turns a stranger's bounty to the client


# Bounties.


def test_a_bounty_is_paid_with_the_reward_at_the_first_proof_of_a_repair(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=20, price=PRICE)
    world.fund("friend")
    world.refuses("friend", TopUp(deal, 0, PRICE), Code.NOT_OFFERED)
    for _ in range(PARAMS.terminate_after):
        miss(world, dataset)
    world.provider("second")
    world.do("friend", TopUp(deal, 0, PRICE))
    world.do("friend", TopUp(deal, 0, 2 * PRICE))
    assert (world.shard(deal).bounty, world.shard(deal).backer) == (3 * PRICE, key("friend"))
    while world.shard(deal).provider != key("second"):
        world.pass_time(PARAMS.accept_timeout_s + 2)
    world.do("second", Accept(deal, 0))
    world.refuses("friend", TopUp(deal, 0, PRICE), Code.NOT_OFFERED)
    repaired = world.shard(deal).dataset
    world.pass_until(world.dataset(repaired).closes_at + 1)
    world.prove("second", repaired)
    before = world.balance("second")
    assert world.settle("friend", deal) == PRICE
    paid = last(world.events, "paid")
    assert (paid["reward"], paid["bounty"]) == (10 * PRICE, 3 * PRICE)
    assert world.balance("second") == before + 14 * PRICE
    assert (world.shard(deal).bounty, world.shard(deal).reward) == (0, 0)
    assert world.shard(deal).backer == b""


def test_a_higher_bounty_takes_the_place_of_another_accounts(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=20, price=PRICE)
    world.fund("friend", "other")
    for _ in range(PARAMS.terminate_after):
        miss(world, dataset)
    world.do("friend", TopUp(deal, 0, 5))
    world.refuses("other", TopUp(deal, 0, 5), Code.AMOUNT_OUT_OF_RANGE)
    world.do("other", TopUp(deal, 0, 6))
    assert world.balance("friend") == 1_000 * HOLD - FEE
    world.do("other", TopUp(deal, 0, 1))
    assert (world.shard(deal).bounty, world.shard(deal).backer) == (7, key("other"))
    world.do("client", TopUp(deal, 0, 8))
    assert world.balance("other") == 1_000 * HOLD - 2 * FEE
    world.do("client", EndDeal(deal))
    assert last(world.events, "shard_closed")["refund"] == 20 * PRICE + 8  # the bounty was the client's own


@pytest.mark.parametrize("backer", ["friend", "client"])
def test_a_bounty_that_nobody_earns_goes_back(backer: str) -> None:
    world = World(replace(PARAMS, max_rounds=1))
    world.fund("client", "friend")
    world.provider("node")
    deal, dataset = world.active("client", "node", periods=20, price=PRICE)
    for _ in range(PARAMS.terminate_after):
        miss(world, dataset)
    before = {name: world.balance(name) for name in ("client", "friend")}
    world.do(backer, TopUp(deal, 0, PRICE))
    world.pass_time(2 * PARAMS.accept_timeout_s)
    assert world.shard(deal).status is ShardStatus.TERMINATED
    before[backer] -= FEE
    assert world.balance("client") == before["client"] + 20 * PRICE + 2 * PARAMS.deposit
    assert world.balance("friend") == before["friend"]
    refund = 20 * PRICE + (PRICE if backer == "client" else 0)
    assert last(world.events, "shard_closed")["refund"] == refund


def test_a_bounty_needs_an_amount_and_somebody_who_has_it(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=20, price=PRICE)
    for _ in range(PARAMS.terminate_after):
        miss(world, dataset)
    world.refuses("client", TopUp(deal, 0, 0), Code.AMOUNT_OUT_OF_RANGE)
    world.refuses("client", TopUp(deal, 1, 5), Code.UNKNOWN_SHARD)
    world.refuses("client", TopUp(MANIFEST, 0, 5), Code.UNKNOWN_DEAL)
    world.refuses("client", TopUp(deal, 0, 10**6 * HOLD), Code.INSUFFICIENT_FUNDS)
    assert all_of(world.events, "topped_up") == []
