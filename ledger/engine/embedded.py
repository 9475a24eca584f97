"""The embedded engine: one process that makes the blocks, on demand and whenever ledger time asks for one.

A block is made when a transaction waits (all that wait go into it, within its bounds), when block time
reaches the application's next due instant, and at least every `max_step_s` while a deal lives. Otherwise
there are none. A block is decided once it is in the write-ahead log, and confirmed once the database has it.

The event loop's thread drives the application; signatures and proofs are verified, and blocks written, in
other threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Protocol

from ledger.application import PASSING, Application, BlockInput
from ledger.engine.assemble import Assembled, assemble
from ledger.engine.block_clock import BlockClock, Moment
from ledger.engine.blocks import BlockEvents, Receipt, node_cid
from ledger.engine.disk import RETRY_S, Disk
from ledger.engine.engine import STOPPING, EngineStatus, Provable, report_mistakes
from ledger.engine.errors import (
    CorruptStore,
    EngineError,
    EngineStopped,
    PrunedHistory,
    StoreError,
    damaged_state,
)
from ledger.engine.fanout import Fanout, Subscription
from ledger.engine.history import History
from ledger.engine.intake import MAX_WAITING
from ledger.engine.mempool import Mempool
from ledger.engine.pruning import Keep, Pruner
from ledger.engine.snapshots import Snapshots
from ledger.engine.storage import LedgerStorage
from ledger.engine.stored import StoredBlock
from ledger.errors import CorruptState, UnknownRules
from ledger.result import Code, TxResult
from ledger.transactions import Beacon
from merkledag.cid import CID
from merkledag.ed25519 import Signer

# More would keep the event loop busy for longer than about a tenth of a second.
MAX_TXS_PER_BLOCK = 1_024
MAX_TX_BYTES_PER_BLOCK = 2 << 20
VERIFY_THREADS = 2
# Under load, blocks wait so long for what is being verified: each costs some milliseconds whatever it holds.
GATHER_S = 0.05

_log = logging.getLogger(__name__)


class BeaconSigner(Protocol):
    """Whoever can sign with the operator's BLS key (`proofs.bls.signatures.BlsSigner`)."""

    def sign(self, message: bytes) -> bytes:
        """96 bytes."""


