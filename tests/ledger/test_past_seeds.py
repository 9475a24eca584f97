"""Seeds of the past, found again from headers alone: those that the ledger drew at their time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import pytest

from ledger.application import BlockResult
from ledger.rules_datasets import Clock
from ledger.transactions import Spot
from merkledag.cid import CID
from proofs.beacon import chain as beacon
from proofs.beacon.seeds import past_period, past_spot
from tests.ledger.world import CHAIN, PARAMS, World, beacon_signer, key


class Header(NamedTuple):
    height: int
    time: int
    beacon: bytes


@dataclass
class Chronicle(World):
    """A world that keeps what a header says of every block, and its events by height."""

    headers: list[Header] = field(default_factory=list)
    told: list[tuple[int, dict[str, object]]] = field(default_factory=list)

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        result = super().block(*txs, step=step)
        self.headers.append(Header(result.height, result.time, self.app.beacon))
        self.told += [(result.height, {"kind": each.kind, **dict(each.attributes)}) for each in result.events]
        return result

    def all_told(self, kind: str) -> list[tuple[int, dict[str, object]]]:
        return [(height, event) for height, event in self.told if event["kind"] == kind]


@cache
def a_few_periods() -> tuple[Chronicle, CID]:
    """Two datasets, one window that opened too late, and two spot challenges."""
    world = Chronicle()
    world.fund("client", "eve")
    world.provider("one", "two")
    deal, _ = world.active("client", "one", periods=6)
    _, dataset = world.active("client", "two", periods=6)
    world.do("eve", Spot(deal, 0))
    world.pass_time(PARAMS.period_s)
    world.pass_until(world.dataset(dataset).opens_at - 1)
    while world.app.time <= world.dataset(dataset).opens_at + PARAMS.window_s // 2:
        world.now += PARAMS.max_step_s  # nobody makes a block for a while
        world.block()
    world.pass_time(2 * PARAMS.period_s)
    return world, deal


def test_the_seed_of_every_period_is_found_again() -> None:
    world, _ = a_few_periods()
    opened = world.all_told("window_opened")
    drawn = [(event["dataset"], event["period"]) for _, event in opened]
    void = [
        (height, event)
        for height, event in world.all_told("period_void")
        if (event["dataset"], event["period"]) not in drawn  # the ledger may stall after the seed, too
    ]
    assert len(opened) >= 6
    assert void
    for height, event in opened + void:
        dataset, node, period = event["dataset"], event["provider"], event["period"]
        assert isinstance(dataset, bytes)
        assert isinstance(node, bytes)
        assert isinstance(period, int)
        clock = Clock.of(dataset, PARAMS)
        found = past_period(
            CHAIN, dataset, node, period, clock.opens_at(period), PARAMS.window_s, world.headers
        )
        assert found == ((height, event["seed"]) if event["kind"] == "window_opened" else None)
        later = [header for header in world.headers if header.time >= clock.opens_at(period)]
        for reach in (later, world.headers[: -len(later)]):  # the first may follow another; too few
            with pytest.raises(LookupError, match="do not reach"):
                past_period(CHAIN, dataset, node, period, clock.opens_at(period), PARAMS.window_s, reach)


def test_the_seed_of_every_spot_challenge_is_found_again() -> None:
    world, deal = a_few_periods()
    [asked] = [height for height, event in world.told if event["kind"] == "spot_opened"]
    [(height, event)] = world.all_told("spot_opened")
    found = past_spot(CHAIN, bytes(deal), 0, key("one"), asked - 1, PARAMS.window_s, world.headers)
    assert found == (height, event["seed"])
    for reach in (world.headers[: asked - 1], world.headers[asked:]):
        with pytest.raises(LookupError, match="do not reach"):
            past_spot(CHAIN, bytes(deal), 0, key("one"), asked - 1, PARAMS.window_s, reach)


def test_the_values_in_headers_are_found_again_from_the_signatures() -> None:
    world, _ = a_few_periods()
    before = [world.app.genesis.beacon, *(header.beacon for header in world.headers)]
    signatures = [
        beacon_signer().sign(beacon.message(CHAIN, header.height, before[header.height - 1]))
        for header in world.headers
    ]
    assert list(beacon.values(before[0], signatures)) == before[1:]
    assert list(beacon.values(before[4], signatures[4:])) == before[5:]
