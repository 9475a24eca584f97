"""The pure core of a provider's duties: events of blocks in, actions out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger.events import Attribute, Event
from merkledag.cid import CID
from storage_node.duties import (
    Action,
    Duties,
    Prove,
    Receive,
    Release,
    Repair,
    Settle,
    ShardKey,
    Window,
    Withdraw,
)

ME, OTHER = b"\x01" * 32, b"\x02" * 32
DEAL = CID.of(b"deal")
DATASET = b"\x0d" * 32
KEY = ShardKey(DEAL, 3)


def event(kind: str, **attributes: Attribute) -> Event:
    return Event(kind, attributes)


def assigned(provider: bytes = ME, *, repair: bool = False, key: ShardKey = KEY) -> Event:
    return event(
        "shard_assigned", deal=key.deal, shard=key.shard, provider=provider, repair=repair, expires_at=9
    )


def accepted(provider: bytes = ME, key: ShardKey = KEY) -> Event:
    return event("shard_accepted", deal=key.deal, shard=key.shard, provider=provider, dataset=DATASET)


def opened(period: int, provider: bytes = ME) -> Event:
    return event(
        "window_opened",
        dataset=DATASET,
        provider=provider,
        period=period,
        seed=b"s" * 32,
        closes_at=period * 10,
    )


def about(kind: str, period: int = 1, provider: bytes = ME) -> Event:
    return event(kind, dataset=DATASET, provider=provider, period=period)


def holding() -> Duties:
    duties = Duties(ME)
    duties.on_events([assigned(), accepted()])
    return duties


def test_an_offer_waits_for_its_client_and_a_repair_is_rebuilt() -> None:
    duties = Duties(ME)
    other = ShardKey(DEAL, 4)
    assert duties.on_events([assigned(), assigned(repair=True, key=other)]) == [Receive(KEY), Repair(other)]
    assert duties.offered == {KEY, other}
    assert duties.on_events([accepted()]) == []
    assert duties.held == {KEY: DATASET}
    assert duties.offered == {other}


def test_what_concerns_others_is_none_of_ours() -> None:
    duties = Duties(ME)
    events = [assigned(OTHER), accepted(OTHER), opened(1, OTHER), about("proof_accepted", provider=OTHER)]
    assert duties.on_events(events) == []
    assert duties == Duties(ME)


def test_an_offer_that_passes_to_another_is_withdrawn_once() -> None:
    duties = Duties(ME)
    duties.on_events([assigned()])
    expired = event("offer_expired", deal=DEAL, shard=3, provider=ME)
    assert duties.on_events([expired, assigned(OTHER)]) == [Withdraw(KEY)]


def test_a_window_is_owed_until_it_is_proven_faulted_void_or_superseded() -> None:
    for over in ("proof_accepted", "fault", "period_void"):
        duties = holding()
        first = Window(DATASET, 1, 10)
        assert duties.on_events([opened(1)]) == [Prove(first)]
        assert duties.owes(first)
        duties.on_events([about(over)])
        assert not duties.owes(first)
    duties = holding()
    duties.on_events([opened(1)])
    assert duties.on_events([opened(2)]) == [Prove(Window(DATASET, 2, 20))]
    assert not duties.owes(Window(DATASET, 1, 10))


def test_pay_is_collected_every_few_proven_periods() -> None:
    duties = holding()
    duties.settle_every = 3
    actions: list[Action] = []
    for period in range(1, 8):
        actions += duties.on_events([opened(period), about("proof_accepted", period)])
    assert [action for action in actions if isinstance(action, Settle)] == [Settle(KEY), Settle(KEY)]


def test_a_shard_that_left_its_dataset_is_released_once() -> None:
    closed = event("shard_closed", deal=DEAL, shard=3, status="ended", refund=0)
    terminated = event("shard_terminated", deal=DEAL, shard=3, provider=ME, forfeited=1, reward=1)
    for gone in (closed, terminated):
        duties = holding()
        assert duties.on_events([gone, gone]) == [Release(KEY)]
        assert duties.held == {}


def test_an_offer_of_a_shard_that_is_closed_is_withdrawn() -> None:
    duties = Duties(ME)
    closed = event("shard_closed", deal=DEAL, shard=3, status="refunded", refund=5)
    assert duties.on_events([assigned(), closed]) == [Receive(KEY), Withdraw(KEY)]


def test_a_restart_finds_the_same_duties_and_repeats_nothing() -> None:
    duties = Duties(ME)
    window = Window(DATASET, 5, 50)
    assert duties.load_offer(KEY, repair=False) == [Receive(KEY)]
    assert duties.load_offer(KEY, repair=False) == []
    duties.load_held(KEY, DATASET)
    assert duties.load_offer(KEY, repair=True) == []
    assert duties.load_window(window) == [Prove(window)]
    assert duties.load_window(window) == []


EVENTS = st.sampled_from(
    [
        assigned(),
        assigned(OTHER),
        assigned(repair=True),
        accepted(),
        opened(1),
        opened(2),
        about("proof_accepted"),
        about("fault"),
        event("offer_expired", deal=DEAL, shard=3, provider=ME),
        event("shard_closed", deal=DEAL, shard=3, status="ended", refund=0),
        event("unheard_of", x=1),
    ]
)


@given(st.lists(EVENTS, max_size=30))
def test_in_any_order_a_shard_is_in_one_place_and_windows_are_never_two(events: list[Event]) -> None:
    duties = Duties(ME)
    for one in events:
        duties.on_events([one])
        assert not duties.offered & duties.held.keys()
        assert len(duties.windows) <= 1
