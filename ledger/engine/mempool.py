"""Transactions on their way into a block: verified in threads, admitted in order of arrival, bounded.

Proofs have a lane of their own: a quarter of the places, and half of every block, so that no flood of other
transactions makes a provider miss its window.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from ledger.application import Application
from ledger.engine.blocks import Receipt, node_cid
from ledger.engine.errors import EngineError, MempoolFull
from ledger.result import Code, TxResult
from ledger.transactions import Answer, Prove
from merkledag.cid import CID

MAX_WAITING = 20_000
MAX_WAITING_BYTES = 64 << 20
# What a transaction that a block has is refused with: its nonce is used, and times and fees have changed.
OUTLIVED = frozenset({Code.NONCE_USED, Code.EXPIRED, Code.FEE_TOO_LOW})
VERIFY_BATCH = 64
# In the canonical bytes of every proof, and perhaps of others: "kind" and the kind, short texts both.
PROOF_MARKS = tuple(
    b"\x64kind" + bytes([0x60 + len(kind)]) + kind for kind in (Prove.kind.encode(), Answer.kind.encode())
)
VERIFY_AHEAD = 2  # batches in the threads besides the one whose results are awaited

_log = logging.getLogger(__name__)

Outcome = Receipt | EngineError


def _may_be_proof(raw: bytes) -> bool:
    return any(mark in raw for mark in PROOF_MARKS)


@dataclass
class _Budget:
    """Room in a block."""

    count: int
    size_bytes: int

    def take(self, lane: Mapping[bytes, int], taken_before: Collection[bytes] = ()) -> dict[bytes, int]:
        """The first ones of a lane that fit, but for those that were taken before."""
        taken: dict[bytes, int] = {}
        for raw, number in lane.items():
            if raw in taken_before:
                continue
            if self.count <= 0 or self.size_bytes < len(raw):
                break
            taken[raw] = number
            self.count -= 1
            self.size_bytes -= len(raw)
        return taken


class Mempool:
    """What waits for a block. `committed` finds the receipt of a transaction that a block already has.

    `run` must be running for anything to be admitted; `on_admitted` is called whenever something was.
    """

    def __init__(
        self,
        app: Application,
        verifiers: Executor,
        committed: Callable[[CID], Receipt | None],
        on_admitted: Callable[[], None],
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._app = app
        self._verifiers = verifiers
        self._committed = committed
        self._on_admitted = on_admitted
        self._max_waiting = max_waiting
        self._outcomes: dict[bytes, asyncio.Future[Outcome]] = {}
        # Both lanes keep the order of admission; the numbers put them into one again.
        self._proofs: dict[bytes, int] = {}
        self._others: dict[bytes, int] = {}
        self._numbers = itertools.count()
        self._size_bytes = 0
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._verifying: asyncio.Queue[tuple[list[bytes], asyncio.Future[list[TxResult]]]] = asyncio.Queue(
            VERIFY_AHEAD
        )
        self._closed: EngineError | None = None

    def __len__(self) -> int:
        return len(self._outcomes)

    @property
    def ready(self) -> bool:
        """Whether an admitted transaction waits for a block."""
        return bool(self._proofs or self._others)

    def grows(self, limit: int) -> bool:
        """Whether fewer than `limit` are admitted, and more are being verified."""
        return len(self._proofs) + len(self._others) < min(limit, len(self._outcomes))

    async def submit(self, raw: bytes) -> Receipt:
        """The transaction's receipt, once it is in a block or refused.

        The same bytes sent twice share one outcome; cancelling the call does not take the transaction back.
        Raises MempoolFull, EngineStopped, StoreError.
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
        share = 1.0 if _may_be_proof(raw) else 0.75
        is_full = len(self._outcomes) >= share * self._max_waiting
        if is_full or self._size_bytes + len(raw) > share * MAX_WAITING_BYTES:
            raise MempoolFull(f"{len(self._outcomes)} transactions are waiting already; send again later")
        outcome = self._outcomes[raw] = asyncio.get_running_loop().create_future()
        self._size_bytes += len(raw)
        self._arrived.put_nowait(raw)
        return outcome

    def candidates(self, limit: int, max_bytes: int) -> list[bytes]:
        """The oldest admitted transactions, within the limits, in order; half of both is for proofs first.

        In the other half what comes before a chosen proof of the same account, which has to wait for it, is
        first.
        """
        budget = _Budget(limit // 2, max_bytes // 2)
        chosen = budget.take(self._proofs)
        budget = _Budget(budget.count + limit - limit // 2, budget.size_bytes + max_bytes - max_bytes // 2)
        chosen |= budget.take(self._before(chosen))
        chosen |= budget.take(self._others, chosen)
        chosen |= budget.take(self._proofs, chosen)
        return sorted(chosen, key=chosen.__getitem__)

    def _before(self, proofs: Mapping[bytes, int]) -> dict[bytes, int]:
        """What the senders of these proofs have sent before them: nonces have an order."""
        last = {self._app.sender(raw): number for raw, number in proofs.items()}
        if not last:
            return {}
        return {raw: n for raw, n in self._others.items() if n < last.get(self._app.sender(raw), 0)}

    def resolve(self, raw: bytes, outcome: Outcome) -> None:
        """Ends the waiting of a transaction."""
        self._proofs.pop(raw, None)
        self._others.pop(raw, None)
        future = self._outcomes.pop(raw, None)
        if future is not None:
            self._size_bytes -= len(raw)
            future.set_result(outcome)

    def recheck(self, raws: list[bytes]) -> None:
        """Refuses those that no block will take any more, because one before them was refused."""
        waiting = [raw for raw in raws if raw in self._proofs or raw in self._others]
        for raw in waiting:
            self._app.forget(raw)
        for raw in waiting:
            result = self._app.check_tx(raw)
            if not result.ok:
                self.resolve(raw, Receipt.of(result, 0, node_cid(raw)))

    def close(self, error: EngineError) -> None:
        """Ends everything that waits, and all that would come, with `error`."""
        self._closed = error
        for raw in list(self._outcomes):
            self.resolve(raw, error)

    async def run(self) -> None:
        """Verifies and admits, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._verify())
            tasks.create_task(self._admit())

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
        """A stranger's bytes never stop the engine, whatever they set off."""
        try:
            return check(raw)
        except Exception:
            _log.exception("a transaction of %d bytes could not be checked", len(raw))
            return TxResult(Code.MALFORMED, "the ledger could not check it (an error of its own)")

    async def _admit(self) -> None:
        while True:
            batch, verified = await self._verifying.get()
            for raw, result in zip(batch, await verified, strict=True):
                self._admit_one(raw, result)
            if self.ready:
                self._on_admitted()

    def _admit_one(self, raw: bytes, verified: TxResult) -> None:
        if raw not in self._outcomes:
            return  # closed meanwhile
        result = self._guarded(self._app.check_tx, raw) if verified.ok else verified
        if result.ok:
            lane = self._proofs if _may_be_proof(raw) and self._app.is_proof(raw) else self._others
            lane[raw] = next(self._numbers)
            return
        receipt = None
        if verified.ok and result.code in OUTLIVED and result.tx_id is not None:
            # Whoever lost the answer sends again: tell what became of it, and not what would by now.
            receipt = self._committed(result.tx_id)
        self.resolve(raw, receipt or Receipt.of(result, 0, node_cid(raw)))
