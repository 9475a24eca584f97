"""A bounded memory of what was used lately: two generations, so that forgetting costs nothing."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class RecentCache(Generic[K, V]):
    """At most two generations of `generation_items` each; what neither of them saw used is forgotten."""

    __slots__ = ("_old", "_young", "generation_items")

    def __init__(self, generation_items: int) -> None:
        self.generation_items = generation_items
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        """What is remembered at a key, None if nothing is."""
        found = self._young.get(key)
        if found is not None or not self._old:
            return found
        found = self._old.pop(key, None)
        if found is not None:
            self.put(key, found)
        return found

    def put(self, key: K, value: V) -> None:
        """Remembers a value."""
        if len(self._young) >= self.generation_items and key not in self._young:
            self._old, self._young = self._young, {}
        self._old.pop(key, None)
        self._young[key] = value

    def forget(self, key: K) -> None:
        """Remembers nothing of a key."""
        self._young.pop(key, None)
        self._old.pop(key, None)
