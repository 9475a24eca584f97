"""What the rules work on: the block being run, its state and money, and what it has done so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from ledger import keys, limits, money, seats, stakes
from ledger.errors import MISTAKES, Refusal
from ledger.events import Attribute, Event
from ledger.genesis import Params
from ledger.journal import Move
from ledger.records import AccountRecord, ChainRecord, DatasetRecord, DealRecord, ProviderRecord, ShardRecord
from ledger.result import Code
from ledger.state import State
from merkledag.cid import CID
from proofs.beacon.seeds import blocks_until_drawn
from proofs.challenge import Challenge


class ProofChecker(Protocol):
    """Verifies proofs; may remember those that passed."""

    def verify(self, challenge: Challenge, proof: bytes) -> None:
        """Raises proofs.errors.InvalidProof."""


@dataclass(slots=True)
class Context:
    """One block in the making. `chain` is what will be kept of it.

    `budget` is what due work of the kind that is being done may still do in this block. `params` are those in
    force (version `params_version`) for all of the block: what governance changes in it holds from the next
    block on, and shows in `chain` alone. `operator` makes all blocks of an embedded ledger; b"" where
    validators do. `kzg_points` and `validators_registered` stand for time that
    verifying has taken, so they stay counted where a transaction fails.
    """

    state: State
    params: Params
    totals: money.Totals
    proofs: ProofChecker
    chain_id: str
    chain: ChainRecord
    params_version: int
    operator: bytes = b""
    budget: int = 0
    shards_changed: int = 0
    events: list[Event] = field(default_factory=list)
    spots_opened: int = 0
    kzg_points: int = 0
    validators_registered: int = 0
    moves: list[Move] = field(default_factory=list)
    tx_id: CID | None = None
    _validators: int = 0

    @property
    def height(self) -> int:
        """The block's height."""
        return self.chain.height

    @property
    def time(self) -> int:
        """Ledger time of the block, seconds."""
        return self.chain.time

    @property
    def beacon(self) -> bytes:
        """The beacon value that the block adds, 32 bytes."""
        return self.chain.beacon

    def drawn_height(self, within_s: int) -> int:
        """The later block whose beacon draws what this one asks for, and that has its place in `within_s`."""
        if not self._validators:  # powers move at a block's end alone
            self._validators = seats.count_powers(self.state)
        return self.height + blocks_until_drawn(self.beacon, self._validators, within_s)

    @property
    def stalled_s(self) -> int:
        """All ledger time that passed before blocks that came late, this one's included."""
        return self.chain.stalled_s

    @property
    def open_deals(self) -> int:
        """How many deals are open."""
        return self.chain.open_deals

    @open_deals.setter
    def open_deals(self, count: int) -> None:
        self.chain = replace(self.chain, open_deals=count)

    def terms(self, version: int) -> Params:
        """A version of the parameters: that in force when a deal or dataset was made."""
        found = self.state.record(keys.params(version), Params)
        assert found is not None, "every version that was in force is kept"
        return found

    def emit(self, event: str, **attributes: Attribute) -> None:
        """Notes an event; a trailing underscore of a name is dropped (`from_`)."""
        self.events.append(Event(event, {name.rstrip("_"): value for name, value in attributes.items()}))

    def move(self, source: money.Purse, target: money.Purse, amount: int, why: str = "") -> None:
        """Moves money (see `money.move`) and notes it for the journal.

        `why` is one word, needed where `journal.reason` does not say what it is from the two places alone.
        """
        for purse, by in ((source, -amount), (target, amount)) if amount and source != target else ():
            if purse.place is money.Place.STAKE:
                account = purse.key[len(keys.PROVIDER) :]
                stakes.note(self.state, account, by, self.chain.proposals)
                seats.touch(self.state, account)
        money.move(self.state, self.totals, source, target, amount)
        if amount and source != target:
            self.moves.append(Move(source, target, amount, why, self.tx_id))

    def count_shards(self, count: int) -> None:
        """A deal of so many shards is made or changed as a whole; refuses BLOCK_FULL."""
        self.shards_changed += count
        if self.shards_changed > limits.MAX_SHARDS_PER_BLOCK:
            most = limits.MAX_SHARDS_PER_BLOCK
            raise Refusal(Code.BLOCK_FULL, f"a block changes deals of {most} shards in all; send it again")

    def need_kzg_points(self, points: int) -> None:
        """Refuses BLOCK_FULL if no time is left to verify a KZG proof of so many points."""
        if points and self.kzg_points + points > limits.MAX_KZG_POINTS_PER_BLOCK:
            raise Refusal(Code.BLOCK_FULL, "this block verifies no more KZG proofs; send it again")

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What happens inside is kept as a whole, or, if it raises, leaves no trace."""
        totals = self.totals.record()
        chain, shards, spots = self.chain, self.shards_changed, self.spots_opened
        events, moves = len(self.events), len(self.moves)
        self.state.begin()
        try:
            yield
        except BaseException:
            self.state.drop()
            self.totals = money.Totals.of(totals)
            self.chain, self.shards_changed, self.spots_opened = chain, shards, spots
            del self.events[events:], self.moves[moves:]
            raise
        self.state.keep()

    @contextmanager
    def set_aside(self, key: bytes) -> Iterator[None]:
        """Work of its own accord that the queue had under `key`; a mistake in its rules stops nobody else.

        Then it leaves no trace but `keys.STUCK`, and whatever it is about waits for better rules.
        """
        try:
            with self.attempt():
                yield
        except (Refusal, *MISTAKES) as error:
            self.state.put(keys.STUCK + key, b"")
            self.emit("work_stuck", work=key, why=f"{type(error).__name__}: {error}")

    # Records. `get_*` are for what must be there, `need_*` refuse when it is not.

    def account(self, account: bytes) -> AccountRecord:
        """An account; one that was never used has nothing."""
        return self.state.record(keys.account(account), AccountRecord) or AccountRecord()

    def find_provider(self, account: bytes) -> ProviderRecord | None:
        """A provider, if registered."""
        return self.state.record(keys.provider(account), ProviderRecord)

    def get_provider(self, account: bytes) -> ProviderRecord:
        """A provider that is registered."""
        found = self.find_provider(account)
        assert found is not None, "the provider of a shard stays registered"
        return found

    def need_provider(self, account: bytes) -> ProviderRecord:
        """A provider; refuses NOT_REGISTERED."""
        found = self.find_provider(account)
        if found is None:
            raise Refusal(Code.NOT_REGISTERED, "register as a provider first")
        return found

    def put_provider(self, record: ProviderRecord) -> None:
        """Keeps a provider."""
        self.state.put(keys.provider(record.account), record)

    def get_deal(self, deal: CID) -> DealRecord:
        """A deal that is there."""
        found = self.state.record(keys.deal(deal), DealRecord)
        assert found is not None, "a shard's deal outlives it"
        return found

    def need_deal(self, deal: CID) -> DealRecord:
        """A deal; refuses UNKNOWN_DEAL."""
        found = self.state.record(keys.deal(deal), DealRecord)
        if found is None:
            raise Refusal(Code.UNKNOWN_DEAL, f"no deal {deal}")
        return found

    def put_deal(self, deal: CID, record: DealRecord) -> None:
        """Keeps a deal."""
        self.state.put(keys.deal(deal), record)

    def find_shard(self, deal: CID, index: int) -> ShardRecord | None:
        """A shard, if there is one (nobody drops the records of an open deal)."""
        return self.state.record(keys.shard(deal, index), ShardRecord)

    def get_shard(self, deal: CID, index: int) -> ShardRecord:
        """A shard that is there."""
        found = self.find_shard(deal, index)
        assert found is not None, "slots and queues name shards that are there"
        return found

    def need_shard(self, deal: CID, index: int) -> ShardRecord:
        """A shard; refuses UNKNOWN_SHARD."""
        found = self.find_shard(deal, index) if index < limits.MAX_SHARDS else None
        if found is None:
            raise Refusal(Code.UNKNOWN_SHARD, f"the deal has no shard {index}")
        return found

    def put_shard(self, deal: CID, index: int, record: ShardRecord) -> None:
        """Keeps a shard."""
        self.state.put(keys.shard(deal, index), record)

    def assign(self, deal: CID, index: int, record: ShardRecord) -> None:
        """Keeps a shard whose provider or successor changed, and notes the change in its deal."""
        known = self.get_deal(deal)
        holders, successors = list(known.holders), list(known.successors)
        holders[index], successors[index] = record.provider, record.successor
        self.put_deal(deal, replace(known, holders=tuple(holders), successors=tuple(successors)))
        self.put_shard(deal, index, record)

    def find_dataset(self, dataset: bytes) -> DatasetRecord | None:
        """A dataset, if there is one."""
        return self.state.record(keys.dataset(dataset), DatasetRecord)

    def get_dataset(self, dataset: bytes) -> DatasetRecord:
        """A dataset that is there."""
        found = self.find_dataset(dataset)
        assert found is not None, "a shard's dataset outlives it"
        return found

    def put_dataset(self, dataset: bytes, record: DatasetRecord) -> None:
        """Keeps a dataset."""
        self.state.put(keys.dataset(dataset), record)
