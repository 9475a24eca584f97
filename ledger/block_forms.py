"""What goes into a block's run and what comes out of it, in the shape of ABCI 2.0's FinalizeBlock."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.events import Event
from ledger.journal import Entry
from ledger.result import TxResult
from ledger.store import Writes


@dataclass(frozen=True, slots=True)
class BlockInput:
    """What a block says: `block_time_s` is its own time, `proposer` an account; a beacon heads `txs`.

    `misbehaviour` are the accounts of validators that the engine has evidence against, in its order.
    """

    height: int
    block_time_s: int
    proposer: bytes
    txs: tuple[bytes, ...]
    misbehaviour: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class ValidatorUpdate:
    """What the engine has to know: the power that a consensus key (Ed25519, 32 bytes) has now, 0: none."""

    consensus_key: bytes
    power: int


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What a block did. `time` is ledger time; `tx_results` is one per transaction, the beacon's included.

    `events` are all in order, `own_events` those of them that no transaction did.
    `writes` is what the block changes in the store, for the engine to persist with the height. `entries` are
    the journal's, those of the first block with what the accounts had from genesis. `validator_updates` name
    no key twice.
    """

    height: int
    time: int
    tx_results: tuple[TxResult, ...]
    events: tuple[Event, ...]
    own_events: tuple[Event, ...]
    entries: tuple[Entry, ...]
    app_hash: bytes
    writes: Writes
    validator_updates: tuple[ValidatorUpdate, ...] = ()
