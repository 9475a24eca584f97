"""A provider takes back that it leaves a shard; one that has given a shard up does not get it again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import keys
from ledger.records import ShardStatus
from ledger.result import Code
from ledger.transactions import Accept, GiveUp, HandOver, Stay
from tests.ledger.naive.twin import TwinWorld
from tests.ledger.world import MANIFEST, PARAMS, key, kinds, last


@pytest.fixture
def world() -> TwinWorld:
    world = TwinWorld()
    world.provider("node")
    world.fund("client")
    return world


def test_a_handover_is_taken_back_while_nobody_has_accepted(world: TwinWorld) -> None:
    deal, dataset = world.active("client", "node", periods=12)
    before = world.shard(deal)
    world.do("node", HandOver(deal, 0))
    world.do("node", Stay(deal, 0))  # nobody was drawn yet
    assert world.shard(deal) == replace(before, round=0)
    world.provider("second")
    world.do("node", HandOver(deal, 0))
    world.block(step=1)
    assert world.shard(deal).successor == key("second")
    happened = world.block(world.tx("node", Stay(deal, 0))).events
    assert last(happened, "handover_failed")["provider"] == key("node")
    assert world.shard(deal) == replace(before, round=0)
    world.refuses("second", Accept(deal, 0), Code.NOT_YOURS)
    world.pass_time(PARAMS.accept_timeout_s + 2)
    assert "offer_expired" not in kinds(world.events)
    world.prove("node", dataset)
    world.do("node", HandOver(deal, 0))
    world.block(step=1)
    world.do("second", Accept(deal, 0))
    world.refuses("node", Stay(deal, 0), Code.HANDOVER_RUNS)
    world.refuses("second", Stay(deal, 0), Code.NOT_YOURS)


def test_giving_up_is_taken_back_before_a_period_is_proven(world: TwinWorld) -> None:
    deal, dataset = world.active("client", "node", periods=12)
    before = world.shard(deal)
    world.do("node", GiveUp(deal, 0))
    world.do("node", Stay(deal, 0))
    assert world.shard(deal) == before
    assert not [name for name in world.stored if name.startswith(keys.GIVE)]
    world.prove("node", dataset)
    world.do("node", GiveUp(deal, 0))
    world.do("node", Stay(deal, 0))  # also then: it is there up to the period's end
    world.pass_until(world.dataset(dataset).closes_at + 1)
    assert world.shard(deal).status is ShardStatus.ACTIVE
    world.do("node", GiveUp(deal, 0))
    world.prove("node", dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    world.refuses("node", Stay(deal, 0), Code.NOT_YOURS)
    assert world.shard(deal).provider == b""


def test_staying_needs_an_own_shard_that_one_is_leaving(world: TwinWorld) -> None:
    deal = world.deal("client", providers=["node"])
    for name, shard, code in (
        ("node", 0, Code.NOTHING_TO_DO),
        ("client", 0, Code.NOT_YOURS),
        ("node", 1, Code.UNKNOWN_SHARD),
        ("node", 1 << 40, Code.UNKNOWN_SHARD),
    ):
        world.refuses(name, Stay(deal, shard), code)
    world.refuses("node", Stay(MANIFEST, 0), Code.UNKNOWN_DEAL)
    world.do("node", Accept(deal, 0))
    world.refuses("node", Stay(deal, 0), Code.NOTHING_TO_DO)


def test_whoever_gave_a_shard_up_does_not_get_it_again() -> None:
    """Nor a bounty for it; one that lost it by faults is drawn if there is nobody else."""
    world = TwinWorld(replace(PARAMS, terminate_after=1, grace_periods=1_000))
    world.provider("node")
    world.fund("client")
    deal, dataset = world.active("client", "node", periods=40)
    world.do("node", GiveUp(deal, 0))
    world.prove("node", dataset)
    world.pass_until(world.dataset(dataset).closes_at + 1)
    assert (world.shard(deal).status, world.shard(deal).given_up_by) == (ShardStatus.REPAIR, key("node"))
    for _ in range(3):
        world.pass_time(PARAMS.accept_timeout_s + 2)
        assert (world.shard(deal).provider, world.shard(deal).round > 0) == (b"", True)
    world.provider("second")
    while not world.shard(deal).provider:
        world.pass_time(PARAMS.accept_timeout_s + 2)
    world.do("second", Accept(deal, 0))
    repaired = world.shard(deal).dataset
    world.pass_until(world.dataset(repaired).closes_at + 1)
    world.open_window(repaired)
    world.pass_until(world.dataset(repaired).closes_at + 1)
    world.block(step=1)
    assert world.shard(deal).provider == key("second")  # which faulted; "node" is there, but gave it up
