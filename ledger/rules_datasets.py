"""Datasets: what one client keeps on one provider; their IDs, clocks, slot trees and queues of pieces.

Pieces join and leave only while a period turns (`rules_periods`); until then they wait in a queue.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from ledger import due, keys, money, spots
from ledger.context import Context
from ledger.genesis import Params
from ledger.records import DatasetRecord, DealRecord, Phase, ShardRecord, SlotRecord
from ledger.state import State
from merkledag import dag_cbor
from merkledag.cid import CID
from proofs import slot_tree
from proofs.commitment import EMPTY, SumNode
from proofs.kinds import ProofKind

DATASET_TAG = b"holdfast/dataset/1\x00"
OFFSET_TAG = b"holdfast/period-offset/1\x00"


def identify(client: bytes, provider: bytes, proof: ProofKind, challenges: int, terms: int) -> bytes:
    """The ID of a dataset, 32 bytes; `terms` is the version of the parameters that its deals are under."""
    what = dag_cbor.encode([client, provider, proof.value, challenges, terms])
    return hashlib.sha256(DATASET_TAG + what).digest()


def dataset_of(deal: DealRecord, provider: bytes) -> bytes:
    """The ID of the dataset that a deal's shards on a provider belong to."""
    return identify(deal.client, provider, deal.proof, deal.challenges, deal.terms)


@dataclass(frozen=True, slots=True)
class Clock:
    """A dataset's periods: they begin apart from those of others, so that proofs arrive evenly."""

    period_s: int
    window_s: int
    offset_s: int

    @classmethod
    def of(cls, dataset: bytes, params: Params) -> Clock:
        """The clock of a dataset."""
        digest = hashlib.sha256(OFFSET_TAG + dataset).digest()
        return cls(params.period_s, params.window_s, int.from_bytes(digest[:8], "big") % params.period_s)

    def period_at(self, time: int) -> int:
        """The period that a ledger time is in."""
        return (time + self.offset_s) // self.period_s

    def starts_at(self, period: int) -> int:
        """The first second of a period (before 0 for period 0)."""
        return period * self.period_s - self.offset_s

    def opens_at(self, period: int) -> int:
        """The first second of a period's window."""
        return self.starts_at(period + 1) - self.window_s

    def closes_at(self, period: int) -> int:
        """The last second of a period's window, and of the period."""
        return self.starts_at(period + 1) - 1


class StateNodes:
    """A slot tree's nodes in the state."""

    def __init__(self, state: State, dataset: bytes, tree: bytes) -> None:
        self._state, self._dataset, self._tree = state, dataset, tree

    def get(self, level: int, index: int) -> SumNode:
        """The node, `EMPTY` if none."""
        raw = self._state.get(keys.node(self._dataset, self._tree, level, index))
        return EMPTY if raw is None else SumNode(raw[8:], int.from_bytes(raw[:8], "big"))

    def put(self, level: int, index: int, node: SumNode) -> None:
        """Keeps or, if it is `EMPTY`, drops a node."""
        key = keys.node(self._dataset, self._tree, level, index)
        if node == EMPTY:
            self._state.delete(key)
        else:
            self._state.put(key, keys.u64(node.sum) + node.hash)


def create(ctx: Context, dataset: bytes, deal: DealRecord, provider: bytes) -> None:
    """Makes an empty dataset for a deal's pieces on a provider, which pays the deposit."""
    record = DatasetRecord(deal.client, provider, deal.challenges, deal.terms, deposit=0, proof=deal.proof)
    ctx.put_dataset(dataset, record)
    ctx.move(money.balance(provider), money.dataset_deposit(dataset), ctx.terms(deal.terms).deposit)


def queue_join(ctx: Context, dataset: bytes, deal: CID, shard: int) -> None:
    """A piece will join at the end of the period; the first of a dataset starts its clock."""
    record = ctx.get_dataset(dataset)
    ctx.state.put(keys.join(dataset, record.joins), SlotRecord(deal, shard))
    record = start(ctx, dataset, record)
    ctx.put_dataset(dataset, replace(record, joins=record.joins + 1, joining=record.joining + 1))


