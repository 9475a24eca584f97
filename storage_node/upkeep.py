"""Looks after what will have to be proven: heals before a window opens, or declares the coming fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerNotFound, LedgerRefused
from ledger.engine.sender import Sender
from ledger.errors import LedgerError
from ledger.genesis import Params
from ledger.records import DatasetRecord, Phase, ShardStatus
from ledger.result import Code
from ledger.rules_datasets import Clock
from ledger.transactions import DeclareFault, GiveUp
from proofs.errors import BlockChanged, ProofsError
from storage_node.acceptance import Acceptance
from storage_node.blockstore.interface import Blockstore
from storage_node.custody import Custody
from storage_node.denylist import Denylist
from storage_node.duties import ShardKey
from storage_node.errors import PieceLost, StorageNodeError
from storage_node.ledger_view import slots_of
from storage_node.piece_file import PieceFile

RETRY_S = 1.0
HEALED_AT_ONCE = 8

_TOO_LATE = frozenset({Code.TOO_LATE, Code.TOO_EARLY, Code.NOTHING_TO_DO, Code.UNKNOWN_DATASET})
_GONE = frozenset(
    {Code.NOT_YOURS, Code.NOT_ACTIVE, Code.HANDOVER_RUNS, Code.NOTHING_TO_DO, Code.UNKNOWN_DEAL}
)


@dataclass(frozen=True, slots=True)
class Losses:
    """What is not here of a dataset: whole pieces, single blocks, and how likely it can be proven."""

    pieces: tuple[ShardKey, ...]
    blocks: tuple[bytes, ...]
    odds: float


def odds(leaves: int, lost: int, drawn: int) -> float:
    """The probability that none of ``drawn`` distinct leaves is one of those that are lost."""
    drawn = min(drawn, leaves)
    if lost <= 0:
        return 1.0
    chance = 1.0
    for index in range(drawn):
        chance *= max(0, leaves - lost - index) / (leaves - index)
    return chance


def least_odds(record: DatasetRecord, terms: Params) -> float:
    """The odds of proving a period below which it is cheaper to declare its fault.

    To wait for the draw brings the pay or costs the fee, to declare costs half of the fee. A fault that is
    free is never worth declaring.
    """
    fee = record.price_total * terms.fault_fee_percent // 100
    if fee == 0 or record.clean >= terms.grace_periods:
        return 0.0
    return fee / 2 / (record.price_total + fee)


class Upkeep:
    """One provider's. ``sleep`` waits for a number of seconds; ``heal`` fetches what the disk has lost."""

    def __init__(
        self,
        ledger: LedgerClient,
        sender: Sender,
        acceptance: Acceptance,
        custody: Custody,
        store: Blockstore,
        *,
        denylist: Denylist,
        heal: bool,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._ledger = ledger
        self._sender = sender
        self._acceptance = acceptance
        self._custody = custody
        self._store = store
        self._denylist = denylist
        self._heal = heal
        self._sleep = sleep

    async def inspect(self, dataset: bytes) -> str:
        """See whether the next window of a dataset can be answered, and do about it what can be done.

        Heals until it opens. Declares the fault of the present period when its window is still to come and
        what is lost makes it unlikely that it can be proven. Returns one line for the owner, "" when nothing
        was amiss.
        """
        try:
            record = await self._ledger.dataset(dataset)
            while record.phase is Phase.TURNING:
                await self._sleep(RETRY_S)
                record = await self._ledger.dataset(dataset)
            return await self._prepare(dataset, record)
        except LedgerNotFound:
            return ""  # nothing is left in it

    async def give_up_denied(self, keys: Iterable[ShardKey]) -> None:
        """Give up the denied ones of these shards, as far as they are proven by now. Others keep theirs."""
        for key in keys if self._denylist.multihashes else ():
            piece = self._custody.piece(key)
            if piece is None or not await asyncio.to_thread(self._denylist.denies_piece, piece):
                continue
            shard = (await self._ledger.deal(key.deal)).shards[key.shard]
            if shard.status is not ShardStatus.ACTIVE or shard.giving_up or shard.handing_over:
                continue
            try:
                await self._sender.send(GiveUp(key.deal, key.shard))
            except LedgerRefused as refusal:
                if refusal.code not in _GONE:
                    raise

    async def _prepare(self, dataset: bytes, record: DatasetRecord) -> str:
        terms = await self._ledger.params(record.terms)
        keys = await slots_of(self._ledger, dataset)
        is_to_come = record.phase is Phase.WAITING
        opens_at = Clock.of(dataset, terms).opens_at(record.period + (not is_to_come))
        lost = await asyncio.to_thread(self._losses, record, keys, terms)
        if lost.pieces or (self._heal and lost.blocks):
            await self._restore(lost, opens_at)
            lost = await asyncio.to_thread(self._losses, record, keys, terms)
        if not is_to_come or lost.odds >= least_odds(record, terms):
            return ""
        name = dataset.hex()[:12]
        what = f"{len(lost.pieces)} pieces and {len(lost.blocks)} blocks of dataset {name} are lost"
        try:
            await self._sender.send(DeclareFault(dataset, record.period))
        except LedgerRefused as refusal:
            if refusal.code not in _TOO_LATE:
                raise
            return f"{what}: period {record.period} can not be proven"
        return f"{what}: the fault of period {record.period} is declared"

    async def _restore(self, lost: Losses, opens_at: int) -> None:
        """Make pieces anew and fetch blocks, a little at a time, while the window is not open.

        Some may stay lost.
        """
        for key in lost.pieces:
            if await self._is_late(opens_at):
                return
            await _tried(self._recover(key))
        for start in range(0, len(lost.blocks) if self._heal else 0, HEALED_AT_ONCE):
            if await self._is_late(opens_at):
                return
            batch = lost.blocks[start : start + HEALED_AT_ONCE]
            await asyncio.gather(*(_tried(self._acceptance.heal(name)) for name in batch))

    async def _recover(self, key: ShardKey) -> None:
        """Make a piece anew; blocks that have changed are fetched first where that is allowed."""
        for _ in range(HEALED_AT_ONCE):
            try:
                await self._acceptance.recover(key, fetch=self._heal)
                return
            except BlockChanged as damaged:
                if not self._heal:
                    raise
                await self._acceptance.heal(damaged.multihash)

    async def _is_late(self, opens_at: int) -> bool:
        return int((await self._ledger.status())["time"]) >= opens_at

    def _losses(self, record: DatasetRecord, keys: Mapping[int, ShardKey], terms: Params) -> Losses:
        """Compare what the ledger will ask for with what is here. Reads the store's index, not the blocks."""
        pieces: list[ShardKey] = []
        blocks: dict[bytes, None] = {}
        data = meta = 0
        for key in keys.values():
            try:
                piece = self._custody.checked(key)
            except PieceLost:
                pieces.append(key)
                continue
            data += self._present(piece, blocks, meta=False)
            meta += self._present(piece, blocks, meta=True)
        chance = odds(record.data_leaves, record.data_leaves - data, record.challenges)
        chance *= odds(record.meta_leaves, record.meta_leaves - meta, terms.meta_challenges)
        return Losses(tuple(pieces), tuple(blocks), chance)

    def _present(self, piece: PieceFile, lost: dict[bytes, None], *, meta: bool) -> int:
        """The leaves of one part whose blocks are here; the other blocks are added to ``lost``."""
        present = 0
        for row in (piece.meta if meta else piece.data).rows:
            try:
                here = self._store.has(row.multihash)
            except StorageNodeError:
                here = False  # the disk does not even say
            if here:
                present += row.leaves
            else:
                lost[row.multihash] = None
        return present


async def _tried(work: Awaitable[object]) -> None:
    try:
        await work
    except (LedgerError, StorageNodeError, ProofsError, TimeoutError, OSError):
        return
