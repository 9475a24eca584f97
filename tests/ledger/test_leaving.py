"""A provider leaves: it hands a shard over, gives one up, or declares that it will not prove."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import keys, limits
from ledger.genesis import HOLD, Params
from ledger.records import Phase, ProviderRecord, ShardStatus
from ledger.result import Code
from ledger.rules_datasets import Clock, dataset_of
from ledger.transactions import Accept, Ask, DeclareFault, EndDeal, GiveUp, HandOver, Prove, Renew
from merkledag.cid import CID
from tests.ledger.world import GIB, MANIFEST, PARAMS, World, all_of, key, kinds, last

PRICE = 100_000


def make(params: Params = PARAMS) -> World:
    world = World(params)
    world.fund("client")
    world.provider("node")
    return world


@pytest.fixture
def world() -> World:
    return make()


def provider(world: World, name: str) -> ProviderRecord:
    found = world.app.provider(key(name))
    assert found is not None
    return found


def end_period(world: World, dataset: bytes) -> None:
    world.pass_until(world.dataset(dataset).closes_at + 1)


def miss(world: World, dataset: bytes) -> None:
    world.open_window(dataset)
    end_period(world, dataset)


def offered(world: World, deal: CID, name: str = "second", index: int = 0) -> None:
    """The handover of a shard begins, and is offered to the only other provider."""
    if world.app.provider(key(name)) is None:
        world.provider(name)
    world.do("node", HandOver(deal, index))
    world.block(step=1)
    assert world.shard(deal, index).successor == key(name)


# Handover.


def test_a_shard_is_handed_over_without_a_fault_and_both_are_paid(world: World) -> None:
    deal, old = world.active("client", "node", periods=12, price=PRICE)
    world.prove("node", old)
    before = provider(world, "node").stake
    ends_at = world.shard(deal).ends_at
    offered(world, deal)
    assigned = last(world.events, "shard_assigned")
    assert (assigned["provider"], assigned["repair"], assigned["handover"]) == (key("second"), False, True)
    assert world.shard(deal).status is ShardStatus.ACTIVE
    assert [info.id for info in world.app.deals(provider=key("second"))] == [deal]
    world.prove("node", old)  # it serves on
    world.do("second", Accept(deal, 0))
    shard = world.shard(deal)
    assert (shard.provider, shard.successor, shard.successor_accepted) == (key("node"), key("second"), True)
    assert provider(world, "second").locked == shard.next_collateral == 20 * PRICE
    assert provider(world, "node").locked == 20 * PRICE
    end_period(world, old)
    passed = last(world.events, "shard_handed_over")
    assert (passed["from"], passed["to"]) == (key("node"), key("second"))
    shard = world.shard(deal)
    assert (shard.status, shard.provider, shard.successor) == (ShardStatus.ACCEPTED, key("second"), b"")
    assert (shard.collateral, shard.next_collateral, shard.paid) == (20 * PRICE, 0, 2 * PRICE)
    gone = provider(world, "node")
    assert (gone.locked, gone.used_bytes, gone.stake) == (0, 0, before)
    assert world.app.dataset(old) is None
    end_period(world, shard.dataset)
    shard = world.shard(deal)
    assert (shard.status, shard.ends_at) == (ShardStatus.ACTIVE, ends_at)
    while world.shard(deal).status is ShardStatus.ACTIVE:
        world.prove("second", shard.dataset)
        end_period(world, shard.dataset)
    assert world.shard(deal).status is ShardStatus.ENDED
    assert world.app.time <= ends_at
    assert "fault" not in kinds(world.events)
    assert provider(world, "second").locked == provider(world, "second").used_bytes == 0
    world.check_restores()
    world.pass_time(PARAMS.retention_periods * PARAMS.period_s)
    assert world.app.next_due() is None
    assert not [name for name in world.stored if name.startswith((keys.GIVE, keys.END, keys.JOIN, keys.DRAW))]


def test_the_old_provider_may_fault_while_it_is_handing_over(world: World) -> None:
    deal, old = world.active("client", "node", periods=12, price=PRICE)
    offered(world, deal)
    world.do("second", Accept(deal, 0))
    before = provider(world, "node").stake
    end_period(world, old)
    assert provider(world, "node").stake == before - PRICE
    assert world.shard(deal).provider == key("second")
    assert provider(world, "node").locked == 0


def test_a_handover_that_nobody_takes_ends_and_changes_nothing_else() -> None:
    world = make(replace(PARAMS, max_rounds=2))
    deal, old = world.active("client", "node", periods=12, price=PRICE)
    before = world.shard(deal)
    world.provider("second")
    world.do("node", HandOver(deal, 0))
    happened = world.pass_time(2 * (PARAMS.accept_timeout_s + 2))
    assert [event["provider"] for event in all_of(happened, "offer_expired")] == [key("second")] * 2
    assert last(happened, "handover_failed")["provider"] == key("node")
    assert world.shard(deal) == replace(before, round=0)
    world.refuses("second", Accept(deal, 0), Code.NOT_YOURS)
    world.prove("node", old)
    world.do("node", HandOver(deal, 0))  # it may try again
    world.check_restores()


def test_a_handover_waits_for_somebody_to_come(world: World) -> None:
    deal, _ = world.active("client", "node", periods=30, price=PRICE)
    world.do("node", HandOver(deal, 0))
    happened = world.pass_time(PARAMS.accept_timeout_s + 2)
    assert last(happened, "offer_expired")["provider"] == b""
    world.provider("late")
    world.pass_time(PARAMS.accept_timeout_s + 2)
    assert world.shard(deal).successor == key("late")


def test_who_has_a_shard_of_the_deal_is_not_drawn_for_another() -> None:
    world = make()
    world.provider("second", "third")
    deal = world.deal("client", shards=2, providers=("node", "second"), periods=30, price=PRICE)
    world.do("node", Accept(deal, 0))
    world.do("second", Accept(deal, 1))
    world.pass_time(PARAMS.period_s)
    assert {world.shard(deal, i).status for i in (0, 1)} == {ShardStatus.ACTIVE}
    world.do("node", HandOver(deal, 0))
    world.block(step=1)
    assert world.shard(deal, 0).successor == key("third")
    world.do("second", HandOver(deal, 1))  # the third is taken, and the first still there
    world.block(step=1)
    assert world.shard(deal, 1).successor == b""
    world.do("third", Accept(deal, 0))
    world.pass_until(world.dataset(world.shard(deal, 0).dataset).closes_at + 1)
    assert world.shard(deal, 0).provider == key("third")
    world.pass_time(PARAMS.accept_timeout_s + 2)
    assert world.shard(deal, 1).successor == key("node")  # which holds nothing of it any more


def test_handing_over_needs_an_own_active_shard_with_periods_left(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=3, price=PRICE)
    world.provider("second")
    world.refuses("second", HandOver(deal, 0), Code.NOT_YOURS)
    world.refuses("node", HandOver(deal, 1), Code.UNKNOWN_SHARD)
    world.refuses("node", HandOver(MANIFEST, 0), Code.UNKNOWN_DEAL)
    other = world.deal("client", providers=("node",), periods=9)
    world.refuses("node", HandOver(other, 0), Code.NOT_ACTIVE)
    world.do("node", Accept(other, 0))
    world.refuses("node", HandOver(other, 0), Code.NOT_ACTIVE)
    end_period(world, dataset)
    world.refuses("node", HandOver(deal, 0), Code.OFFER_EXPIRED)  # the second of three periods
    world.do("node", HandOver(other, 0))
    world.block()
    world.refuses("node", HandOver(other, 0), Code.HANDOVER_RUNS)
    world.refuses("node", GiveUp(other, 0), Code.HANDOVER_RUNS)


def test_the_last_moment_to_hand_over(world: World) -> None:
    """Three periods: this one, the next, and a whole one after that for the successor."""
    deal, _ = world.active("client", "node", periods=3, price=PRICE)
    world.do("node", HandOver(deal, 0))


def test_a_successor_accepts_once_in_time_with_room_and_stake() -> None:
    world = make(replace(PARAMS, max_rounds=64))
    deal, _ = world.active("client", "node", periods=60, price=PRICE)
    offered(world, deal)
    world.do("second", Ask(0, 0, GIB, False))  # closing does not undo the offer
    world.do("second", Accept(deal, 0))
    world.refuses("second", Accept(deal, 0), Code.NOT_OFFERED)
    world.refuses("node", Accept(deal, 0), Code.NOT_OFFERED)
    rich, _ = world.active("client", "node", periods=60, price=HOLD // 2)
    world.provider("poor", stake=10 * HOLD)
    world.do("node", HandOver(rich, 0))
    world.block(step=1)
    assert world.shard(rich).successor == key("poor")
    world.deal("client", providers=("poor",), price=HOLD // 2)
    taken = next(each for each, _ in world.pieces if each not in (deal, rich))
    world.do("poor", Accept(taken, 0))  # its stake is used up meanwhile
    world.refuses("poor", Accept(rich, 0), Code.INSUFFICIENT_STAKE)


def test_a_successor_pays_the_deposit_of_its_dataset_when_it_accepts(world: World) -> None:
    deal, old = world.active("client", "node", periods=12, price=PRICE)
    offered(world, deal)
    before, burned = world.balance("second"), world.app.totals().burned
    world.do("second", Accept(deal, 0))
    fee = world.app.totals().burned - burned
    assert world.balance("second") == before - fee - PARAMS.deposit
    info = world.app.deal(deal)
    assert info is not None
    new = dataset_of(info.record, key("second"))
    record = world.dataset(new).record
    assert (record.phase, record.expected, record.pieces) == (Phase.RESTING, 1, 0)
    end_period(world, old)
    assert (world.dataset(new).record.expected, world.dataset(new).record.joining) in ((0, 1), (0, 0))


def test_a_dataset_that_a_piece_is_coming_to_stays_when_it_empties(world: World) -> None:
    """The successor's only other piece ends, and the other dataset turns, before the handover."""
    world.provider("second")
    short, mine = world.active("client", "second", periods=1, price=PRICE)
    deal, old = world.active("client", "node", periods=20, price=PRICE)
    while world.dataset(old).closes_at <= world.dataset(mine).closes_at:
        end_period(world, old)
        if world.shard(short).status is ShardStatus.ENDED:
            break
    offered(world, deal)
    world.do("second", Accept(deal, 0))
    world.pass_until(world.shard(short).ends_at)
    assert world.shard(short).status is ShardStatus.ENDED
    end_period(world, old)
    dataset = world.shard(deal).dataset
    assert dataset == mine
    end_period(world, mine) if world.shard(deal).status is ShardStatus.ACCEPTED else None
    assert world.shard(deal).status is ShardStatus.ACTIVE
    world.prove("second", mine)
    assert world.settle("client", deal) == PRICE
    world.check_restores()


