"""Rows that lists are answered from: which deals a client, provider or content has, which datasets.

They follow from the state, are changed with it and are no part of the app hash. A row is empty; its key says

    kind ‖ u8 length ‖ value ‖ status ‖ ID

so that the IDs under one value, and one status, stand together in order. A deal's status is 1 while it is
open; datasets have 0 throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from heapq import merge

from ledger import keys
from ledger.records import DatasetRecord, DealRecord, DealStatus
from ledger.store import Changes, Rows

ENDED, OPEN = b"\x00", b"\x01"


class Kind(Enum):
    """What is listed by what."""

    DEAL = b"d"  # all deals; the value is empty
    DEAL_CLIENT = b"c"
    DEAL_PROVIDER = b"p"  # who holds, is offered or is handed a shard
    DEAL_CONTENT = b"r"  # the content root's multihash
    DATASET_CLIENT = b"C"
    DATASET_PROVIDER = b"P"


@dataclass(frozen=True, slots=True)
class Label:
    """One list: those of a kind with a value."""

    kind: Kind
    value: bytes = b""

    def prefix(self, status: bytes) -> bytes:
        """What the keys of its rows begin with."""
        return self.kind.value + bytes([len(self.value)]) + self.value + status


def of_deal(record: DealRecord) -> dict[Kind, frozenset[bytes]]:
    """The values under which a deal is listed."""
    return {
        Kind.DEAL: frozenset({b""}),
        Kind.DEAL_CLIENT: frozenset({record.client}),
        Kind.DEAL_PROVIDER: frozenset(party for party in record.parties if party),
        Kind.DEAL_CONTENT: frozenset({record.content.multihash}),
    }


def status_of(record: DealRecord) -> bytes:
    """Under which status a deal is listed."""
    return OPEN if record.status is DealStatus.OPEN else ENDED


def _rows(key: bytes, raw: bytes | None) -> set[bytes]:
    """The rows that a key of the state, with this value, gives rise to."""
    if raw is None:
        return set()
    if key.startswith(keys.DEAL):
        deal = DealRecord.decode(raw)
        status, found, subject = status_of(deal), of_deal(deal), key[len(keys.DEAL) :]
        return {
            Label(kind, value).prefix(status) + subject for kind, values in found.items() for value in values
        }
    record, subject = DatasetRecord.decode(raw), key[len(keys.DATASET) :]
    return {
        Label(Kind.DATASET_CLIENT, record.client).prefix(ENDED) + subject,
        Label(Kind.DATASET_PROVIDER, record.provider).prefix(ENDED) + subject,
    }


def changes(state: Changes, old: Callable[[bytes], bytes | None]) -> dict[bytes, bytes | None]:
    """The rows that change with these keys of the state; `old` reads their values so far."""
    found: dict[bytes, bytes | None] = {}
    for key, raw in state.items():
        if not key.startswith((keys.DEAL, keys.DATASET)):
            continue
        before, after = _rows(key, old(key)), _rows(key, raw)
        found.update(dict.fromkeys(before - after))
        found.update(dict.fromkeys(after - before, b""))
    return found


def find(rows: Rows, label: Label, statuses: tuple[bytes, ...], after: bytes = b"") -> Iterator[bytes]:
    """The IDs in a list that have one of the statuses and come after `after`, in order."""
    return merge(*(_find(rows, label.prefix(status), after) for status in statuses))


def _find(rows: Rows, prefix: bytes, after: bytes) -> Iterator[bytes]:
    for key in rows.scan(prefix + after):
        if not key.startswith(prefix):
            return
        if key != prefix + after:
            yield key[len(prefix) :]
