"""A chain of validators that ended goes on: with one operator on the embedded engine, or with others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ledger import money
from ledger.carry import check_origin
from ledger.genesis import HOLD
from ledger.transactions import Transfer
from tests.ledger.cometbft.signed_history import VALIDATORS, SignedHistory
from tests.ledger.cometbft.test_carried import MovedToComet
from tests.ledger.test_carry import TIP, Moved, ended
from tests.ledger.world import key


@pytest.fixture
def old() -> Iterator[SignedHistory]:
    """Its validators have come, stand accused and changed keys; a deal is under way."""
    world = SignedHistory(*VALIDATORS)
    world.fund("client", "other")
    world.live(9)
    yield world
    world.mirror.node.close()


@pytest.fixture
def move(old: SignedHistory) -> Iterator[Callable[[type[Moved]], Moved]]:
    """Makes it go on, and ends the node of the new chain, if it has one."""
    made: list[Moved] = []

    def moved(to: type[Moved]) -> Moved:
        made.append(to(old))
        return made[-1]

    yield moved
    for each in made:
        if isinstance(each, MovedToComet):
            each.mirror.check_height()
            each.mirror.node.close()


@pytest.mark.parametrize("to", [Moved, MovedToComet])
def test_everything_goes_on_from_a_chain_of_validators(
    old: SignedHistory, move: Callable[[type[Moved]], Moved], to: type[Moved]
) -> None:
    deal, dataset = old.active("client", "d", periods=6)
    old.prove("d", dataset)
    deposits = {name: old.record(name).deposit for name in ("a", "b") if old.app.validator(key(name))}
    assert any(deposits.values())
    # when it goes on as another chain
    new = move(to)
    # then deposits for keys of validators are their accounts' again, and all else is as it was
    for name in ("a", "b", "c", "d", "client", "other", "operator"):
        before, after = old.app.account(key(name)), new.app.account(key(name))
        assert after.balance == before.balance + deposits.get(name, 0)
        assert after.nonce == before.nonce
        assert new.app.provider(key(name)) == old.app.provider(key(name))
    assert (new.app.time, new.app.beacon, new.app.params) == (old.app.time, old.app.beacon, old.app.params)
    assert new.shard(deal) == old.shard(deal)
    assert new.dataset(dataset).record == replace(old.dataset(dataset).record, seed_height=0)
    assert not {key("a"), key("b")} & {info.account for info in new.app.validators()}
    new.do("client", Transfer(key("other"), HOLD))
    assert new.settle("d", deal) == 100_000
    # and its periods go on
    new.prove("d", dataset)
    new.pass_until(new.dataset(dataset).closes_at + 1)
    assert new.settle("d", deal) == 100_000
    money.audit(new.app.items())
    check_origin(new.app.genesis, ended(old).state, old.app.app_hash, TIP)
