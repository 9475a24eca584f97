"""The periods that a dataset goes through: its window opens, it is judged, pieces leave and join.

A dataset has at most one entry in the queue of due work, for what its phase waits for:

    RESTING, VOID, OPEN ─ period's end ─► TURNING ──► WAITING ── opens_at ──► OPENING ── seed_height ──► OPEN
      ▲         DECLARED ───┘                │  │                      └── late ──┴── late ──► VOID
      │                                      │  └──────► dropped (nothing left)
      └── pieces are expected alone ─────────┘

The block that opens a window does not draw its seed, for whoever proposes it can be late, or hurry, and so
choose whether it is the one. Its beacon draws which later block does, so that nobody can steer whose turn
that is (docs/beacon.md).

The first piece that is accepted makes the dataset, IDLE for that moment. A fault declared while WAITING makes
it DECLARED.

Pieces join and leave only while TURNING, so from then to the period's end the trees stand still.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, takewhile

from ledger import due, keys, limits, money
from ledger.context import Context
from ledger.errors import RuleBroken
from ledger.records import DatasetRecord, Phase, ShardStatus, SlotRecord
from ledger.rules_datasets import Clock, leave, rest, set_slot, take_slot
from ledger.rules_faults import fault, terminate_shard
from ledger.rules_giving_up import release_given_up
from ledger.rules_handover import hand_on
from ledger.rules_settlement import close_shard, cover_acceptance, pay, release
from proofs.challenge import period_seed


def on_due(ctx: Context, dataset: bytes) -> None:
    """Does what the dataset's phase has waited for."""
    record = ctx.get_dataset(dataset)
    clock = Clock.of(dataset, ctx.terms(record.terms))
    if record.phase is Phase.WAITING:
        _open_window(ctx, dataset, record, clock)
        return
    if record.phase is Phase.DECLARED:
        record = fault(ctx, dataset, record)
    elif record.phase is Phase.OPEN and not record.proven:
        if 2 * (ctx.stalled_s - record.stalled_s) >= clock.window_s:
            _emit_void(ctx, dataset, record)  # for want of blocks: nobody's fault
        else:
            record = fault(ctx, dataset, record)
    others = max(0, ctx.budget - limits.MAX_TURN_STEP)
    ctx.budget -= others
    _turn(ctx, dataset, record, clock)
    ctx.budget += others


def _open_window(ctx: Context, dataset: bytes, record: DatasetRecord, clock: Clock) -> None:
    """Leaves the seed to a later block, unless it is too late for one already."""
    if _is_late(ctx, record, clock):
        _make_void(ctx, dataset, record, clock)
        return
    seed_height = ctx.drawn_height(clock.window_s)
    ctx.put_dataset(dataset, replace(record, phase=Phase.OPENING, seed_height=seed_height))
    due.add(ctx.state, seed_height, due.What.SEED, dataset)


def on_seed_due(ctx: Context, dataset: bytes) -> None:
    """Draws the seed of a window from this block's beacon, if it is not too late for one."""
    record = ctx.get_dataset(dataset)
    clock = Clock.of(dataset, ctx.terms(record.terms))
    if _is_late(ctx, record, clock):
        _make_void(ctx, dataset, record, clock)
        return
    period = record.period
    due.add(ctx.state, clock.closes_at(period) + 1, due.What.DATASET, dataset)
    seed = period_seed(ctx.chain_id, dataset, record.provider, period, ctx.beacon)
    record = replace(
        record,
        phase=Phase.OPEN,
        seed=seed,
        seed_time=ctx.time,
        seed_height=ctx.height,  # a later one than was drawn, where too many waited
        stalled_s=ctx.stalled_s,
    )
    ctx.put_dataset(dataset, record)
    ctx.emit(
        "window_opened",
        dataset=dataset,
        provider=record.provider,
        period=period,
        seed=seed,
        closes_at=clock.closes_at(period),
    )


def _is_late(ctx: Context, record: DatasetRecord, clock: Clock) -> bool:
    """Whether half of the window is over."""
    return 2 * (ctx.time - clock.opens_at(record.period)) > clock.window_s


def _make_void(ctx: Context, dataset: bytes, record: DatasetRecord, clock: Clock) -> None:
    """The window got no seed in time: nobody's fault."""
    due.add(ctx.state, clock.closes_at(record.period) + 1, due.What.DATASET, dataset)
    ctx.put_dataset(dataset, replace(record, phase=Phase.VOID, seed_height=0))
    _emit_void(ctx, dataset, record)


