"""Carries out a provider's duties: follows the ledger's events, proves, accepts, repairs and collects pay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerNotFound, LedgerRefused
from ledger.engine.sender import Sender
from ledger.errors import LedgerError
from ledger.events import Event
from ledger.genesis import Params
from ledger.records import DatasetRecord, Phase, ShardStatus
from ledger.result import Code
from ledger.transactions import Prove as ProveBody
from ledger.transactions import Settle as SettleBody
from proofs.errors import DamagedBlock, ProofsError
from storage_node.acceptance import Acceptance
from storage_node.duties import (
    Action,
    Duties,
    Prove,
    Receive,
    Release,
    Repair,
    Settle,
    ShardKey,
    Window,
    Withdraw,
)
from storage_node.errors import BlockLost, PieceLost, StorageNodeError
from storage_node.ledger_view import my_shards, slots_of
from storage_node.prover import Prover

RECONNECT_S = 1.0
RETRY_S = 1.0
MAX_RETRY_S = 30.0
MAX_PROVING = 4
MAX_REPAIRS = 2

_log = logging.getLogger(__name__)

# Refusals of a proof that no second try can change.
FINAL = frozenset({Code.TOO_LATE, Code.ALREADY_PROVEN, Code.UNKNOWN_DATASET, Code.NOT_YOURS})


@dataclass(slots=True)
class Tally:
    """What happened since the start, for the owner's status."""

    proofs: int = 0
    faults: int = 0
    repairs: int = 0
    last_problem: str = ""


class DutyRunner:
    """One provider's duties, from `start` to `stop`. ``sleep`` waits for a number of seconds.

    Every action is a task of its own, so a dataset that cannot be proven holds up no other.
    """

    def __init__(
        self,
        ledger: LedgerClient,
        sender: Sender,
        prover: Prover,
        acceptance: Acceptance,
        *,
        me: bytes,
        heal: bool,
        note: Callable[[Event], None],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._sender = sender
        self._prover = prover
        self._acceptance = acceptance
        self._heal = heal
        self._note = note
        self._sleep = sleep
        self._me = me
        self.duties = Duties(me)
        self.tally = Tally()
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}
        self._follower: asyncio.Task[None] | None = None
        self._proving = asyncio.Semaphore(MAX_PROVING)
        self._repairing = asyncio.Semaphore(MAX_REPAIRS)
        self.caught_up = asyncio.Event()

    def start(self) -> None:
        """Begin to follow the ledger."""
        self._follower = asyncio.create_task(self._follow(), name="duties")

    async def stop(self) -> None:
        """End everything under way. Harmless twice."""
        tasks = [*self._tasks.values()]
        if self._follower is not None:
            tasks.append(self._follower)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        """Catch up, follow, and begin again when the connection or the ledger goes away."""
        while True:
            try:
                height = await self._catch_up()
                self.caught_up.set()
                async for block in self._ledger.events(height + 1):
                    self._run(self.duties.on_events(block.events))
                    for event in block.events:
                        self._note(event)
                    self._count(block.events)
            except (LedgerError, StorageNodeError) as error:
                self._problem(f"the ledger cannot be followed: {error}")
            await self._sleep(RECONNECT_S)

    def _count(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.kind == "fault" and event.attributes.get("provider") == self._me:
                self.tally.faults += 1

    async def _catch_up(self) -> int:
        """Learn from the ledger what is offered, held and open now.

        Returns the height that this is true of.
        """
        status = await self._ledger.status()
        found = await my_shards(self._ledger, self._me)
        mine: set[ShardKey] = set()
        for key, shard in found:
            if shard.status in (ShardStatus.OFFERED, ShardStatus.REPAIR):
                self._run(self.duties.load_offer(key, repair=shard.status is ShardStatus.REPAIR))
                mine.add(key)
            elif not shard.status.is_closed:
                self.duties.load_held(key, shard.dataset)
                mine.add(key)
        await self._acceptance.forget_others(mine)
        for dataset, record in await self._ledger.datasets(provider=self._me):
            if record.phase is Phase.OPEN and not record.proven:
                window = Window(dataset, record.period, 0)
                self._run(self.duties.load_window(window))
        return int(status["height"])

    def _run(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Receive(key):
                    self._launch(("accept", key), self._acceptance.accept_if_complete(key))
                case Repair(key):
                    self._launch(("repair", key), self._repair(key))
                case Prove(window):
                    self._launch(("prove", window), self._prove(window))
                case Settle(key):
                    self._launch(("settle", key), self._settle(key))
                case Withdraw(key) | Release(key):
                    self._cancel(("repair", key))
                    self._launch(("release", key), self._acceptance.release(key))

    def _launch(self, name: Hashable, work: Coroutine[Any, Any, object]) -> None:
        """Run in the background, once a name; whatever goes wrong is noted and hurts nobody else."""
        if name in self._tasks:
            work.close()
            return
        task = asyncio.create_task(self._guard(work), name=str(name))
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    def _cancel(self, name: Hashable) -> None:
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()

    async def _guard(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except (LedgerError, StorageNodeError, ProofsError, OSError) as error:
            self._problem(str(error) or repr(error))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Ours: say so loudly, but go on proving everything else.
            _log.exception("a duty failed unexpectedly")
            self._problem(f"unexpected: {error!r}")

    def _problem(self, text: str) -> None:
        _log.warning("%s", text)
        self.tally.last_problem = text

    async def _prove(self, window: Window) -> None:
        """Prove and submit, again and again until it counts or the window is over."""
        retry_s = RETRY_S
        async with self._proving:
            while self.duties.owes(window):
                try:
                    if await self._prove_once(window):
                        return
                except LedgerNotFound:
                    return
                except (LedgerError, StorageNodeError, ProofsError) as error:
                    self._problem(f"period {window.period} of {window.dataset.hex()[:12]}: {error}")
                    if isinstance(error, LedgerRefused) and error.code in FINAL:
                        return
                await self._sleep(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)

    async def _prove_once(self, window: Window) -> bool:
        """One try; True when there is nothing left to do for this window."""
        record = await self._ledger.dataset(window.dataset)
        if record.period != window.period or record.phase is not Phase.OPEN or record.proven:
            return True
        keys = await slots_of(self._ledger, window.dataset)
        params = await self._ledger.params()
        proof = await self._answer(record, keys, params)
        await self._sender.send(ProveBody(window.dataset, window.period, proof))
        self.tally.proofs += 1
        return True

    async def _answer(self, record: DatasetRecord, keys: Mapping[int, ShardKey], params: Params) -> bytes:
        """The proof; pieces and blocks that the disk has lost are fetched first, as many as can be drawn."""
        for _ in range(len(keys) + record.challenges + params.meta_challenges):
            try:
                return await asyncio.to_thread(self._prover.answer, record, keys, params)
            except (BlockLost, DamagedBlock) as error:
                if not self._heal:
                    raise
                self._problem(f"{error}; fetching it from the network")
                await self._acceptance.heal(error.multihash)
            except PieceLost as error:
                if not self._heal:
                    raise
                self._problem(f"{error}; making them anew")
                await self._acceptance.recover(ShardKey(error.deal, error.shard))
        return await asyncio.to_thread(self._prover.answer, record, keys, params)

    async def _repair(self, key: ShardKey) -> None:
        async with self._repairing:
            await self._acceptance.repair(key)
        self.tally.repairs += 1

    async def _settle(self, key: ShardKey) -> None:
        try:
            await self._sender.send(SettleBody(key.deal, key.shard))
        except LedgerRefused as refusal:
            if refusal.code != Code.NOTHING_DUE:
                raise
