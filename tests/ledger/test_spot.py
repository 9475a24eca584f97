"""Spot challenges: asked for by anyone, drawn later, answered, missed, void."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from ledger import keys, limits
from ledger.fees import small_fee
from ledger.genesis import HOLD
from ledger.records import ShardStatus, SpotRecord
from ledger.result import Code
from ledger.rules_spot import challenge_of
from ledger.transactions import Accept, Answer, Settle, Spot, Transfer
from merkledag.cid import CID
from proofs.challenge import period_seed, spot_seed
from tests.ledger.world import CHAIN, PARAMS, World, all_of, answer, key, kinds, last

UNKNOWN = CID.of(b"no such deal", codec=0x71)
FEE = small_fee(PARAMS)


@pytest.fixture
def world() -> World:
    world = World()
    world.fund("client", "eve")
    world.provider("node")
    return world


def spot_of(world: World, deal: CID, index: int = 0) -> SpotRecord | None:
    return world.app.spot(deal, index)


def ask(world: World, deal: CID, index: int = 0) -> SpotRecord:
    """Opens a spot challenge and lets its seed be drawn."""
    world.do("eve", Spot(deal, index))
    world.block()
    found = spot_of(world, deal, index)
    assert found is not None
    assert found.seed
    return found


def proof_of(world: World, deal: CID, index: int = 0) -> Answer:
    info, record = world.app.deal(deal), spot_of(world, deal, index)
    assert info is not None
    assert record is not None
    challenge = challenge_of(info.record, info.shards[index], record, PARAMS)
    return Answer(deal, index, answer(challenge, {0: world.pieces[deal, index]}))


def miss(world: World, deal: CID) -> None:
    """A spot challenge that nobody answers; windows are proven until the next may be opened."""
    until = ask(world, deal).opened_at + PARAMS.period_s
    while world.app.time < until and not world.shard(deal).struck:
        world.pass_time(1)
        info = world.dataset(world.shard(deal).dataset)
        if info.challenge is not None and not info.record.proven:
            world.do("node", world.proof(info.id))


def test_a_spot_challenge_is_drawn_by_a_later_beacon_answered_and_paid(world: World) -> None:
    deal, _ = world.active("client", "node")
    eve, height = world.balance("eve"), world.app.height + 1
    world.do("eve", Spot(deal, 0))
    assert world.balance("eve") == eve - FEE - PARAMS.proof_fee
    asked = spot_of(world, deal)
    fee, at = PARAMS.proof_fee, world.app.time
    assert asked == SpotRecord(key("eve"), key("node"), at, height, b"", 0, fee, 0, height + 1)
    assert world.app.next_due() == world.app.time  # the next block is made at once
    world.block(step=1)
    drawn = spot_of(world, deal)
    assert drawn is not None
    seed = spot_seed(CHAIN, bytes(deal), 0, key("node"), height, world.app.beacon)
    assert (drawn.seed, drawn.closes_at) == (seed, world.app.time + PARAMS.window_s)
    assert last(world.events, "spot_opened") == {
        "deal": deal,
        "shard": 0,
        "provider": key("node"),
        "seed": seed,
        "closes_at": drawn.closes_at,
        "challenges": PARAMS.challenges,
    }
    node = world.balance("node")
    world.do("node", proof_of(world, deal))
    assert world.balance("node") == node  # what was prepaid covers the fee
    assert last(world.events, "spot_answered") == {"deal": deal, "shard": 0, "provider": key("node")}
    assert spot_of(world, deal) is None
    assert world.app.spots() == []
    world.pass_time(2 * PARAMS.window_s)
    assert "spot_missed" not in kinds(world.events)
    world.check_restores()


def test_a_small_piece_among_many_is_found_missing(world: World) -> None:
    """Red-team 2: the dataset's proof may pass it over, a spot challenge does not."""
    small, dataset = world.active("client", "node", blocks=1, periods=9)
    large = world.deal("client", providers=("node",), blocks=40, periods=9)
    world.do("node", Accept(large, 0))
    world.pass_until(world.dataset(dataset).closes_at + 1)
    ask(world, small)
    ask(world, large)
    of_large = proof_of(world, large)
    world.refuses("node", Answer(small, 0, of_large.proof), Code.INVALID_PROOF)
    world.do("node", of_large)
    world.do("node", proof_of(world, small))


