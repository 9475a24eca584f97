"""Transactions that somebody waits for: verified in threads, checked in order, each with an outcome.

What becomes of those that pass is the engine's: `Mempool` keeps them for its blocks, CometBFT's gets them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any

from ledger import limits
from ledger.application import Application
from ledger.engine.blocks import Receipt, node_cid
from ledger.engine.errors import EngineError, EngineUnavailable, MempoolFull, damaged_state
from ledger.errors import CorruptState
from ledger.proof_checker import look
from ledger.result import Code, TxResult
from ledger.transactions import Answer, Prove
from merkledag.cid import CID

MAX_WAITING = 20_000
MAX_WAITING_BYTES = 64 << 20
# What a transaction that a block has is refused with: its nonce is used, and times and fees have changed.
OUTLIVED = frozenset({Code.NONCE_USED, Code.EXPIRED, Code.FEE_TOO_LOW})
VERIFY_BATCH = 64
VERIFY_AHEAD = 2  # batches in the threads besides the one whose results are awaited
MAX_PROOFS_AHEAD = 4_096  # that wait to be looked at; those of more are when a block is to have them
# In the canonical bytes of every proof, and perhaps of others: "kind" and the kind, short texts both.
PROOF_MARKS = tuple(
    b"\x64kind" + bytes([0x60 + len(kind)]) + kind for kind in (Prove.kind.encode(), Answer.kind.encode())
)

_log = logging.getLogger(__name__)

Outcome = Receipt | EngineError


def may_be_proof(raw: bytes) -> bool:
    """Whether bytes may be a transaction that is a proof: a cheap guess that misses none."""
    return any(mark in raw for mark in PROOF_MARKS)


async def run_together(*works: Coroutine[Any, Any, None]) -> None:
    """Runs all of them until one fails, and raises what that one raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


