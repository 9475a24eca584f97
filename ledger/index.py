"""Which deals a client, a provider or a content root has: derived from the state, for queries only."""

from __future__ import annotations

from collections.abc import Iterable

from ledger import keys
from ledger.records import DealRecord, DealStatus
from merkledag.cid import CID

_START = len(keys.DEAL)


class DealIndex:
    """Deals by client, provider, content and status, each in the order in which they were first seen."""

    def __init__(self, items: Iterable[tuple[bytes, DealRecord]] = ()) -> None:
        self._sets: dict[tuple[str, bytes], dict[bytes, None]] = {}
        self._known: dict[bytes, DealRecord] = {}
        for key, record in items:
            self.update(key, record)

    def update(self, key: bytes, record: DealRecord | None) -> None:
        """The deal at a key of the state is now this one, or gone."""
        known = self._known.pop(key, None)
        old = _labels(known) if known is not None else set()
        new = _labels(record) if record is not None else set()
        for label in old - new:
            members = self._sets[label]
            del members[key]
            if not members:
                del self._sets[label]
        for label in sorted(new - old):
            self._sets.setdefault(label, {})[key] = None
        if record is not None:
            self._known[key] = record

    def find(
        self,
        client: bytes | None = None,
        provider: bytes | None = None,
        content: CID | None = None,
        active: bool | None = None,
    ) -> list[CID]:
        """The deals that meet every condition given."""
        wanted: list[tuple[str, bytes]] = []
        if client is not None:
            wanted.append(("client", client))
        if provider is not None:
            wanted.append(("provider", provider))
        if content is not None:
            wanted.append(("content", content.multihash))
        if active is not None:
            wanted.append(("active", b"\x01" if active else b"\x00"))
        sets = [self._sets.get(label, {}) for label in wanted] or [dict.fromkeys(self._known)]
        smallest = min(sets, key=len)
        return [CID.decode(key[_START:]) for key in smallest if all(key in each for each in sets)]


def _labels(record: DealRecord) -> set[tuple[str, bytes]]:
    is_open = record.status is DealStatus.OPEN
    return {
        ("client", record.client),
        ("content", record.content.multihash),
        ("active", b"\x01" if is_open else b"\x00"),
        *(("provider", holder) for holder in record.holders if holder),
    }