def expect(ctx: Context, dataset: bytes) -> None:
    """A piece will wait to join once its provider has handed it over; until then the dataset stays."""
    record = start(ctx, dataset, ctx.get_dataset(dataset))
    ctx.put_dataset(dataset, replace(record, expected=record.expected + 1))


def queue_expected(ctx: Context, dataset: bytes, deal: CID, shard: int) -> None:
    """A piece that was expected waits to join now."""
    record = ctx.get_dataset(dataset)
    ctx.put_dataset(dataset, replace(record, expected=record.expected - 1))
    queue_join(ctx, dataset, deal, shard)


def start(ctx: Context, dataset: bytes, record: DatasetRecord) -> DatasetRecord:
    """Starts the clock of a dataset that was just made."""
    if record.phase is not Phase.IDLE:
        return record
    clock = Clock.of(dataset, ctx.terms(record.terms))
    return rest(ctx, dataset, record, clock, clock.period_at(ctx.time))


def rest(ctx: Context, dataset: bytes, record: DatasetRecord, clock: Clock, period: int) -> DatasetRecord:
    """Lets a dataset without pieces wait for the period after this one."""
    due.add(ctx.state, clock.starts_at(period + 1), due.What.DATASET, dataset)
    return replace(record, phase=Phase.RESTING, period=period)


def next_start(ctx: Context, dataset: bytes, terms: Params) -> int:
    """When the period begins that a piece accepted now would join in."""
    clock = Clock.of(dataset, terms)
    current = clock.period_at(ctx.time)
    known = ctx.find_dataset(dataset)
    # While its pieces still leave and join, the period that they do so for is the next one.
    return clock.starts_at(current + 1 if known is None else max(current, known.period + 1))


def set_slot(
    ctx: Context, dataset: bytes, record: DatasetRecord, slot: int, data: SumNode, meta: SumNode
) -> DatasetRecord:
    """Puts a piece (`EMPTY`, `EMPTY`: none) into a slot of both trees, which grow as deep as it takes."""
    data_nodes = StateNodes(ctx.state, dataset, keys.DATA_TREE)
    meta_nodes = StateNodes(ctx.state, dataset, keys.META_TREE)
    depth = record.depth
    while slot >= 1 << depth:
        slot_tree.grow(data_nodes, depth)
        slot_tree.grow(meta_nodes, depth)
        depth += 1
    data_root = slot_tree.set_slot(data_nodes, depth, slot, data)
    meta_root = slot_tree.set_slot(meta_nodes, depth, slot, meta)
    return replace(
        record,
        depth=depth,
        data_root=data_root.hash,
        data_leaves=data_root.sum,
        meta_root=meta_root.hash,
        meta_leaves=meta_root.sum,
    )


def take_slot(ctx: Context, dataset: bytes, record: DatasetRecord) -> tuple[int, DatasetRecord]:
    """The lowest slot that is free, or the one behind all of them."""
    key = ctx.state.first(keys.FREE + dataset)
    if key is None:
        return record.slots, replace(record, slots=record.slots + 1)
    ctx.state.delete(key)
    return int.from_bytes(key[-4:], "big"), record


def serve_until(ctx: Context, deal: CID, index: int, last: int) -> None:
    """Moves the last period of an active shard."""
    shard = ctx.get_shard(deal, index)
    ctx.state.delete(keys.end(shard.dataset, shard.last, shard.slot))
    ctx.state.put(keys.end(shard.dataset, last, shard.slot), b"")
    ctx.put_shard(deal, index, replace(shard, last=last))


def leave(
    ctx: Context, dataset: bytes, record: DatasetRecord, place: SlotRecord, shard: ShardRecord
) -> DatasetRecord:
    """Takes a piece out of the trees. A spot challenge of it is void: nobody keeps the piece any more."""
    spots.end(ctx, place.deal, place.shard)
    ctx.state.delete(keys.end(dataset, shard.last, shard.slot))
    ctx.state.delete(keys.give(dataset, shard.slot))
    ctx.state.delete(keys.slot(dataset, shard.slot))
    ctx.state.put(keys.free(dataset, shard.slot), b"")
    record = set_slot(ctx, dataset, record, shard.slot, EMPTY, EMPTY)
    price = ctx.get_deal(place.deal).price
    return replace(record, pieces=record.pieces - 1, price_total=record.price_total - price)
