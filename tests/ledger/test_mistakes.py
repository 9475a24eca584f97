"""A mistake in a rule stops nobody but whom it concerns; a state that is damaged stops the ledger."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from ledger import application, due, keys, rules_draw, rules_periods, rules_transfers
from ledger.context import Context
from ledger.errors import CorruptState, RuleBroken
from ledger.genesis import HOLD
from ledger.records import ShardStatus
from ledger.result import Code
from ledger.transactions import Accept, Transfer
from merkledag.cid import CID
from tests.ledger.world import World, all_of, key, kinds, last


def stuck(world: World) -> list[bytes]:
    return [name for name in world.stored if name.startswith(keys.STUCK)]


@pytest.fixture
def world() -> World:
    world = World(without_mistakes=False)
    world.fund("client")
    world.provider("node", "other")
    return world


def fail_at(monkeypatch: pytest.MonkeyPatch, dataset: bytes, error: Exception) -> None:
    """The work that is due for one dataset has done half of it when it fails."""

    def on_due(ctx: Context, subject: bytes) -> None:
        rules_periods.on_due(ctx, subject)
        if subject == dataset:
            raise error

    handlers = {**application.HANDLERS, due.What.DATASET: on_due}
    monkeypatch.setattr(application, "HANDLERS", MappingProxyType(handlers))


@pytest.mark.parametrize("error", [AssertionError("oh"), KeyError("oh"), OverflowError(), TypeError()])
def test_a_mistake_in_due_work_stops_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    first, dataset = world.active("client", "node", periods=2)
    second, _ = world.active("client", "other", periods=2)
    before = world.shard(first)
    fail_at(monkeypatch, dataset, error)
    events = world.pass_time(400)
    assert len(stuck(world)) == len(all_of(events, "work_stuck")) == 1
    assert stuck(world)[0].endswith(dataset)
    assert world.shard(first) == before  # half of the work is no work, and its money is where it was
    assert world.shard(second).status is ShardStatus.ENDED
    world.check_restores()


def test_a_mistake_in_a_draw_stops_nobody_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = rules_draw._draw

    def fail(ctx: Context, deal: CID, index: int) -> int:
        looks = draw(ctx, deal, index)
        if index == 0:
            raise RuleBroken("oh")
        return looks

    monkeypatch.setattr(rules_draw, "_draw", fail)
    deal = world.deal("client", shards=2)
    world.block()
    assert [bool(world.shard(deal, index).provider) for index in (0, 1)] == [False, True]
    assert stuck(world)[0].endswith(bytes(deal) + keys.u16(0))
    assert last(world.events, "work_stuck")["why"] == "RuleBroken: oh"


def test_a_mistake_in_a_transaction_undoes_it_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer = rules_transfers.transfer

    def fail(ctx: Context, sender: bytes, body: Transfer) -> None:
        transfer(ctx, sender, body)
        raise ZeroDivisionError

    monkeypatch.setattr(rules_transfers, "transfer", fail)
    deal = world.deal("client", providers=("node",))
    balance = world.balance("client")
    raws = [world.tx("client", Transfer(key("node"), HOLD)), world.tx("node", Accept(deal, 0))]
    result = world.block(*raws)
    assert [each.code for each in result.tx_results] == [Code.OK, Code.NOT_POSSIBLE, Code.OK]
    assert world.balance("client") == balance
    assert world.shard(deal).status is ShardStatus.ACCEPTED


def test_a_damaged_state_is_no_mistake_of_the_rules(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the same block from a sound disk would go another way."""
    _, dataset = world.active("client", "node")
    fail_at(monkeypatch, dataset, CorruptState("a record does not decode"))
    with pytest.raises(CorruptState):
        world.pass_time(400)
    assert not stuck(world)
    assert "work_stuck" not in kinds(world.events)