def test_an_old_provider_terminated_before_anyone_accepted_means_a_repair(world: World) -> None:
    deal, old = world.active("client", "node", periods=12, price=PRICE)
    miss(world, old)
    miss(world, old)
    world.open_window(old)
    offered(world, deal)
    end_period(world, old)
    shard = world.shard(deal)
    assert (shard.status, shard.successor, shard.handing_over) == (ShardStatus.REPAIR, b"", False)
    assert shard.reward == 10 * PRICE
    world.block(step=1)
    assert world.shard(deal).provider == key("second")
    world.do("second", Accept(deal, 0))
    world.check_restores()


def test_an_old_provider_terminated_after_somebody_accepted_leaves_the_reward_to_it(world: World) -> None:
    deal, old = world.active("client", "node", periods=12, price=PRICE)
    miss(world, old)
    miss(world, old)
    world.open_window(old)
    offered(world, deal)
    world.do("second", Accept(deal, 0))
    before = provider(world, "node").stake
    end_period(world, old)
    assert last(world.events, "shard_terminated")["forfeited"] == 20 * PRICE
    assert provider(world, "node").stake == before - PRICE - 20 * PRICE
    shard = world.shard(deal)
    assert (shard.provider, shard.reward) == (key("second"), 10 * PRICE)
    if shard.status is ShardStatus.ACCEPTED:
        end_period(world, shard.dataset)
    world.prove("second", shard.dataset)
    world.settle("second", deal)
    assert last(world.events, "paid")["reward"] == 10 * PRICE
    world.check_restores()