class EmbeddedEngine:
    """Drives one application over one open store (see `assemble.load_application`).

    `beacons` are BLS keys by public key: the one that the application says counts signs the next beacon.
    `clock` gives seconds since 1970 and may jump; `monotonic` never does, and `sleep` waits for that many of
    its seconds (see `BlockClock`). What is older than `keep` leaves bit by bit, with the blocks made.
    After every `snapshot_blocks` blocks (0: never) the state is written into a file.
    """

    name = "embedded"

    def __init__(
        self,
        app: Application,
        storage: LedgerStorage,
        operator: Signer,
        beacons: Mapping[bytes, BeaconSigner],
        clock: Callable[[], float],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        max_waiting: int = MAX_WAITING,
        keep: Keep | None = None,
        snapshot_blocks: int = 0,
    ) -> None:
        self.app = app
        self.history = History(storage)
        self._storage = storage
        self.snapshots = Snapshots(storage, app.chain_id, snapshot_blocks, monotonic)
        self._pruner = Pruner(storage, keep or Keep())
        self._operator = operator
        self._beacons = beacons
        self._clock = BlockClock(clock, monotonic, app.block_time_s)
        self._sleep = sleep
        self._verifiers = ThreadPoolExecutor(VERIFY_THREADS, "ledger-verify")
        self._writer = ThreadPoolExecutor(1, "ledger-write")
        self._disk = Disk(self._writer, self._rest, lambda: self._stopping)
        self._mempool = Mempool(app, self._verifiers, self._committed, self._admitted, max_waiting)
        self._fanout: Fanout[BlockEvents] = Fanout()
        self._wake = asyncio.Event()
        self._stalled = False
        self._stopping = False
        self._prev: CID | None = None
        self._next_beacon: asyncio.Future[bytes] | None = None
        self._intake: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    # -- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to make blocks. Raises CorruptStore when store and application do not agree."""
        if self.app.height != self._storage.height():
            raise CorruptStore("store and application are at different heights; load the application anew")
        if self.app.height:
            tip = self._storage.block(self.app.height)
            self._prev = None if tip is None else node_cid(tip)
        self._beacon_signature()
        self._task = asyncio.create_task(self._run(), name="ledger-engine")

    async def stop(self) -> None:
        """Finishes the block under way, refuses what still waits, and ends. Harmless twice.

        The store stays open (its owner closes it).
        """
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.exception()  # `wait_ended` tells it, and the log has it
        self._close(EngineStopped(STOPPING))

    async def wait_ended(self) -> None:
        """Returns when the engine was stopped; raises EngineStopped if it failed (its cause says why)."""
        if self._task is None:
            return
        await asyncio.wait({self._task})
        failure = None if self._task.cancelled() else self._task.exception()
        if isinstance(failure, UnknownRules | CorruptStore):
            raise EngineStopped(str(failure)) from failure
        if failure is not None:
            raise EngineStopped(f"the ledger's engine has failed: {failure!r}") from failure

    @property
    def status(self) -> EngineStatus:
        """How the engine is right now."""
        return EngineStatus(len(self._mempool), len(self._fanout), self._disk.trouble)

    # -- what others ask of it -----------------------------------------------------------------------------

    async def submit(self, raw: bytes) -> Receipt:
        """The receipt of a signed transaction after its block is confirmed, or at once if it is refused.

        A refused one has height 0. Sending the same bytes again is harmless: it tells what became of them.
        Raises MempoolFull, EngineStopped, or StoreError when the disk refuses (then nothing was kept).
        """
        return await self._mempool.submit(raw)

    async def submit_all(self, raws: Sequence[bytes]) -> list[Receipt]:
        """The receipts of many signed transactions, in their order; as `submit`, at less cost for each.

        One for which there was no room has code POOL_FULL. Raises MempoolFull if there was room for none.
        """
        return await self._mempool.submit_all(raws)

    def subscribe(self) -> Subscription[BlockEvents]:
        """The events of every block confirmed from now on. Raises TooManySubscribers."""
        return self._fanout.subscribe()

    def provable(self, least: int) -> Provable:
        """See `Engine`: a block is signed with the app hash after it."""
        return Provable(self.app.height, self.app.prove)

    def get_node(self, cid: CID) -> bytes | None:
        """The block or transaction that `cid` names, as DAG-CBOR, or None."""
        return self.history.node(cid)

    # -- making blocks -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        self._intake = asyncio.create_task(self._mempool.run(), name="ledger-intake")
        self._intake.add_done_callback(lambda _task: self._wake.set())
        error = EngineStopped(STOPPING)
        try:
            while not self._stopping:
                if self._intake.done():
                    self._intake.result()
                await self._until_block()
                if not self._ending:
                    await self._make_block()
        except (UnknownRules, CorruptStore) as failure:
            error = EngineStopped(str(failure))
            _log.critical("the ledger stops: %s", failure)
            raise
        except CorruptState as failure:
            damage = damaged_state(failure)
            error = EngineStopped(str(damage))
            _log.critical("the ledger stops: %s", damage)
            raise damage from failure
        except BaseException as failure:
            error = EngineStopped("the ledger's engine has failed; see its log and restart it")
            if not isinstance(failure, asyncio.CancelledError):
                _log.critical("the ledger's engine has failed and stops: %r", failure)
            raise
        finally:
            self._intake.cancel()
            await asyncio.wait({self._intake})
            self._close(error)

    @property
    def _ending(self) -> bool:
        return self._stopping or (self._intake is not None and self._intake.done())

    def _close(self, error: EngineError) -> None:
        self._mempool.close(error)
        self._fanout.close()
        if self._next_beacon is not None:
            self._next_beacon.cancel()
        self._verifiers.shutdown(wait=False)
        self._writer.shutdown(wait=True)
        self.snapshots.close()

    def _admitted(self) -> None:
        self._stalled = False
        self._wake.set()

    def _committed(self, tx_id: CID) -> Receipt | None:
        try:
            found = self.history.tx(tx_id)
        except PrunedHistory:
            return None
        return None if found is None or found.receipt.code else found.receipt

    def _block_due_at(self) -> int | None:
        """The block time at which a block must be made although nothing waits, None for never."""
        steps = []
        due = self.app.next_due()
        if due is not None:
            steps.append(max(0, due - self.app.time))
        if due is not None or self.app.has_live_deals():
            steps.append(self.app.params.max_step_s)
        return self.app.block_time_s + min(steps) if steps else None

    def _is_due(self) -> bool:
        due_at = self._block_due_at()
        return due_at is not None and self._clock.now().block_s >= due_at

    async def _until_block(self) -> None:
        while not self._ending:
            if self._is_due():
                return
            if self._mempool.ready and not self._stalled:
                await self._gather()
                return
            due_at = self._block_due_at()
            await self._rest(None if due_at is None else due_at - self._clock.now().block_s)

    async def _gather(self) -> None:
        """Lets what is being verified come into the next block too, for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                while self._mempool.grows(MAX_TXS_PER_BLOCK) and not self._ending:
                    self._wake.clear()
                    await self._wake.wait()

    async def _rest(self, seconds: float | None) -> None:
        """Waits until `seconds` (None: for ever) have passed, a transaction is admitted, or the end comes."""
        self._wake.clear()
        if self._ending:
            return
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._wake.wait())]
        if seconds is not None:
            waits.append(asyncio.ensure_future(self._sleep(max(0.0, seconds))))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)

    def _beacon_signature(self) -> asyncio.Future[bytes]:
        """The operator's signature in the next block's head; begun early, so that the block need not wait."""
        if self._next_beacon is None:
            message = self.app.beacon_transaction_message(self.app.height + 1)
            check = self.app.beacon_check(self._operator.public_key)
            key = self.app.bls_key(self._operator.public_key) or b""

            def work() -> bytes:
                if key not in self._beacons:
                    raise EngineError(f"the BLS key {key.hex()} that beacons are signed with is not here")
                signature = self._beacons[key].sign(message)
                check(signature)
                return signature

            self._next_beacon = asyncio.get_running_loop().run_in_executor(self._writer, work)
        return self._next_beacon

    async def _make_block(self) -> None:
        height = self.app.height + 1
        head = Beacon(self.app.chain_id, height, await self._beacon_signature()).encode()
        # Far within what a block may have, and half of it for proofs: no need of `prepare_proposal`. Running
        # the block shows what does not pass.
        chosen = self._mempool.candidates(MAX_TXS_PER_BLOCK, MAX_TX_BYTES_PER_BLOCK)
        await self._mempool.look(chosen)
        moment = self._clock.now()
        now = int(moment.block_s)
        given = BlockInput(height, now, self._operator.public_key, (head, *chosen))
        result = self.app.finalize_block(given)
        if not all(one.ok for one in result.tx_results):
            # What failed left no trace, so that without it the rest passes as it did.
            self.app.abort()
            waiting = len(self._mempool)
            passed = self._sort_out(chosen, result.tx_results[1:])
            if not passed and not self._is_due():
                # If all of it waits for something else, try again with the next transaction or due instant.
                self._stalled = len(self._mempool) == waiting
                return
            given = BlockInput(height, now, self._operator.public_key, (head, *passed))
            result = self.app.finalize_block(given)
        made = assemble(self.app, given, result, self._prev, self._operator)
        if await self._log_block(made.stored, given.txs[1:]):
            await self._disk.write(partial(self._write, made.stored, given.block_time_s))
            self._confirm(made, given, moment)

    def _sort_out(self, chosen: list[bytes], results: Sequence[TxResult]) -> list[bytes]:
        """Refuses what failed for good; returns what passed. The rest waits, unless its turn cannot come."""
        passed: list[bytes] = []
        waiting: list[bytes] = []
        for raw, result in zip(chosen, results, strict=True):
            if result.ok:
                passed.append(raw)
            elif result.code in PASSING:
                waiting.append(raw)
            else:
                if result.code is Code.NOT_POSSIBLE:
                    _log.error("a mistake in the rules: transaction %s: %s", result.tx_id, result.log)
                self.app.forget(raw)
                self._mempool.resolve(raw, Receipt.of(result, 0, node_cid(raw)))
        self._mempool.recheck(waiting)
        return passed

    async def _log_block(self, stored: StoredBlock, chosen: Sequence[bytes]) -> bool:
        """Decides the block. When the disk refuses, its transactions are given back to their senders."""
        try:
            await self._disk.try_once(partial(self._storage.log_block, stored))
        except StoreError as error:
            self.app.abort()
            for raw in chosen:
                self.app.forget(raw)
                self._mempool.resolve(raw, error)
            await self._rest(RETRY_S)
            return False
        return True

    def _write(self, stored: StoredBlock, block_time_s: int) -> None:
        self._storage.apply(stored, self._pruner.step(block_time_s))

    def _confirm(self, made: Assembled, given: BlockInput, moment: Moment) -> None:
        self.app.commit()
        self._clock.made(moment)
        self._prev = made.block.cid
        self._next_beacon = None
        self._beacon_signature()
        self.snapshots.note_block(self.app.height)
        report_mistakes(made.events)
        self._fanout.publish(made.events)
        for raw, receipt in zip(given.txs[1:], made.receipts[1:], strict=True):
            self._mempool.resolve(raw, receipt)
