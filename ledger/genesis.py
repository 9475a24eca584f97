"""Genesis: who starts a chain with what money and which parameters, each inside hard bounds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any

from ledger import limits
from ledger.errors import InvalidGenesis
from ledger.fields import (
    Account,
    Digest,
    FieldError,
    Link,
    Positive,
    Wire,
    blob,
    nested,
    optional,
    sequence,
    text,
    uint,
)
from ledger.records import Record
from merkledag import dag_cbor
from merkledag.ed25519 import is_usable_key
from merkledag.errors import MerkledagError

HOLD = 10**9  # base units
BEACON_TAG = b"holdfast/genesis-beacon/1\x00"
DAY_S = 86_400
CHAIN_ID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")


@dataclass(frozen=True, slots=True, kw_only=True)
class Params(Record):
    """The chain's parameters; the annotations are their hard bounds. Money in base units, times in seconds.

    period_s, window_s: a proving period and the window at its end (at most half of it).
    max_step_s: how far one block may move ledger time.
    challenges, meta_challenges: leaves drawn a period from data (the default and least) and from metadata.
    accept_timeout_s, max_rounds: how long an offered shard waits, and how many offers there are before it
    is given up.
    base_fee, fee_per_kib: least fee of a transaction, and what each KiB begun adds to it; proof_fee: of a
    proof.
    deposit: held for each record (deal, shard, dataset, provider). account_minimum: what opens an account.
    min_stake: what a provider registers with. collateral_periods: a shard locks its price times this.
    fault_fee_percent: of the period's price. grace_periods: so many clean periods make the next fault free.
    terminate_after: faults in a row that end a dataset's shards; fault_limit faults within the last
    fault_window periods do so too.
    repair_reward_periods: the reward is at most the shard's price times this, and at most what was forfeited.
    renewal_periods: how far ahead a client may renew a deal, which binds providers that are open.
    retention_periods: how long a finished deal or proposal stays readable.
    proposal_deposit: locked for a proposal. vote_s, timelock_s: how long a vote on it lasts, and how long
    after that what was agreed comes into force.
    unbonding_s: how long a validator that left answers with its stake, and a key of it that it rotated away
    names it; no shorter than the engine takes evidence. misbehaviour_percent: what evidence costs of a stake.
    """

    period_s: Annotated[int, uint(2, 31 * DAY_S)] = DAY_S
    window_s: Annotated[int, uint(1, 15 * DAY_S)] = 7_200
    max_step_s: Annotated[int, uint(1, 300)] = 30
    challenges: Annotated[int, uint(1, limits.MAX_CHALLENGES)] = 30
    meta_challenges: Annotated[int, uint(1, limits.MAX_META_CHALLENGES)] = 4
    accept_timeout_s: Annotated[int, uint(1, 7 * DAY_S)] = 3_600
    max_rounds: Annotated[int, uint(1, limits.MAX_ROUNDS)] = 8
    base_fee: Annotated[int, uint(1, HOLD)] = 1_000
    fee_per_kib: Annotated[int, uint(0, HOLD)] = 100
    proof_fee: Annotated[int, uint(1, HOLD)] = 2_000
    deposit: Annotated[int, uint(1, 1_000 * HOLD)] = HOLD // 1_000
    account_minimum: Annotated[int, uint(0, HOLD)] = 10_000
    min_stake: Annotated[int, uint(0, 1_000_000 * HOLD)] = HOLD
    collateral_periods: Annotated[int, uint(1, 1_000)] = 20
    fault_fee_percent: Annotated[int, uint(0, 500)] = 100
    grace_periods: Annotated[int, uint(1, 1_000)] = 30
    terminate_after: Annotated[int, uint(1, 30)] = 3
    fault_limit: Annotated[int, uint(1, limits.HISTORY_PERIODS)] = 5
    fault_window: Annotated[int, uint(1, limits.HISTORY_PERIODS)] = 30
    repair_reward_periods: Annotated[int, uint(0, 1_000)] = 10
    renewal_periods: Annotated[int, uint(1, limits.MAX_DEAL_PERIODS)] = 365
    retention_periods: Annotated[int, uint(1, 10_000)] = 32
    proposal_deposit: Annotated[int, uint(0, 1_000_000 * HOLD)] = 10 * HOLD
    vote_s: Annotated[int, uint(1, 90 * DAY_S)] = 7 * DAY_S
    timelock_s: Annotated[int, uint(1, 90 * DAY_S)] = 2 * DAY_S
    unbonding_s: Annotated[int, uint(1, 90 * DAY_S)] = 21 * DAY_S
    misbehaviour_percent: Annotated[int, uint(0, 100)] = 5

    def check(self) -> Params:
        """Itself; raises FieldError for a value out of its bounds, or values that do not go together."""
        checked = type(self).from_map(self.to_map())
        if self.window_s * 2 > self.period_s:
            raise FieldError("window_s: more than half of period_s")
        if self.fault_limit > self.fault_window:
            raise FieldError("fault_limit: more than fault_window")
        return checked


DEMO_PARAMS = Params(
    period_s=4,
    window_s=2,
    accept_timeout_s=10,
    min_stake=HOLD // 10,
    proposal_deposit=HOLD // 100,
    vote_s=20,
    timelock_s=10,
    unbonding_s=60,
)


@dataclass(frozen=True, slots=True)
class GenesisValidator(Wire):
    """A validator from the first block on: its account, the keys it validates with, and its power."""

    account: Account
    consensus_key: Digest
    bls_key: Annotated[bytes, blob(48, 48)]
    bls_possession: Annotated[bytes, blob(96, 96)]
    power: Annotated[int, uint(1, limits.MAX_POWER)]


def require_chain_id(chain_id: str) -> None:
    """InvalidGenesis for what no chain can be called."""
    if not chain_id or not CHAIN_ID_CHARS.issuperset(chain_id):
        raise InvalidGenesis("chain_id: lower-case letters, digits and - . _ are allowed")


def _check_validators(validators: tuple[GenesisValidator, ...]) -> None:
    """Raises InvalidGenesis unless no two share an account or key, and each holds its BLS key."""
    from proofs.bls import signatures as bls

    for name in ("account", "consensus_key", "bls_key"):
        if len({getattr(each, name) for each in validators}) < len(validators):
            raise InvalidGenesis(f"validators: two have the same {name}")
    for number, each in enumerate(validators):
        for key in (each.account, each.consensus_key):
            if not is_usable_key(key):
                raise InvalidGenesis(f"validators: number {number} has a key that nobody can sign with")
        if not bls.verify_possession(each.bls_key, each.bls_possession):
            raise InvalidGenesis(f"validators: number {number} does not prove possession of its bls_key")


@dataclass(frozen=True, slots=True)
class Origin(Wire):
    """The chain whose end a chain goes on from: its ID, its last block and the state that this led to."""

    chain_id: Annotated[str, text(limits.MAX_CHAIN_ID_CHARS)]
    height: Positive
    block: Link
    app_hash: Digest


@dataclass(frozen=True, slots=True)
class Genesis(Wire):
    """The start of a chain. `time_s` is both the first ledger time and the earliest block time.

    Without `validators` the operator alone makes blocks: an embedded engine drives the chain. With an
    `origin` the chain begins with the state that another one ended with (`ledger.carry`).
    """

    chain_id: Annotated[str, text(limits.MAX_CHAIN_ID_CHARS)]
    time_s: Annotated[int, uint(0, limits.MAX_TIME_S)]
    operator: Account
    bls_key: Annotated[bytes, blob(48, 48)]
    bls_possession: Annotated[bytes, blob(96, 96)]
    issued: Positive
    beacon: Digest
    params: Annotated[Params, nested(Params)]
    validators: Annotated[
        tuple[GenesisValidator, ...], sequence(nested(GenesisValidator), limits.MAX_VALIDATORS)
    ] = ()
    origin: Annotated[Origin | None, optional(nested(Origin))] = None

    @classmethod
    def make(
        cls,
        *,
        chain_id: str,
        time_s: int,
        operator: bytes,
        bls_key: bytes,
        bls_possession: bytes,
        issued: int,
        params: Params,
        validators: tuple[GenesisValidator, ...] = (),
    ) -> Genesis:
        """A checked genesis whose first beacon value follows from its chain ID, time and operator."""
        seed = dag_cbor.encode([chain_id, time_s, operator, bls_key])
        beacon = hashlib.sha256(BEACON_TAG + seed).digest()
        genesis = cls(chain_id, time_s, operator, bls_key, bls_possession, issued, beacon, params, validators)
        return genesis.validated()

    def validated(self) -> Genesis:
        """Itself, every bound and the BLS key's proof of possession checked; raises InvalidGenesis."""
        from proofs.bls import signatures as bls  # loads a pairing library, which only a chain's start needs

        try:
            self.check()
            self.params.check()
        except FieldError as error:
            raise InvalidGenesis(str(error)) from None
        require_chain_id(self.chain_id)
        if self.origin is not None and self.origin.chain_id == self.chain_id:
            raise InvalidGenesis("chain_id: a chain that goes on from another one needs a name of its own")
        if not bls.verify_possession(self.bls_key, self.bls_possession):
            raise InvalidGenesis("bls_possession: does not prove possession of bls_key")
        _check_validators(self.validators)
        return self

    def founders(self) -> tuple[GenesisValidator, ...]:
        """The validators that the chain begins with: those named, else the operator by its account's key."""
        alone = GenesisValidator(self.operator, self.operator, self.bls_key, self.bls_possession, power=1)
        return self.validators or (alone,)

    def encode(self) -> bytes:
        """Canonical DAG-CBOR."""
        return dag_cbor.encode(self.to_map())

    @classmethod
    def decode(cls, raw: bytes) -> Genesis:
        """From canonical DAG-CBOR; raises InvalidGenesis."""
        try:
            return cls.from_map(dag_cbor.decode(raw)).validated()
        except (MerkledagError, FieldError) as error:
            raise InvalidGenesis(str(error)) from None

    def dumps(self) -> str:
        """The JSON file: one object, keys in order, two spaces."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def loads(cls, document: str | bytes) -> Genesis:
        """From the JSON file; raises InvalidGenesis."""
        try:
            value: Any = json.loads(document)
            return cls.from_json(value).validated()
        except (ValueError, RecursionError) as error:
            raise InvalidGenesis(f"not a genesis file: {error}") from None
