"""What a provider owes the ledger, as a pure core: block events in, actions out.

Life of a shard at one node::

    (none) --assigned--> OFFERED --accepted--> HELD --closed or terminated--> (none)
                            |
                            +--expired, or assigned to another--> (none)

The ledger closes and terminates shards only between two periods, so a shard that is gone is never challenged
again. A window, once opened, is answered until it is proven, faulted, void, or followed by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ledger.events import Attribute, Event
from merkledag.cid import CID
from storage_node.errors import PeerMisbehaved

SETTLE_EVERY_PERIODS = 4


class ShardKey(NamedTuple):
    """One shard of one deal."""

    deal: CID
    shard: int


class Window(NamedTuple):
    """An open proving window; ``closes_at`` is ledger time in seconds."""

    dataset: bytes
    period: int
    closes_at: int


@dataclass(frozen=True, slots=True)
class Receive:
    """A client will upload this shard; accept it at once if all of it is here."""

    key: ShardKey


@dataclass(frozen=True, slots=True)
class Repair:
    """Rebuild this shard from the others of its deal, then accept it."""

    key: ShardKey


@dataclass(frozen=True, slots=True)
class Prove:
    """Answer this window."""

    window: Window


@dataclass(frozen=True, slots=True)
class Settle:
    """Collect the pay for this shard's proven periods."""

    key: ShardKey


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The offer is gone: stop receiving or repairing, and free what came so far."""

    key: ShardKey


@dataclass(frozen=True, slots=True)
class Release:
    """The shard has left its dataset: its piece need not be kept any more."""

    key: ShardKey


Action = Receive | Repair | Prove | Settle | Withdraw | Release


@dataclass(slots=True)
class Duties:
    """What one provider has been offered, holds and owes. ``me`` is its account."""

    me: bytes
    settle_every: int = SETTLE_EVERY_PERIODS
    offered: set[ShardKey] = field(default_factory=set)
    held: dict[ShardKey, bytes] = field(default_factory=dict)
    windows: dict[bytes, Window] = field(default_factory=dict)
    proven: dict[bytes, int] = field(default_factory=dict)

    def owes(self, window: Window) -> bool:
        """Whether the window still waits for a proof, as far as the events seen tell."""
        return self.windows.get(window.dataset) == window

    def load_offer(self, key: ShardKey, *, repair: bool) -> list[Action]:
        """An offer found on the ledger at start."""
        if key in self.offered or key in self.held:
            return []
        self.offered.add(key)
        return [Repair(key) if repair else Receive(key)]

    def load_held(self, key: ShardKey, dataset: bytes) -> None:
        """A shard found on the ledger at start, accepted by us."""
        self.offered.discard(key)
        self.held[key] = dataset

    def load_window(self, window: Window) -> list[Action]:
        """An open, unproven window found on the ledger at start."""
        if self.owes(window):
            return []
        self.windows[window.dataset] = window
        return [Prove(window)]

    def on_events(self, events: Iterable[Event]) -> list[Action]:
        """The actions that one block's events call for, in order."""
        actions: list[Action] = []
        for event in events:
            handler = _HANDLERS.get(event.kind)
            if handler is not None:
                actions += handler(self, event.attributes)
        return actions

    def _assigned(self, event: Attributes) -> list[Action]:
        key = _key(event)
        if event["provider"] == self.me:
            return self.load_offer(key, repair=bool(event["repair"]))
        return self._withdraw(key)

    def _offer_expired(self, event: Attributes) -> list[Action]:
        return self._withdraw(_key(event)) if event["provider"] == self.me else []

    def _withdraw(self, key: ShardKey) -> list[Action]:
        if key not in self.offered:
            return []
        self.offered.discard(key)
        return [Withdraw(key)]

    def _accepted(self, event: Attributes) -> list[Action]:
        if event["provider"] == self.me:
            self.load_held(_key(event), _dataset(event))
        return []

    def _window_opened(self, event: Attributes) -> list[Action]:
        if event["provider"] != self.me:
            return []
        return self.load_window(Window(_dataset(event), _int(event, "period"), _int(event, "closes_at")))

    def _proof_accepted(self, event: Attributes) -> list[Action]:
        if event["provider"] != self.me:
            return []
        dataset = _dataset(event)
        self.windows.pop(dataset, None)
        self.proven[dataset] = self.proven.get(dataset, 0) + 1
        if self.proven[dataset] % self.settle_every:
            return []
        return [Settle(key) for key, its in self.held.items() if its == dataset]

    def _window_over(self, event: Attributes) -> list[Action]:
        if event["provider"] == self.me:
            self.windows.pop(_dataset(event), None)
        return []

    def _closed(self, event: Attributes) -> list[Action]:
        key = _key(event)
        dataset = self.held.pop(key, None)
        if dataset is None:
            return self._withdraw(key)
        if dataset not in self.held.values():
            self.proven.pop(dataset, None)
        return [Release(key)]

    def _terminated(self, event: Attributes) -> list[Action]:
        return self._closed(event) if event["provider"] == self.me else []


Attributes = Mapping[str, Attribute]

_HANDLERS: dict[str, Callable[[Duties, Attributes], list[Action]]] = {
    "shard_assigned": Duties._assigned,
    "offer_expired": Duties._offer_expired,
    "shard_accepted": Duties._accepted,
    "window_opened": Duties._window_opened,
    "proof_accepted": Duties._proof_accepted,
    "period_void": Duties._window_over,
    "fault": Duties._window_over,
    "shard_closed": Duties._closed,
    "shard_terminated": Duties._terminated,
}


def _key(event: Attributes) -> ShardKey:
    deal = event["deal"]
    if not isinstance(deal, CID):
        raise PeerMisbehaved("the ledger sent an event whose deal is not a CID")
    return ShardKey(deal, _int(event, "shard"))


def _dataset(event: Attributes) -> bytes:
    dataset = event["dataset"]
    if not isinstance(dataset, bytes):
        raise PeerMisbehaved("the ledger sent an event whose dataset is not bytes")
    return dataset


def _int(event: Attributes, name: str) -> int:
    value = event[name]
    if not isinstance(value, int):
        raise PeerMisbehaved(f"the ledger sent an event whose {name} is not a number")
    return value
