"""The draw follows unlocked stake and nothing else, among those that may be drawn."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger import keys, limits, weights
from ledger.genesis import HOLD
from ledger.records import ProviderRecord
from ledger.result import Code
from ledger.rules_providers import price_floor
from ledger.state import State
from ledger.store import MemoryRows
from ledger.transactions import Accept, Ask, Register, Withdraw
from tests.ledger.world import GIB, PARAMS, Piece, World, all_of, key


def drawn(world: World, deals: int, **terms: int) -> Counter[bytes]:
    """How often each account is drawn for the one shard of new deals."""
    body = world.deal_body([Piece.random(world.rng, 1)], **terms)  # type: ignore[arg-type]
    nonce = world.app.account(key("client")).nonce
    world.block(*(world.tx("client", body, nonce=nonce + each) for each in range(deals)))
    result = world.block(step=1)
    return Counter(bytes(event["provider"]) for event in all_of(result.events, "shard_assigned"))  # type: ignore[arg-type]


def test_draws_follow_unlocked_stake() -> None:
    world = World()
    world.fund("client")
    world.provider("small", stake=50 * HOLD)
    world.provider("large", stake=200 * HOLD)
    locked = world.deal("client", providers=("large",), price=5 * HOLD)
    world.do("large", Accept(locked, 0))  # locks 100 of the 200
    seen = drawn(world, 200)
    assert seen.total() == 200
    assert 105 <= seen[key("large")] <= 160  # 2/3 of 200, within four standard deviations


def some_provider(number: int, stake: int) -> ProviderRecord:
    account = hashlib.sha256(b"%d" % number).digest()
    return ProviderRecord(account, account, "http://x", GIB, 0, stake, 0, 0, 0, 0, GIB, True)


@given(st.lists(st.lists(st.tuples(st.integers(0, 199), st.integers(0, 5)), max_size=80), max_size=5))
@example([[(n, 3) for n in range(150)], [(n, 0) for n in range(20, 140)], [(n, 2) for n in range(9, 90)]])
@settings(max_examples=25)
def test_the_weights_are_a_list_of_sums(blocks: list[list[tuple[int, int]]]) -> None:
    rows = MemoryRows()
    state = State(rows)
    model: dict[bytes, int] = {}
    seats: list[bytes] = []
    for block in blocks:
        state.begin()
        for number, stake in block:
            provider = some_provider(number, stake)
            state.put(keys.provider(provider.account), provider)
        weights.reweigh(state)
        changes = state.changes()
        rows.apply(changes)
        state.commit(changes)
        latest = {some_provider(number, stake).account: stake for number, stake in block}
        model.update(latest)
        for leaves in sorted(each for each in seats if not model[each]):
            seats = [seats[-1] if each == leaves else each for each in seats][:-1]
        seats += sorted(each for each, weight in model.items() if weight and each not in seats)
        assert weights.total(state) == sum(model.values())
        assert [weights.account_at(state, seat) for seat in range(weights.count(state))] == seats
        assert [weights.weight_at(state, seat) for seat in range(len(seats))] == [model[x] for x in seats]
        owners = [seat for seat, account in enumerate(seats) for _ in range(model[account])]
        assert [weights.find(state, ticket) for ticket in range(len(owners))] == owners
    state.begin()
    for number in range(200):
        state.put(keys.provider(some_provider(number, 0).account), some_provider(number, 0))
    weights.reweigh(state)
    assert {name: value for name, value in state.changes().items() if value is not None}.keys() <= {
        keys.SEATS,
        *(keys.provider(some_provider(number, 0).account) for number in range(200)),
    }
    left = [name for prefix in (keys.SEAT, keys.SEAT_OF, keys.WEIGHT) for name in state.scan(prefix)]
    assert left == []  # those who have left leave nothing


def test_providers_that_left_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many have come and gone, nobody who fits is missed among their seats."""
    monkeypatch.setattr(limits, "MAX_DRAW_TRIES", 1)
    monkeypatch.setattr(limits, "MAX_DRAW_SEATS", 2)
    world = World()
    world.fund("client")
    world.provider("dear", stake=900 * HOLD)
    world.do("dear", Ask(10**15, 0, GIB, True))
    passing = [f"passing{number}" for number in range(6)]
    world.provider(*passing, stake=HOLD)
    world.provider("fits", stake=HOLD)
    for name in passing:
        world.do(name, Withdraw(HOLD))
    assert drawn(world, 20) == {key("fits"): 20}


def test_the_one_that_fits_is_found_beside_those_that_do_not() -> None:
    """Given some who weigh much and ask too much, the tickets miss the one that fits, not the search."""
    world = World()
    world.fund("client", amount=100 * HOLD)
    world.provider("dear", "dearer", stake=900 * HOLD)
    world.provider("fits", stake=2 * HOLD)
    for name in ("dear", "dearer"):
        world.do(name, Ask(10**15, 0, GIB, True))
    assert drawn(world, 20) == {key("fits"): 20}


