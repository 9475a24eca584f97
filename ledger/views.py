"""What queries see: the records of the last committed block, with what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ledger import due, index, keys, limits
from ledger.genesis import Genesis, Params
from ledger.index import Kind, Label
from ledger.records import (
    AccountRecord,
    ChainRecord,
    DatasetRecord,
    DealRecord,
    DealStatus,
    Phase,
    ProviderRecord,
    ShardRecord,
    SlotRecord,
    SpotRecord,
    TotalsRecord,
)
from ledger.rules_datasets import Clock
from ledger.rules_proofs import challenge_of
from ledger.state import State
from ledger.state_tree import StateProof, StateTree
from ledger.store import Rows
from ledger.transactions import PieceCommitment
from merkledag.cid import CID
from merkledag.peer import peer_text
from proofs.merkle_proof import Challenge

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, in order. `next` is the cursor (`after`) of the following page, None at the end.

    A page looks at a bounded number of rows: with several conditions it may be short, even empty, and `next`
    still tell where to go on.
    """

    items: tuple[T, ...]
    next: bytes | None


def _page(subjects: Iterable[bytes], show: Callable[[bytes], T | None], limit: int) -> Page[T]:
    """The first `limit` of the subjects that `show` shows."""
    items: list[T] = []
    last = None
    for examined, subject in enumerate(subjects):
        if len(items) >= limit or examined >= limits.MAX_ROWS_PER_PAGE:
            return Page(tuple(items), last)
        last = subject
        item = show(subject)
        if item is not None:
            items.append(item)
    return Page(tuple(items), None)


def _all(page: Callable[[bytes], Page[T]]) -> Iterator[T]:
    """What is on all pages."""
    after: bytes | None = b""
    while after is not None:
        found = page(after)
        yield from found.items
        after = found.next


@dataclass(frozen=True, slots=True)
class DealInfo:
    """A deal with its shards, in order."""

    id: CID
    record: DealRecord
    shards: tuple[ShardRecord, ...]

    @property
    def is_active(self) -> bool:
        """Whether any shard is still open."""
        return self.record.status is DealStatus.OPEN

    def to_json(self) -> dict[str, Any]:
        """The record's fields, "id" and "shards"."""
        shards = [{"shard": index, **shard.to_json()} for index, shard in enumerate(self.shards)]
        return {"id": str(self.id), **self.record.to_json(), "shards": shards}


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A dataset with the times of its period. `challenge` is what its open window asks for, else None."""

    id: bytes
    record: DatasetRecord
    period_starts_at: int
    opens_at: int
    closes_at: int
    challenge: Challenge | None

    def to_json(self) -> dict[str, Any]:
        """The record's fields, "id", the three times and `meta_challenges` of the challenge."""
        return {
            "id": self.id.hex(),
            **self.record.to_json(),
            "period_starts_at": self.period_starts_at,
            "opens_at": self.opens_at,
            "closes_at": self.closes_at,
            "meta_challenges": None if self.challenge is None else self.challenge.meta_k,
        }


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """A piece of a dataset. `slot` is None while it waits to join; the others are the tree as it stands."""

    slot: int | None
    deal: CID
    shard: int
    content: CID
    manifest: CID
    piece: PieceCommitment
    first: int
    last: int

    def to_json(self) -> dict[str, Any]:
        """Every field; CIDs as text."""
        return {
            "slot": self.slot,
            "deal": str(self.deal),
            "shard": self.shard,
            "content": str(self.content),
            "manifest": str(self.manifest),
            "piece": self.piece.to_json(),
            "first": self.first,
            "last": self.last,
        }


@dataclass(frozen=True, slots=True)
class SpotInfo:
    """The open spot challenge of a shard."""

    deal: CID
    shard: int
    record: SpotRecord


