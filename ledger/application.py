"""The ledger's application: what an engine drives, in the shape of ABCI 2.0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ledger.events import Event
from ledger.genesis import Genesis, Params
from ledger.result import TxResult


@dataclass(frozen=True, slots=True)
class BlockInput:
    """What a block says: `block_time_s` is its own (wall) time, `proposer` an account; `txs` begins with the beacon."""

    height: int
    block_time_s: int
    proposer: bytes
    txs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What a block did. `time` is ledger time; `tx_results` is one per transaction, the beacon's included.

    `changes` are all keys of the state with new values (None: deleted), for the engine to persist with the
    height. Those of the first block hold the whole state, what genesis made included.
    """

    height: int
    time: int
    tx_results: tuple[TxResult, ...]
    events: tuple[Event, ...]
    app_hash: bytes
    changes: Mapping[bytes, bytes | None]


class Application:
    """A chain's state and its rules.

    One thread drives it: finalize_block, then commit or abort. In between, queries answer from the last
    committed block. `items` restore a committed state (all keys as persisted from `changes`); without items
    the chain is new, at height 0. Raises InvalidGenesis, CorruptState.
    """

    def __init__(self, genesis: Genesis, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        raise NotImplementedError

    @property
    def chain_id(self) -> str: ...
    @property
    def params(self) -> Params: ...
    @property
    def height(self) -> int: ...
    @property
    def time(self) -> int:
        """Ledger time of the last committed block, seconds (genesis time before the first)."""

    @property
    def block_time_s(self) -> int:
        """The last committed block's own time: ledger time moves by what the next one's is later (≤ max_step_s)."""

    @property
    def app_hash(self) -> bytes: ...
    @property
    def beacon(self) -> bytes: ...

    def check_tx(self, raw: bytes) -> TxResult:
        """Whether a transaction may wait for a block; cheap. Remembers verified signatures and pending nonces."""

    def verify_signature(self, raw: bytes) -> TxResult:
        """Decodes and verifies ahead of `check_tx`, which then need not. May run in other threads."""

    def forget(self, raw: bytes) -> None:
        """The engine no longer holds this pending transaction (evicted): its nonce is free again."""

    def prepare_proposal(self, candidates: Sequence[bytes], *, max_bytes: int) -> list[bytes]:
        """Those of the candidates, in their order, that pass on the present state and fit.

        Half of `max_bytes` is reserved for Prove transactions. The beacon transaction is not among them: the
        engine puts it first (count its bytes). What was dropped for good is in `dropped`; what is in neither
        stays pending for a later block.
        """

    @property
    def dropped(self) -> Mapping[bytes, TxResult]:
        """What the last `prepare_proposal` dropped for good (raw bytes → why); their nonces are free again."""
        return MappingProxyType({})

    def process_proposal(self, block: BlockInput) -> TxResult:
        """Whether another proposer's block is acceptable: height, time, beacon, form and signatures."""

    def finalize_block(self, block: BlockInput) -> BlockResult:
        """Runs a block on top of the committed state; nothing is kept until `commit`.

        A transaction that fails leaves no trace but its result. Raises InvalidBlock if the height does not
        follow, or the first transaction is not a valid beacon.
        """

    def commit(self) -> None:
        """Keeps what `finalize_block` did."""

    def abort(self) -> None:
        """Forgets what `finalize_block` did."""

    def beacon_transaction_message(self, height: int) -> bytes:
        """What the proposer signs with BLS for the next block; ValueError for another height."""

    def next_due(self) -> int | None:
        """Ledger time of the next due item; the present time if work waits already; None if there is none."""

    def has_live_deals(self) -> bool:
        """Whether any deal is open: then blocks must come at least every `max_step_s`."""
