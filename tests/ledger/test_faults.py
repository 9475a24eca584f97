"""Faults, termination and repair: who pays, who is paid, and when nobody is at fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import limits
from ledger.genesis import HOLD
from ledger.records import Phase, ShardStatus
from ledger.result import Code
from ledger.rules_datasets import Clock, identify
from ledger.transactions import Accept, DeclareFault, Prove, Settle, Withdraw
from merkledag.cid import CID
from proofs.kinds import ProofKind
from tests.ledger.naive.twin import TwinWorld
from tests.ledger.world import FEE, PARAMS, World, all_of, key, kinds, last

PRICE = 100_000


def stake(world: World, name: str = "node") -> int:
    found = world.app.provider(key(name))
    assert found is not None
    return found.stake


def miss(world: World, dataset: bytes) -> None:
    """Lets the next window pass without a proof."""
    world.open_window(dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)


def test_a_missed_period_burns_the_fee_at_once_and_is_not_paid(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=5, price=PRICE)
    before, burned = stake(world), world.app.totals().burned
    miss(world, dataset)
    assert stake(world) == before - PRICE
    assert world.app.totals().burned == burned + PRICE
    assert last(world.events, "fault")["in_a_row"] == 1
    world.prove("node", dataset)
    assert world.settle("node", deal) == PRICE
    miss(world, dataset)
    assert last(world.events, "fault")["in_a_row"] == 1  # the proof between began a new row
    assert world.dataset(dataset).record.history & 0b111 == 0b010


def test_the_first_fault_after_many_clean_periods_costs_only_the_pay() -> None:
    world = World(replace(PARAMS, grace_periods=2))
    world.fund("client")
    world.provider("node")
    _, dataset = world.active("client", "node", periods=8, price=PRICE)
    before = stake(world)
    world.prove("node", dataset)
    world.prove("node", dataset)
    miss(world, dataset)
    assert last(world.events, "fault")["fee"] == 0
    assert stake(world) == before
    miss(world, dataset)
    assert last(world.events, "fault")["fee"] == PRICE


def terminated(world: World, periods: int = 12) -> tuple[CID, bytes]:
    deal, dataset = world.active("client", "node", periods=periods, price=PRICE)
    for _ in range(PARAMS.terminate_after):
        miss(world, dataset)
    return deal, dataset


def test_three_faults_in_a_row_cost_the_collateral_and_the_shard(world: World) -> None:
    before, burned = stake(world), world.app.totals().burned
    deal, dataset = terminated(world)
    fees = 3 * PRICE
    assert last(world.events, "shard_terminated")["forfeited"] == 20 * PRICE
    assert last(world.events, "shard_terminated")["reward"] == 10 * PRICE
    provider = world.app.provider(key("node"))
    assert provider is not None
    assert (provider.stake, provider.locked, provider.used_bytes) == (before - fees - 20 * PRICE, 0, 0)
    shard = world.shard(deal)
    assert (shard.status, shard.reward, shard.tried) == (ShardStatus.REPAIR, 10 * PRICE, (key("node"),))
    transactions = 2 * FEE  # the deal's and the acceptance's
    assert world.app.totals().burned == burned + fees + 10 * PRICE + transactions
    assert world.app.dataset(dataset) is None
    world.check_restores()


def test_a_repair_is_drawn_later_paid_at_its_first_proof_and_ends_with_the_deal(world: World) -> None:
    deal, _ = terminated(world)
    ends_at = world.shard(deal).ends_at
    world.provider("second")
    world.pass_time(PARAMS.accept_timeout_s + 2)
    while world.shard(deal).provider != key("second"):
        world.pass_time(PARAMS.accept_timeout_s + 2)
    assert last(world.events, "shard_assigned")["repair"] == 1
    world.do("second", Accept(deal, 0))
    dataset = world.shard(deal).dataset
    world.pass_until(world.dataset(dataset).closes_at + 1)
    shard = world.shard(deal)
    assert shard.status is ShardStatus.ACTIVE
    assert shard.ends_at == ends_at
    assert world.shard(deal).reward == 10 * PRICE
    before = world.balance("second")
    world.prove("second", dataset)
    assert world.settle("second", deal) == PRICE
    assert last(world.events, "paid")["reward"] == 10 * PRICE
    fees = PARAMS.proof_fee + FEE
    assert world.balance("second") == before + 11 * PRICE - fees
    client = world.balance("client")
    while world.shard(deal).status is ShardStatus.ACTIVE:
        world.prove("second", dataset)
        world.pass_until(world.dataset(dataset).closes_at + 1)
    assert world.app.time <= ends_at
    shard = world.shard(deal)
    assert shard.status is ShardStatus.ENDED
    refund = 12 * PRICE - shard.paid
    assert world.balance("client") == client + refund + 2 * PARAMS.deposit


def test_the_draw_uses_the_beacon_of_a_later_block(world: World) -> None:
    world.provider("second")
    deal, dataset = world.active("client", "node", periods=12)
    miss(world, dataset)
    miss(world, dataset)
    world.open_window(dataset)
    while world.app.time < world.dataset(dataset).closes_at:
        world.block(step=1)
    gone = world.block(step=1)
    assert "shard_terminated" in kinds(gone.events)
    assert "shard_assigned" not in kinds(gone.events)
    drawn = world.block(step=0)
    assert last(drawn.events, "shard_assigned")["provider"] == key("second")
    assert world.shard(deal).provider == key("second")


def test_the_one_that_failed_is_asked_again_only_when_nobody_else_is_there(world: World) -> None:
    deal, _ = terminated(world)
    world.block()
    assert world.shard(deal).provider == key("node")


def test_a_shard_that_nobody_repairs_ends_and_its_escrow_goes_back() -> None:
    world = World(replace(PARAMS, max_rounds=2))
    world.fund("client")
    world.provider("node")
    deal, _ = terminated(world)
    client, burned = world.balance("client"), world.app.totals().burned
    world.pass_time(3 * PARAMS.accept_timeout_s)
    assert world.shard(deal).status is ShardStatus.TERMINATED
    assert world.balance("client") == client + 12 * PRICE + 2 * PARAMS.deposit
    assert world.app.totals().burned == burned + 10 * PRICE  # the reward that nobody earned
    assert not world.app.has_live_deals()


def test_a_repair_too_late_for_one_more_period_ends_the_shard(world: World) -> None:
    deal, _ = terminated(world, periods=3)
    world.block()
    assert world.shard(deal).status is ShardStatus.TERMINATED


@pytest.mark.parametrize("early_s", [0, 1])
def test_a_repair_with_no_whole_period_left_is_not_accepted(early_s: int) -> None:
    """The draw may be in time and the acceptance, which takes effect with the next period, too late."""
    world = World(replace(PARAMS, accept_timeout_s=200))
    world.fund("client")
    world.provider("node")
    world.provider("second")
    deal, _ = terminated(world, periods=5)
    world.block()
    shard = world.shard(deal)
    assert shard.provider == key("second")
    dataset = identify(key("client"), key("second"), ProofKind.MERKLE, PARAMS.challenges, 1)
    clock = Clock.of(dataset, world.params)
    last_start = clock.starts_at(clock.period_at(shard.ends_at - PARAMS.period_s))
    assert world.app.time < last_start
    world.pass_until(last_start - early_s)
    if not early_s:
        world.refuses("second", Accept(deal, 0), Code.OFFER_EXPIRED)
        return
    world.do("second", Accept(deal, 0))
    world.pass_time(1)
    shard = world.shard(deal)
    assert (shard.status, shard.last) == (ShardStatus.ACTIVE, shard.first)


def test_what_was_proven_before_is_paid_when_a_shard_is_taken_away(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=12, price=PRICE)
    world.prove("node", dataset)
    for _ in range(3):
        miss(world, dataset)
    assert last(world.events, "paid")["amount"] == PRICE
    assert world.shard(deal).paid == PRICE


def test_only_the_dataset_of_the_dropped_client_faults(world: World) -> None:
    """Red team 2: a client's only deal is dropped, another's is kept."""
    world.fund("other")
    _, dropped = world.active("client", "node", periods=6)
    _, kept = world.active("other", "node", periods=6)
    for _ in range(2):
        world.prove("node", kept)
    assert {event["dataset"] for event in all_of(world.events, "fault")} == {dropped}


def test_a_stake_that_is_used_up_costs_what_is_left(world: World) -> None:
    world.provider("poor", stake=2 * HOLD)
    deal = world.deal("client", providers=("poor",), price=HOLD // 10, periods=12)
    world.do("poor", Accept(deal, 0))
    world.refuses("poor", Withdraw(1), Code.STAKE_LOCKED)
    dataset = world.shard(deal).dataset
    world.pass_until(world.dataset(dataset).closes_at + 1)
    for _ in range(3):
        miss(world, dataset)
    assert stake(world, "poor") == 0
    assert last(world.events, "shard_terminated")["forfeited"] == 2 * HOLD - 3 * HOLD // 10


@pytest.mark.parametrize(
    ("first_s", "then_s", "is_void"),
    [
        (0, 0, False),
        (10, 0, False),
        (0, 10, False),
        (4, 6, False),
        (11, 0, True),
        (0, 11, True),
        (5, 6, True),
        (25, 0, True),
        (0, 25, True),
        (10, 15, True),
    ],
)
def test_a_window_that_gets_its_seed_past_its_half_is_void(first_s: int, then_s: int, is_void: bool) -> None:
    """The block that opens it may be late, or the one after it, which draws the seed."""
    world = TwinWorld()
    world.fund("client")
    world.provider("node")
    deal, dataset = world.active("client", "node", periods=4)
    before = stake(world)
    info = world.dataset(dataset)
    world.pass_until(info.opens_at - 1)
    world.block(step=1 + first_s)
    if first_s <= PARAMS.window_s // 2:
        record = world.dataset(dataset).record
        assert (record.phase, record.seed) == (Phase.OPENING, b"")
        assert world.app.next_due() == world.app.time  # an engine makes the next block at once
        assert not {"window_opened", "period_void"} & set(kinds(world.events))
    world.block(step=then_s)
    assert ("period_void" in kinds(world.events)) is is_void
    assert ("window_opened" in kinds(world.events)) is not is_void
    if is_void:
        world.pass_until(info.closes_at + 1)
        assert stake(world) == before
        assert world.dataset(dataset).record.fault_total == 0
        world.refuses("node", Settle(deal, 0), Code.NOTHING_DUE)
    world.prove("node", dataset)


def test_between_opening_and_seed_neither_proof_nor_declaration_is_taken() -> None:
    world = TwinWorld()
    world.fund("client")
    world.provider("node")
    _, dataset = world.active("client", "node", periods=4)
    info = world.dataset(dataset)
    world.pass_until(info.opens_at - 1)
    bodies = (Prove(dataset, info.record.period, b"early"), DeclareFault(dataset, info.record.period))
    results = world.block(*(world.tx("node", body) for body in bodies), step=1).tx_results[1:]
    assert [result.code for result in results] == [Code.TOO_EARLY, Code.TOO_LATE]
    assert world.dataset(dataset).record.phase is Phase.OPENING
    world.block()
    world.do("node", world.proof(dataset))


SHORT = replace(PARAMS, period_s=4, window_s=2, accept_timeout_s=60)


@pytest.mark.parametrize("pause_s", [2, 3, 5, 30])
def test_a_ledger_that_stalls_from_the_seed_on_faults_nobody(pause_s: int) -> None:
    """Awake, it judges 2 s after the seed, and a silent node is at fault; later means that it stalled."""
    world = World(SHORT)
    world.fund("client")
    world.provider("node")
    _, dataset = world.active("client", "node", periods=30)
    before = stake(world)
    period = world.open_window(dataset).record.period
    happened = world.block(step=pause_s).events
    assert ("fault" in kinds(happened)) is (pause_s == 2)
    if pause_s > 2:
        assert all_of(happened, "period_void")[0]["period"] == period
        assert stake(world) == before
        assert world.dataset(dataset).record.in_a_row == 0
    miss(world, dataset)  # awake again, it faults who is silent
    assert last(world.events, "fault")["dataset"] == dataset
    world.check_restores()


def test_blocks_that_take_seconds_excuse_nobody_on_a_busy_chain() -> None:
    """Something is due in every second, and a block comes every other: validators far apart do no better."""
    world = World(replace(PARAMS, period_s=64, window_s=32, accept_timeout_s=31))
    world.fund("client", "other")
    world.provider("node", "third")
    _, dataset = world.active("client", "node", periods=9)
    world.pass_until(world.dataset(dataset).opens_at - 32)
    for _ in range(32):  # offers that nobody takes: one runs out in each second of the window
        world.deal("other", providers=("third",), blocks=1)
        world.block(step=1)
    world.block()
    assert world.dataset(dataset).record.phase is Phase.OPEN
    closes_at = world.dataset(dataset).closes_at
    while world.app.time <= closes_at:
        world.block(step=2)
    assert kinds(world.events).count("offer_expired") > 25
    assert last(world.events, "fault")["dataset"] == dataset
    assert not [each for each in all_of(world.events, "period_void") if each["dataset"] == dataset]


def test_a_backlog_of_judgements_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine datasets have four instants to be judged at: at one of them, three are, in several blocks."""
    world = World(SHORT)
    world.provider("node")
    clients = [f"client{number}" for number in range(9)]
    world.fund(*clients)
    deals = [world.deal(name, providers=("node",), periods=30, blocks=1) for name in clients]
    for deal in deals:
        world.do("node", Accept(deal, 0))
    datasets = {world.shard(deal).dataset for deal in deals}
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 2)
    happened = world.pass_time(4 * SHORT.period_s)
    assert {event["dataset"] for event in all_of(happened, "fault")} == datasets
    assert "period_void" not in kinds(happened)