def test_notice_cancels_a_handover_that_is_offered(world: World) -> None:
    deal, old = world.active("client", "node", periods=12, price=PRICE)
    offered(world, deal)
    world.do("client", EndDeal(deal))
    assert last(world.events, "handover_failed")["provider"] == key("node")
    world.refuses("second", Accept(deal, 0), Code.NOT_YOURS)
    world.refuses("node", HandOver(deal, 0), Code.OFFER_EXPIRED)
    world.prove("node", old)
    end_period(world, old)
    world.prove("node", old)
    end_period(world, old)
    assert world.shard(deal).status is ShardStatus.ENDED


def test_notice_after_the_successor_accepted_leaves_it_one_period(world: World) -> None:
    deal, old = world.active("client", "node", periods=12, price=PRICE)
    offered(world, deal)
    world.do("second", Accept(deal, 0))
    world.do("client", EndDeal(deal))
    world.prove("node", old)
    end_period(world, old)
    shard = world.shard(deal)
    assert shard.provider == key("second")
    if shard.status is ShardStatus.ACCEPTED:
        end_period(world, shard.dataset)
    shard = world.shard(deal)
    assert shard.last == shard.first
    world.prove("second", shard.dataset)
    end_period(world, shard.dataset)
    assert world.shard(deal).status is ShardStatus.ENDED
    assert world.shard(deal).paid == 2 * PRICE
    assert provider(world, "node").locked == provider(world, "second").locked == 0


