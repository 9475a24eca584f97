"""With several validators a block's beacon draws which later one counts: for windows, spots and repairs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.application import BlockResult
from ledger.records import Phase
from ledger.rules_datasets import Clock
from ledger.transactions import Accept, HandOver, Settle, Spot
from proofs.beacon.seeds import blocks_until_drawn, past_period, past_spot
from tests.ledger.test_past_seeds import Header
from tests.ledger.test_validators import TERMS, Electorate
from tests.ledger.world import CHAIN, all_of, key

ROOMY = replace(TERMS, period_s=160, window_s=80, accept_timeout_s=80, vote_s=10, timelock_s=5)
POWERS = {"a": 2, "b": 2, "c": 2, "d": 2}
OTHERS = 4  # beside the operator


class Parliament(Electorate):
    """Five validators, of whom each in turn makes a block; it keeps the headers."""

    def __init__(self) -> None:
        self.headers: list[Header] = []
        super().__init__(*POWERS, terms=ROOMY)
        self.grant(POWERS)
        self.move()
        self.fund("client", "eve")
        assert len(self.app.validators()) == OTHERS + 1

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        names = sorted(self.powers())
        self.proposer = names[len(self.headers) % len(names)]
        result = super().block(*txs, step=step)
        self.headers.append(Header(result.height, result.time, self.app.beacon))
        return result

    def wait(self, height: int) -> int:
        """How many blocks after that one its beacon draws."""
        return 1 + int.from_bytes(self.headers[height - 1].beacon, "big") % OTHERS


@pytest.fixture(scope="module")
def world() -> Parliament:
    """One for all tests: each has a dataset of its own."""
    return Parliament()


@pytest.mark.parametrize(
    ("validators", "within_s", "most"),
    [(1, 7_200, 1), (2, 7_200, 1), (4, 7_200, 3), (100, 7_200, 99), (100, 60, 7), (4, 2, 1), (0, 0, 1)],
)
def test_so_many_blocks_may_be_drawn(validators: int, within_s: int, most: int) -> None:
    values = [bytes(31) + bytes([each]) for each in range(200)] + [b"\xff" * 32]
    found = [blocks_until_drawn(value, validators, within_s) for value in values]
    assert set(found) == set(range(1, most + 1))
    assert found[:most] == sorted(set(found))


def test_a_windows_first_block_draws_whose_beacon_is_the_seeds(world: Parliament) -> None:
    _, dataset = world.active("client", "a", periods=12)
    waits = set()
    for _ in range(6):
        info = world.dataset(dataset)
        world.pass_until(info.opens_at - 1)
        world.block(step=1)
        first = world.app.height
        height = first + world.wait(first)
        waits.add(height - first)
        record = world.dataset(dataset).record
        assert (record.phase, record.seed, record.seed_height) == (Phase.OPENING, b"", height)
        while world.app.height < height:
            assert world.dataset(dataset).record.phase is Phase.OPENING
            assert world.app.next_due() == world.app.time  # whoever makes blocks when they are due goes on
            world.block()
        record = world.dataset(dataset).record
        clock = Clock.of(dataset, ROOMY)
        drawn = past_period(
            CHAIN,
            dataset,
            key("a"),
            record.period,
            clock.opens_at(record.period),
            ROOMY.window_s,
            world.headers,
            OTHERS + 1,
        )
        assert drawn == (height, record.seed)
        assert (record.phase, record.seed_height) == (Phase.OPEN, height)
        world.do("a", world.proof(dataset))
        world.pass_until(info.closes_at + 1)
    assert len(waits) > 2


def test_blocks_that_are_too_slow_for_a_seed_are_nobodys_fault(world: Parliament) -> None:
    deal, dataset = world.active("client", "b", periods=12)
    world.pass_until(world.dataset(dataset).opens_at - 1)
    world.block(step=1)
    while world.wait(world.app.height) < 2:  # a window that waits for more than one block
        world.pass_until(world.dataset(dataset).closes_at + 1)
        world.pass_until(world.dataset(dataset).opens_at - 1)
        world.block(step=1)
    before, until = world.dataset(dataset).record, world.dataset(dataset).closes_at
    while world.app.height < before.seed_height:
        assert world.dataset(dataset).record == before
        world.block(step=ROOMY.max_step_s)
    assert world.dataset(dataset).record.seed_height == 0
    assert before.period in [each["until"] for each in all_of(world.events, "period_void")]
    world.pass_until(until + 1)
    assert world.dataset(dataset).record.fault_total == before.fault_total
    world.prove("b", dataset)
    world.do("b", Settle(deal, 0))


def test_spot_challenges_and_shards_that_are_put_up_again_wait_for_a_drawn_block(world: Parliament) -> None:
    deal, _ = world.active("client", "c", periods=12)
    waits = set()
    for _ in range(2):
        world.do("eve", Spot(deal, 0))
        asked, record = world.app.height, world.app.spot(deal, 0)
        assert record is not None
        assert (record.height, record.seed_height) == (asked, asked + world.wait(asked))
        while world.app.height < record.seed_height:
            found = world.app.spot(deal, 0)
            assert found is not None
            assert found.seed == b""
            world.block()
        found = world.app.spot(deal, 0)
        assert found is not None
        assert past_spot(
            CHAIN, bytes(deal), 0, key("c"), asked, ROOMY.window_s, world.headers, OTHERS + 1
        ) == (record.seed_height, found.seed)
        waits.add(record.seed_height - asked)
        world.pass_until(found.closes_at + 1)
        world.pass_until(world.shard(deal).spared_until)
    assert waits != {1}
    # A new deal's shard does not wait, for nobody could gain; what is put up later does.
    deal = world.deal("client", periods=12)
    world.block()
    assigned = all_of(world.events, "shard_assigned")
    assert deal in [each["deal"] for each in assigned]
    name = next(each for each in "abcd" if key(each) == world.shard(deal).provider)
    world.do(name, Accept(deal, 0))
    world.pass_until(world.dataset(world.shard(deal).dataset).closes_at + 1)
    world.do(name, HandOver(deal, 0))
    height = world.app.height + world.wait(world.app.height)
    while world.app.height < height:
        assert world.shard(deal).successor == b""
        world.block()
    assert world.shard(deal).successor != b""
