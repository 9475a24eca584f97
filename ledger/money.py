"""Money: every unit moves through `move`, which keeps the totals; `audit` recomputes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from ledger import keys, limits
from ledger.errors import Refusal, RuleBroken
from ledger.records import (
    AccountRecord,
    DatasetRecord,
    DealRecord,
    ProviderRecord,
    Record,
    ShardRecord,
    SpotRecord,
    TotalsRecord,
)
from ledger.records_governance import ProposalRecord
from ledger.records_validators import ValidatorRecord
from ledger.result import Code
from ledger.state import State
from merkledag.cid import CID


class Place(Enum):
    """Where units can be: the total they count to, the record that holds them, and its field."""

    BALANCE = ("balances", AccountRecord, "balance")
    STAKE = ("collateral", ProviderRecord, "stake")
    PROVIDER_DEPOSIT = ("escrow", ProviderRecord, "deposit")
    DEAL_DEPOSIT = ("escrow", DealRecord, "deposit")
    DATASET_DEPOSIT = ("escrow", DatasetRecord, "deposit")
    ESCROW = ("escrow", ShardRecord, "escrow")
    REWARD = ("escrow", ShardRecord, "reward")
    BOUNTY = ("escrow", ShardRecord, "bounty")
    SPOT_FEE = ("escrow", SpotRecord, "fee")
    PROPOSAL_DEPOSIT = ("escrow", ProposalRecord, "deposit")
    VALIDATOR_DEPOSIT = ("escrow", ValidatorRecord, "deposit")
    BURNED = ("burned", None, "")

    # Enum looks `value` up, and hashes, in several steps: too many for what every transfer does many times.
    __hash__ = object.__hash__

    def __init__(self, total: str, holder: type[Record] | None, field: str) -> None:
        self.total = total
        self.holder = holder
        self.field = field


class Purse(NamedTuple):
    """One place for units: which kind, and the state's key of the record."""

    place: Place
    key: bytes


BURNED = Purse(Place.BURNED, b"")


def balance(account: bytes) -> Purse:
    """What an account may spend."""
    return Purse(Place.BALANCE, keys.account(account))


def stake(provider: bytes) -> Purse:
    """A provider's stake, locked or not."""
    return Purse(Place.STAKE, keys.provider(provider))


def provider_deposit(provider: bytes) -> Purse:
    """The deposit of a provider's record."""
    return Purse(Place.PROVIDER_DEPOSIT, keys.provider(provider))


def deal_deposit(deal: CID) -> Purse:
    """The deposit of a deal's records."""
    return Purse(Place.DEAL_DEPOSIT, keys.deal(deal))


def dataset_deposit(dataset: bytes) -> Purse:
    """The deposit of a dataset's record."""
    return Purse(Place.DATASET_DEPOSIT, keys.dataset(dataset))


def escrow(deal: CID, shard: int) -> Purse:
    """The client's money for one shard."""
    return Purse(Place.ESCROW, keys.shard(deal, shard))


def reward(deal: CID, shard: int) -> Purse:
    """What whoever repairs a shard gets."""
    return Purse(Place.REWARD, keys.shard(deal, shard))


def bounty(deal: CID, shard: int) -> Purse:
    """What others add to the reward for repairing a shard."""
    return Purse(Place.BOUNTY, keys.shard(deal, shard))


def spot_fee(deal: CID, shard: int) -> Purse:
    """What was prepaid for the answer to a spot challenge."""
    return Purse(Place.SPOT_FEE, keys.spot(deal, shard))


def proposal_deposit(proposal: CID) -> Purse:
    """The deposit of a proposal."""
    return Purse(Place.PROPOSAL_DEPOSIT, keys.proposal(proposal))


def validator_deposit(account: bytes) -> Purse:
    """The deposit of what a validator registered."""
    return Purse(Place.VALIDATOR_DEPOSIT, keys.validator(account))


@dataclass(slots=True)
class Totals:
    """All money by where it is; `balances + escrow + collateral + burned = issued`."""

    issued: int
    balances: int
    escrow: int
    collateral: int
    burned: int

    @classmethod
    def of(cls, record: TotalsRecord) -> Totals:
        """From the state's record."""
        return cls(record.issued, record.balances, record.escrow, record.collateral, record.burned)

    def record(self) -> TotalsRecord:
        """For the state."""
        return TotalsRecord(self.issued, self.balances, self.escrow, self.collateral, self.burned)


def move(state: State, totals: Totals, source: Purse, target: Purse, amount: int) -> None:
    """Moves units. Refuses INSUFFICIENT_FUNDS if an account has too few; other sources have them.

    Raises RuleBroken, also where assertions are switched off, before any unit would be made or lost.
    """
    if amount < 0:
        raise RuleBroken("units never move backwards")
    if amount == 0:
        return
    _change(state, totals, source, -amount)
    _change(state, totals, target, amount)


def _change(state: State, totals: Totals, purse: Purse, by: int) -> None:
    place = purse.place
    cls, field = place.holder, place.field
    if cls is not None:
        record: Record | None = state.record(purse.key, cls)
        if record is None:
            if cls is not AccountRecord:
                raise RuleBroken(f"no {cls.__name__} to hold money")
            record = AccountRecord()
        value = getattr(record, field) + by
        if value < 0 and place is Place.BALANCE:
            raise Refusal(Code.INSUFFICIENT_FUNDS, f"{value - by} units do not cover {-by} units")
        if not 0 <= value <= limits.MAX_UINT:
            raise RuleBroken(f"{cls.__name__}.{field} would be {value}")
        if isinstance(record, AccountRecord):  # most of them, and `replace` takes twice as long
            state.put(purse.key, AccountRecord(value, record.nonce))
        else:
            state.put(purse.key, replace(record, **{field: value}))
    setattr(totals, place.total, getattr(totals, place.total) + by)


def audit(items: Iterable[tuple[bytes, bytes]]) -> TotalsRecord:
    """The totals, recomputed from a state's records; raises ValueError if they differ from those noted.

    Also checks that the parts sum to what was issued, and that what is locked is the sum of the shards'
    collateral.
    """
    sums = {"balances": 0, "escrow": 0, "collateral": 0}
    locked = 0
    noted: TotalsRecord | None = None
    holders: list[tuple[bytes, type[Record]]] = [
        (keys.ACCOUNT, AccountRecord),
        (keys.PROVIDER, ProviderRecord),
        (keys.DEAL, DealRecord),
        (keys.DATASET, DatasetRecord),
        (keys.SHARD, ShardRecord),
        (keys.PROPOSAL, ProposalRecord),
        (keys.SPOT, SpotRecord),
        (keys.VALIDATOR, ValidatorRecord),
    ]
    for key, raw in items:
        if key == keys.TOTALS:
            noted = TotalsRecord.decode(raw)
        for prefix, cls in holders:
            if key.startswith(prefix):
                record = cls.decode(raw)
                for place in Place:
                    if place.holder is cls:
                        sums[place.total] += getattr(record, place.field)
                locked += record.locked if isinstance(record, ProviderRecord) else 0
                if isinstance(record, ShardRecord):
                    locked -= record.collateral + record.next_collateral
    if noted is None:
        raise ValueError("the state has no totals")
    found = replace(noted, **sums)
    if found != noted:
        raise ValueError(f"the totals are {noted}, the records sum to {found}")
    if sum(sums.values()) + noted.burned != noted.issued:
        raise ValueError(f"{sums} and {noted.burned} burned do not sum to {noted.issued} issued")
    if locked:
        raise ValueError(f"locked stake and the shards' collateral differ by {locked}")
    return noted