def test_23_an_answer_in_the_last_second_counts_and_one_later_does_not(world: World) -> None:
    deal, _ = world.active("client", "node", periods=9)
    world.pass_until(ask(world, deal).closes_at)
    world.do("node", proof_of(world, deal))
    record = ask(world, deal)
    late = proof_of(world, deal)
    world.pass_until(record.closes_at)
    result = world.block(world.tx("node", late), step=1)
    assert result.tx_results[1].code is Code.NO_SPOT  # it was judged at the block's start
    assert all_of(result.events, "spot_missed") == [
        {"deal": deal, "shard": 0, "provider": key("node"), "missed": 1, "fee": 100_000}
    ]


def test_a_late_answer_is_refused_also_before_it_could_be_judged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deal, _ = world.active("client", "node", periods=9)
    record = ask(world, deal)
    late = proof_of(world, deal)
    world.pass_until(record.closes_at)
    monkeypatch.setattr("ledger.due.run", lambda ctx, handlers: None)  # as where a backlog takes the block
    assert world.block(world.tx("node", late), step=1).tx_results[1].code is Code.TOO_LATE


def test_missed_ones_cost_the_fee_and_three_in_a_row_the_shard_alone(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=20)
    other = world.deal("client", providers=("node",), periods=20)
    world.do("node", Accept(other, 0))
    world.pass_until(world.dataset(dataset).closes_at + 1)
    found = world.app.provider(key("node"))
    assert found is not None
    stake = found.stake
    eve = world.balance("eve")
    miss(world, deal)
    assert world.balance("eve") == eve - FEE  # what it prepaid is back
    miss(world, deal)
    assert world.shard(deal).missed == 2
    ask(world, deal)
    world.do("node", proof_of(world, deal))
    assert world.shard(deal).missed == 0  # in a row, that is
    for _ in range(PARAMS.terminate_after):
        miss(world, deal)
    struck = world.shard(deal)
    assert (struck.status, struck.struck) == (ShardStatus.ACTIVE, True)
    world.refuses("eve", Spot(deal, 0), Code.NOT_ACTIVE)
    world.refuses("eve", Settle(deal, 0), Code.NOTHING_DUE)
    paid = struck.paid
    world.pass_until(world.dataset(dataset).closes_at + 1)
    assert world.shard(deal).status is ShardStatus.REPAIR
    assert world.shard(deal).paid == paid
    assert world.shard(other).status is ShardStatus.ACTIVE
    burned = 5 * 100_000
    forfeited = last(world.events, "shard_terminated")["forfeited"]
    found = world.app.provider(key("node"))
    assert found is not None
    assert found.stake == stake - burned - forfeited  # type: ignore[operator]
    assert found.locked == 20 * 100_000
    world.check_restores()


def test_one_outage_is_one_miss(world: World) -> None:
    """Else three calls within some hours would take a shard, where windows give three periods."""
    deal, _ = world.active("client", "node", periods=20)
    record = ask(world, deal)
    world.pass_until(record.closes_at + 1)
    spared_until = record.opened_at + PARAMS.period_s
    assert (world.shard(deal).missed, world.shard(deal).spared_until) == (1, spared_until)
    world.pass_until(spared_until - 1)
    world.refuses("eve", Spot(deal, 0), Code.TOO_EARLY)
    world.pass_until(spared_until)
    ask(world, deal)
    world.do("node", proof_of(world, deal))
    ask(world, deal)  # what was answered spares nobody