def test_a_handover_ends_when_too_little_is_left() -> None:
    world = make(replace(PARAMS, max_rounds=64, terminate_after=30, fault_limit=30))
    deal, _ = world.active("client", "node", periods=4, price=PRICE)
    world.do("node", HandOver(deal, 0))
    happened = world.pass_until(world.shard(deal).ends_at - PARAMS.period_s)
    assert "handover_failed" in kinds(happened)
    assert not world.shard(deal).handing_over


@pytest.mark.parametrize("periods", [3, 5])
def test_a_successor_that_accepts_late_always_gets_a_whole_period(periods: int) -> None:
    """However late it accepts: either no whole period is left and it is refused, or it serves one."""
    for wait in range(0, (periods - 2) * PARAMS.period_s, 17):
        world = make(replace(PARAMS, accept_timeout_s=1_000, terminate_after=30, fault_limit=30))
        deal, _ = world.active("client", "node", periods=periods, price=PRICE)
        offered(world, deal)
        world.pass_time(wait)
        result = world.try_("second", Accept(deal, 0))
        if not result.ok:
            assert result.code is Code.OFFER_EXPIRED
            continue
        world.pass_until(world.shard(deal).ends_at - PARAMS.period_s)
        shard = world.shard(deal)
        assert (shard.status, shard.provider) == (ShardStatus.ACTIVE, key("second"))
        assert shard.last >= shard.first


def test_many_shards_are_handed_over_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make()
    world.provider("second")
    deals = [world.deal("client", providers=("node",), periods=9, blocks=1) for _ in range(6)]
    for deal in deals:
        world.do("node", Accept(deal, 0))
    old = world.shard(deals[0]).dataset
    end_period(world, old)
    for deal in deals:
        world.do("node", HandOver(deal, 0))
    world.block(step=1)
    for deal in deals:
        world.do("second", Accept(deal, 0))
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 3)
    end_period(world, old)
    assert {world.shard(deal).provider for deal in deals} == {key("second")}
    assert world.app.dataset(old) is None
    world.prove("second", world.shard(deals[0]).dataset)
    assert [world.settle("client", deal) for deal in deals] == [PRICE] * 6
    world.check_restores()


# Giving up.