class Queries:
    """Answers from the last committed block. The base of `Application`, which owns the state."""

    genesis: Genesis
    _state: State
    _tree: StateTree
    _index: Rows
    _chain: ChainRecord
    _params: Params

    @property
    def chain_id(self) -> str:
        """The chain's name: transactions for another are refused."""
        return self.genesis.chain_id

    @property
    def params(self) -> Params:
        """The parameters in force for the next block."""
        return self._params

    def terms(self, version: int) -> Params:
        """A version of the parameters: that in force when a deal or dataset was made."""
        found = self._state.committed(keys.params(version), Params)
        assert found is not None, "every version that was in force is kept"
        return found

    @property
    def height(self) -> int:
        """The last committed block's height; 0 before the first."""
        return self._chain.height

    @property
    def time(self) -> int:
        """Ledger time of the last committed block, seconds (genesis time before the first)."""
        return self._chain.time

    @property
    def block_time_s(self) -> int:
        """The last block's own time; ledger time moves by what the next one's is later, up to max_step_s."""
        return self._chain.block_time_s

    @property
    def app_hash(self) -> bytes:
        """The root of the state, 32 bytes."""
        return self._tree.root

    @property
    def beacon(self) -> bytes:
        """The last beacon value, 32 bytes."""
        return self._chain.beacon

    def next_due(self) -> int | None:
        """Ledger time of the next due item; the present time if work waits already; None if there is none."""
        if next(self._state.committed_scan(keys.DRAW), None) is not None:
            return self.time
        at = due.next_time(self._state)
        return None if at is None else max(at, self.time)

    def has_live_deals(self) -> bool:
        """Whether any deal is open: then blocks must come at least every `max_step_s`."""
        return self._chain.open_deals > 0

    def account(self, account: bytes) -> AccountRecord:
        """An account; one that was never used has nothing."""
        return self._state.committed(keys.account(account), AccountRecord) or AccountRecord()

    def provider(self, account: bytes) -> ProviderRecord | None:
        """A provider, if registered."""
        return self._state.committed(keys.provider(account), ProviderRecord)

    def providers(self) -> list[ProviderRecord]:
        """Every provider, by account."""
        return list(_all(self.providers_page))

    def providers_page(self, after: bytes = b"", limit: int = limits.MAX_PAGE) -> Page[ProviderRecord]:
        """The providers whose accounts come after `after`, by account."""
        return _page(self._subjects(keys.PROVIDER, after), self.provider, limit)

    def _subjects(self, prefix: bytes, after: bytes) -> Iterator[bytes]:
        """What follows the prefix in the keys that have it, from behind `after` on."""
        start = prefix + after + b"\x00" if after else prefix
        return (key[len(prefix) :] for key in self._state.committed_scan(prefix, start))

    def deal(self, deal: CID) -> DealInfo | None:
        """A deal; those that ended are kept for `retention_periods`."""
        record = self._state.committed(keys.deal(deal), DealRecord)
        return None if record is None else DealInfo(deal, record, self._shards(deal, record))

    def _shards(self, deal: CID, record: DealRecord) -> tuple[ShardRecord, ...]:
        found = [self._state.committed(keys.shard(deal, i), ShardRecord) for i in range(len(record.holders))]
        return tuple(shard for shard in found if shard is not None)

    def deals(
        self,
        *,
        client: bytes | None = None,
        provider: bytes | None = None,
        content: CID | None = None,
        active: bool | None = None,
    ) -> list[DealInfo]:
        """The deals that meet every condition given, by ID."""
        return list(_all(lambda after: self.deals_page(client, provider, content, active, after)))

    def deals_page(
        self,
        client: bytes | None = None,
        provider: bytes | None = None,
        content: CID | None = None,
        active: bool | None = None,
        after: bytes = b"",
        limit: int = limits.MAX_PAGE,
    ) -> Page[DealInfo]:
        """The deals that meet every condition given, by ID, from behind the ID `after` (its bytes) on.

        `provider`: who holds, or is offered, a shard.
        """
        wanted = [
            Label(kind, value)
            for kind, value in (
                (Kind.DEAL_CONTENT, None if content is None else content.multihash),
                (Kind.DEAL_CLIENT, client),
                (Kind.DEAL_PROVIDER, provider),
            )
            if value is not None
        ] or [Label(Kind.DEAL)]
        statuses = (index.ENDED, index.OPEN) if active is None else (index.OPEN if active else index.ENDED,)

        def show(subject: bytes) -> DealInfo | None:
            found = self.deal(CID.decode(subject))
            assert found is not None, "the index has the deals of the state"
            listed = index.of_deal(found.record)
            return found if all(label.value in listed[label.kind] for label in wanted[1:]) else None

        return _page(index.find(self._index, wanted[0], statuses, after), show, limit)

    def spot(self, deal: CID, index: int) -> SpotRecord | None:
        """The open spot challenge of a shard, if there is one; its seed is b"" until the next block."""
        return self._state.committed(keys.spot(deal, index), SpotRecord)

    def spots(self, provider: bytes | None = None) -> list[SpotInfo]:
        """The open spot challenges, or a provider's, by deal and shard."""
        return list(_all(lambda after: self.spots_page(provider, after)))

    def spots_page(
        self, provider: bytes | None = None, after: bytes = b"", limit: int = limits.MAX_PAGE
    ) -> Page[SpotInfo]:
        """The open spot challenges, or a provider's, from behind the cursor `after` on."""

        def show(subject: bytes) -> SpotInfo | None:
            deal, index = due.read_shard_subject(subject)
            record = self.spot(deal, index)
            assert record is not None, "the key was there"
            return SpotInfo(deal, index, record) if provider in (None, record.provider) else None

        return _page(self._subjects(keys.SPOT, after), show, limit)

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
        return list(_all(lambda after: self.datasets_page(provider, client, after)))

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
            return _page(self._subjects(keys.DATASET, after), self.dataset, limit)

        def show(subject: bytes) -> DatasetInfo | None:
            found = self.dataset(subject)
            assert found is not None, "the index has the datasets of the state"
            return found if client in (None, found.record.client) else None

        return _page(index.find(self._index, label, (index.ENDED,), after), show, limit)

    def dataset_slots(self, dataset: bytes) -> list[SlotInfo]:
        """The pieces of a dataset: those in its trees by slot, then those that wait to join.

        The trees change only while a period turns (event dataset_changed), so what this returns in a period
        is what the period's challenge is about.
        """
        waiting = self._state.committed_scan(keys.JOIN + dataset)
        return [
            *_all(lambda after: self.slots_page(dataset, after)),
            *(self._slot(key, None) for key in waiting),
        ]

    def slots_page(self, dataset: bytes, after: bytes = b"", limit: int = limits.MAX_PAGE) -> Page[SlotInfo]:
        """The pieces in a dataset's trees by slot, from behind the slot `after` (4 bytes, big-endian) on."""
        prefix = keys.SLOT + dataset

        def show(slot: bytes) -> SlotInfo:
            return self._slot(prefix + slot, int.from_bytes(slot, "big"))

        return _page(self._subjects(prefix, after), show, limit)

    def _slot(self, key: bytes, slot: int | None) -> SlotInfo:
        place = self._state.committed(key, SlotRecord)
        assert place is not None
        deal = self._state.committed(keys.deal(place.deal), DealRecord)
        shard = self._state.committed(keys.shard(place.deal, place.shard), ShardRecord)
        assert deal is not None, "a slot's deal is there"
        assert shard is not None, "a slot's shard is there"
        return SlotInfo(
            slot=slot,
            deal=place.deal,
            shard=place.shard,
            content=deal.content,
            manifest=deal.manifest,
            piece=shard.piece,
            first=shard.first,
            last=shard.last,
        )

    def totals(self) -> TotalsRecord:
        """All money by where it is."""
        found = self._state.committed(keys.TOTALS, TotalsRecord)
        assert found is not None, "every state has totals"
        return found

    def status(self, engine: str = "embedded") -> dict[str, Any]:
        """The document of `holdfast ledger status --json`; amounts in base units."""
        return {
            "chain_id": self.chain_id,
            "engine": engine,
            "height": self.height,
            "time": self.time,
            "app_hash": self.app_hash.hex(),
            **self.totals().to_json(),
            "operator": peer_text(self.genesis.operator),
            "block_time": self.block_time_s,
            "beacon": self.beacon.hex(),
            "open_deals": self._chain.open_deals,
            "next_due": self.next_due(),
        }

    def prove(self, key: bytes) -> StateProof:
        """That the state of `app_hash` holds what it holds at `key`, or nothing; see `state_tree.verify`."""
        return self._tree.prove(key, self._state.committed_bytes)
