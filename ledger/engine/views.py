"""Answers of the HTTP interface that join several records of the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from ledger import keys, limits
from ledger.fields import (
    Account,
    AccountOrNone,
    Digest,
    Link,
    LinkOrNone,
    Uint,
    Wire,
    blob,
    nested,
    sequence,
    text,
)
from ledger.journal import CHANGE, MAX_WHY_CHARS
from ledger.records import AccountRecord, DatasetRecord, DealRecord, ShardRecord, SpotRecord
from ledger.records_governance import ProposalRecord
from ledger.records_validators import ValidatorRecord
from ledger.views import DealInfo
from ledger.views_validators import ValidatorInfo

if TYPE_CHECKING:
    from ledger.engine.history import Change


@dataclass(frozen=True, slots=True)
class AccountView(Wire):
    """An account and its record."""

    account: Account
    record: Annotated[AccountRecord, nested(AccountRecord)]


@dataclass(frozen=True, slots=True)
class ChangeView(Wire):
    """One change of an account's balance or stake; see `ledger.journal.Entry`."""

    height: Uint
    time: Uint
    account: Account
    place: Annotated[str, text(8)]
    amount: Annotated[int, CHANGE]
    why: Annotated[str, text(MAX_WHY_CHARS)]
    counterparty: AccountOrNone
    deal: LinkOrNone
    tx_id: LinkOrNone

    @classmethod
    def of(cls, change: Change) -> ChangeView:
        """From the journal."""
        return cls(change.height, change.time, **change.entry.to_map())


@dataclass(frozen=True, slots=True)
class DealView(Wire):
    """A deal, its ID and its shards in order (none once the deal is over and they were dropped)."""

    id: Link
    deal: Annotated[DealRecord, nested(DealRecord)]
    shards: Annotated[tuple[ShardRecord, ...], sequence(nested(ShardRecord), limits.MAX_SHARDS)]

    @classmethod
    def of(cls, info: DealInfo) -> DealView:
        """From a query's answer."""
        return cls(info.id, info.record, info.shards)


@dataclass(frozen=True, slots=True)
class ProposalView(Wire):
    """A proposal and its ID."""

    id: Link
    proposal: Annotated[ProposalRecord, nested(ProposalRecord)]


@dataclass(frozen=True, slots=True)
class ValidatorView(Wire):
    """Who registered keys to validate with. `address` is how CometBFT names its consensus key."""

    account: Account
    address: Annotated[bytes, blob(keys.ADDRESS_BYTES, keys.ADDRESS_BYTES)]
    validator: Annotated[ValidatorRecord, nested(ValidatorRecord)]

    @classmethod
    def of(cls, info: ValidatorInfo) -> ValidatorView:
        """From a query's answer."""
        return cls(info.account, keys.address(info.record.consensus_key), info.record)


@dataclass(frozen=True, slots=True)
class SpotView(Wire):
    """The open spot challenge of a shard."""

    deal: Link
    shard: Uint
    spot: Annotated[SpotRecord, nested(SpotRecord)]


@dataclass(frozen=True, slots=True)
class DatasetView(Wire):
    """A dataset and its ID."""

    id: Digest
    dataset: Annotated[DatasetRecord, nested(DatasetRecord)]


@dataclass(frozen=True, slots=True)
class SlotView(Wire):
    """Which shard a dataset's slot holds."""

    slot: Uint
    deal: Link
    shard: Uint
