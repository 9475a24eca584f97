"""Who proposed, and how long it took: counted of decided blocks, and told to Prometheus by validator."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from cli.comet_metrics import page
from ledger.engine.cometbft.turns import Share, Turns
from merkledag.peer import peer_text
from tests.ledger.cometbft.mirror import Mirrored
from tests.ledger.test_validators import Electorate
from tests.ledger.world import key

MS = 10**6


def test_slow_turns_and_failed_rounds_are_counted_by_whose_they_were() -> None:
    turns, at = Turns(), 0
    for height in range(1, 42):  # a, b, c, d in turn; a is slow, and d's turns go to a
        name = "abca"[height % 4]
        last_round = int(height > 1 and (height - 1) % 4 == 3)
        turns.note(height, name.encode(), at, last_round)
        turns.note(height, b"again", at + 1, 9)  # given again: it was counted
        at += {"a": 650, "b": 250, "c": 250}[name] * MS
    a, b = turns.shares[b"a"], turns.shares[b"b"]
    assert (a.blocks, a.first_round_blocks, b.blocks, turns.failed_rounds) == (20, 10, 10, 10)
    assert (a.first_round_ns, b.first_round_ns) == (10 * 650 * MS, 10 * 250 * MS)
    assert b"d" not in turns.shares


def test_what_was_not_seen_is_not_counted() -> None:
    turns = Turns()
    for height, time_ns in ((1, 0), (2, 100), (500, 10**15), (501, 10**15 + 200)):
        turns.note(height, b"a", time_ns, 0)
    assert (turns.shares[b"a"].blocks, turns.shares[b"a"].first_round_ns) == (2, 300)
    turns.note(502, b"a", 7, 0)  # a block time never falls; if it did nothing would be taken away
    assert turns.shares[b"a"].first_round_ns == 300


def test_a_standstill_is_nobodys_slow_turn() -> None:
    turns = Turns()
    for height, at_s in (
        (1, 0),
        (2, 1),
        (3, 526),
        (4, 527),
    ):  # all were stopped: the second's round began anew
        turns.note(height, b"ab"[height % 2 :][:1], at_s * 10**9, 0)
    assert turns.shares[b"a"] == Share(1, 0, 0)
    assert turns.shares[b"b"] == Share(2, 2, 2 * 10**9)


class Told(Mirrored, Electorate):
    """A chain that a node of its own follows."""


def test_prometheus_is_told_of_every_validator() -> None:
    world = Told("a")
    try:
        world.grant({"a": 3})
        world.move()
        world.mirror.node.restart()
        engine = world.mirror.node.engine
        for name in ("a", "operator", "a", "a"):
            world.proposer = name
            world.block(step=2)
        monitor = cast(Any, SimpleNamespace(sight=SimpleNamespace(
            halted="", answers=True, catching_up=False, peers=0, power=1, signed_height=1
        )))  # fmt: skip
        found = {
            (sample.name.removeprefix("holdfast_ledger_"), sample.labels.get("proposer")): sample.value
            for family in text_string_to_metric_families(page(engine, monitor))
            for sample in family.samples
        }
        names = {name: peer_text(key(name)) for name in ("a", "operator")}
        assert [found["proposed_blocks_total", names[each]] for each in names] == [2, 1]
        assert [found["first_round_seconds_total", names[each]] for each in names] == [4, 2]
        assert [found["proposer_power", names[each]] for each in names] == [3, 1]
        assert found["failed_rounds_total", None] == 0
        assert found["height", None] == world.app.height
    finally:
        world.mirror.node.close()
