"""Transactions on their way to CometBFT's mempool, and into a block that this node's application commits.

A transaction ends in one of these ways, and whoever waits is told of each: it is refused here, or by
CometBFT (full, too large, catching up, not there); it is in a block; CometBFT checks it again after a block,
and it does not pass any more; another one used its nonce; it has expired; it was not in a block in time; the
engine stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Protocol

from ledger.application import Application
from ledger.engine.blocks import Receipt
from ledger.engine.cometbft.rpc.answers import Verdict
from ledger.engine.errors import EngineError, EngineUnavailable
from ledger.engine.intake import MAX_WAITING, VERIFY_BATCH, Intake, run_together
from ledger.mempool import ReadTx
from ledger.result import Code, TxResult
from merkledag.cid import CID

# Less than clients wait for an answer; a block comes every second or sooner.
PATIENCE_S = 45.0
# Of signatures in blocks, in the threads.
BATCHES_AT_ONCE = 4
# Handed over together.
MAX_BATCH = 512

_log = logging.getLogger(__name__)


class Broadcaster(Protocol):
    """Whoever gives transactions to CometBFT's mempool (`rpc.client.CometRpc`)."""

    async def broadcast_tx_async(self, raws: Sequence[bytes]) -> Sequence[Verdict]:
        """Of each, in this order, what its mempool says, without waiting for CheckTx, which asks us.

        Raises EngineError where nothing is known.
        """


class Submissions(Intake):
    """What waits for a block of CometBFT's; its own checks go through the same queue (`check`)."""

    def __init__(
        self,
        app: Application,
        verifiers: Executor,
        committed: Callable[[CID], Receipt | None],
        broadcaster: Broadcaster,
        *,
        max_waiting: int = MAX_WAITING,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__(app, verifiers, committed, max_waiting, patience_s)
        self._broadcaster = broadcaster
        self._admitted_ones: asyncio.Queue[bytes] = asyncio.Queue()
        self._asked: dict[bytes, list[asyncio.Future[TxResult]]] = {}
        # What somebody waits for and every check passed.
        self._pending: dict[bytes, ReadTx] = {}
        # Of these, what CometBFT has not asked about yet: it will not ask again after a block.
        self._unasked: dict[bytes, None] = {}

    async def run(self) -> None:
        """Verifies, checks and sends, until cancelled."""
        await run_together(super().run(), self._send())

    # -- CometBFT's questions ------------------------------------------------------------------------------

    async def check(self, raw: bytes) -> TxResult:
        """Whether a transaction may be in the mempool; in order, signatures are verified in threads."""
        if raw in self._pending:
            self._unasked.pop(raw, None)
            return self._app.check_tx(raw)  # it was verified, and waits already
        if self._closed is not None:
            raise self._closed
        asked: asyncio.Future[TxResult] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(raw, []).append(asked)
        self._arrived.put_nowait(raw)
        return await asked

    async def verify_ahead(self, raws: Sequence[bytes]) -> None:
        """Verifies another's block in threads: its signatures, then its proofs, until one is bad.

        Running the block ends there, too.
        """
        if await self.verify_signatures(raws):
            await self.look(raws, to_the_first_bad=True)

    async def verify_signatures(self, raws: Sequence[bytes]) -> bool:
        """Verifies in threads those that `Application` has not met, until one is bad; whether all are good.

        A part of them at a time: what is verified waits to be picked up.
        """
        loop = asyncio.get_running_loop()
        unseen = [raw for raw in raws if not self._app.is_verified(raw)]
        batches = [unseen[begin : begin + VERIFY_BATCH] for begin in range(0, len(unseen), VERIFY_BATCH)]
        for first in range(0, len(batches), BATCHES_AT_ONCE):
            part = batches[first : first + BATCHES_AT_ONCE]
            verify = (loop.run_in_executor(self._verifiers, self._verify_sound, batch) for batch in part)
            await asyncio.gather(*verify)
            if not all(self._app.is_verified(raw) for batch in part for raw in batch):
                return False
        return True

    def _verify_sound(self, batch: list[bytes]) -> None:
        """Verifies what comes before the first bad one."""
        for raw in batch:
            if not self._guarded(self._app.verify_signature, raw).ok:
                return

    def recheck(self, raw: bytes) -> TxResult:
        """Whether one still may, after a block; whoever waits for it is told if not."""
        result = self._guarded(self._app.recheck_tx, raw)
        if not result.ok and raw in self._outcomes:
            self.refuse(raw, result)
        return result

    # -- blocks --------------------------------------------------------------------------------------------

    def committed(self, raws: Iterable[bytes], receipts: Iterable[Receipt]) -> None:
        """A block has these: their senders are told, and those whose turn is over with it."""
        for raw, receipt in zip(raws, receipts, strict=True):
            self.resolve(raw, receipt)
        nonces: dict[bytes, int] = {}
        for raw, found in list(self._pending.items()):
            tx = found.tx
            if tx.account not in nonces:
                nonces[tx.account] = self._app.account(tx.account).nonce
            if tx.nonce < nonces[tx.account] or tx.expiry < self._app.time or raw in self._unasked:
                self.recheck(raw)
        self._app.forget_unseen()

    def close(self, error: EngineError) -> None:
        """See `Intake`; CometBFT's questions are answered with `error` too."""
        super().close(error)
        for asked in self._asked.values():
            for each in asked:
                if not each.done():
                    each.set_exception(error)
        self._asked.clear()

    # -- on the way ----------------------------------------------------------------------------------------

    def _checked(self, raw: bytes, result: TxResult) -> None:
        for asked in self._asked.pop(raw, ()):
            if not asked.done():
                asked.set_result(result)
        super()._checked(raw, result)

    def _admitted(self, raw: bytes) -> None:
        found = self._app.find(raw)
        assert found is not None, "what was admitted is a transaction"
        self._pending[raw] = found
        self._unasked[raw] = None
        self._admitted_ones.put_nowait(raw)

    def _resolved(self, raw: bytes) -> None:
        self._pending.pop(raw, None)
        self._unasked.pop(raw, None)

    async def _send(self) -> None:
        """Gives CometBFT what was admitted, in order: the nonces of an account follow each other."""
        while True:
            batch = [await self._admitted_ones.get()]
            while len(batch) < MAX_BATCH and not self._admitted_ones.empty():
                batch.append(self._admitted_ones.get_nowait())
            batch = [raw for raw in batch if raw in self._pending]
            if batch:
                await self._send_batch(batch)

    async def _send_batch(self, batch: list[bytes]) -> None:
        try:
            verdicts = await self._broadcaster.broadcast_tx_async(batch)
        except EngineError as error:
            unavailable = EngineUnavailable(str(error))
            for raw in batch:
                self._app.forget(raw)
                self.resolve(raw, unavailable)
            return
        for raw, verdict in zip(batch, verdicts, strict=True):
            if verdict.known:
                self._unasked.pop(raw, None)
            found = self._pending.get(raw)
            if verdict.code and found is not None:
                self._app.forget(raw)
                self.refuse(raw, TxResult(_code(verdict.code), verdict.log, found.tx_id))


def _code(number: int) -> Code:
    """A code of the ledger's; whatever else CometBFT says is that it has no room for it."""
    try:
        return Code(number)
    except ValueError:
        return Code.POOL_FULL
