"""Carries out a plan: makes the deal, uploads every shard to its node, waits for acceptance."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ledger.engine.client import LedgerClient
from ledger.engine.errors import ChainMismatch, LedgerUnreachable
from ledger.engine.event_filter import EventFilter
from ledger.engine.sender import Sender
from ledger.errors import LedgerError
from ledger.records import ShardRecord, ShardStatus
from merkledag import car
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR, RAW
from merkledag.ed25519 import Signer
from storage_node.blockstore.interface import BlockClass, Blockstore
from storage_node.errors import EndpointRefused, PeerError, PlacementFailed
from storage_node.ledger_view import deal_shards, open_deal
from storage_node.placement import Progress, StorePlan
from storage_node.pool import NodePool
from storage_node.rows import ProofRows
from storage_node.wire import ShardPhase, ShardState

RETRY_S = 1.0
MAX_RETRY_S = 30.0
RECONNECT_S = 1.0
# How often the ledger is asked whether it is there, and how long it may stay away.
PROBE_S = 5.0
LEDGER_PATIENCE_S = 60.0
PORTION_BLOCKS = 8
MAX_UPLOADS = 8
TELL_AT = 2  # how often a node has to fail in one way before that is told: once may be news on its way
EVERY_EPOCH = 2**63 - 1
Trouble = Callable[[int, str], None]  # told of a shard, and why its node does not take it


@dataclass(slots=True)
class StoreResult:
    """A deal whose every shard a node has accepted. ``existing`` if an earlier run had made it."""

    deal: CID
    existing: bool
    shards: int
    uploaded_bytes: int


@dataclass(slots=True)
class _Board:
    """What is known of the shards, and a way to wait for news of it."""

    shards: list[ShardRecord] = field(default_factory=list)
    version: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def post(self, shards: list[ShardRecord]) -> None:
        """News from the ledger."""
        async with self.changed:
            self.shards = shards
            self.version += 1
            self.changed.notify_all()

    async def after(self, version: int) -> int:
        """Wait for news later than ``version``."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.version > version)
            return self.version


