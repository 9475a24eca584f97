"""Fan-out: everyone gets everything in order, and whoever is too slow is dropped and told."""

from __future__ import annotations

import pytest

from ledger.engine.errors import SubscriberTooSlow, TooManySubscribers
from ledger.engine.fanout import Fanout


async def test_every_subscriber_gets_every_item_in_order() -> None:
    fanout: Fanout[int] = Fanout()
    first, second = fanout.subscribe(), fanout.subscribe()
    for item in range(5):
        fanout.publish(item)
    fanout.close()
    for subscription in (first, second):
        assert [await subscription.next() for _ in range(7)] == [0, 1, 2, 3, 4, None, None]


async def test_a_slow_subscriber_is_dropped_and_told_and_others_are_not() -> None:
    fanout: Fanout[int] = Fanout(queue_length=3)
    slow, quick = fanout.subscribe(), fanout.subscribe()
    got = []
    for item in range(6):
        fanout.publish(item)
        got.append(await quick.next())
    assert got == list(range(6))
    assert (len(fanout), slow.dropped, quick.dropped) == (1, True, False)
    assert [await slow.next() for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(SubscriberTooSlow, match="more than 3 blocks behind"):
            await slow.next()


async def test_subscribers_are_bounded_and_may_leave() -> None:
    fanout: Fanout[int] = Fanout(max_subscribers=1)
    first = fanout.subscribe()
    with pytest.raises(TooManySubscribers):
        fanout.subscribe()
    first.close()
    first.close()
    fanout.subscribe()
    assert len(fanout) == 1
