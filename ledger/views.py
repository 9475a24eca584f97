"""What queries see: the records of the last committed block, with what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ledger import due, keys
from ledger.genesis import Genesis, Params
from ledger.index import DealIndex
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
    TotalsRecord,
)
from ledger.rules_datasets import Clock
from ledger.rules_proofs import challenge_of
from ledger.state import State
from ledger.state_tree import StateProof, StateTree
from ledger.transactions import PieceCommitment
from merkledag.cid import CID
from merkledag.peer import peer_text
from proofs.merkle_proof import Challenge


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


class Queries:
    """Answers from the last committed block. The base of `Application`, which owns the state."""

    genesis: Genesis
    _state: State
    _tree: StateTree
    _index: DealIndex
    _chain: ChainRecord
    _params: Params
    _app_hash: bytes

    @property
    def chain_id(self) -> str:
        """The chain's name: transactions for another are refused."""
        return self.genesis.chain_id

    @property
    def params(self) -> Params:
        """The parameters in force for the next block."""
        return self._params

    @property
    def params_version(self) -> int:
        """The version that `params` are; they are numbered from 1."""
        return self._chain.params_version

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
        return self._app_hash

    @property
    def beacon(self) -> bytes:
        """The last beacon value, 32 bytes."""
        return self._chain.beacon

    def next_due(self) -> int | None:
        """Ledger time of the next due item; the present time if work waits already; None if there is none."""
        if next(self._state.scan(keys.DRAW, committed=True), None) is not None:
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
        found = self._state.scan(keys.PROVIDER, committed=True)
        return [record for key in found if (record := self._state.committed(key, ProviderRecord)) is not None]

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
        """The deals that meet every condition given. `provider`: who holds, or is offered, a shard."""
        found = [self.deal(deal) for deal in self._index.find(client, provider, content, active)]
        return [info for info in found if info is not None]

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
        found = []
        for key in self._state.scan(keys.DATASET, committed=True):
            info = self.dataset(key[len(keys.DATASET) :])
            if info is None or provider not in (None, info.record.provider):
                continue
            if client in (None, info.record.client):
                found.append(info)
        return found

    def dataset_slots(self, dataset: bytes) -> list[SlotInfo]:
        """The pieces of a dataset: those in its trees by slot, then those that wait to join.

        The trees change only while a period turns (event dataset_changed), so what this returns in a period
        is what the period's challenge is about.
        """
        joined = self._state.scan(keys.SLOT + dataset, committed=True)
        waiting = self._state.scan(keys.JOIN + dataset, committed=True)
        return [self._slot(key, int.from_bytes(key[-4:], "big")) for key in joined] + [
            self._slot(key, None) for key in waiting
        ]

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
        return self._tree.prove(key, self._state.committed_bytes(key))
