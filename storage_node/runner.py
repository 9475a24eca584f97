"""Carries out a provider's duties: follows the ledger's events, proves, accepts, takes over, collects pay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from ledger.engine.client import LedgerClient
from ledger.engine.cometbft.light.errors import TrustExpired
from ledger.engine.errors import ChainMismatch, LedgerNotFound, LedgerRefused
from ledger.engine.sender import Sender
from ledger.errors import LedgerError
from ledger.events import Event
from ledger.fees import small_fee
from ledger.records import Phase, ShardStatus
from ledger.result import Code
from ledger.rules_spot import challenge_of
from ledger.transactions import Answer as AnswerBody
from ledger.transactions import Prove as ProveBody
from ledger.transactions import Settle as SettleBody
from proofs.errors import BlockChanged, ProofsError
from storage_node.acceptance import Acceptance
from storage_node.duties import (
    Action,
    Answer,
    Duties,
    Fetch,
    Inspect,
    Prove,
    Receive,
    Reconsider,
    Release,
    Settle,
    ShardKey,
    Spot,
    Window,
    Withdraw,
)
from storage_node.errors import BlockLost, PieceLost, StorageNodeError
from storage_node.ledger_view import my_datasets, my_shards, slots_of
from storage_node.prover import Prover
from storage_node.upkeep import Upkeep

RECONNECT_S = 1.0
JOIN_ANEW = "if that is right, `holdfast ledger join URL --replace` here"
RETRY_S = 1.0
MAX_RETRY_S = 30.0
MAX_PROVING = 4
MAX_FETCHING = 2
MAX_INSPECTING = 2
MAX_SETTLING = 8
# Pay is collected when it is so many times what collecting it costs.
LEAST_PAY_IN_FEES = 10

_log = logging.getLogger(__name__)

# Refusals of a proof that no second try can change.
FINAL = frozenset(
    {
        Code.TOO_LATE,
        Code.ALREADY_PROVEN,
        Code.UNKNOWN_DATASET,
        Code.UNKNOWN_DEAL,
        Code.UNKNOWN_SHARD,
        Code.NOT_YOURS,
        Code.NO_SPOT,
    }
)


@dataclass(slots=True)
class Tally:
    """What happened since the start, for the owner's status."""

    proofs: int = 0
    spots: int = 0
    faults: int = 0
    repairs: int = 0
    last_problem: str = ""