def test_the_fee_in_force_is_prepaid_whatever_the_deal_is_under(world: World) -> None:
    """An answer costs what proofs cost now: a provider does not pay for being challenged."""
    deal, _ = world.active("client", "node", periods=20)
    world.govern(replace(PARAMS, proof_fee=50 * PARAMS.proof_fee))
    ask(world, deal)
    node = world.balance("node")
    world.do("node", proof_of(world, deal))
    assert world.balance("node") == node


def test_no_spot_challenge_is_missed_while_the_ledger_stalls(world: World) -> None:
    deal, _ = world.active("client", "node", periods=9)
    world.pass_until(world.dataset(world.shard(deal).dataset).closes_at + 1)
    record = ask(world, deal)
    eve = world.balance("eve")
    world.block(step=record.closes_at + 2 * PARAMS.max_step_s - world.app.time)
    world.pass_time(5)
    assert spot_of(world, deal) is None
    assert kinds(world.events).count("spot_void") == 1
    assert world.balance("eve") == eve + PARAMS.proof_fee
    assert world.shard(deal).missed == 0


def test_who_may_ask_and_answer(world: World) -> None:
    offered = world.deal("client", providers=("node",))
    world.refuses("eve", Spot(UNKNOWN, 0), Code.UNKNOWN_DEAL)
    world.refuses("eve", Spot(offered, 1), Code.UNKNOWN_SHARD)
    world.refuses("eve", Spot(offered, 0), Code.NOT_ACTIVE)
    deal, _ = world.active("client", "node", periods=9)
    world.refuses("node", Answer(UNKNOWN, 0, b"x"), Code.UNKNOWN_DEAL)
    world.refuses("node", Answer(deal, 7, b"x"), Code.UNKNOWN_SHARD)
    world.refuses("eve", Answer(deal, 0, b"x"), Code.NOT_YOURS)
    world.refuses("node", Answer(deal, 0, b"x"), Code.NO_SPOT)
    world.do("eve", Spot(deal, 0))
    before_seed = world.tx("node", Answer(deal, 0, b"x"))
    again = world.tx("client", Spot(deal, 0))
    assert world.block(again).tx_results[1].code is Code.SPOT_OPEN
    world.refuses("client", Spot(deal, 0), Code.SPOT_OPEN)
    assert world.block(before_seed).tx_results[1].code is Code.INVALID_PROOF
    world.refuses("node", Answer(deal, 0, b"\xa0"), Code.INVALID_PROOF)
    second, _ = world.active("client", "node", periods=9)
    world.do("eve", Transfer(key("node"), world.balance("eve") - FEE - FEE - 5))
    world.refuses("eve", Spot(second, 0), Code.INSUFFICIENT_FUNDS)


def test_an_answer_before_the_seed_is_drawn_is_refused(world: World) -> None:
    deal, _ = world.active("client", "node")
    both = [world.tx("eve", Spot(deal, 0)), world.tx("node", Answer(deal, 0, b"x"))]
    assert world.block(*both).tx_results[2].code is Code.NO_SPOT


