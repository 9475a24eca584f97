"""What the ledger keeps: frozen records, each a canonical DAG-CBOR map in the state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Self

from ledger import limits
from ledger.errors import CorruptState
from ledger.fields import (
    Account,
    AccountOrNone,
    Digest,
    DigestOrNone,
    FieldError,
    Flag,
    Link,
    Uint,
    Wire,
    account,
    choice,
    nested,
    sequence,
    text,
)
from ledger.transactions import PieceCommitment
from merkledag import dag_cbor
from merkledag.errors import MerkledagError
from proofs.commitment import EMPTY, SumNode
from proofs.kinds import ProofKind


@dataclass(frozen=True, slots=True)
class Record(Wire):
    """A `Wire` that is a value of the state."""

    def encode(self) -> bytes:
        """Canonical DAG-CBOR."""
        return dag_cbor.encode(self.to_map())

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Back from the state's bytes; raises CorruptState, for the ledger wrote them itself."""
        try:
            return cls.from_map(dag_cbor.decode(raw, max_items=limits.MAX_RECORD_ITEMS))
        except (MerkledagError, FieldError) as error:
            raise CorruptState(f"a {cls.__name__} of the state does not decode: {error}") from error


@dataclass(frozen=True, slots=True)
class AccountRecord(Record):
    """An account: units it may spend and the nonce of its next transaction."""

    balance: Uint = 0
    nonce: Uint = 0


@dataclass(frozen=True, slots=True)
class ProviderRecord(Record):
    """A storage provider. `stake` includes `locked`, the collateral of its shards; `deposit` is apart.

    Its history: when it registered, periods proven and faults over all its datasets, shards taken from it,
    and `served`, the shard-periods that it was paid for. `stake_mark` is the last proposal that a stake of it
    was noted for, `proposed` the number of the last one that it made itself (0: none). Up to ledger time
    `bound_until` it withdraws nothing, for it takes part in a vote, or was a validator until lately.
    """

    account: Account
    payout: Account
    endpoint: Annotated[str, text(limits.MAX_ENDPOINT_CHARS)]
    capacity_bytes: Uint
    used_bytes: Uint
    stake: Uint
    locked: Uint
    deposit: Uint
    price_per_gib_period: Uint
    min_piece_bytes: Uint
    max_piece_bytes: Uint
    open: Flag
    registered_at: Uint = 0
    proven_total: Uint = 0
    fault_total: Uint = 0
    terminated_total: Uint = 0
    served: Uint = 0
    stake_mark: Uint = 0
    proposed: Uint = 0
    bound_until: Uint = 0

    @property
    def unlocked(self) -> int:
        """Stake that is no shard's collateral: it may be withdrawn or locked, and weighs in the draw."""
        return max(0, self.stake - self.locked)

    @property
    def free_bytes(self) -> int:
        """Room for more pieces."""
        return max(0, self.capacity_bytes - self.used_bytes)


class DealStatus(Enum):
    """A deal is open until each of its shards is closed."""

    OPEN = "open"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class DealRecord(Record):
    """A deal, open until `ended_at`. `ending`: its client gave notice, it ends earlier than agreed.

    `holders` has the provider, if any, of each shard, offered or kept; `successors` whom the shard is being
    handed over to, if anyone. `terms` is the version of the parameters that was in force when it was made,
    `proof` how its pieces are proven.
    """

    client: Account
    content: Link
    manifest: Link
    k: Uint
    m: Uint
    replicated: Flag
    periods: Uint
    price: Uint
    challenges: Uint
    named: Flag
    deposit: Uint
    created_at: Uint
    ended_at: Uint
    status: Annotated[DealStatus, choice(DealStatus)]
    open_shards: Uint
    refunded: Uint
    holders: Annotated[tuple[bytes, ...], sequence(account(optional=True), limits.MAX_SHARDS)]
    successors: Annotated[tuple[bytes, ...], sequence(account(optional=True), limits.MAX_SHARDS)]
    terms: Uint
    proof: Annotated[ProofKind, choice(ProofKind)]
    ending: Flag = False

    @property
    def parties(self) -> tuple[bytes, ...]:
        """Every provider that a shard is offered to, kept by or handed over to; b"" stands for none."""
        return (*self.holders, *self.successors)