def _emit_void(ctx: Context, dataset: bytes, record: DatasetRecord) -> None:
    period = record.period
    ctx.emit("period_void", dataset=dataset, provider=record.provider, period=period, until=period)


def _turn(ctx: Context, dataset: bytes, record: DatasetRecord, clock: Clock) -> None:
    """Lets pieces leave and join, as many as the budget allows; the rest when others have had their turn."""
    record = replace(record, phase=Phase.TURNING)
    current = clock.period_at(ctx.time)
    before = record
    record = _terminate_pieces(ctx, dataset, record) if record.terminating else record
    record = _end_pieces(ctx, dataset, record, current)
    record = _give_up_pieces(ctx, dataset, record)
    record = _join_pieces(ctx, dataset, record, clock, current)
    if record != before:
        ctx.emit(
            "dataset_changed",
            dataset=dataset,
            provider=record.provider,
            period=current,
            pieces=record.pieces,
        )
    if ctx.budget <= 0 and _has_leftovers(ctx, dataset, record, current):
        ctx.put_dataset(dataset, record)
        due.add(ctx.state, ctx.time, due.What.DATASET, dataset)
        return
    _begin_period(ctx, dataset, record, clock, current)


def _has_leftovers(ctx: Context, dataset: bytes, record: DatasetRecord, current: int) -> bool:
    if record.terminating or record.joining > 0 or _ended_keys(ctx, dataset, current, 1):
        return True
    return bool(_given_up_keys(ctx, dataset, record, 1))


def _begin_period(ctx: Context, dataset: bytes, record: DatasetRecord, clock: Clock, current: int) -> None:
    if record.pieces == 0 and record.expected == 0:
        _drop(ctx, dataset, record)
        return
    skipped = current - record.period - 1
    shift, size = min(skipped, limits.HISTORY_PERIODS), 1 << limits.HISTORY_PERIODS
    if skipped > 0:
        ctx.emit(
            "period_void",
            dataset=dataset,
            provider=record.provider,
            period=record.period + 1,
            until=current - 1,
        )
    record = replace(
        record,
        phase=Phase.WAITING,
        period=current,
        seed=b"",
        seed_time=0,
        seed_height=0,
        stalled_s=0,
        proven=False,
        faulted=False,
        history=((record.history << 1 | record.proven) << shift) % size,
        faults=((record.faults << 1 | record.faulted) << shift) % size,
    )
    if record.pieces == 0:
        ctx.put_dataset(dataset, rest(ctx, dataset, record, clock, current))
        return
    ctx.put_dataset(dataset, record)
    due.add(ctx.state, clock.opens_at(current), due.What.DATASET, dataset)


def _drop(ctx: Context, dataset: bytes, record: DatasetRecord) -> None:
    """Forgets a dataset in which nothing is left, and gives its deposit back to its provider.

    The marks of its free slots go first, highest first, so that at any time all slots below `slots` are
    free: where the block's budget ends, the next block goes on, also if a piece was accepted meanwhile. Its
    trees have left no nodes.
    """
    if record.joining:
        raise RuleBroken("a dataset that pieces wait for goes on")
    count = min(record.slots, max(0, ctx.budget))
    ctx.budget -= count
    for slot in range(record.slots - count, record.slots):
        ctx.state.delete(keys.free(dataset, slot))
    record = replace(record, slots=record.slots - count)
    ctx.put_dataset(dataset, record)
    if record.slots > 0:
        due.add(ctx.state, ctx.time, due.What.DATASET, dataset)
        return
    ctx.move(money.dataset_deposit(dataset), money.balance(record.provider), record.deposit)
    ctx.state.delete(keys.dataset(dataset))


def _terminate_pieces(ctx: Context, dataset: bytes, record: DatasetRecord) -> DatasetRecord:
    """Every piece leaves, with its provider's collateral."""
    slots = list(islice(ctx.state.scan(keys.SLOT + dataset), max(0, ctx.budget)))
    for key in slots:
        ctx.budget -= 1
        place = ctx.state.record(key, SlotRecord)
        assert place is not None
        shard = ctx.get_shard(place.deal, place.shard)
        record = leave(ctx, dataset, record, place, shard)
        terminate_shard(ctx, place.deal, place.shard)
    if record.pieces == 0:
        record = replace(record, terminating=False, in_a_row=0, faults=0, faulted=False)
    return record


