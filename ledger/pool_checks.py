"""What an application says of transactions that wait for a block; a base of `Application`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ledger import execute, limits, money
from ledger.cache import RecentCache
from ledger.context import Context
from ledger.mempool import Pending, Reader, ReadTx, check_envelope
from ledger.proof_checker import Claim, KnownProofs, RememberingChecker
from ledger.records import ChainRecord
from ledger.result import Code, TxResult
from ledger.state import State
from ledger.transactions import is_proof
from ledger.views import Queries
from merkledag.cid import CID

# What an earlier transaction of the same account, or the next block, may still cure.
PASSING = frozenset({Code.NONCE_GAP, Code.BLOCK_FULL})


class PoolChecks(Queries):
    """Checks against the last committed block, also while another one is being run.

    `Application` owns what these need.
    """

    _reader: Reader
    _pending: Pending
    _proofs: RememberingChecker
    _dropped: dict[bytes, TxResult]
    _failed: RecentCache[CID, Code]
    _tries: int
    _new_tries: int

    def check_tx(self, raw: bytes) -> TxResult:
        """Whether a transaction may wait for a block; cheap. Remembers signatures and pending nonces.

        Whoever sends a proof that nothing waits for is told so here, before anybody verifies it. What
        `recheck_tx` has shown to fail does not pass as long as it does: it would come and go for ever.
        """
        found = self._reader.read(raw)
        if isinstance(found, TxResult):
            return found
        refused = check_envelope(found, self.params, self.time)
        refused = refused or self._pending.check(found, self.account(found.tx.account), self.height)
        if refused is None and execute.is_checked_early(found.tx.body):
            refused = execute.check_early(self._committed_context(), found)
        if refused is None and self._new_tries > 0 and self._failed.get(found.tx_id) is not None:
            self._new_tries -= 1
            refused = self._fails(raw)
        if refused is None:
            self._pending.add(found, self.height)
        elif refused.code is Code.INVALID_POSSESSION:
            self._pending.note_result(found, refused.code, self.height)
        return refused or TxResult(Code.OK, "", found.tx_id)

    def recheck_tx(self, raw: bytes) -> TxResult:
        """Whether a transaction that `check_tx` let in may go on waiting, asked once after every block.

        An account's have to be asked about in their order. What the last `prepare_proposal` dropped may not;
        what has waited for many blocks is tried on the present state, a bounded number a block: where it is
        proposed it fails and is left out, and no block ever takes it away.
        """
        found = self._reader.read(raw)
        if isinstance(found, TxResult):
            return found
        failed = self._dropped.pop(raw, None)
        refused = failed or check_envelope(found, self.params, self.time)
        refused = refused or self._pending.recheck(found, self.account(found.tx.account), self.height)
        if refused is None and execute.is_checked_early(found.tx.body):
            refused = execute.check_early(self._committed_context(), found, is_new=False)
        if refused is None:
            refused = failed = self._try(found, raw)
        if failed is not None:
            self._failed.put(found.tx_id, failed.code)
        if refused is not None:
            self._pending.forget(found)
        return refused or TxResult(Code.OK, "pending", found.tx_id)

    def _try(self, found: ReadTx, raw: bytes) -> TxResult | None:
        """Why a transaction that has waited for long fails on the present state, if it does in its turn."""
        waited = self.height - self._pending.since(found, self.height)
        if waited < limits.TRY_AFTER_BLOCKS or self._tries <= 0 or is_proof(found.tx.body):
            return None
        self._tries -= 1
        return self._fails(raw)

    def _fails(self, raw: bytes) -> TxResult | None:
        """Why a transaction fails on the present state, if it does; of proofs, what is known of them."""
        ctx = self._committed_context()
        ctx.proofs = KnownProofs(self._proofs)
        ctx.state.begin()
        result = execute.run(ctx, raw, self._reader)
        return None if result.ok or result.code in PASSING else result

    def forget_unseen(self) -> None:
        """What neither `check_tx` nor `recheck_tx` was asked about since the block before this one is gone.

        Called after each block, for an engine with a pool of its own that has all of it rechecked then.
        """
        self._pending.forget_unseen(self.height - 1)

    def verify_signature(self, raw: bytes) -> TxResult:
        """Decodes and verifies ahead of `check_tx`, which then need not. May run in other threads."""
        return self._reader.verify_ahead(raw)

    def is_verified(self, raw: bytes) -> bool:
        """Whether `verify_signature` has nothing left to do, wherever the transaction was met before."""
        return self._reader.is_verified(raw)

    def unverified_proofs(self, raws: Iterable[bytes]) -> Iterator[list[Claim]]:
        """Proofs among these transactions that take long to verify: `proof_checker.look` does it in a thread.

        What it says of a batch goes to `note_proofs` before the next one is taken; then no block that they
        come in has to wait for it.
        """
        return self._proofs.batches(execute.claims(self._committed_context(), raws, self._reader))

    def note_proofs(self, claims: Sequence[Claim], verdicts: Sequence[str | None]) -> None:
        """What was found out about proofs."""
        self._proofs.note(claims, verdicts)

    def find(self, raw: bytes) -> ReadTx | None:
        """The transaction that the bytes are, decoded once wherever it is met; None if they are none."""
        found = self._reader.read(raw)
        return None if isinstance(found, TxResult) else found

    def sender(self, raw: bytes) -> bytes:
        """Whose transaction it is, b"" if the bytes are none."""
        found = self.find(raw)
        return b"" if found is None else found.tx.account

    def is_proof(self, raw: bytes) -> bool:
        """Whether it is a transaction, and one for which places and bytes are kept."""
        found = self.find(raw)
        return found is not None and is_proof(found.tx.body)

    def forget(self, raw: bytes) -> None:
        """The engine no longer holds this pending transaction (evicted): its nonce is free again."""
        found = self.find(raw)
        if found is not None:
            self._pending.forget(found)

    def _committed_context(self) -> Context:
        """The last committed block, to check against; also while another one is being made."""
        return self._context(self._chain, self._state.as_committed())

    def _context(self, chain: ChainRecord, state: State | None = None) -> Context:
        return Context(
            state=state or self._state,
            params=self.params,
            totals=money.Totals.of(self.totals()),
            proofs=self._proofs,
            chain_id=self.chain_id,
            chain=chain,
            params_version=self._chain.params_version,
            operator=b"" if self.genesis.validators else self.genesis.operator,
        )
