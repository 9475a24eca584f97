"""Who was asked for a block, and what came of it: what people are told when it cannot be had."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from storage_node.errors import EndpointRefused, PeerMisbehaved, PeerUnreachable

MAX_NOTES = 16
MAX_TRAILS = 256

HAS_NOT = "does not have it"
SLOW = "has not answered yet"
BUSY = "wants to be asked later"
UNREACHABLE = "did not answer"
MISBEHAVED = "sent something else"
REFUSED = "is at an address that is not asked"
NAMES_NOBODY = "names nobody who has it"
CLEAR = frozenset({HAS_NOT, NAMES_NOBODY})


@dataclass(frozen=True, slots=True)
class Asked:
    """One who was asked: a node's endpoint as the ledger shows it, the outcome, and how long it took."""

    name: str
    outcome: str
    seconds: float


class Trail:
    """The notes of one fetch, MAX_NOTES at most. `unsure`: somebody who may have the block gave no answer."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds, from anywhere."""
        self._clock = clock
        self._under_way: dict[str, float] = {}
        self._remarks: dict[str, str] = {}
        self._ended: list[Asked] = []
        self.unsure = False

    def begins(self, name: str) -> None:
        """Somebody is asked."""
        self._under_way[name] = self._clock()

    def remarks(self, name: str, remark: str) -> None:
        """What there is to say of somebody who has not given an answer yet."""
        self._remarks[name] = remark

    def ends(self, name: str, outcome: str, *, counts: bool = True) -> None:
        """What came of it. If that says nothing about the block, the search is unsure where it `counts`."""
        self.unsure = self.unsure or (counts and outcome not in CLEAR)
        began_s = self._under_way.pop(name, None)
        if began_s is not None and len(self._ended) < MAX_NOTES:
            self._ended.append(Asked(name, outcome, self._clock() - began_s))

    def notes(self) -> tuple[Asked, ...]:
        """What is known by now; those who have not answered come last."""
        now_s = self._clock()
        waiting = [
            Asked(name, self._remarks.get(name, SLOW), now_s - began_s)
            for name, began_s in self._under_way.items()
        ]
        return (*self._ended, *waiting)[:MAX_NOTES]


class Trails:
    """The trails of the fetches under way and of the last ones, by multihash."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._trails: OrderedDict[bytes, Trail] = OrderedDict()

    def begin(self, multihash: bytes) -> Trail:
        """A new trail; the one before it is forgotten."""
        trail = self._trails[multihash] = Trail(self._clock)
        self._trails.move_to_end(multihash)
        while len(self._trails) > MAX_TRAILS:
            self._trails.popitem(last=False)
        return trail

    def forget(self, multihash: bytes) -> None:
        """The block came."""
        self._trails.pop(multihash, None)

    def notes(self, multihash: bytes) -> tuple[Asked, ...]:
        """Who has been asked; nobody where nothing is known."""
        trail = self._trails.get(multihash)
        return trail.notes() if trail is not None else ()


def outcome_of(error: Exception) -> str:
    """A peer's failure in words."""
    if isinstance(error, PeerMisbehaved):
        return MISBEHAVED
    if isinstance(error, EndpointRefused):
        return REFUSED
    assert isinstance(error, PeerUnreachable)
    return UNREACHABLE