class Intake:
    """Takes transactions in while `run` runs; at most `max_waiting`, a quarter of the places for proofs.

    `committed` finds the receipt of a transaction that a block already has. What is not decided
    after `patience_s` (None: however long it takes) is given up.
    """

    def __init__(
        self,
        app: Application,
        verifiers: Executor,
        committed: Callable[[CID], Receipt | None],
        max_waiting: int = MAX_WAITING,
        patience_s: float | None = None,
    ) -> None:
        self._app = app
        self._verifiers = verifiers
        self._committed = committed
        self._max_waiting = max_waiting
        self._patience_s = patience_s
        self._outcomes: dict[bytes, asyncio.Future[Outcome]] = {}
        self._deadlines: dict[bytes, asyncio.TimerHandle] = {}
        self._size_bytes = 0
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._verifying: asyncio.Queue[tuple[list[bytes], asyncio.Future[list[TxResult]]]] = asyncio.Queue(
            VERIFY_AHEAD
        )
        # Proofs that passed every check but what they show.
        self._unseen: asyncio.Queue[bytes] = asyncio.Queue(MAX_PROOFS_AHEAD)
        self._looking = asyncio.Lock()
        self._closed: EngineError | None = None

    def __len__(self) -> int:
        return len(self._outcomes)

    def use(self, app: Application) -> None:
        """Goes on with the application of a state that took the place of the one so far."""
        self._app = app

    # -- what the engine makes of them ---------------------------------------------------------------------

    def _admitted(self, raw: bytes) -> None:
        """It passed every check that needs no block, and somebody waits for it."""
        raise NotImplementedError

    def _resolved(self, raw: bytes) -> None:
        """Nobody waits for it any more."""

    def _batch_checked(self) -> None:
        """Some more have been admitted or refused."""

    # -- who waits -----------------------------------------------------------------------------------------

    async def submit(self, raw: bytes) -> Receipt:
        """The transaction's receipt, once it is in a block or refused.

        The same bytes sent twice share one outcome; cancelling the call does not take the transaction back.
        Raises MempoolFull, EngineStopped, EngineUnavailable, StoreError.
        """
        result = await asyncio.shield(self._enter(raw))
        if isinstance(result, EngineError):
            raise result
        return result

    async def submit_all(self, raws: Sequence[bytes]) -> list[Receipt]:
        """The receipts of many, in their order, once all are decided; they keep their order in the ledger.

        What found no room has code POOL_FULL, which is no error of the others. Raises as `submit` otherwise,
        and MempoolFull if there was room for none; sending all of them again tells what became of them.
        """
        entered: list[asyncio.Future[Outcome] | MempoolFull] = []
        for raw in raws:
            try:
                entered.append(self._enter(raw))
            except MempoolFull as error:
                entered.append(error)
        waiting = {each for each in entered if not isinstance(each, MempoolFull)}
        if not waiting and entered:
            raise MempoolFull("no room for any of them; send again later")
        if waiting:
            await asyncio.wait(waiting)
        receipts = []
        for raw, each in zip(raws, entered, strict=True):
            outcome = each if isinstance(each, MempoolFull) else each.result()
            if isinstance(outcome, MempoolFull):
                outcome = Receipt.of(TxResult(Code.POOL_FULL, str(outcome)), 0, node_cid(raw))
            if isinstance(outcome, EngineError):
                raise outcome
            receipts.append(outcome)
        return receipts

    def _enter(self, raw: bytes) -> asyncio.Future[Outcome]:
        """What will be known of a transaction; one that is new is sent to be verified."""
        outcome = self._outcomes.get(raw)
        if outcome is not None:
            return outcome
        if self._closed is not None:
            raise self._closed
        share = 1.0 if may_be_proof(raw) else 0.75
        is_full = len(self._outcomes) >= share * self._max_waiting
        if is_full or self._size_bytes + len(raw) > share * MAX_WAITING_BYTES:
            raise MempoolFull(f"{len(self._outcomes)} transactions are waiting already; send again later")
        loop = asyncio.get_running_loop()
        outcome = self._outcomes[raw] = loop.create_future()
        if self._patience_s is not None:
            self._deadlines[raw] = loop.call_later(self._patience_s, self._give_up, raw)
        self._size_bytes += len(raw)
        self._arrived.put_nowait(raw)
        return outcome

    def _give_up(self, raw: bytes) -> None:
        """Also where nobody waits any more, so that nothing keeps its place for ever."""
        why = f"no block has taken the transaction in {self._patience_s:g} s, and one still may"
        self.resolve(raw, EngineUnavailable(f"{why}: the same bytes sent again are told what became of it"))

    def resolve(self, raw: bytes, outcome: Outcome) -> None:
        """Ends the waiting of a transaction."""
        self._resolved(raw)
        deadline = self._deadlines.pop(raw, None)
        if deadline is not None:
            deadline.cancel()
        future = self._outcomes.pop(raw, None)
        if future is not None:
            self._size_bytes -= len(raw)
            future.set_result(outcome)

    def refuse(self, raw: bytes, result: TxResult) -> None:
        """Ends the waiting of one that no block will take, or that one has taken already."""
        receipt = None
        if result.code in OUTLIVED and result.tx_id is not None:
            # Whoever lost the answer sends again: tell what became of it, and not what would by now.
            receipt = self._committed(result.tx_id)
        self.resolve(raw, receipt or Receipt.of(result, 0, node_cid(raw)))

    def close(self, error: EngineError) -> None:
        """Ends everything that waits, and all that would come, with `error`."""
        self._closed = error
        for raw in list(self._outcomes):
            self.resolve(raw, error)

    # -- checking ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Verifies and checks, until cancelled. Raises CorruptStore."""
        await run_together(self._verify(), self._check(), self._look_ahead())

    async def _verify(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._arrived.get()]
            while len(batch) < VERIFY_BATCH and not self._arrived.empty():
                batch.append(self._arrived.get_nowait())
            await self._verifying.put(
                (batch, loop.run_in_executor(self._verifiers, self._verify_batch, batch))
            )

    def _verify_batch(self, batch: list[bytes]) -> list[TxResult]:
        return [self._guarded(self._app.verify_signature, raw) for raw in batch]

    def _guarded(self, check: Callable[[bytes], TxResult], raw: bytes) -> TxResult:
        """A stranger's bytes never stop the engine, whatever they set off; damage of its own does."""
        try:
            return check(raw)
        except CorruptState as error:
            raise damaged_state(error) from error
        except Exception:
            _log.exception("a transaction of %d bytes could not be checked", len(raw))
            return TxResult(Code.MALFORMED, "the ledger could not check it (an error of its own)")

    async def _check(self) -> None:
        while True:
            batch, verified = await self._verifying.get()
            for raw, result in zip(batch, await verified, strict=True):
                self._checked(raw, self._guarded(self._app.check_tx, raw) if result.ok else result)
            self._batch_checked()

    def _checked(self, raw: bytes, result: TxResult) -> None:
        if result.ok and may_be_proof(raw) and not self._unseen.full():
            self._unseen.put_nowait(raw)
        if raw not in self._outcomes:
            return  # closed meanwhile
        if result.ok:
            self._admitted(raw)
        else:
            self.refuse(raw, result)

    # -- proofs --------------------------------------------------------------------------------------------

    async def _look_ahead(self) -> None:
        """Looks at waiting proofs: in the block that has them it would hold up everybody."""
        while True:
            batch = [await self._unseen.get()]
            while len(batch) < limits.KZG_BATCH and not self._unseen.empty():
                batch.append(self._unseen.get_nowait())
            try:
                await self.look(batch)
            except CorruptState as error:
                raise damaged_state(error) from error
            except Exception:
                _log.exception("proofs could not be looked at before a block has them")

    async def look(self, raws: Sequence[bytes], *, to_the_first_bad: bool = False) -> None:
        """Looks in a thread at the proofs among these that nobody has looked at: a block then need not.

        One thread at a time: none is looked at twice, and signatures have the others.
        """
        async with self._looking:
            for claims in self._app.unverified_proofs(raws):
                verdicts = await asyncio.get_running_loop().run_in_executor(self._verifiers, look, claims)
                self._app.note_proofs(claims, verdicts)
                if to_the_first_bad and any(verdicts):
                    return
