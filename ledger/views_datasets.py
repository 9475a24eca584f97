"""What queries see of datasets: the times of their periods, what their windows ask for, their pieces."""

from __future__ import annotations

from dataclasses import dataclass

from ledger import index, keys, limits
from ledger.genesis import Params
from ledger.index import Kind, Label
from ledger.paging import Page, every, page_of, subjects
from ledger.records import DatasetRecord, Phase, SlotRecord
from ledger.rules_datasets import Clock
from ledger.rules_proofs import challenge_of
from ledger.state import State
from ledger.store import Rows
from merkledag.cid import CID
from proofs.challenge import Challenge


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A dataset with the times of its period. `challenge` is what its open window asks for, else None."""

    id: bytes
    record: DatasetRecord
    period_starts_at: int
    opens_at: int
    closes_at: int
    challenge: Challenge | None


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """A shard of a dataset. `slot` is None while it waits to join; the others are the tree as it stands."""

    slot: int | None
    deal: CID
    shard: int


class DatasetQueries:
    """Answers from the last committed block. A base of `Application`, which owns the state."""

    _state: State
    _index: Rows

    def terms(self, version: int) -> Params:
        """A version of the parameters: that in force when a deal or dataset was made."""
        found = self._state.committed(keys.params(version), Params)
        assert found is not None, "every version that was in force is kept"
        return found

    def dataset(self, dataset: bytes) -> DatasetInfo | None:
        """A dataset by its ID (32 bytes)."""
        record = self._state.committed(keys.dataset(dataset), DatasetRecord)
        if record is None:
            return None
        terms = self.terms(record.terms)
        clock = Clock.of(dataset, terms)
        return DatasetInfo(
            id=dataset,
            record=record,
            period_starts_at=max(0, clock.starts_at(record.period)),
            opens_at=clock.opens_at(record.period),
            closes_at=clock.closes_at(record.period),
            challenge=challenge_of(record, terms) if record.phase is Phase.OPEN else None,
        )

    def datasets(self, *, provider: bytes | None = None, client: bytes | None = None) -> list[DatasetInfo]:
        """The datasets of a provider, a client, or all."""
        return list(every(lambda after: self.datasets_page(provider, client, after)))

    def datasets_page(
        self,
        provider: bytes | None = None,
        client: bytes | None = None,
        after: bytes = b"",
        limit: int = limits.MAX_PAGE,
    ) -> Page[DatasetInfo]:
        """The datasets of a provider, a client, or all, by ID, from behind the ID `after` on."""
        if provider is not None:
            label = Label(Kind.DATASET_PROVIDER, provider)
        elif client is not None:
            label = Label(Kind.DATASET_CLIENT, client)
        else:
            return page_of(subjects(self._state, keys.DATASET, after), self.dataset, limit)

        def show(subject: bytes) -> DatasetInfo | None:
            found = self.dataset(subject)
            assert found is not None, "the index has the datasets of the state"
            return found if client in (None, found.record.client) else None

        return page_of(index.find(self._index, label, (index.ENDED,), after), show, limit)

    def dataset_slots(self, dataset: bytes) -> list[SlotInfo]:
        """The pieces of a dataset: those in its trees by slot, then those that wait to join.

        The trees change only while a period turns (event dataset_changed), so what this returns in a period
        is what the period's challenge is about.
        """
        waiting = self._state.committed_scan(keys.JOIN + dataset)
        return [
            *every(lambda after: self.slots_page(dataset, after)),
            *(self._slot(key, None) for key in waiting),
        ]

    def slots_page(self, dataset: bytes, after: bytes = b"", limit: int = limits.MAX_PAGE) -> Page[SlotInfo]:
        """The pieces in a dataset's trees by slot, from behind the slot `after` (4 bytes, big-endian) on."""
        prefix = keys.SLOT + dataset

        def show(slot: bytes) -> SlotInfo:
            return self._slot(prefix + slot, int.from_bytes(slot, "big"))

        return page_of(subjects(self._state, prefix, after), show, limit)

    def _slot(self, key: bytes, slot: int | None) -> SlotInfo:
        place = self._state.committed(key, SlotRecord)
        assert place is not None, "the key was there"
        return SlotInfo(slot, place.deal, place.shard)
