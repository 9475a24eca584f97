"""The life of a deal: made, drawn, accepted, proven, paid, ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import limits
from ledger.genesis import HOLD
from ledger.records import DealStatus, Phase, ShardStatus
from ledger.result import Code
from ledger.rules_providers import price_floor
from ledger.transactions import Accept, Ask, Settle
from tests.ledger.world import FEE, GIB, MANIFEST, PARAMS, Piece, World, all_of, key, kinds, last


def test_a_deal_is_kept_proven_and_paid_to_its_end(world: World) -> None:
    before = world.balance("client"), world.balance("node")
    deal = world.deal("client", periods=3, price=100_000)
    assert world.shard(deal).status is ShardStatus.OFFERED
    assert world.app.has_live_deals()
    assert world.app.next_due() == world.app.time  # the draw waits for the next block
    world.block(step=1)
    assigned = last(world.events, "shard_assigned")
    assert assigned["provider"] == key("node")
    assert assigned["repair"] == 0
    world.do("node", Accept(deal, 0))
    shard = world.shard(deal)
    assert shard.status is ShardStatus.ACCEPTED
    assert world.dataset(shard.dataset).record.phase is Phase.RESTING
    paid = 0
    for _ in range(3):
        world.prove("node", shard.dataset)
        paid += world.settle("node", deal)
    assert paid == 300_000
    ended = world.pass_time(PARAMS.period_s)
    assert last(ended, "shard_closed")["status"] == "ended"
    assert last(ended, "deal_ended")["refund"] == 2 * PARAMS.deposit
    assert world.shard(deal).status is ShardStatus.ENDED
    info = world.app.deal(deal)
    assert info is not None
    assert info.record.status is DealStatus.ENDED
    assert not world.app.has_live_deals()
    assert world.shard(deal).dataset == b""
    assert world.app.dataset(shard.dataset) is None
    fees = 4 * FEE + 3 * PARAMS.proof_fee  # the dataset's deposit has come back
    assert world.balance("client") == before[0] - 300_000 - FEE
    assert world.balance("node") == before[1] + 300_000 - fees
    provider = world.app.provider(key("node"))
    assert provider is not None
    assert (provider.locked, provider.used_bytes, provider.stake) == (0, 0, 100 * HOLD)
    world.check_restores()
    world.pass_time(PARAMS.retention_periods * PARAMS.period_s)
    assert world.app.deal(deal) is None
    assert world.app.next_due() is None
    world.check_restores()


def test_a_piece_accepted_in_a_period_is_drawn_and_paid_from_the_next(world: World) -> None:
    first, dataset = world.active("client", "node", periods=5)
    world.prove("node", dataset)
    world.deal("client", providers=("node",), periods=5)
    second = next(deal for deal, _ in world.pieces if deal != first)
    period = world.dataset(dataset).record.period
    root = world.dataset(dataset).record.data
    world.do("node", Accept(second, 0))
    assert world.dataset(dataset).record.data == root
    assert [slot.slot for slot in world.app.dataset_slots(dataset)] == [0, None]
    world.prove("node", dataset)
    assert world.dataset(dataset).record.data != root
    assert world.shard(second).first == period + 1
    assert world.shard(second).last == period + 5
    assert world.settle("node", first) == 2 * 100_000
    assert world.settle("node", second) == 100_000


def test_the_lowest_free_slot_is_used_again(world: World) -> None:
    short, dataset = world.active("client", "node", periods=2)
    longer = world.deal("client", providers=("node",), periods=4)
    world.do("node", Accept(longer, 0))
    world.prove("node", dataset)
    world.prove("node", dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    assert [slot.slot for slot in world.app.dataset_slots(dataset)] == [1]
    assert world.shard(short).status is ShardStatus.ENDED
    third = world.deal("client", providers=("node",), periods=2)
    world.do("node", Accept(third, 0))
    world.prove("node", dataset)
    world.prove("node", dataset)
    assert [(slot.slot, slot.deal) for slot in world.app.dataset_slots(dataset)] == [(0, third), (1, longer)]
    assert world.dataset(dataset).record.slots == 2


def test_a_dataset_with_nothing_in_it_has_no_duties(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=1)
    world.prove("node", dataset)
    world.pass_time(PARAMS.period_s)
    assert world.shard(deal).status is ShardStatus.ENDED
    assert last(world.events, "dataset_changed")["pieces"] == 0
    later = world.pass_time(5 * PARAMS.period_s)
    assert kinds(later) == []
    assert world.app.dataset(dataset) is None
    assert not [name for name in world.stored if dataset in name]
    again, same = world.active("client", "node", periods=2)
    assert same == dataset
    world.prove("node", dataset)
    assert world.settle("node", again) == 100_000


def test_a_dataset_is_dropped_bit_by_bit_and_a_piece_may_come_between(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.balance("node")
    deals = [world.deal("client", providers=("node",), periods=1, blocks=1) for _ in range(7)]
    for deal in deals:
        world.do("node", Accept(deal, 0))
    dataset = world.shard(deals[0]).dataset
    world.open_window(dataset)
    world.do("node", world.proof(dataset))
    world.pass_until(world.dataset(dataset).closes_at - 5)
    late = world.deal("client", providers=("node",), periods=1, blocks=1)
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 3)
    world.pass_until(world.dataset(dataset).closes_at)
    world.block(step=1)
    for _ in range(20):
        record = world.dataset(dataset).record
        if record.pieces == 0 and 0 < record.slots < 7:
            break
        world.block()
    assert record.phase is Phase.TURNING
    assert 0 < record.slots < 7
    world.check_restores()
    world.do("node", Accept(late, 0))
    world.pass_time(1)
    assert world.shard(late).status is ShardStatus.ACTIVE
    slots = [slot.slot for slot in world.app.dataset_slots(dataset)]
    assert slots == [0]
    world.prove("node", dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    world.pass_time(1)
    assert world.app.dataset(dataset) is None
    assert not [name for name in world.stored if dataset in name]
    assert world.balance("node") == before - 8 * FEE - 2 * PARAMS.proof_fee + 8 * 100_000
    world.check_restores()


def test_nobody_eligible_means_offers_until_the_rounds_run_out_then_a_refund() -> None:
    world = World()
    world.fund("client")
    before = world.balance("client")
    deal = world.deal("client", shards=2)
    happened = world.pass_time(PARAMS.max_rounds * (PARAMS.accept_timeout_s + 2))
    assert len(all_of(happened, "offer_expired")) == 2 * PARAMS.max_rounds
    assert {world.shard(deal, index).status for index in (0, 1)} == {ShardStatus.REFUNDED}
    assert world.balance("client") == before - FEE


def test_a_provider_that_comes_later_is_drawn_in_a_later_round() -> None:
    world = World()
    world.fund("client")
    deal = world.deal("client")
    world.block()
    world.provider("late")
    world.pass_time(PARAMS.accept_timeout_s + 2)
    assert world.shard(deal).provider == key("late")
    world.do("late", Accept(deal, 0))


def test_one_shard_of_a_deal_an_account_and_the_rest_are_refunded(world: World) -> None:
    world.provider("other")
    deal = world.deal("client", shards=3)
    world.block(step=1)
    providers = {world.shard(deal, index).provider for index in range(3)}
    assert providers == {key("node"), key("other"), b""}
    for name in ("node", "other"):
        index = next(i for i in range(3) if world.shard(deal, i).provider == key(name))
        world.do(name, Accept(deal, index))
    world.pass_time(PARAMS.max_rounds * (PARAMS.accept_timeout_s + 2))
    assert sorted(world.shard(deal, index).status.value for index in range(3)).count("refunded") == 1


def test_an_offer_that_passes_goes_to_another_provider(world: World) -> None:
    world.provider("other")
    deal = world.deal("client")
    world.block(step=1)
    first = world.shard(deal).provider
    world.pass_time(PARAMS.accept_timeout_s + 2)
    shard = world.shard(deal)
    assert {first, shard.provider} == {key("node"), key("other")}
    assert shard.tried == (first,)
    assert shard.round == 2
    # when all were tried, they are asked again
    world.pass_time(PARAMS.accept_timeout_s + 2)
    assert world.shard(deal).provider in (key("node"), key("other"))


def test_named_providers_skip_the_draw_and_are_not_replaced(world: World) -> None:
    before = world.balance("client")
    world.provider("stranger")
    deal = world.deal("client", providers=("node",))
    assert world.shard(deal).provider == key("node")
    world.pass_time(PARAMS.accept_timeout_s + 2)
    assert world.shard(deal).status is ShardStatus.REFUNDED
    assert world.balance("client") == before - FEE


@pytest.mark.parametrize("periods", [1, 3, 2_000, 2_001])
def test_the_price_covers_the_fees_of_serving(world: World, periods: int) -> None:
    floor = price_floor(PARAMS, periods)
    fees = periods * PARAMS.proof_fee + 2 * FEE
    assert (floor - 1) * periods < fees <= floor * periods
    piece = Piece.random(world.rng)
    world.refuses("client", world.deal_body([piece], periods=periods, price=floor - 1), Code.PRICE_TOO_LOW)
    world.do("client", world.deal_body([piece], periods=periods, price=floor))


ASKS = [
    Ask(0, 0, GIB, False),
    Ask(0, GIB, GIB, True),
    Ask(0, 0, 1, True),
    Ask(GIB * 100_001, 0, GIB, True),
]


@pytest.mark.parametrize("ask", ASKS, ids=["closed", "too small", "too large", "too cheap"])
def test_a_named_provider_must_take_the_terms(world: World, ask: Ask) -> None:
    world.provider("other")
    pieces = [Piece.random(world.rng), Piece.random(world.rng)]
    body = world.deal_body(pieces, providers=("other", "node"))
    world.do("node", ask)
    world.refuses("client", body, Code.TERMS_NOT_TAKEN)
    world.refuses("client", replace(body, providers=(key("node"),) * 2), Code.DUPLICATE_PROVIDER)
    world.do("node", Ask(1, 0, GIB, True))
    world.do("client", body)


def test_accepting_needs_the_offer_in_time_room_and_stake(world: World) -> None:
    world.provider("other")
    deal = world.deal("client", providers=("node",))
    world.refuses("client", Accept(deal, 0), Code.NOT_REGISTERED)
    world.refuses("other", Accept(deal, 0), Code.NOT_YOURS)
    world.refuses("node", Accept(deal, 1), Code.UNKNOWN_SHARD)
    world.refuses("node", Accept(deal, 2**40), Code.UNKNOWN_SHARD)
    world.refuses("node", Accept(MANIFEST, 0), Code.UNKNOWN_DEAL)
    world.do("node", Accept(deal, 0))
    world.refuses("node", Accept(deal, 0), Code.NOT_OFFERED)
    rich = world.deal("client", providers=("node",), price=10 * HOLD)
    world.refuses("node", Accept(rich, 0), Code.INSUFFICIENT_STAKE)
    world.provider("tiny", capacity=10)
    big = world.deal("client", providers=("tiny",))
    world.refuses("tiny", Accept(big, 0), Code.NO_CAPACITY)


def test_settling_waits_for_a_proven_period(world: World) -> None:
    deal, dataset = world.active("client", "node")
    world.refuses("node", Settle(deal, 0), Code.NOTHING_DUE)
    world.open_window(dataset)
    world.refuses("node", Settle(deal, 0), Code.NOTHING_DUE)


def test_pay_goes_to_the_payout_account() -> None:
    world = World()
    world.fund("client", "cold")
    world.provider("node", payout="cold")
    deal, dataset = world.active("client", "node")
    before = world.balance("cold"), world.balance("node")
    world.prove("node", dataset)
    world.do("client", Settle(deal, 0))  # anyone may settle
    assert world.balance("cold") == before[0] + 100_000
    assert world.balance("node") == before[1] - PARAMS.proof_fee