def _to_do(error: Exception) -> str:
    """What its owner has to do about an error that does not pass by itself; most of them say a part."""
    if not isinstance(error, ChainMismatch | TrustExpired):
        return ""
    return f"{'' if 'ledger join' in str(error) else f': {JOIN_ANEW}'}; then start the node anew"


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
        upkeep: Upkeep,
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
        self._upkeep = upkeep
        self._heal = heal
        self._note = note
        self._sleep = sleep
        self._me = me
        self.duties = Duties(me)
        self.tally = Tally()
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}
        self._follower: asyncio.Task[None] | None = None
        self._proving = asyncio.Semaphore(MAX_PROVING)
        self._fetching = asyncio.Semaphore(MAX_FETCHING)
        self._inspecting = asyncio.Semaphore(MAX_INSPECTING)
        self._to_settle: dict[ShardKey, None] = {}  # a dataset's shards are due all at once
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
                self.caught_up.clear()
                self._problem(f"the ledger cannot be followed: {error}{_to_do(error)}")
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
        found = await my_shards(self._ledger, self._me, self._acceptance.in_custody())
        kept = [mine.dataset for mine in found if not mine.is_offer]
        datasets = await my_datasets(self._ledger, self._me, kept)
        for mine in found:
            if mine.is_offer:
                first = mine.shard.status is ShardStatus.OFFERED
                self._run(self.duties.load_offer(mine.key, uploaded=first))
            else:
                self.duties.load_held(mine.key, mine.dataset)
        await self._acceptance.forget_others({mine.key for mine in found})
        for dataset, record in datasets.items():
            if record.phase is Phase.OPEN and not record.proven:
                self._run(self.duties.load_window(Window(dataset, record.period, 0)))
            self._run([Inspect(dataset), Reconsider(dataset)])
        for asked in await self._ledger.spots(provider=self._me):
            if asked.spot.seed:
                key = ShardKey(asked.deal, asked.shard)
                self._run(self.duties.load_spot(Spot(key, asked.spot.seed, asked.spot.closes_at)))
        for mine in found:
            active = datasets.get(mine.dataset) if mine.shard.status is ShardStatus.ACTIVE else None
            if active is not None and active.proven_total - mine.shard.mark >= self.duties.settle_every:
                self._run([Settle(mine.key)])
        return int(status["height"])

    def _run(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Receive(key):
                    self._launch(("accept", key), self._acceptance.accept_if_complete(key))
                case Fetch(key):
                    self._launch(("fetch", key), self._fetch(key))
                case Prove(window):
                    self._launch(("prove", window), self._prove(window))
                case Answer(spot):
                    self._launch(("answer", spot), self._answer_spot(spot))
                case Inspect(dataset):
                    self._launch(("inspect", dataset), self._inspect(dataset))
                case Reconsider(dataset):
                    keys = [key for key, its in self.duties.held.items() if its == dataset]
                    self._launch(("reconsider", dataset), self._upkeep.give_up_denied(keys))
                case Settle(key):
                    self._to_settle[key] = None
                case Withdraw(key) | Release(key):
                    self._cancel(("fetch", key))
                    self._launch(("release", key), self._acceptance.release(key))
        for lane in range(min(MAX_SETTLING, len(self._to_settle))):
            self._launch(("settle", lane), self._settle_due())

    def _launch(self, name: Hashable, work: Coroutine[Any, Any, object]) -> None:
        """Run in the background, once a name; whatever goes wrong is noted and hurts nobody else."""
        known = self._tasks.get(name)
        if known is not None and not known.done():
            work.close()
            return
        task = asyncio.create_task(self._guard(work), name=str(name))
        self._tasks[name] = task

        def ended(_: object) -> None:
            if self._tasks.get(name) is task:
                del self._tasks[name]
            work.close()  # of a task that was cancelled before it began

        task.add_done_callback(ended)

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
        await self._persist(
            f"period {window.period} of {window.dataset.hex()[:12]}",
            lambda: self.duties.owes(window),
            lambda: self._prove_once(window),
        )

    async def _answer_spot(self, spot: Spot) -> None:
        """Answer, again and again until it counts or the time is over."""
        await self._persist(
            f"spot challenge of shard {spot.key.shard} of {spot.key.deal}",
            lambda: self.duties.owes_answer(spot),
            lambda: self._answer_once(spot),
        )

    async def _persist(
        self, what: str, owed: Callable[[], bool], once: Callable[[], Awaitable[None]]
    ) -> None:
        retry_s = RETRY_S
        async with self._proving:
            while owed():
                try:
                    await once()
                    return
                except LedgerNotFound:
                    return
                except (LedgerError, StorageNodeError, ProofsError, OSError) as error:
                    self._problem(f"{what}: {error}")
                    if isinstance(error, LedgerRefused) and error.code in FINAL:
                        return
                await self._sleep(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)

    async def _prove_once(self, window: Window) -> None:
        """One try; returns when there is nothing left to do for this window."""
        record = await self._ledger.dataset(window.dataset)
        if record.period != window.period or record.phase is not Phase.OPEN or record.proven:
            return
        known = self._prover.knows(window.dataset, record)
        keys = None if known else await slots_of(self._ledger, window.dataset)
        terms = await self._ledger.params(record.terms)
        most = (keys is not None and len(keys)) + 2 * (record.challenges + terms.meta_challenges)
        proof = await self._made(most, lambda: self._prover.answer(window.dataset, record, keys, terms))
        await self._sender.send(ProveBody(window.dataset, window.period, proof))
        self.tally.proofs += 1

    async def _answer_once(self, spot: Spot) -> None:
        """One try; returns when nobody waits for this answer any more."""
        record = await self._ledger.spot(spot.key.deal, spot.key.shard)
        if record is None or record.provider != self._me or record.seed != spot.seed:
            return
        view = await self._ledger.deal(spot.key.deal)
        terms = await self._ledger.params(view.deal.terms)
        challenge = challenge_of(view.deal, view.shards[spot.key.shard], record, terms)
        most = 2 * (1 + challenge.k + challenge.meta_k)
        proof = await self._made(most, lambda: self._prover.answer_spot(spot.key, challenge))
        await self._sender.send(AnswerBody(spot.key.deal, spot.key.shard, proof))
        self.tally.spots += 1

    async def _made(self, most: int, make: Callable[[], bytes]) -> bytes:
        """A proof; what the disk has lost or damaged is mended first, `most` times."""
        for _ in range(most):
            try:
                return await asyncio.to_thread(make)
            except (BlockLost, BlockChanged, PieceLost) as error:
                await self._mend(error)
        return await asyncio.to_thread(make)

    async def _mend(self, loss: BlockLost | BlockChanged | PieceLost) -> None:
        """Make a piece's rows anew from its blocks; fetch blocks, where the owner lets the node heal.

        Raises what was lost where it cannot be had.
        """
        if isinstance(loss, PieceLost):
            self._problem(f"{loss}; making them anew")
            try:
                await self._acceptance.recover(ShardKey(loss.deal, loss.shard), fetch=self._heal)
                return
            except BlockChanged as damaged:
                loss = damaged
        if not self._heal:
            raise loss
        self._problem(f"{loss}; fetching it from the network")
        await self._acceptance.heal(loss.multihash)

    async def _inspect(self, dataset: bytes) -> None:
        async with self._inspecting:
            said = await self._upkeep.inspect(dataset)
        if said:
            self._problem(said)

    async def _fetch(self, key: ShardKey) -> None:
        async with self._fetching:
            await self._acceptance.fetch(key)
        self.tally.repairs += 1

    async def _settle_due(self) -> None:
        while self._to_settle:
            await self._guard(self._settle(self._to_settle.popitem()[0]))

    async def _settle(self, key: ShardKey) -> None:
        """Collect the pay, unless too much of it went into that: it waits, and is paid at the end."""
        view = await self._ledger.deal(key.deal)
        shard = view.shards[key.shard]
        if shard.status is not ShardStatus.ACTIVE or shard.provider != self._me:
            return
        periods = (await self._ledger.dataset(shard.dataset)).proven_total - shard.mark
        pay = periods * view.deal.price + shard.reward + shard.bounty
        if pay < LEAST_PAY_IN_FEES * small_fee(await self._ledger.params()):
            return
        try:
            await self._sender.send(SettleBody(key.deal, key.shard))
        except LedgerRefused as refusal:
            if refusal.code != Code.NOTHING_DUE:
                raise
