"""The pure core of a provider's duties: events of blocks in, actions out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger.events import Attribute, Event
from merkledag.cid import CID
from storage_node.duties import (
    Action,
    Answer,
    Duties,
    Fetch,
    Inspect,
    Prove,
    Receive,
    Reconsider,
    Release,
    Settle,
    ShardKey,
    Spot,
    Window,
    Withdraw,
)

ME, OTHER = b"\x01" * 32, b"\x02" * 32
DEAL = CID.of(b"deal")
DATASET = b"\x0d" * 32
KEY = ShardKey(DEAL, 3)


def event(kind: str, **attributes: Attribute) -> Event:
    return Event(kind, attributes)


def assigned(
    provider: bytes = ME, *, repair: bool = False, handover: bool = False, key: ShardKey = KEY
) -> Event:
    return event(
        "shard_assigned",
        deal=key.deal,
        shard=key.shard,
        provider=provider,
        repair=repair,
        handover=handover,
        expires_at=9,
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


def handed_over(source: bytes, target: bytes) -> Event:
    return event("shard_handed_over", deal=DEAL, shard=3, **{"from": source, "to": target})


def spot(provider: bytes = ME) -> Event:
    return event(
        "spot_opened", deal=DEAL, shard=3, provider=provider, seed=b"s" * 32, closes_at=7, challenges=2
    )


def of_shard(kind: str, provider: bytes = ME) -> Event:
    return event(kind, deal=DEAL, shard=3, provider=provider)


def holding() -> Duties:
    duties = Duties(ME)
    duties.on_events([assigned(), accepted()])
    return duties


def test_an_offer_waits_for_its_client_and_a_repair_is_rebuilt() -> None:
    duties = Duties(ME)
    other = ShardKey(DEAL, 4)
    assert duties.on_events([assigned(), assigned(repair=True, key=other)]) == [Receive(KEY), Fetch(other)]
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
    assert duties.load_offer(KEY, uploaded=True) == [Receive(KEY)]
    assert duties.load_offer(KEY, uploaded=True) == []
    duties.load_held(KEY, DATASET)
    assert duties.load_offer(KEY, uploaded=False) == []
    assert duties.load_window(window) == [Prove(window)]
    assert duties.load_window(window) == []


def test_a_shard_that_is_handed_over_is_fetched_by_one_and_kept_by_the_other_until_it_has_passed_on() -> None:
    old, new = holding(), Duties(ME)
    offer = assigned(handover=True)
    assert new.on_events([offer]) == [Fetch(KEY)]
    assert old.on_events([assigned(OTHER, handover=True), accepted(OTHER)]) == []
    assert new.on_events([accepted()]) == []
    assert old.held == new.held == {KEY: DATASET}
    assert old.on_events([handed_over(ME, OTHER)]) == [Release(KEY)]
    assert new.on_events([handed_over(OTHER, ME)]) == []
    assert (old.held, new.held) == ({}, {KEY: DATASET})


def test_who_has_accepted_a_handover_keeps_the_shard_when_the_old_one_loses_it() -> None:
    duties = Duties(ME)
    lost = event("shard_terminated", deal=DEAL, shard=3, provider=OTHER, forfeited=1, reward=1)
    assert duties.on_events([assigned(handover=True), accepted(), lost, handed_over(OTHER, ME)]) == [
        Fetch(KEY)
    ]
    assert duties.held == {KEY: DATASET}


def test_an_offer_to_take_over_is_withdrawn_when_the_handover_ends() -> None:
    for over in (
        of_shard("handover_failed", OTHER),
        event("shard_terminated", deal=DEAL, shard=3, provider=OTHER, forfeited=1, reward=1),
        of_shard("shard_given_up", OTHER),
        event("shard_closed", deal=DEAL, shard=3, status="ended", refund=0),
    ):
        duties = Duties(ME)
        assert duties.on_events([assigned(handover=True), over]) == [Fetch(KEY), Withdraw(KEY)]
        assert duties == Duties(ME)
    # The provider that wanted to leave goes on.
    duties = holding()
    assert duties.on_events([of_shard("handover_failed")]) == []
    assert duties.held == {KEY: DATASET}


def test_a_shard_that_was_given_up_is_released() -> None:
    assert holding().on_events([of_shard("shard_given_up")]) == [Release(KEY)]


def test_a_spot_challenge_is_owed_until_it_is_answered_missed_void_or_the_shard_is_gone() -> None:
    asked = Spot(KEY, b"s" * 32, 7)
    for over in ("spot_answered", "spot_missed", "spot_void", "shard_given_up"):
        duties = holding()
        assert duties.on_events([spot()]) == [Answer(asked)]
        assert duties.owes_answer(asked)
        assert duties.load_spot(asked) == []
        duties.on_events([of_shard(over)])
        assert not duties.owes_answer(asked)
    assert Duties(ME).on_events([spot(OTHER)]) == []


def test_after_a_fault_and_when_its_pieces_changed_a_dataset_is_looked_at() -> None:
    duties = holding()
    changed = event("dataset_changed", dataset=DATASET, provider=ME, period=2, pieces=1)
    assert duties.on_events([about("fault"), changed]) == [Inspect(DATASET), Reconsider(DATASET)]
    assert duties.on_events([about("fault", provider=OTHER)]) == []


EVENTS = st.sampled_from(
    [
        assigned(),
        assigned(OTHER),
        assigned(repair=True),
        assigned(handover=True),
        handed_over(ME, OTHER),
        of_shard("handover_failed"),
        of_shard("shard_given_up"),
        spot(),
        of_shard("spot_missed"),
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
        assert len(duties.spots) <= 1
