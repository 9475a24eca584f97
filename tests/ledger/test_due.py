"""Due work: each kind has its own queue and share of a block, and no dataset's turn holds the others up."""

from __future__ import annotations

import pytest

from ledger import limits
from ledger.records import Phase, ShardStatus
from ledger.result import Code
from ledger.rules_datasets import Clock, identify
from ledger.transactions import Accept, Body, EndDeal, Renew
from proofs.kinds import ProofKind
from tests.ledger.naive.twin import TwinWorld
from tests.ledger.world import PARAMS, Piece, key, kinds


@pytest.fixture
def world() -> TwinWorld:
    world = TwinWorld()
    world.provider("node")
    world.fund("client")
    return world


def opens_at(client: str, time: int) -> int:
    """When the first window after a time opens in a client's dataset on "node"."""
    clock = Clock.of(identify(key(client), key("node"), ProofKind.MERKLE, PARAMS.challenges, 1), PARAMS)
    return clock.opens_at(clock.period_at(time + PARAMS.window_s))


def test_offers_that_run_out_in_their_masses_delay_no_window(
    world: TwinWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, dataset = world.active("client", "node", periods=9)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    deals = [world.deal("client", providers=["node"]) for _ in range(9)]
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 4)
    assert world.dataset(dataset).opens_at > world.shard(deals[0]).expires_at + 1
    late = world.block(step=world.dataset(dataset).opens_at - world.app.time)
    assert kinds(late.events).count("offer_expired") == 4
    assert world.dataset(dataset).record.phase is Phase.OPENING
    world.block()
    assert world.dataset(dataset).record.phase is Phase.OPEN
    world.block()
    assert [world.shard(deal).status for deal in deals] == [ShardStatus.REFUNDED] * 9
    world.do("node", world.proof(dataset))


def test_a_long_turn_delays_no_window(world: TwinWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    deals = [world.deal("client", providers=["node"], periods=1, blocks=1) for _ in range(9)]
    for deal in deals:
        world.do("node", Accept(deal, 0))
    long = world.shard(deals[0]).dataset
    turns_at = world.dataset(long).closes_at + 1 + PARAMS.period_s
    other = next(
        name
        for name in map(str, range(999))
        if 0 < opens_at(name, turns_at - 9) - turns_at < PARAMS.window_s // 3
    )
    world.fund(other)
    _, dataset = world.active(other, "node", periods=9)
    world.pass_until(turns_at - 1)
    assert world.dataset(long).record.pieces == 9
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 8)
    monkeypatch.setattr(limits, "MAX_TURN_STEP", 3)
    world.block(step=opens_at(other, turns_at - 9) - world.app.time)
    assert world.dataset(long).record.phase is Phase.TURNING
    assert world.dataset(long).record.pieces == 4
    assert world.dataset(dataset).record.phase is Phase.OPENING
    world.block()
    assert world.dataset(dataset).record.phase is Phase.OPEN
    assert world.app.dataset(long) is not None
    blocks = 1
    while world.app.dataset(long) is not None:
        world.block()
        blocks += 1
    assert blocks < 5
    world.do("node", world.proof(dataset))


def test_a_block_changes_deals_of_a_bounded_number_of_shards(
    world: TwinWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = world.deal("client"), world.deal("client", shards=3)
    monkeypatch.setattr(limits, "MAX_SHARDS_PER_BLOCK", 4)
    nonce = world.app.account(key("client")).nonce
    offer = world.deal_body([Piece.random(world.rng) for _ in range(2)])
    bodies: tuple[Body, ...] = (Renew(large, 1), offer, EndDeal(large), Renew(small, 1), offer)
    # what does not fit waits, and what comes after it may: the nonce stays free
    nonces = (nonce, nonce + 1, nonce + 1, nonce + 1, nonce + 2)
    txs = [world.tx("client", body, nonce=n) for body, n in zip(bodies, nonces, strict=True)]
    codes = [result.code for result in world.block(*txs).tx_results[1:]]
    assert codes == [Code.OK, Code.BLOCK_FULL, Code.BLOCK_FULL, Code.OK, Code.BLOCK_FULL]
    assert world.try_("client", offer).ok


def test_a_deal_is_forgotten_at_the_price_of_its_shards(
    world: TwinWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    deals = [world.deal("client", shards=3), world.deal("client", shards=3)]
    for deal in deals:
        world.do("client", EndDeal(deal))
    monkeypatch.setattr(limits, "MAX_DUE_PER_BLOCK", 3)
    world.pass_time(PARAMS.retention_periods * PARAMS.period_s - 1)
    assert [deal for deal in deals if world.app.deal(deal)] == deals
    world.block(step=1)
    assert len([deal for deal in deals if world.app.deal(deal)]) == 1
    world.block()
    assert not [deal for deal in deals if world.app.deal(deal)]