def test_a_piece_given_up_leaves_after_a_proven_period_at_half_a_fee(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=20, price=PRICE)
    before = provider(world, "node").stake
    world.do("node", GiveUp(deal, 0))
    world.refuses("node", GiveUp(deal, 0), Code.NOTHING_TO_DO)
    world.refuses("node", HandOver(deal, 0), Code.NOTHING_TO_DO)
    world.refuses("client", Renew(deal, 1), Code.TERMS_NOT_TAKEN)
    miss(world, dataset)  # not proven: it serves on, and the fault is one
    assert world.shard(deal).status is ShardStatus.ACTIVE
    world.prove("node", dataset)
    end_period(world, dataset)
    given = last(world.events, "shard_given_up")
    assert (given["provider"], given["fee"]) == (key("node"), PRICE // 2)
    assert provider(world, "node").stake == before - PRICE - PRICE // 2
    assert (provider(world, "node").locked, provider(world, "node").used_bytes) == (0, 0)
    shard = world.shard(deal)
    assert (shard.status, shard.reward, shard.paid) == (ShardStatus.REPAIR, 0, PRICE)
    assert shard.tried == (key("node"),)
    world.provider("second")
    world.pass_time(2 * (PARAMS.accept_timeout_s + 2))
    assert world.shard(deal).provider == key("second")
    world.check_restores()


def test_only_the_piece_given_up_leaves(world: World) -> None:
    kept, dataset = world.active("client", "node", periods=20, price=PRICE)
    other = world.deal("client", providers=("node",), periods=20, price=PRICE)
    world.do("node", Accept(other, 0))
    end_period(world, dataset)
    world.do("node", GiveUp(other, 0))
    world.prove("node", dataset)
    end_period(world, dataset)
    assert world.shard(other).status is ShardStatus.REPAIR
    assert world.shard(kept).status is ShardStatus.ACTIVE
    assert [slot.deal for slot in world.app.dataset_slots(dataset)] == [kept]
    world.prove("node", dataset)


def test_a_piece_given_up_in_its_last_period_ends_without_a_fee(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=1, price=PRICE)
    before = provider(world, "node").stake
    world.do("node", GiveUp(deal, 0))
    world.prove("node", dataset)
    end_period(world, dataset)
    assert world.shard(deal).status is ShardStatus.ENDED
    assert provider(world, "node").stake == before
    assert not [name for name in world.stored if name.startswith(keys.GIVE)]


def test_a_provider_that_gives_up_and_stays_silent_is_terminated(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=20, price=PRICE)
    world.do("node", GiveUp(deal, 0))
    for _ in range(PARAMS.terminate_after):
        miss(world, dataset)
    assert last(world.events, "shard_terminated")["forfeited"] == 20 * PRICE
    assert "shard_given_up" not in kinds(world.events)
    assert not [name for name in world.stored if name.startswith(keys.GIVE)]


def test_giving_up_in_a_deal_that_ends_closes_the_shard(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=20, price=PRICE)
    world.do("client", EndDeal(deal))
    world.do("node", GiveUp(deal, 0))
    world.prove("node", dataset)
    end_period(world, dataset)
    assert world.shard(deal).status is ShardStatus.TERMINATED
    assert last(world.events, "deal_ended")["refund"] == 19 * PRICE + 2 * PARAMS.deposit


def test_giving_up_needs_an_own_active_shard(world: World) -> None:
    deal, _ = world.active("client", "node", periods=3, price=PRICE)
    world.refuses("client", GiveUp(deal, 0), Code.NOT_YOURS)
    world.refuses("node", GiveUp(deal, 9), Code.UNKNOWN_SHARD)
    world.refuses("node", GiveUp(MANIFEST, 0), Code.UNKNOWN_DEAL)
    other = world.deal("client", providers=("node",), periods=9)
    world.refuses("node", GiveUp(other, 0), Code.NOT_ACTIVE)


def test_many_pieces_are_given_up_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make()
    deals = [world.deal("client", providers=("node",), periods=9, blocks=1) for _ in range(6)]
    for deal in deals:
        world.do("node", Accept(deal, 0))
    dataset = world.shard(deals[0]).dataset
    end_period(world, dataset)
    for deal in deals:
        world.do("node", GiveUp(deal, 0))
    world.open_window(dataset)
    world.do("node", world.proof(dataset))
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 3)
    end_period(world, dataset)
    world.pass_time(1)
    assert {world.shard(deal).status for deal in deals} == {ShardStatus.REPAIR}
    assert len(all_of(world.events, "shard_given_up")) == 6
    assert world.app.dataset(dataset) is None


