"""Random blocks through both engines: the embedded one's application, and CometBFT's engine over a socket."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ledger.genesis import HOLD
from ledger.transactions import Accept, Body, Propose, Spot, Transfer, Vote
from tests.ledger.cometbft.mirror import Mirrored
from tests.ledger.naive.twin import TwinWorld
from tests.ledger.test_machine import Ledger
from tests.ledger.test_validators import Electorate, bodies
from tests.ledger.world import key, kinds

PEOPLE = ("a", "b", "c", "d")
VALIDATORS = ("a", "b", "c")


class MirroredWorld(Mirrored, TwinWorld):
    """Three ledgers run each block: the plain one, the application, and the engine beside CometBFT."""


class Both(Ledger):
    """The random people of `test_machine`, on both engines; a node restarts, or a new one takes its place."""

    world_of: ClassVar[type[TwinWorld]] = MirroredWorld
    world: MirroredWorld

    @rule()
    def restart(self) -> None:
        self.world.mirror.node.restart()
        self.world.mirror.check_height()

    @precondition(lambda self: not self.world.mirror.restored)
    @rule()
    def move(self) -> None:
        self.world.mirror.move()
        self.world.mirror.check_height()

    @rule(data=st.binary(max_size=300))
    def rubbish(self, data: bytes) -> None:
        self.world.block(data)

    @rule(is_proposed=st.booleans())
    def stop_before_commit(self, is_proposed: bool) -> None:
        """A block that is run and never committed leaves no trace on either."""
        world = self.world
        given = world.next_block(world.tx("operator", Transfer(key("ann"), HOLD)), step=5)
        if is_proposed:
            world.mirror.propose(world.app, given)
        answer = world.mirror.node.ask("finalize_block", world.mirror.decision(world.app, given))
        assert answer.app_hash == world.app.finalize_block(given).app_hash
        world.app.abort()

    def restores(self) -> None:
        """What `restart` and `move` show of the stored state is enough here."""

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.mirror.check_height()
            self.world.mirror.node.close()


TestBoth = Both.TestCase
TestBoth.settings = settings(
    max_examples=2,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class MirroredElectorate(Mirrored, Electorate):
    """People who decide who validates, on both engines."""


@pytest.fixture
def electorate() -> Iterator[MirroredElectorate]:
    world = MirroredElectorate(*VALIDATORS)
    yield world
    world.mirror.node.close()


def signed(world: TwinWorld, bodies: Sequence[tuple[str, Body]]) -> Iterator[bytes]:
    """Their transactions, each sender's one after the other."""
    nonces: dict[str, int] = {}
    for name, body in bodies:
        nonce = nonces.setdefault(name, world.app.account(key(name)).nonce)
        yield world.tx(name, body, nonce=nonce)
        nonces[name] += 1


def test_validators_come_rotate_misbehave_and_go_on_both(electorate: MirroredElectorate) -> None:
    world, rng = electorate, random.Random(9)
    world.grant({name: 5 + number for number, name in enumerate(VALIDATORS)})
    world.move()
    assert set(world.powers()) == {"operator", *VALIDATORS}
    world.fund("client")
    deal, _ = world.active("client", "d", periods=9)
    for name in "abc":
        world.do(name, Accept(world.deal("client", providers=(name,), periods=9, blocks=1), 0))
    waits: set[int] = set()  # for how many blocks a seed was waited for
    for number in range(42):
        # any of those who validate proposes
        world.proposer = rng.choice(sorted(world.powers()))
        txs: list[tuple[str, Body]] = []
        if number % 14 == 3:
            name = rng.choice(VALIDATORS)
            txs.append((name, bodies(name, f"{name}'s {number}", name)))
        if number % 7 == 5:
            powers = {key(name): rng.choice((0, 3, 40)) for name in rng.sample(VALIDATORS, 2)}
            txs.append(("d", Propose({}, 0, "", powers)))
        open_now = [info.id for info in world.app.proposals()]
        if number in (1, 16):
            txs.append(("client", Spot(deal, 0)))
        if number % 2:
            txs += [(name, Vote(proposal, True)) for proposal in open_now for name in PEOPLE]
        if number == 24:
            world.accused = tuple(
                key(name) for name in ("b", "c") if name != world.proposer and name in world.powers()
            )
            assert world.accused
        world.block(*signed(world, txs), step=rng.choice((0, 1, 3, 11)))
        waits |= {info.record.seed_height - world.app.height for info in world.app.datasets()}
        if number in (15, 34):
            world.mirror.node.restart()
        if number == 29:
            assert world.mirror.move()
        world.mirror.check_height()
    happened = set(kinds(world.events))
    assert max(waits) > 1
    assert {
        "window_opened",
        "spot_opened",
        "shard_assigned",
        "validator_jailed",
        "consensus_key_changed",
        "validator_power",
        "beacon_key_counts",
    } <= happened, sorted(happened)
