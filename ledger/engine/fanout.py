"""Hands every committed block's events to subscribers, each behind a bounded queue; slow ones are dropped."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from ledger.engine.errors import SubscriberTooSlow, TooManySubscribers

T = TypeVar("T")

QUEUE_BLOCKS = 256
MAX_SUBSCRIBERS = 256


class Subscription(Generic[T]):
    """One subscriber's queue. It ends when the fan-out closes, and raises when it was dropped."""

    def __init__(self, fanout: Fanout[T], queue_length: int) -> None:
        self._fanout = fanout
        self._items: asyncio.Queue[T | None] = asyncio.Queue(queue_length + 1)
        self._limit = queue_length
        self._ended = False
        self.dropped = False

    def offer(self, item: T) -> None:
        """Queues an item, or drops the subscriber when its queue is full. Called by the fan-out."""
        if self._items.qsize() >= self._limit:
            self.dropped = True
            self.end()
        elif not self._ended:
            self._items.put_nowait(item)

    def end(self) -> None:
        """Ends the iteration after what is queued."""
        if not self._ended:
            self._ended = True
            self._items.put_nowait(None)

    async def next(self) -> T | None:
        """The next item; None at the end. Raises SubscriberTooSlow after what a dropped one still had."""
        item = await self._items.get()
        if item is None:
            self._items.put_nowait(None)
            if self.dropped:
                raise SubscriberTooSlow(
                    f"fell more than {self._limit} blocks behind; start again from the last height"
                )
        return item

    def close(self) -> None:
        """Leaves the fan-out; harmless twice."""
        self._fanout.leave(self)


class Fanout(Generic[T]):
    """All subscribers of one source."""

    def __init__(self, queue_length: int = QUEUE_BLOCKS, max_subscribers: int = MAX_SUBSCRIBERS) -> None:
        self._queue_length = queue_length
        self._max_subscribers = max_subscribers
        self._subscriptions: list[Subscription[T]] = []

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self) -> Subscription[T]:
        """A new subscription to everything published from now on. Raises TooManySubscribers."""
        if len(self._subscriptions) >= self._max_subscribers:
            raise TooManySubscribers(
                f"{self._max_subscribers} subscribers are connected already; try again later"
            )
        subscription = Subscription(self, self._queue_length)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, item: T) -> None:
        """Offers the item to everyone; whoever is full is dropped."""
        for subscription in list(self._subscriptions):
            subscription.offer(item)
            if subscription.dropped:
                self.leave(subscription)

    def leave(self, subscription: Subscription[T]) -> None:
        """Removes a subscription; harmless twice."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def close(self) -> None:
        """Ends every subscription."""
        for subscription in self._subscriptions:
            subscription.end()
        self._subscriptions.clear()