def test_draws_that_looked_at_many_leave_the_rest_to_the_next_block(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.fund("client")
    world.provider("node")
    monkeypatch.setattr(limits, "MAX_DRAW_LOOKS_PER_BLOCK", 2)
    assert drawn(world, 5).total() == 2
    assert world.app.next_due() == world.app.time
    assert len(all_of(world.block().events, "shard_assigned")) == 2


@pytest.mark.parametrize(
    "obstacle",
    ["closed", "price", "min", "max", "capacity", "stake"],
)
def test_only_those_that_can_keep_the_piece_are_drawn(obstacle: str) -> None:
    world = World()
    world.fund("client")
    world.provider("fits", price=10**9)
    world.provider("other", stake=HOLD if obstacle == "stake" else 100 * HOLD)
    size = Piece.random(world.rng, 1).commitment.size_bytes
    asks = {
        "closed": Ask(0, 0, GIB, False),
        "price": Ask(10**15, 0, GIB, True),
        "min": Ask(0, 10 * size, GIB, True),
        "max": Ask(0, 0, 1, True),
    }
    if obstacle in asks:
        world.do("other", asks[obstacle])
    if obstacle == "capacity":
        world.do("other", Register("http://other.example", 1, key("other"), 0))
    assert set(drawn(world, 8)) == {key("fits")}


def test_more_draws_than_a_block_may_do_continue_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.fund("client")
    world.provider("node")
    monkeypatch.setattr(limits, "MAX_DRAWS_PER_BLOCK", 3)
    assert drawn(world, 8).total() == 3
    assert world.app.next_due() == world.app.time
    assert len(all_of(world.block().events, "shard_assigned")) == 3
    world.check_restores()
    assert len(all_of(world.block().events, "shard_assigned")) == 2
    assert world.app.next_due() != world.app.time


def test_deals_out_of_bounds_are_refused() -> None:
    from dataclasses import replace

    world = World()
    world.fund("client")
    world.provider("node", "other")
    good = world.deal_body([Piece.random(world.rng), Piece.random(world.rng)])
    wrong = {
        Code.INVALID_TERMS: [
            replace(good, k=3),
            replace(good, m=3),
            replace(good, replicated=True, k=2),
            replace(good, challenges=29),
            replace(good, challenges=65),
            replace(good, providers=(key("node"),)),
            replace(good, pieces=(good.pieces[0], replace(good.pieces[1], data_bytes=2**30))),
            replace(good, pieces=(good.pieces[0], replace(good.pieces[1], meta_leaves=0))),
        ],
        Code.PRICE_TOO_LOW: [replace(good, price=price_floor(PARAMS, good.periods) - 1)],
        Code.NOT_REGISTERED: [replace(good, providers=(key("node"), key("client")), price=0, k=3)],
        Code.DUPLICATE_PROVIDER: [replace(good, providers=(key("node"), key("node")))],
        Code.INSUFFICIENT_FUNDS: [replace(good, price=10**12)],
    }
    for code, bodies in wrong.items():
        for body in bodies:
            world.refuses("client", body, code)
    world.do("client", replace(good, replicated=True, k=1))
    world.do("client", replace(good, providers=(key("node"), key("other"))))
    poor = replace(good, price=price_floor(PARAMS, good.periods))
    world.do("client", poor)


def test_registering_out_of_bounds_is_refused() -> None:
    world = World()
    world.fund("node", "cold", "thief")
    me = key("node")
    for endpoint in ("", "node.example", "ftp://node.example", "http://", "http://a b", "http://é"):
        world.refuses("node", Register(endpoint, GIB, me, HOLD), Code.INVALID_TERMS)
    world.refuses("node", Register("http://x", GIB, bytes(32), HOLD), Code.INVALID_TERMS)
    world.refuses("node", Register("http://x", GIB, me, PARAMS.min_stake - 1), Code.INSUFFICIENT_STAKE)
    world.refuses("node", Register("http://x", GIB, me, 10**6 * HOLD), Code.INSUFFICIENT_FUNDS)
    world.refuses("node", Ask(1, 0, 1, True), Code.NOT_REGISTERED)
    world.do("node", Register("http://x", GIB, me, HOLD))
    world.refuses("node", Ask(1, 2, 1, True), Code.INVALID_TERMS)
    world.do("node", Register("http://y", GIB, key("cold"), HOLD))  # the payout account is named once
    world.refuses("node", Register("http://y", GIB, key("thief"), HOLD), Code.PAYOUT_FIXED)
    record = world.app.provider(me)
    assert record is not None
    assert (record.endpoint, record.payout, record.stake) == ("http://y", key("cold"), 2 * HOLD)