class ShardStatus(Enum):
    """Where a shard is in its life; see docs/ledger.md, "The life of a deal"."""

    OFFERED = "offered"  # waits for a provider to be drawn, or for the drawn one to accept
    ACCEPTED = "accepted"  # accepted; joins its dataset at the next period
    ACTIVE = "active"  # drawn and paid
    REPAIR = "repair-offered"  # its provider failed; as OFFERED, for a new one
    ENDED = "ended"  # served to the end of the deal
    REFUNDED = "refunded"  # nobody took it
    TERMINATED = "terminated"  # its provider failed and nobody repaired it

    @property
    def is_offered(self) -> bool:
        """Whether the shard is to be drawn, or offered, with nobody keeping it."""
        return self in (ShardStatus.OFFERED, ShardStatus.REPAIR)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more happens to the shard."""
        return self in (ShardStatus.ENDED, ShardStatus.REFUNDED, ShardStatus.TERMINATED)


@dataclass(frozen=True, slots=True)
class ShardRecord(Record):
    """One shard of a deal.

    `provider` is whom it is offered to or who keeps it, b"" for none; `round` counts the offers since the
    shard last lost its place and `expires_at` is the last second of this one (0: no offer runs); `tried`
    are the providers that let an offer pass or failed. While active it has `slot` in `dataset` (b"" before it
    is accepted and when it is closed) in the periods `first`…`last`; `mark` is the dataset's `proven_total`
    up to which it is paid. `ends_at` is the
    ledger time up to which the client pays, 0 before the first acceptance takes effect. `escrow` is the
    client's money left, `reward` what the one who repairs it gets, and `bounty` what `backer` adds to that;
    `collateral` the part of the provider's stake that is locked, `paid` all pay so far.

    While an active shard is `handing_over` to another provider, `successor` is whom it is offered to;
    `round`, `expires_at` and `tried` are of that offer, and `next_collateral` is what the successor has
    locked once `successor_accepted`. `giving_up`: it leaves after the next proven period; `given_up_by` is
    who did so last, and is not drawn for it again. `struck`: it is
    taken away at the end of this period, for `missed` spot challenges in a row, and not paid meanwhile; until
    ledger time `spared_until` there is no other one.
    """

    piece: Annotated[PieceCommitment, nested(PieceCommitment)]
    status: Annotated[ShardStatus, choice(ShardStatus)]
    provider: AccountOrNone
    round: Uint
    expires_at: Uint
    tried: Annotated[tuple[bytes, ...], sequence(account(), 2 * limits.MAX_ROUNDS)]
    dataset: DigestOrNone
    slot: Uint
    first: Uint
    last: Uint
    mark: Uint
    ends_at: Uint
    escrow: Uint
    reward: Uint
    collateral: Uint
    paid: Uint
    bounty: Uint = 0
    handing_over: Flag = False
    successor: AccountOrNone = b""
    successor_accepted: Flag = False
    next_collateral: Uint = 0
    giving_up: Flag = False
    struck: Flag = False
    missed: Uint = 0
    spared_until: Uint = 0
    backer: AccountOrNone = b""
    given_up_by: AccountOrNone = b""


@dataclass(frozen=True, slots=True)
class SpotRecord(Record):
    """A spot challenge of one shard: `challenger` asked for it in block `height` and prepaid `fee`.

    `seed` is b"" until the beacon of block `seed_height` draws it; then the answer is due up to `closes_at`,
    and `stalled_s` is the chain's at that time.
    """

    challenger: Account
    provider: Account
    opened_at: Uint
    height: Uint
    seed: DigestOrNone
    closes_at: Uint
    fee: Uint
    stalled_s: Uint
    seed_height: Uint


class Phase(Enum):
    """What a dataset waits for; see docs/ledger.md, "The life of a period"."""

    IDLE = "idle"  # just made: the piece it is made for comes at once
    RESTING = "resting"  # nothing to prove in this period; pieces join at its end
    WAITING = "waiting"  # for its window to open
    OPENING = "opening"  # its window's time has come: one of the next blocks draws the seed
    OPEN = "open"  # the seed is out: a proof is due
    DECLARED = "declared"  # its provider declared a fault: no window; waits for the period's end
    VOID = "void"  # the window could not be opened in time; waits for the period's end
    TURNING = "turning"  # between two periods: pieces leave and join


@dataclass(frozen=True, slots=True)
class DatasetRecord(Record):
    """All pieces of one client on one provider under one kind of proof, proven together once a period.

    `period` is the one that the trees stand for; `seed` (b"" unless a window was opened), `seed_time` and
    `stalled_s` (the chain's at that time) belong to it, as do `proven` and `seed_height`: that of the block
    which draws, or drew, the seed (0: none of this chain). `in_a_row` counts faults since
    the last proof, `clean` proofs since the last fault; `history` has bit i set if the period 1 + i before
    `period` was proven, `faults` if it was a fault; `faulted` is that of `period`. `slots` is how many slots
    were ever used, `pieces` how many hold a piece, `price_total` their price a period. `data_*` and `meta_*`
    are the roots of the two slot trees, `depth` the height of both. `joins` numbers the pieces that ever
    waited to join, `joining` counts those that wait now, `expected` those that will once another provider has
    handed them over. `terminating`: every piece leaves at the turn of the period. `terms` is the version of
    the parameters that its deals are under.
    """

    client: Account
    provider: Account
    challenges: Uint
    terms: Uint
    deposit: Uint
    proof: Annotated[ProofKind, choice(ProofKind)] = ProofKind.MERKLE
    phase: Annotated[Phase, choice(Phase)] = Phase.IDLE
    period: Uint = 0
    seed: DigestOrNone = b""
    seed_time: Uint = 0
    seed_height: Uint = 0
    stalled_s: Uint = 0
    proven: Flag = False
    proven_total: Uint = 0
    fault_total: Uint = 0
    in_a_row: Uint = 0
    clean: Uint = 0
    history: Uint = 0
    faults: Uint = 0
    faulted: Flag = False
    terminating: Flag = False
    slots: Uint = 0
    pieces: Uint = 0
    price_total: Uint = 0
    depth: Uint = 0
    data_root: Digest = EMPTY.hash
    data_leaves: Uint = 0
    meta_root: Digest = EMPTY.hash
    meta_leaves: Uint = 0
    joins: Uint = 0
    joining: Uint = 0
    expected: Uint = 0

    @property
    def data(self) -> SumNode:
        """The root of the data tree."""
        return SumNode(self.data_root, self.data_leaves)

    @property
    def meta(self) -> SumNode:
        """The root of the metadata tree."""
        return SumNode(self.meta_root, self.meta_leaves)


@dataclass(frozen=True, slots=True)
class SlotRecord(Record):
    """Which shard a slot of a dataset, or a place in its queue, holds."""

    deal: Link
    shard: Uint


@dataclass(frozen=True, slots=True)
class ChainRecord(Record):
    """Where the chain stands. `block_time_s` is the last block's own time, `time` ledger time.

    `stalled_s` is all ledger time so far that passed before blocks that came late. `params_version` is that
    of the parameters in force from the next block on, `rules` that of the rules; `proposals` counts all there
    ever were.
    """

    height: Uint
    time: Uint
    block_time_s: Uint
    beacon: Digest
    open_deals: Uint
    stalled_s: Uint = 0
    params_version: Uint = 1
    rules: Uint = 1
    proposals: Uint = 0


@dataclass(frozen=True, slots=True)
class TotalsRecord(Record):
    """All money by where it is; the last four sum to the first."""

    issued: Uint
    balances: Uint
    escrow: Uint
    collateral: Uint
    burned: Uint
