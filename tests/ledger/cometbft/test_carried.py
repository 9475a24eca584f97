"""A chain of the embedded engine goes on on CometBFT: all that was agreed, in its first blocks and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ledger import money
from ledger.application import BlockInput, BlockResult
from ledger.block_forms import ValidatorUpdate
from ledger.carry import check_origin
from ledger.errors import CorruptState
from ledger.genesis import GenesisValidator
from ledger.records import Phase, ShardStatus
from ledger.rules_spot import challenge_of
from ledger.transactions import Answer, Spot
from tests.ledger.cometbft.mirror import Mirror
from tests.ledger.test_carry import NEW, TIP, Moved, bls, ended, next_genesis
from tests.ledger.test_validators import bls as bls_of
from tests.ledger.world import World, answer, key, last, signer

VALIDATORS = ("steward", "second")


def validator(name: str, power: int) -> GenesisValidator:
    beacons = bls() if name == "steward" else bls_of(name)
    consensus = signer(f"{name}'s").public_key
    return GenesisValidator(key(name), consensus, beacons.public_key, beacons.prove_possession(), power)


class MovedToComet(Moved):
    """A world that goes on on CometBFT; each block is told to its engine over the socket as well."""

    def __init__(self, before: World) -> None:
        super().__init__(before, (validator("steward", 10), validator("second", 20)))
        signers = {each.public_key: each for each in (bls(), bls_of("second"))}
        self.mirror = Mirror(self.app, signers)

    def block(self, *txs: bytes, step: int = 0) -> BlockResult:
        if self.app.height == 0:  # CometBFT gives its first block the genesis' time
            now, self.now = self.now, self.genesis.time_s
            self.told()
            self.now = now
        return self.told(*txs, step=step)

    def told(self, *txs: bytes, step: int = 0) -> BlockResult:
        """One block, by both."""
        given = BlockInput(self.app.height + 1, self.now + step, key("steward"), (self.beacon(), *txs))
        request = self.mirror.decision(self.app, given)
        assert self.mirror.judge(self.app, given, given.txs)
        result = super().block(*txs, step=step)
        self.mirror.decide(request, result)
        return result


@pytest.fixture
def move() -> Iterator[Callable[[World], MovedToComet]]:
    """Moves a world, and ends its node with the test."""
    made: list[MovedToComet] = []

    def moved(before: World) -> MovedToComet:
        made.append(MovedToComet(before))
        return made[-1]

    yield moved
    for world in made:
        world.mirror.node.close()


def an_old_ledger() -> World:
    old = World()
    old.fund("client", "other", "eve")
    old.provider("node")
    return old


def test_everybody_has_what_they_had_and_deals_go_on(move: Callable[[World], MovedToComet]) -> None:
    # Given a chain with a proven period, an offer that runs, and a clock that ran ahead
    old = an_old_ledger()
    deal, dataset = old.active("client", "node", periods=6)
    old.prove("node", dataset)
    waiting = old.deal("other")
    old.now += 5_000
    old.block()
    assert old.app.block_time_s > old.app.time
    # when it goes on on CometBFT
    new = move(old)
    for name in ("operator", "client", "other", "eve", "node"):
        assert new.app.account(key(name)) == old.app.account(key(name))
    assert (new.app.provider(key("node")), new.app.totals()) == (
        old.app.provider(key("node")),
        old.app.totals(),
    )
    assert (new.app.time, new.app.beacon, new.app.params) == (old.app.time, old.app.beacon, old.app.params)
    assert (new.shard(deal), new.dataset(dataset)) == (old.shard(deal), old.dataset(dataset))
    powers = {info.account: info.record.power for info in new.app.validators()}
    assert powers == {key("steward"): 10, key("second"): 20}
    # then its blocks follow, and what was proven is paid
    new.block()
    assert (new.app.height, new.app.block_time_s) == (2, new.now)
    assert new.settle("node", deal) == 100_000
    assert new.shard(waiting).status in (ShardStatus.OFFERED, ShardStatus.REFUNDED)
    # and periods go on, also after a restart and on a node that begins by state sync
    new.prove("node", dataset)
    new.mirror.node.restart()
    new.pass_until(new.dataset(dataset).closes_at + 1)
    assert new.settle("node", deal) == 100_000
    assert new.mirror.move()
    new.prove("node", dataset)
    new.mirror.check_height()


def test_an_open_window_is_nobodys_fault_there(move: Callable[[World], MovedToComet]) -> None:
    old = an_old_ledger()
    deal, dataset = old.active("client", "node")
    info = old.open_window(dataset)
    new = move(old)
    assert new.dataset(dataset).record.phase is Phase.VOID
    new.pass_until(info.closes_at + 1)
    assert new.dataset(dataset).record.fault_total == 0
    new.prove("node", dataset)
    new.pass_until(new.dataset(dataset).closes_at + 1)
    assert new.settle("node", deal) == 100_000


def test_a_spot_challenge_is_drawn_anew_and_answered(move: Callable[[World], MovedToComet]) -> None:
    old = an_old_ledger()
    deal, _ = old.active("client", "node", periods=6)
    old.do("eve", Spot(deal, 0))
    new = move(old)
    new.block()
    opened = last(new.events, "spot_opened")
    info, record = new.app.deal(deal), new.app.spot(deal, 0)
    assert info is not None
    assert record is not None
    challenge = challenge_of(info.record, info.shards[0], record, new.params)
    new.do("node", Answer(deal, 0, answer(challenge, {0: new.pieces[deal, 0]})))
    assert opened["provider"] == key("node")
    assert new.app.spot(deal, 0) is None


def test_founders_must_agree_on_who_validates() -> None:
    old = an_old_ledger()
    rows, app_hash = ended(old).state, old.app.app_hash
    genesis = next_genesis(old, (validator("steward", 10),))
    check_origin(genesis, rows, app_hash, TIP)
    assert genesis.chain_id == NEW
    money.audit(old.app.items())
    old.block()
    with pytest.raises(CorruptState):
        check_origin(genesis, ended(old).state, old.app.app_hash, TIP)


def test_the_validators_are_the_new_chains_alone(move: Callable[[World], MovedToComet]) -> None:
    old = an_old_ledger()
    assert [info.account for info in old.app.validators()] == [key("operator")]
    new = move(old)
    assert {info.account for info in new.app.validators()} == {key(name) for name in VALIDATORS}
    result = new.block()
    assert result.validator_updates == ()
    assert ValidatorUpdate(key("operator"), 0) not in result.validator_updates