def test_a_machine_that_slept_faults_nobody(world: World) -> None:
    _, dataset = world.active("client", "node", periods=6)
    before = stake(world)
    time = world.app.time
    world.block(step=10 * PARAMS.period_s)
    assert world.app.time == time + PARAMS.max_step_s
    assert "fault" not in kinds(world.events)
    assert stake(world) == before
    world.prove("node", dataset)


def test_periods_that_pass_between_two_blocks_are_void() -> None:
    world = World(replace(PARAMS, period_s=4, window_s=2, accept_timeout_s=60))
    world.fund("client")
    world.provider("node")
    deal, dataset = world.active("client", "node", periods=9)
    period = world.dataset(dataset).record.period
    world.block(step=21)
    record = world.dataset(dataset).record
    assert period + 5 <= record.period <= period + 6
    voids = all_of(world.events, "period_void")
    assert sum(int(str(void["until"])) - int(str(void["period"])) + 1 for void in voids) >= 5
    assert "fault" not in kinds(world.events)
    world.block(step=30)  # the deal is over meanwhile
    assert world.shard(deal).status is ShardStatus.ENDED


def test_withdrawing_leaves_what_is_locked(world: World) -> None:
    world.active("client", "node", price=HOLD)  # locks 20 of 100
    world.refuses("node", Withdraw(81 * HOLD), Code.STAKE_LOCKED)
    world.refuses("node", Withdraw(101 * HOLD), Code.INSUFFICIENT_STAKE)
    world.refuses("node", Withdraw(0), Code.AMOUNT_OUT_OF_RANGE)
    before = world.balance("node")
    world.do("node", Withdraw(80 * HOLD))
    assert world.balance("node") == before + 80 * HOLD - FEE
    world.refuses("node", Withdraw(1), Code.STAKE_LOCKED)