class StoreRun:
    """One execution of a plan. ``sleep`` waits between tries; ``clock``: seconds that only go forward."""

    def __init__(
        self,
        plan: StorePlan,
        ledger: LedgerClient,
        sender: Sender,
        signer: Signer,
        pool: NodePool,
        store: Blockstore,
        rows: ProofRows,
        progress: Progress,
        *,
        trouble: Trouble,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._sender = sender
        self._signer = signer
        self._pool = pool
        self._store = store
        self._rows = rows
        self._progress = progress
        self._trouble = trouble
        self._sleep = sleep
        self._clock = clock
        self._board = _Board()
        self._uploads = asyncio.Semaphore(MAX_UPLOADS)
        self._sent_bytes = 0
        self._accepted: set[int] = set()
        self._failed = Counter[tuple[bytes, str]]()

    async def run(self) -> StoreResult:
        """Make or find the deal, and see it through until every shard is accepted.

        May be interrupted at any point and run again: it finds the deal and sends only what is still missing.
        Raises PlacementFailed when the ledger gives a shard up, LedgerRefused, LedgerUnreachable (also when
        the ledger goes away for LEDGER_PATIENCE_S half-way), ChainMismatch.
        """
        deal = await open_deal(
            self._ledger,
            self._sender.account,
            self._plan.request.content,
            self._plan.manifest_root,
            self._plan.request.proof,
        )
        existing = deal is not None
        status = await self._ledger.status()
        if deal is None:
            deal = await self._create()
        await self._look(deal)
        await self._place_all(deal, int(status["height"]))
        await asyncio.to_thread(self._tidy)
        return StoreResult(deal, existing, len(self._plan.pieces), self._sent_bytes)

    async def _place_all(self, deal: CID, height: int) -> None:
        """Every shard at once, while the ledger's news comes in; all ends when one of them cannot go on."""
        try:
            async with asyncio.TaskGroup() as watching:
                watchers = [
                    watching.create_task(self._follow(deal, height)),
                    watching.create_task(self._stay_in_touch(deal)),
                ]
                async with asyncio.TaskGroup() as placing:
                    for shard in range(len(self._plan.pieces)):
                        placing.create_task(self._place(deal, shard))
                for watcher in watchers:
                    watcher.cancel()
        except ExceptionGroup as group:
            for kind in (PlacementFailed, ChainMismatch, LedgerUnreachable):
                found = group.subgroup(kind)
                if found is not None:
                    raise kind(str(_first(found))) from group
            raise

    async def _create(self) -> CID:
        assert self._plan.is_committed, "nobody pays for pieces without roots"
        receipt = await self._sender.send(self._plan.body)
        return receipt.tx_id

    async def _follow(self, deal: CID, height: int) -> None:
        """Look at the deal's shards again whenever an event names the deal."""
        while True:
            try:
                wanted = EventFilter(deals=frozenset({deal}))
                async for block in self._ledger.events(height + 1, wanted):
                    await self._look(deal)
                    height = block.height  # only now: a look that fails is due again with the same event
            except ChainMismatch:
                raise
            except LedgerError:
                pass
            await self._sleep(RECONNECT_S)
            with suppress(LedgerError):
                await self._look(deal)

    async def _stay_in_touch(self, deal: CID) -> None:
        """Nobody else notices that the ledger is gone: each shard just waits for news. A single request that
        hangs ends by the client's own time-out."""
        heard_s = self._clock()
        while True:
            await self._sleep(PROBE_S)
            try:
                await deal_shards(self._ledger, deal)
            except LedgerError as error:
                silent_s = self._clock() - heard_s
                if silent_s >= LEDGER_PATIENCE_S:
                    raise LedgerUnreachable(
                        f"the ledger has not answered for {silent_s:.0f} s ({error}); deal {deal} is made: "
                        "store the same again when the ledger is back, and it goes on where it stopped"
                    ) from error
            else:
                heard_s = self._clock()

    async def _look(self, deal: CID) -> None:
        await self._board.post(await deal_shards(self._ledger, deal))

    async def _place(self, deal: CID, index: int) -> None:
        """See one shard through: upload to whoever it is offered to, until somebody has accepted it."""
        retry_s = RETRY_S
        last: bytes = b""
        while True:
            version = self._board.version
            shard = self._board.shards[index]
            if shard.status in (ShardStatus.ACCEPTED, ShardStatus.ACTIVE):
                self._accepted.add(index)
                self._progress("accept", len(self._accepted), len(self._plan.pieces))
                return
            if shard.status.is_closed:
                raise PlacementFailed(
                    f"no node took shard {index}: its money went back. Deal {deal} goes on without it: "
                    "end it (`holdfast deal end`) and store again, later or with fewer shards"
                )
            if not shard.provider:
                await self._board.after(version)
                continue
            if shard.provider != last:
                last, retry_s = shard.provider, RETRY_S
            if await self._upload(deal, index, shard.provider):
                # The node has said yes, or says it soon; the ledger tells. A lost answer is asked for again.
                await self._news(version, MAX_RETRY_S)
            else:
                await self._news(version, retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)

    async def _news(self, version: int, seconds: float) -> None:
        """Wait for news from the ledger, at most so long."""
        waits = [
            asyncio.ensure_future(self._board.after(version)),
            asyncio.ensure_future(self._sleep(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _upload(self, deal: CID, index: int, provider: bytes) -> bool:
        """One try to bring a node what it still lacks; True when it has everything."""
        async with self._uploads:
            try:
                endpoint = (await self._ledger.provider(provider)).endpoint
                client = self._pool.client(endpoint)
                state = await client.shard_state(deal, index)
                if state.phase in (ShardPhase.MANIFEST, ShardPhase.BLOCKS):
                    state = await client.put_shard(deal, index, self._signer, self._frames(index, state))
            except (PeerError, EndpointRefused, LedgerError) as error:
                self._failed[provider, str(error)] += 1
                if self._failed[provider, str(error)] == TELL_AT:
                    self._trouble(index, str(error))
                return False
        return state.phase in (ShardPhase.HELD, ShardPhase.CHECKING)

    async def _frames(self, index: int, state: ShardState) -> AsyncIterator[bytes]:
        """The CAR of what a node lacks: the manifest's blocks in order, the interior nodes, the data."""
        layout = self._plan.layout(index)
        order = [*layout.meta, *layout.data]
        if state.phase is ShardPhase.BLOCKS and state.blocks == len(order):
            order = [order[position] for position in sorted(state.missing)]
        yield car.header([self._plan.manifest_root])
        for start in range(0, len(order), PORTION_BLOCKS):
            portion = await asyncio.to_thread(self._read, order[start : start + PORTION_BLOCKS])
            for frame in portion:
                yield frame
                self._sent_bytes += len(frame)
            self._progress("upload", self._sent_bytes, self._plan.upload_bytes)

    def _read(self, multihashes: list[bytes]) -> list[bytes]:
        frames: list[bytes] = []
        for multihash in multihashes:
            codec = DAG_CBOR if multihash == self._plan.manifest_root.multihash else RAW
            frames.append(car.frame(Block(CID(1, codec, multihash), self._store.get(multihash))))
        return frames

    def _tidy(self) -> None:
        """Free the parity, unless somebody (a node on the same store, a pin) has taken it over meanwhile."""
        freed = self._store.free_many(self._plan.parity, EVERY_EPOCH, BlockClass.CACHE)
        self._rows.forget(freed.multihashes)


def _first(group: BaseExceptionGroup[Exception]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


async def execute_store(
    plan: StorePlan,
    ledger: LedgerClient,
    sender: Sender,
    signer: Signer,
    pool: NodePool,
    store: Blockstore,
    rows: ProofRows,
    *,
    progress: Progress,
    trouble: Trouble = lambda shard, why: None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> StoreResult:
    """Pay for and place a plan; see `StoreRun.run`. ``trouble`` is told why a shard could not be sent."""
    run = StoreRun(
        plan, ledger, sender, signer, pool, store, rows, progress, trouble=trouble, sleep=sleep, clock=clock
    )
    return await run.run()
