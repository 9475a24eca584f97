"""The ledger on CometBFT: validators decide the blocks, this node's application runs and keeps them.

Two processes belong together: `cometbft` (consensus, peers, its own store of blocks) asks this one over ABCI.
Everything that the ledger's HTTP interface serves is of this process, from the last block that it committed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from typing import Any

from ledger.application import Application
from ledger.engine.assemble import load_application
from ledger.engine.blocks import BlockEvents, Receipt
from ledger.engine.cometbft import handshake, proposals
from ledger.engine.cometbft.abci import convert, messages
from ledger.engine.cometbft.abci.listening import Network
from ledger.engine.cometbft.abci.server import AbciServer
from ledger.engine.cometbft.commit import Blocks, Finalized
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.cometbft.proposals import BeaconSigner
from ledger.engine.cometbft.retention import Needs, Retention
from ledger.engine.cometbft.state_query import StateQueries
from ledger.engine.cometbft.submissions import PATIENCE_S, Broadcaster, Submissions
from ledger.engine.cometbft.sync.state_sync import StateSync
from ledger.engine.cometbft.turns import Turns
from ledger.engine.cometbft.waiting import require_state
from ledger.engine.disk import Disk
from ledger.engine.engine import STOPPING, EngineStatus, Provable
from ledger.engine.errors import CorruptStore, EngineStopped, PrunedHistory, damaged_state
from ledger.engine.fanout import Fanout, Subscription
from ledger.engine.history import History
from ledger.engine.intake import MAX_WAITING
from ledger.engine.pruning import Keep, Pruner
from ledger.engine.snapshots import Snapshots
from ledger.engine.storage import LedgerStorage
from ledger.engine.wal import Fault, no_fault
from ledger.errors import CorruptState, UnknownRules
from merkledag.cid import CID

VERIFY_THREADS = 2
# Blocks come every second or sooner, idle or not. Without one for so long the chain stands still.
HALT_S = 30.0
# A last block older than this, by the clock, is not the newest one there is.
LAG_S = 30.0
# CometBFT takes no block from further ahead of its own clock (block_time_tolerance in config/config.go).
AHEAD_S = 60.0
Handler = Callable[["CometEngine", Any], Coroutine[Any, Any, Any]]
ACCEPT, REJECT = messages.ProposalStatus.ACCEPT, messages.ProposalStatus.REJECT

_log = logging.getLogger(__name__)


@contextmanager
def _told() -> Iterator[None]:
    """Rules that this program lacks, and damage on disk, end it with the reason."""
    try:
        yield
    except (UnknownRules, CorruptStore) as error:
        raise Disagreement(str(error)) from error
    except CorruptState as error:
        raise Disagreement(str(damaged_state(error))) from error


def _in_turn(handler: Handler) -> Handler:
    """One at a time: a `cometbft` that comes back waits for what it had in work when its connection broke."""

    @wraps(handler)
    async def waiting(self: CometEngine, request: Any) -> Any:
        async with self._at_work:
            with _told():
                return await handler(self, request)

    return waiting


class CometEngine:
    """An `Engine`, and the `Handlers` of the ABCI server that it runs at `address` (see `AbciServer`).

    `beacon_signers` are the BLS keys that this node holds, by public key: none for one that only follows.
    `clock` gives seconds since 1970, `monotonic` never jumps. `version` is this program's, for who asks.
    """

    name = "cometbft"

    def __init__(
        self,
        app: Application,
        storage: LedgerStorage,
        beacon_signers: Mapping[bytes, BeaconSigner],
        broadcaster: Broadcaster,
        address: str,
        *,
        allowed: Sequence[Network] = (),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        max_waiting: int = MAX_WAITING,
        patience_s: float = PATIENCE_S,
        keep: Keep | None = None,
        needs: Needs | None = None,
        snapshot_blocks: int = 0,
        fault: Fault = no_fault,
        version: str = "",
    ) -> None:
        self.app = app
        self.history = History(storage)
        self.snapshots = Snapshots(storage, app.chain_id, snapshot_blocks, monotonic)
        self.server = AbciServer(self, address, allowed=allowed)
        self._storage = storage
        self._version = version
        self._signers = beacon_signers
        self._clock = clock
        self._monotonic = monotonic
        self._verifiers = ThreadPoolExecutor(VERIFY_THREADS, "ledger-verify")
        self._writer = ThreadPoolExecutor(1, "ledger-write")
        self._disk = Disk(self._writer, sleep, lambda: self._stopping)
        keep = keep or Keep()
        self._blocks = Blocks(app, storage, Pruner(storage, keep), fault)
        self._retention = Retention(storage, self.snapshots, needs)
        self._submissions = Submissions(
            app, self._verifiers, self._committed, broadcaster, max_waiting=max_waiting, patience_s=patience_s
        )
        self._sync = StateSync(storage, app.genesis, self.snapshots, lambda: self.app.height, self._restored)
        self._queries = StateQueries(storage)
        self.turns = Turns()
        self._at_work = asyncio.Lock()
        self._fanout: Fanout[BlockEvents] = Fanout()
        self._last_commit_s: float | None = None
        self._started_s = monotonic()
        # Whoever watches `cometbft` knows more of why there is no block than what is known here.
        self.watcher: Callable[[], str] = lambda: ""
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    # -- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `Engine`; CometBFT may connect from now on."""
        if self.app.height != self._storage.height():
            raise CorruptStore("store and application are at different heights; load the application anew")
        await self.server.start()
        if self.app.height:
            self._queries.hold()
        self._started_s = self._monotonic()
        self._task = asyncio.create_task(self._run(), name="ledger-engine")

    async def stop(self) -> None:
        """See `Engine`."""
        self._stopping = True
        await self.server.stop()
        if self._task is not None:
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.exception()  # `wait_ended` tells it, and the log has it

    async def wait_ended(self) -> None:
        """See `Engine`."""
        if self._task is None:
            return
        await asyncio.wait({self._task})
        failure = None if self._task.cancelled() else self._task.exception()
        if isinstance(failure, Disagreement | CorruptStore):
            raise EngineStopped(str(failure)) from failure
        if failure is not None:
            raise EngineStopped(f"the ledger's engine has failed: {failure!r}") from failure

    async def _run(self) -> None:
        served = asyncio.create_task(self.server.wait_ended(), name="ledger-abci")
        intake = asyncio.create_task(self._submissions.run(), name="ledger-intake")
        error = EngineStopped(STOPPING)
        try:
            done, _ = await asyncio.wait({served, intake}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Exception as failure:
            error = EngineStopped(f"the ledger has stopped: {failure}")
            _log.critical("the ledger stops: %s", failure)
            raise
        finally:
            for task in (served, intake):
                task.cancel()
            await asyncio.wait({served, intake})
            self._submissions.close(error)
            self._fanout.close()
            await self.server.stop()
            self._sync.close()
            self._queries.close()
            self.snapshots.close()
            for pool in (self._verifiers, self._writer):
                pool.shutdown(wait=True)

    # -- what others ask of it -----------------------------------------------------------------------------

    @property
    def status(self) -> EngineStatus:
        """See `Engine`."""
        return EngineStatus(
            len(self._submissions),
            len(self._fanout),
            self._disk.trouble or self._standstill(),
            self._retention.height,
        )

    def _standstill(self) -> str:
        """Why this node is not where its chain is."""
        ahead_s = self.app.block_time_s - self._clock()
        if ahead_s > AHEAD_S:
            return (
                f"this machine's clock is {ahead_s:.0f} s behind the time of block {self.app.height}, and "
                "`cometbft` takes no block from so far ahead: set the clock right, or raise "
                "block_time_tolerance in its config.toml where it was the chain's time that ran ahead"
            )
        if told := self.watcher():
            return told
        last_s = self._started_s if self._last_commit_s is None else self._last_commit_s
        silent_s = self._monotonic() - last_s
        if silent_s > HALT_S:
            return (
                f"no block for {silent_s:.0f} s: `cometbft` is not running, has no peers, or a third of the "
                "validators' power is away"
            )
        behind_s = self._clock() - self.app.block_time_s
        if self._last_commit_s is not None and behind_s > LAG_S:
            return f"catching up: the last block here, {self.app.height}, is {behind_s:.0f} s old"
        return ""

    async def submit(self, raw: bytes) -> Receipt:
        """See `Engine`."""
        return await self._submissions.submit(raw)

    async def submit_all(self, raws: Sequence[bytes]) -> list[Receipt]:
        """See `Engine`."""
        return await self._submissions.submit_all(raws)

    def subscribe(self) -> Subscription[BlockEvents]:
        """See `Engine`."""
        return self._fanout.subscribe()

    def provable(self, least: int) -> Provable:
        """See `Engine`: the app hash after a block is in the header of the next one."""
        return self._queries.signed(least) or Provable(self.app.height, self.app.prove)

    def get_node(self, cid: CID) -> bytes | None:
        """See `Engine`."""
        return self.history.node(cid)

    def _committed(self, tx_id: CID) -> Receipt | None:
        try:
            found = self.history.tx(tx_id)
        except PrunedHistory:
            return None
        return None if found is None or found.receipt.code else found.receipt

    # -- ABCI: who we are ----------------------------------------------------------------------------------

    @_in_turn
    async def info(self, request: Any) -> Any:
        """Height and app hash of the last Commit."""
        return handshake.info(self.app, request, self._version)

    @_in_turn
    async def init_chain(self, request: Any) -> Any:
        """Compares CometBFT's genesis with ours; nothing is written."""
        require_state(self._storage, self.app.genesis)
        return handshake.init_chain(self.app, request)

    async def query(self, request: Any) -> Any:
        """See `state_query`; all else is asked over the ledger's own interface."""
        return self._queries.answer(request)

    # -- ABCI: the mempool ---------------------------------------------------------------------------------

    async def check_tx(self, request: Any) -> Any:
        """Whether a transaction may wait for a block, or still may after one."""
        with _told():
            if request.type == messages.CheckTxType.RECHECK:
                return convert.check_result(self._submissions.recheck(request.tx))
            return convert.check_result(await self._submissions.check(request.tx))

    # -- ABCI: blocks --------------------------------------------------------------------------------------

    @_in_turn
    async def prepare_proposal(self, request: Any) -> Any:
        """A block of this validator: without its BLS key an empty one, which nobody accepts."""
        work = proposals.beacon_work(self.app, request, self._signers)
        if work is None:
            return messages.ResponsePrepareProposal()
        await self._submissions.verify_signatures(request.txs)  # proofs wait, not the others for them
        beacon = await asyncio.get_running_loop().run_in_executor(self._verifiers, work)
        return proposals.prepare(self.app, request, beacon, lambda: int(1e9 * self._monotonic()))

    @_in_turn
    async def process_proposal(self, request: Any) -> Any:
        """Whether another proposer's block may be decided."""
        if proposals.is_small_enough(request):
            await self._submissions.verify_ahead(request.txs[1:])
        result = proposals.process(self.app, request)
        if not result.ok:
            _log.warning("block %d as proposed is refused: %s", request.height, result.log)
        return messages.ResponseProcessProposal(status=ACCEPT if result.ok else REJECT)

    @_in_turn
    async def finalize_block(self, request: Any) -> Any:
        """Runs a decided block; nothing is written."""
        await self._submissions.verify_ahead(request.txs[1:])
        answer = self._blocks.finalize(request)
        time_ns = request.time.seconds * 10**9 + request.time.nanos
        proposer = self._blocks.waiting.given.proposer
        self.turns.note(request.height, proposer, time_ns, request.decided_last_commit.round)
        return answer

    @_in_turn
    async def commit(self, _request: Any) -> Any:
        """Writes the block and all that it changes, tells whoever waits; however long the disk refuses it."""
        await self._disk.write(self._blocks.write)
        done = self._blocks.confirm()
        self._queries.hold()
        self._last_commit_s = self._monotonic()
        self._tell(done)
        retained = self._retention.step(self.app.height, self.app.block_time_s)
        return messages.ResponseCommit(retain_height=retained)

    def _tell(self, done: Finalized) -> None:
        self.snapshots.note_block(self.app.height)
        self._fanout.publish(done.made.events)
        self._submissions.committed(done.given.txs[1:], done.made.receipts[1:])

    async def extend_vote(self, _request: Any) -> Any:
        """No extensions: the chain's parameters leave them off."""
        return messages.ResponseExtendVote()

    async def verify_vote_extension(self, request: Any) -> Any:
        """The same: an empty one is fine."""
        known = messages.VerifyStatus
        return messages.ResponseVerifyVoteExtension(
            status=known.REJECT if request.vote_extension else known.ACCEPT
        )

    # -- ABCI: snapshots -----------------------------------------------------------------------------------

    async def list_snapshots(self, request: Any) -> Any:
        """What this node serves to those that join."""
        return await self._sync.list_snapshots(request)

    async def load_snapshot_chunk(self, request: Any) -> Any:
        """A part of it."""
        return await self._sync.load_snapshot_chunk(request)

    async def offer_snapshot(self, request: Any) -> Any:
        """Whether this node begins with what another one serves."""
        answer = await self._sync.offer_snapshot(request)
        if answer.result == messages.OfferSnapshotResult.ACCEPT:
            self._queries.close()  # nobody may read a database that another takes the place of
        return answer

    async def apply_snapshot_chunk(self, request: Any) -> Any:
        """A part of it; after the last one the state is in place."""
        return await self._sync.apply_snapshot_chunk(request)

    def _restored(self) -> None:
        """Goes on from the state that was put in the store's place."""
        self.app = load_application(self._storage, self.app.genesis)
        self._blocks.use(self.app)
        self._submissions.use(self.app)