def test_five_faults_of_thirty_end_it_though_no_three_are_in_a_row(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=40, price=PRICE)
    for number in range(4):
        miss(world, dataset)
        miss(world, dataset) if number == 1 else None
        world.prove("node", dataset)
        if number < 3:
            assert world.shard(deal).status is ShardStatus.ACTIVE
        if number == 2:
            break
    assert world.dataset(dataset).record.faults.bit_count() == 4
    miss(world, dataset)
    assert last(world.events, "fault")["in_a_row"] == 1
    assert last(world.events, "shard_terminated")["forfeited"] == 20 * PRICE
    assert world.shard(deal).status is ShardStatus.REPAIR
    provider = world.app.provider(key("node"))
    assert provider is not None
    assert (provider.fault_total, provider.terminated_total, provider.proven_total) == (5, 1, 3)


def test_faults_older_than_the_window_do_not_count() -> None:
    world = World(replace(PARAMS, fault_limit=2, fault_window=3))
    world.fund("client")
    world.provider("node")
    deal, dataset = world.active("client", "node", periods=40, price=PRICE)
    for _ in range(3):  # a fault, two proofs: the fault three periods ago has left the window
        miss(world, dataset)
        world.prove("node", dataset)
        world.prove("node", dataset)
    assert world.shard(deal).status is ShardStatus.ACTIVE
    miss(world, dataset)
    world.prove("node", dataset)
    assert world.shard(deal).status is ShardStatus.ACTIVE
    miss(world, dataset)
    assert world.shard(deal).status is ShardStatus.REPAIR


def test_a_void_period_ages_faults_and_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(replace(PARAMS, period_s=4, window_s=2, accept_timeout_s=60, fault_limit=2, fault_window=3))
    world.fund("client")
    world.provider("node")
    deal, dataset = world.active("client", "node", periods=40, price=PRICE)
    miss(world, dataset)
    world.block(step=9)  # two periods pass unseen
    assert world.dataset(dataset).record.faults & 0b11 == 0
    miss(world, dataset)
    assert world.dataset(dataset).record.faults & 1 == 1
    assert world.shard(deal).status is ShardStatus.ACTIVE
    miss(world, dataset)
    assert world.shard(deal).status is ShardStatus.REPAIR
