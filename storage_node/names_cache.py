"""What is remembered of names: answers and failures for their time, old answers for when nobody answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from storage_node.errors import NameNotFound, PeerUnreachable

MIN_CACHE_S, MAX_CACHE_S = 1, 86_400
ABSENT_TTL_S = 15  # how long it is remembered that nothing was found, or nobody answered
STALE_TTL_S = 30  # how long an old answer serves until the next attempt (RFC 8767, section 5)
MAX_STALE_S = 86_400  # how long an answer serves after its time while nobody answers (the same)
MAX_CACHED = 4_096

T = TypeVar("T")


@dataclass(slots=True)
class _Entry(Generic[T]):
    answer: T | None
    failure: NameNotFound | PeerUnreachable | None
    until_s: float
    good_until_s: float = 0.0


class NameCache(Generic[T]):
    """Answers by key until their time is over; the least recent goes first. `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()

    def get(self, key: str) -> tuple[T, float] | None:
        """The answer and how many seconds it still holds; None where somebody has to be asked.

        Raises a failure that is remembered.
        """
        entry = self._entries.get(key)
        left_s = 0.0 if entry is None else entry.until_s - self._clock()
        if entry is None or left_s <= 0:
            return None
        self._entries.move_to_end(key)
        if entry.failure is not None:
            # A copy: one that is raised again and again would drag its traceback along.
            raise type(entry.failure)(*entry.failure.args)
        assert entry.answer is not None
        return entry.answer, left_s

    def put(self, key: str, answer: T, ttl_s: float) -> None:
        """Remembers an answer for its TTL, within bounds."""
        until_s = self._clock() + min(max(ttl_s, MIN_CACHE_S), MAX_CACHE_S)
        self._keep(key, _Entry(answer, None, until_s, until_s))

    def put_failure(self, key: str, failure: NameNotFound | PeerUnreachable) -> None:
        """Remembers for a moment why there is no answer. That there is none forgets the last one."""
        self._keep(key, _Entry(None, failure, self._clock() + ABSENT_TTL_S))

    def revive(self, key: str) -> T | None:
        """The last answer, for another moment, if its time is not over for too long."""
        entry = self._entries.get(key)
        now_s = self._clock()
        if entry is None or entry.answer is None or now_s - entry.good_until_s > MAX_STALE_S:
            return None
        entry.until_s = now_s + STALE_TTL_S
        return entry.answer

    def _keep(self, key: str, entry: _Entry[T]) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > MAX_CACHED:
            self._entries.popitem(last=False)


class Changes:
    """Since when names say what they say, as far as it was seen here."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[str, int]] = OrderedDict()

    def since(self, name: str, said: str, now_s: int) -> int:
        """When `name` was first seen to say this, with nothing else in between; `now_s` if it is new."""
        known = self._known.get(name)
        if known is None or known[0] != said:
            known = self._known[name] = (said, now_s)
        self._known.move_to_end(name)
        if len(self._known) > MAX_CACHED:
            self._known.popitem(last=False)
        return known[1]