def _ended_keys(ctx: Context, dataset: bytes, current: int, count: int) -> list[bytes]:
    """The first `count` queue keys of pieces whose last period is over."""
    prefix = keys.END + dataset
    limit = prefix + keys.u64(current)
    return list(islice(takewhile(lambda key: key < limit, ctx.state.scan(prefix)), max(0, count)))


def _end_pieces(ctx: Context, dataset: bytes, record: DatasetRecord, current: int) -> DatasetRecord:
    """Pieces whose last period here is over leave: with the deal, to a successor, or taken away."""
    for key in _ended_keys(ctx, dataset, current, ctx.budget):
        ctx.budget -= 1
        place = ctx.state.record(keys.SLOT + dataset + key[-4:], SlotRecord)
        assert place is not None
        shard = ctx.get_shard(place.deal, place.shard)
        record = leave(ctx, dataset, record, place, shard)
        if shard.struck:
            terminate_shard(ctx, place.deal, place.shard)
            continue
        pay(ctx, place.deal, place.shard)
        release(ctx, place.deal, place.shard)
        if shard.successor_accepted:
            hand_on(ctx, place.deal, place.shard)
        else:
            cover_acceptance(ctx, place.deal, place.shard)
            close_shard(ctx, place.deal, place.shard, ShardStatus.ENDED)
    return record


def _given_up_keys(ctx: Context, dataset: bytes, record: DatasetRecord, count: int) -> list[bytes]:
    """The first `count` queue keys of pieces that leave once a period was proven; none if this was not."""
    if not record.proven:
        return []
    return list(islice(ctx.state.scan(keys.GIVE + dataset), max(0, count)))


def _give_up_pieces(ctx: Context, dataset: bytes, record: DatasetRecord) -> DatasetRecord:
    """Pieces that were given up leave once their provider has shown that it kept them."""
    for key in _given_up_keys(ctx, dataset, record, ctx.budget):
        ctx.budget -= 1
        place = ctx.state.record(keys.SLOT + dataset + key[-4:], SlotRecord)
        assert place is not None
        shard = ctx.get_shard(place.deal, place.shard)
        record = leave(ctx, dataset, record, place, shard)
        release_given_up(ctx, place.deal, place.shard)
    return record


def _join_pieces(
    ctx: Context, dataset: bytes, record: DatasetRecord, clock: Clock, current: int
) -> DatasetRecord:
    """Accepted pieces take the lowest free slots; they are drawn and paid from the period that begins."""
    for key in list(islice(ctx.state.scan(keys.JOIN + dataset), max(0, ctx.budget))):
        ctx.budget -= 1
        place = ctx.state.record(key, SlotRecord)
        assert place is not None
        ctx.state.delete(key)
        record = replace(record, joining=record.joining - 1)
        shard = ctx.get_shard(place.deal, place.shard)
        deal = ctx.get_deal(place.deal)
        starts_at = clock.starts_at(current)
        periods = (shard.ends_at - starts_at) // clock.period_s if shard.ends_at else deal.periods
        ends_at = shard.ends_at or starts_at + periods * clock.period_s
        if deal.ending and periods > 1:
            periods, ends_at = 1, starts_at + clock.period_s
        if periods <= 0:  # a repair, or a handover, that came too late for one more period
            release(ctx, place.deal, place.shard)
            close_shard(ctx, place.deal, place.shard, ShardStatus.TERMINATED)
            continue
        slot, record = take_slot(ctx, dataset, record)
        record = set_slot(ctx, dataset, record, slot, shard.piece.data, shard.piece.meta)
        record = replace(record, pieces=record.pieces + 1, price_total=record.price_total + deal.price)
        shard = replace(
            shard,
            status=ShardStatus.ACTIVE,
            slot=slot,
            first=current,
            last=current + periods - 1,
            mark=record.proven_total,
            ends_at=ends_at,
        )
        ctx.put_shard(place.deal, place.shard, shard)
        ctx.state.put(keys.slot(dataset, slot), place)
        ctx.state.put(keys.end(dataset, shard.last, slot), b"")
    return record
