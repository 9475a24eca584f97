"""Pruning: proof bytes leave first, then all that a block brought but its header; a bounded step a block.

Headers, the journal and the state stay, so what is left can still be checked from the operator's signatures.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

from ledger import transactions
from ledger.engine.blocks import Block, node_cid
from ledger.engine.errors import CorruptStore
from ledger.engine.pruned_rows import STUB_BYTES, Pruned, Pruning
from ledger.engine.row_keys import place_key
from ledger.engine.storage import LedgerStorage
from ledger.engine.witness import subject_of
from ledger.errors import InvalidTransaction
from ledger.transactions import Transaction

# A step ends with the block in which it comes to as many transactions.
MAX_STEP_TXS = 512
DAY_S = 86_400

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Keep:
    """For how long, in seconds of block time, proofs and all transactions are kept; None for ever."""

    proofs_s: int | None = None
    blocks_s: int | None = None

    @classmethod
    def days(cls, proofs: int, blocks: int) -> Keep:
        """From days, 0 for ever."""
        return cls(proofs * DAY_S or None, blocks * DAY_S or None)


class _Leaving(NamedTuple):
    """A transaction that leaves: the digest of its unsigned bytes, and whether it is a proof in full."""

    digest: bytes
    is_proof: bool


class Pruner:
    """Says of each new block what may leave with it."""

    def __init__(self, storage: LedgerStorage, keep: Keep) -> None:
        self._storage = storage
        self._keep = keep
        self._times: dict[int, int] = {}
        self._failed = False

    def step(self, now_s: int) -> Pruning | None:
        """What leaves when a block of the time `now_s` is written; None for nothing. The last block stays."""
        if self._failed or self._keep == Keep():
            return None
        try:
            return self._step(now_s)
        except CorruptStore as error:
            # New blocks are worth more than the room that old ones take.
            self._failed = True
            _log.error("nothing is pruned any more: %s", error)
            return None

    def _step(self, now_s: int) -> Pruning | None:
        before = self._storage.pruned()
        stubs: dict[bytes, bytes] = {}
        gone: dict[bytes, bytes] = {}
        digests: list[bytes] = []
        txs = 0
        blocks = before.blocks
        while txs < MAX_STEP_TXS and self._is_old(blocks + 1, self._keep.blocks_s, now_s):
            blocks += 1
            block = self._block(blocks)
            for index, cid in enumerate(block.txs):
                digests += [cid.digest, self._leave(blocks, index, gone).digest]
            txs += len(block.txs)
        proofs = max(before.proofs, blocks)
        while txs < MAX_STEP_TXS and self._is_old(proofs + 1, self._keep.proofs_s, now_s):
            proofs += 1
            for index in range(len(self._block(proofs).txs)):
                left = self._leave(proofs, index, gone)
                if left.is_proof:
                    stubs[place_key(proofs, index)] = left.digest
                txs += 1
        reached = Pruned(proofs, blocks)
        if reached == before:
            return None
        self._times = {height: at for height, at in self._times.items() if height > blocks}
        return Pruning(stubs, gone, range(before.blocks + 1, blocks + 1), digests, reached)

    def _is_old(self, height: int, keep_s: int | None, now_s: int) -> bool:
        if keep_s is None or height >= self._storage.height():
            return False
        if height not in self._times:
            self._times[height] = self._block(height).block_time_s
        return self._times[height] + keep_s < now_s

    def _block(self, height: int) -> Block:
        raw = self._storage.block(height)
        if raw is None:
            raise CorruptStore(f"block {height} is missing")
        try:
            return Block.decode(raw)
        except ValueError as error:
            raise CorruptStore(f"block {height} does not decode: {error}") from error

    def _tx(self, height: int, index: int) -> bytes:
        raw = self._storage.tx_row(height, index)
        if raw is None:
            raise CorruptStore(f"transaction {index} of block {height} is missing")
        return raw

    def _leave(self, height: int, index: int, gone: dict[bytes, bytes]) -> _Leaving:
        """What is known of a transaction that leaves; adds the row of a proof to `gone`."""
        raw = self._tx(height, index)
        if len(raw) == STUB_BYTES:
            return _Leaving(raw, is_proof=False)
        if index == 0:  # the beacon's
            return _Leaving(node_cid(raw).digest, is_proof=False)
        tx = _decode(raw, height, index)
        subject = subject_of(tx.body, height)
        if subject is not None:
            gone[subject] = place_key(height, index)
        digest = node_cid(transactions.unsigned_of(raw, tx)).digest
        return _Leaving(digest, is_proof=subject is not None)


def _decode(raw: bytes, height: int, index: int) -> Transaction:
    try:
        return transactions.decode(raw)
    except InvalidTransaction as error:
        raise CorruptStore(f"transaction {index} of block {height} does not decode: {error}") from error
