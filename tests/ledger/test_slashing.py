"""What a validator can save of its stake from being burned for misbehaviour, by deals with itself."""

from __future__ import annotations

import pytest

from ledger.genesis import HOLD
from ledger.records import ShardStatus
from ledger.transactions import DeclareFault
from tests.ledger.test_validators import TERMS, Electorate
from tests.ledger.world import all_of, key, last


@pytest.mark.parametrize("declares", [False, True])
def test_deals_with_oneself_save_less_than_they_cost(declares: bool) -> None:
    """All its stake backs a shard that it pays itself for, and then loses: whoever repairs that gains."""
    world = Electorate("a", "b")
    world.grant({"a": 6, "b": 6})
    world.move()
    world.fund("client", amount=1_000 * HOLD)
    stake = 100 * HOLD
    price = stake // TERMS.collateral_periods
    deal, dataset = world.active("client", "a", price=price, periods=30)
    assert world.shard(deal).collateral == stake
    while world.shard(deal).status is ShardStatus.ACTIVE:
        if declares:
            world.block(world.tx("a", DeclareFault(dataset, world.dataset(dataset).record.period)))
        world.pass_until(world.dataset(dataset).closes_at + 1)
    saved, fees = (
        world.shard(deal).reward,
        sum(int(str(event["fee"])) for event in all_of(world.events, "fault")),
    )
    assert saved == stake * TERMS.repair_reward_periods // TERMS.collateral_periods == stake // 2
    # The other half is gone: ten times what evidence would have taken.
    assert last(world.events, "shard_terminated")["forfeited"] == stake - fees
    left = world.app.provider(key("a"))
    assert left is not None
    assert left.stake == 0
    assert stake - saved == 10 * (stake * TERMS.misbehaviour_percent // 100)
