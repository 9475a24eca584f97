"""What a provider owes the ledger, as a pure core: block events in, actions out.

Life of a shard at one node::

    (none) --assigned--> OFFERED --accepted--> HELD --closed, terminated, given up, handed over--> (none)
                            |
                            +--expired, assigned to another, or no longer to be handed over--> (none)

The ledger takes shards away only between two periods, so a shard that is gone is never challenged again. A
window, once opened, is answered until it is proven, faulted, void, or followed by the next; a spot challenge
until it is answered, missed or void. A shard that is being handed over stays with whoever has it, piece and
duties, until the ledger says that it passed on.
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


class Spot(NamedTuple):
    """A spot challenge of one shard: the seed of its leaves, and the last second for an answer."""

    key: ShardKey
    seed: bytes
    closes_at: int


@dataclass(frozen=True, slots=True)
class Receive:
    """A client will upload this shard; accept it at once if all of it is here."""

    key: ShardKey


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get this shard from the network, from its holder or rebuilt from the others, then accept it."""

    key: ShardKey


@dataclass(frozen=True, slots=True)
class Prove:
    """Answer this window."""

    window: Window


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer this spot challenge."""

    spot: Spot


@dataclass(frozen=True, slots=True)
class Inspect:
    """Something was not proven: see whether the next period of this dataset can be."""

    dataset: bytes


@dataclass(frozen=True, slots=True)
class Settle:
    """Collect the pay for this shard's proven periods."""

    key: ShardKey


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The offer is gone: stop receiving or fetching, and free what came so far."""

    key: ShardKey


@dataclass(frozen=True, slots=True)
class Release:
    """The shard has left its dataset: its piece need not be kept any more."""

    key: ShardKey


@dataclass(frozen=True, slots=True)
class Reconsider:
    """The pieces of this dataset are others now: some may be such as this node gives up."""

    dataset: bytes


Action = Receive | Fetch | Prove | Answer | Inspect | Settle | Withdraw | Release | Reconsider


@dataclass(slots=True)
class Duties:
    """What one provider has been offered, holds and owes. ``me`` is its account."""

    me: bytes
    settle_every: int = SETTLE_EVERY_PERIODS
    offered: set[ShardKey] = field(default_factory=set)
    held: dict[ShardKey, bytes] = field(default_factory=dict)
    windows: dict[bytes, Window] = field(default_factory=dict)
    spots: dict[ShardKey, Spot] = field(default_factory=dict)
    proven: dict[bytes, int] = field(default_factory=dict)

    def owes_answer(self, spot: Spot) -> bool:
        """Whether the spot challenge still waits for an answer, as far as the events seen tell."""
        return self.spots.get(spot.key) == spot

    def owes(self, window: Window) -> bool:
        """Whether the window still waits for a proof, as far as the events seen tell."""
        return self.windows.get(window.dataset) == window

    def load_offer(self, key: ShardKey, *, uploaded: bool) -> list[Action]:
        """An offer found on the ledger at start; ``uploaded``: by the deal's client, for the first time."""
        if key in self.offered or key in self.held:
            return []
        self.offered.add(key)
        return [Receive(key) if uploaded else Fetch(key)]

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

    def load_spot(self, spot: Spot) -> list[Action]:
        """An open spot challenge found on the ledger at start."""
        if self.owes_answer(spot):
            return []
        self.spots[spot.key] = spot
        return [Answer(spot)]

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
            return self.load_offer(key, uploaded=not event["repair"] and not event["handover"])
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

    def _fault(self, event: Attributes) -> list[Action]:
        self._window_over(event)
        return [Inspect(_dataset(event))] if event["provider"] == self.me else []

    def _dataset_changed(self, event: Attributes) -> list[Action]:
        return [Reconsider(_dataset(event))] if event["provider"] == self.me else []

    def _spot_opened(self, event: Attributes) -> list[Action]:
        if event["provider"] != self.me:
            return []
        seed = event["seed"]
        if not isinstance(seed, bytes):
            raise PeerMisbehaved("the ledger sent an event whose seed is not bytes")
        return self.load_spot(Spot(_key(event), seed, _int(event, "closes_at")))

    def _spot_over(self, event: Attributes) -> list[Action]:
        self.spots.pop(_key(event), None)
        return []

    def _closed(self, event: Attributes) -> list[Action]:
        key = _key(event)
        self.spots.pop(key, None)
        dataset = self.held.pop(key, None)
        if dataset is None:
            return self._withdraw(key)
        if dataset not in self.held.values():
            self.proven.pop(dataset, None)
        return [Release(key)]

    def _lost(self, event: Attributes) -> list[Action]:
        """Its provider has lost a shard or given it up; if it was on offer to us, that offer is gone too."""
        return self._closed(event) if event["provider"] == self.me else self._withdraw(_key(event))

    def _handover_failed(self, event: Attributes) -> list[Action]:
        return self._withdraw(_key(event))

    def _handed_over(self, event: Attributes) -> list[Action]:
        return self._closed(event) if event["from"] == self.me else []


Attributes = Mapping[str, Attribute]

_HANDLERS: dict[str, Callable[[Duties, Attributes], list[Action]]] = {
    "shard_assigned": Duties._assigned,
    "offer_expired": Duties._offer_expired,
    "shard_accepted": Duties._accepted,
    "window_opened": Duties._window_opened,
    "proof_accepted": Duties._proof_accepted,
    "period_void": Duties._window_over,
    "fault": Duties._fault,
    "dataset_changed": Duties._dataset_changed,
    "spot_opened": Duties._spot_opened,
    "spot_answered": Duties._spot_over,
    "spot_missed": Duties._spot_over,
    "spot_void": Duties._spot_over,
    "shard_closed": Duties._closed,
    "shard_terminated": Duties._lost,
    "shard_given_up": Duties._lost,
    "handover_failed": Duties._handover_failed,
    "shard_handed_over": Duties._handed_over,
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
