"""What queries see of the chain: its head, accounts, providers, deals and spot challenges."""

from __future__ import annotations

from dataclasses import dataclass

from ledger import due, index, keys, limits
from ledger.genesis import Genesis, Params
from ledger.index import Kind, Label
from ledger.paging import Page, every, page_of, subjects
from ledger.records import (
    AccountRecord,
    ChainRecord,
    DealRecord,
    ProviderRecord,
    ShardRecord,
    SpotRecord,
    TotalsRecord,
)
from ledger.state_tree import StateProof, StateTree
from ledger.views_datasets import DatasetQueries
from merkledag.cid import CID


@dataclass(frozen=True, slots=True)
class DealInfo:
    """A deal with its shards, in order."""

    id: CID
    record: DealRecord
    shards: tuple[ShardRecord, ...]


@dataclass(frozen=True, slots=True)
class SpotInfo:
    """The open spot challenge of a shard."""

    deal: CID
    shard: int
    record: SpotRecord


class Queries(DatasetQueries):
    """Answers from the last committed block. A base of `Application`, which owns the state."""

    genesis: Genesis
    _tree: StateTree
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
        """Ledger time of the next due item; the present time if work waits already; None if there is none.

        What waits for a height waits for blocks: the next one is due now.
        """
        draws = next(self._state.committed_scan(keys.DRAW), None) is not None
        if draws or due.waits_for_blocks(self._state):
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
        return list(every(self.providers_page))

    def providers_page(self, after: bytes = b"", limit: int = limits.MAX_PAGE) -> Page[ProviderRecord]:
        """The providers whose accounts come after `after`, by account."""
        return page_of(subjects(self._state, keys.PROVIDER, after), self.provider, limit)

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
        return list(every(lambda after: self.deals_page(client, provider, content, active, after)))

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

        return page_of(index.find(self._index, wanted[0], statuses, after), show, limit)

    def spot(self, deal: CID, index: int) -> SpotRecord | None:
        """The open spot challenge of a shard, if there is one; its seed is b"" until the next block."""
        return self._state.committed(keys.spot(deal, index), SpotRecord)

    def spots(self, provider: bytes | None = None) -> list[SpotInfo]:
        """The open spot challenges, or a provider's, by deal and shard."""
        return list(every(lambda after: self.spots_page(provider, after=after)))

    def spots_page(
        self,
        provider: bytes | None = None,
        deal: CID | None = None,
        after: bytes = b"",
        limit: int = limits.MAX_PAGE,
    ) -> Page[SpotInfo]:
        """The open spot challenges, a provider's or a deal's, from behind the cursor `after` on."""
        head = b"" if deal is None else bytes(deal)

        def show(subject: bytes) -> SpotInfo | None:
            named, index = due.read_shard_subject(head + subject)
            record = self.spot(named, index)
            assert record is not None, "the key was there"
            return SpotInfo(named, index, record) if provider in (None, record.provider) else None

        return page_of(subjects(self._state, keys.SPOT + head, after), show, limit)

    def totals(self) -> TotalsRecord:
        """All money by where it is."""
        found = self._state.committed(keys.TOTALS, TotalsRecord)
        assert found is not None, "every state has totals"
        return found

    def prove(self, key: bytes) -> StateProof:
        """That the state of `app_hash` holds what it holds at `key`, or nothing; see `state_tree.verify`."""
        return self._tree.prove(key, self._state.committed_bytes)