def test_a_piece_that_just_joined_is_not_given_up_for_a_period_that_it_was_no_part_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else half a fee would buy off collateral for a piece that nobody ever had."""
    world = make()
    _, dataset = world.active("client", "node", periods=9)
    deals = [world.deal("client", providers=("node",), periods=9, blocks=1) for _ in range(6)]
    for deal in deals:
        world.do("node", Accept(deal, 0))
    world.prove("node", dataset)
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 3)
    world.pass_until(world.dataset(dataset).closes_at)
    world.block(step=1)
    assert world.dataset(dataset).record.phase is Phase.TURNING
    assert world.try_("node", GiveUp(deals[0], 0)).code is Code.NOT_ACTIVE
    assert world.shard(deals[0]).status is ShardStatus.ACTIVE
    assert world.dataset(dataset).record.phase is Phase.TURNING
    world.pass_time(1)
    world.do("node", GiveUp(deals[0], 0))
    end_period(world, dataset)
    assert world.shard(deals[0]).status is ShardStatus.ACTIVE


# Declared faults.


def test_a_declared_fault_costs_half_and_opens_no_window(world: World) -> None:
    _, dataset = world.active("client", "node", periods=9, price=PRICE)
    before = provider(world, "node").stake
    period = world.dataset(dataset).record.period
    world.do("node", DeclareFault(dataset, period))
    assert world.dataset(dataset).record.phase is Phase.DECLARED
    world.refuses("node", DeclareFault(dataset, period), Code.NOTHING_TO_DO)
    happened = world.pass_until(world.dataset(dataset).closes_at)
    assert "window_opened" not in kinds(happened)
    world.refuses("node", Prove(dataset, period, b"x"), Code.TOO_LATE)
    happened = world.pass_time(1)
    fault = last(happened, "fault")
    assert (fault["fee"], fault["declared"], fault["in_a_row"]) == (PRICE // 2, True, 1)
    assert provider(world, "node").stake == before - PRICE // 2
    assert world.dataset(dataset).record.phase is Phase.WAITING
    world.prove("node", dataset)
    miss(world, dataset)
    assert last(world.events, "fault")["declared"] is False
    assert provider(world, "node").stake == before - PRICE // 2 - PRICE
    world.check_restores()


def test_half_of_an_odd_fee_is_rounded_down() -> None:
    world = make(replace(PARAMS, fault_fee_percent=33))
    _, dataset = world.active("client", "node", periods=9, price=PRICE + 1)
    world.do("node", DeclareFault(dataset, world.dataset(dataset).record.period))
    end_period(world, dataset)
    assert last(world.events, "fault")["fee"] == (PRICE + 1) * 33 // 200


def test_a_fault_is_declared_up_to_the_second_before_the_window(world: World) -> None:
    _, dataset = world.active("client", "node", periods=9, price=PRICE)
    info = world.dataset(dataset)
    period = info.record.period
    world.refuses("client", DeclareFault(dataset, period), Code.NOT_YOURS)
    world.refuses("node", DeclareFault(bytes(32), period), Code.UNKNOWN_DATASET)
    world.refuses("node", DeclareFault(dataset, period + 1), Code.TOO_EARLY)
    world.refuses("node", DeclareFault(dataset, period - 1), Code.TOO_LATE)
    world.pass_until(info.opens_at)
    world.refuses("node", DeclareFault(dataset, period), Code.TOO_LATE)
    end_period(world, dataset)
    info = world.dataset(dataset)
    world.pass_until(info.opens_at - 1)
    world.do("node", DeclareFault(dataset, info.record.period))


def test_declared_faults_in_a_row_terminate_as_others_do(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=9, price=PRICE)
    for _ in range(PARAMS.terminate_after):
        world.do("node", DeclareFault(dataset, world.dataset(dataset).record.period))
        world.pass_until(world.dataset(dataset).closes_at + 1)
    assert world.shard(deal).status is ShardStatus.REPAIR
    assert world.app.dataset(dataset) is None


def test_the_first_fault_after_many_clean_periods_is_free_if_declared_too() -> None:
    world = make(replace(PARAMS, grace_periods=1))
    _, dataset = world.active("client", "node", periods=9, price=PRICE)
    world.prove("node", dataset)
    end_period(world, dataset)
    world.do("node", DeclareFault(dataset, world.dataset(dataset).record.period))
    end_period(world, dataset)
    assert last(world.events, "fault")["fee"] == 0


def test_a_dataset_that_rests_has_no_fault_to_declare(world: World) -> None:
    deal = world.deal("client", providers=("node",), periods=9)
    world.do("node", Accept(deal, 0))
    dataset = world.shard(deal).dataset
    clock = Clock.of(dataset, world.params)
    world.refuses("node", DeclareFault(dataset, clock.period_at(world.app.time)), Code.TOO_LATE)
