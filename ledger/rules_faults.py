"""Faults: a period without proof costs a fee at once; too many of them the collateral and the shards."""

from __future__ import annotations

from dataclasses import replace

from ledger import due, money, rules_offers
from ledger.context import Context
from ledger.errors import Refusal
from ledger.genesis import Params
from ledger.records import DatasetRecord, Phase, ShardStatus
from ledger.result import Code
from ledger.rules_datasets import Clock, serve_until
from ledger.rules_handover import hand_on
from ledger.rules_settlement import close_shard, pay, release
from ledger.transactions import DeclareFault
from merkledag.cid import CID


def _is_one_too_many(record: DatasetRecord, terms: Params) -> bool:
    """Whether with the fault of this period there are as many as end it, in a row or of the last ones."""
    others = record.faults & ((1 << (terms.fault_window - 1)) - 1)
    return record.in_a_row + 1 >= terms.terminate_after or others.bit_count() + 1 >= terms.fault_limit


def declare_fault(ctx: Context, sender: bytes, body: DeclareFault) -> None:
    """The provider says, before the window opens, that it will not prove this period: half of the fee.

    No window is opened; the period's end comes next.
    """
    record = ctx.find_dataset(body.dataset)
    if record is not None and record.provider != sender:
        raise Refusal(Code.NOT_YOURS, "the dataset is another provider's")
    if record is not None and record.phase is Phase.DECLARED and record.period == body.period:
        raise Refusal(Code.NOTHING_TO_DO, "the fault is declared")
    if record is None:
        raise Refusal(Code.UNKNOWN_DATASET, "no such dataset")
    clock = Clock.of(body.dataset, ctx.terms(record.terms))
    opens_at = clock.opens_at(record.period)
    if body.period > record.period:
        raise Refusal(Code.TOO_EARLY, f"the period is {record.period}")
    if body.period < record.period or record.phase is not Phase.WAITING or ctx.time >= opens_at:
        raise Refusal(Code.TOO_LATE, "a fault is declared before the period's window opens")
    due.remove(ctx.state, opens_at, due.What.DATASET, body.dataset)
    due.add(ctx.state, clock.closes_at(record.period) + 1, due.What.DATASET, body.dataset)
    ctx.put_dataset(body.dataset, replace(record, phase=Phase.DECLARED))
    ctx.emit("fault_declared", dataset=body.dataset, provider=sender, period=body.period)


def fault(ctx: Context, dataset: bytes, record: DatasetRecord) -> DatasetRecord:
    """Notes that the period was not proven and burns the fee; after `grace_periods` clean ones it is free."""
    is_declared = record.phase is Phase.DECLARED
    terms = ctx.terms(record.terms)
    provider = ctx.get_provider(record.provider)
    ctx.put_provider(replace(provider, fault_total=provider.fault_total + 1))
    fee = 0
    if record.clean < terms.grace_periods:
        divisor = 200 if is_declared else 100
        fee = min(provider.stake, record.price_total * terms.fault_fee_percent // divisor)
    ctx.move(money.stake(record.provider), money.BURNED, fee)
    in_a_row = record.in_a_row + 1
    ctx.emit(
        "fault",
        dataset=dataset,
        provider=record.provider,
        period=record.period,
        fee=fee,
        in_a_row=in_a_row,
        declared=is_declared,
    )
    return replace(
        record,
        in_a_row=in_a_row,
        clean=0,
        faulted=True,
        fault_total=record.fault_total + 1,
        terminating=_is_one_too_many(record, terms),
    )


def terminate_shard(ctx: Context, deal: CID, index: int) -> None:
    """Takes a shard from its provider: what it proved is paid, its collateral lost, the shard put to repair.

    The reward for the repair comes out of what was forfeited and never exceeds it; the rest is burned.
    """
    pay(ctx, deal, index)
    shard = ctx.get_shard(deal, index)
    provider = ctx.get_provider(shard.provider)
    ctx.put_provider(replace(provider, terminated_total=provider.terminated_total + 1))
    forfeited = min(shard.collateral, provider.stake)
    record = ctx.get_deal(deal)
    ceiling = record.price * ctx.terms(record.terms).repair_reward_periods
    added = min(forfeited, max(0, ceiling - shard.reward))
    ctx.move(money.stake(shard.provider), money.reward(deal, index), added)
    ctx.move(money.stake(shard.provider), money.BURNED, forfeited - added, "forfeit")
    release(ctx, deal, index)
    reward = shard.reward + added
    ctx.emit(
        "shard_terminated",
        deal=deal,
        shard=index,
        provider=shard.provider,
        forfeited=forfeited,
        reward=reward,
    )
    if shard.successor_accepted:
        hand_on(ctx, deal, index)
    else:
        put_to_repair(ctx, deal, index)


def put_to_repair(ctx: Context, deal: CID, index: int) -> None:
    """A shard has lost its provider: another is drawn, which rebuilds it. In a deal that ends, it ends."""
    shard = ctx.get_shard(deal, index)
    lost = replace(
        rules_offers.unserved(shard), status=ShardStatus.REPAIR, provider=b"", tried=(shard.provider,)
    )
    ctx.assign(deal, index, lost)
    if ctx.get_deal(deal).ending:
        close_shard(ctx, deal, index, ShardStatus.TERMINATED)
    else:
        rules_offers.enqueue(ctx, deal, index)


def strike(ctx: Context, deal: CID, index: int) -> None:
    """Takes one active shard away, as by faults, at the turn of its dataset; until then it is not paid."""
    pay(ctx, deal, index)
    shard = ctx.get_shard(deal, index)
    ctx.put_shard(deal, index, replace(shard, struck=True))
    serve_until(ctx, deal, index, min(shard.last, ctx.get_dataset(shard.dataset).period))