def test_16_few_open_in_a_block(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SPOTS_PER_BLOCK", 2)
    deals = [world.deal("client", providers=("node",), periods=9) for _ in range(3)]
    for deal in deals:
        world.do("node", Accept(deal, 0))
    world.pass_time(PARAMS.period_s + 1)
    nonce = world.app.account(key("eve")).nonce
    txs = [world.tx("eve", Spot(deal, 0), nonce=nonce + at) for at, deal in enumerate(deals)]
    assert world.propose(txs) == txs[:2]
    assert not world.app.dropped  # the third waits
    codes = [result.code for result in world.block(*txs).tx_results]
    assert codes == [Code.OK, Code.OK, Code.OK, Code.BLOCK_FULL]
    assert world.block(txs[2]).tx_results[1].ok


def test_a_piece_that_leaves_takes_its_challenge_along(world: World) -> None:
    deal, dataset = world.active("client", "node", periods=1)
    world.pass_until(world.dataset(dataset).closes_at - 3)
    ask(world, deal)
    eve = world.balance("eve")
    world.pass_time(5)
    assert world.shard(deal).status.is_closed
    assert spot_of(world, deal) is None
    assert world.balance("eve") == eve + PARAMS.proof_fee
    kept = [name for name in world.stored if name.startswith(keys.SPOT)]
    assert kept == []
    world.pass_time(2 * PARAMS.window_s)
    assert not {"spot_missed", "spot_void"} & set(kinds(world.events))


def test_one_that_is_drawn_as_its_piece_leaves_is_dropped(world: World) -> None:
    """Asked for in the last block of the last period: no seed is there yet."""
    deal, dataset = world.active("client", "node", periods=1)
    world.pass_until(world.dataset(dataset).closes_at)
    world.do("eve", Spot(deal, 0))
    world.pass_time(3)
    assert spot_of(world, deal) is None
    assert not [name for name in world.stored if name.startswith(keys.SPOT)]


def test_the_fee_of_a_missed_one_is_at_most_the_stake() -> None:
    world = World(replace(PARAMS, fault_fee_percent=500, collateral_periods=1))
    world.fund("client", "eve")
    world.provider("node", stake=HOLD)
    deal, _ = world.active("client", "node", periods=9, price=HOLD // 2)
    world.pass_until(ask(world, deal).closes_at + 1)
    assert last(world.events, "spot_missed")["fee"] == HOLD
    found = world.app.provider(key("node"))
    assert found is not None
    assert found.stake == 0


def test_every_part_is_bound_into_the_seed() -> None:
    a, b = b"\x01" * 32, b"\x02" * 32
    base = ("chain", b"deal", 3, a, 9, b)
    changed = [
        ("chaim", b"deal", 3, a, 9, b),
        ("chaind", b"eal", 3, a, 9, b),
        ("chain", b"dea", 3, a, 9, b),
        ("chain", b"deal", 4, a, 9, b),
        ("chain", b"deal", 3, b, 9, b),
        ("chain", b"deal", 3, a, 10, b),
        ("chain", b"deal", 3, a, 9, a),
    ]
    seeds = {spot_seed(*parts) for parts in (base, *changed)} | {period_seed("chain", a, a, 9, b)}
    assert len(seeds) == len(changed) + 2
    preimage = b"holdfast/spot-seed/1\x00" + b"\x05chain" + b"\x04deal" + b"\x00\x03" + a
    assert spot_seed(*base) == hashlib.sha256(preimage + (9).to_bytes(8, "big") + b).digest()
    for wrong in (
        ("", b"deal", 3, a, 9, b),
        ("c" * 256, b"deal", 3, a, 9, b),
        ("chain", b"", 3, a, 9, b),
        ("chain", bytes(256), 3, a, 9, b),
        ("chain", b"deal", -1, a, 9, b),
        ("chain", b"deal", 1 << 16, a, 9, b),
        ("chain", b"deal", 3, a[1:], 9, b),
        ("chain", b"deal", 3, a, -1, b),
        ("chain", b"deal", 3, a, 9, b"\x01" + b),
    ):
        with pytest.raises(ValueError, match=r"."):
            spot_seed(*wrong)


def test_an_answer_is_a_proof_for_fees_and_the_reserved_half(world: World) -> None:
    deal, _ = world.active("client", "node")
    ask(world, deal)
    body = proof_of(world, deal)
    raw = world.tx("node", body)
    assert len(raw) > 1_024
    assert world.app.check_tx(world.tx("node", body, fee=PARAMS.proof_fee - 1)).code is Code.FEE_TOO_LOW
    flood = [world.tx("client", Transfer(key("eve"), 1), nonce=n) for n in range(9, 9 + 3)]
    assert world.propose([*flood, raw], max_bytes=2 * len(raw)) == [raw]
