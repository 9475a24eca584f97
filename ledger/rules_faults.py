"""Faults: a period without proof costs a fee at once; several in a row cost the collateral and the shards."""

from __future__ import annotations

from dataclasses import replace

from ledger import money, rules_offers
from ledger.context import Context
from ledger.genesis import Params
from ledger.records import DatasetRecord, ShardStatus
from ledger.rules_settlement import pay, release
from merkledag.cid import CID


def _is_one_too_many(record: DatasetRecord, terms: Params) -> bool:
    """Whether with the fault of this period there are as many as end it, in a row or of the last ones."""
    others = record.faults & ((1 << (terms.fault_window - 1)) - 1)
    return record.in_a_row + 1 >= terms.terminate_after or others.bit_count() + 1 >= terms.fault_limit


def fault(ctx: Context, dataset: bytes, record: DatasetRecord) -> DatasetRecord:
    """Notes that the period was not proven and burns the fee; after `grace_periods` clean ones it is free."""
    terms = ctx.terms(record.terms)
    provider = ctx.get_provider(record.provider)
    ctx.put_provider(replace(provider, fault_total=provider.fault_total + 1))
    fee = 0
    if record.clean < terms.grace_periods:
        fee = min(provider.stake, record.price_total * terms.fault_fee_percent // 100)
    ctx.move(money.stake(record.provider), money.BURNED, fee)
    in_a_row = record.in_a_row + 1
    ctx.emit(
        "fault", dataset=dataset, provider=record.provider, period=record.period, fee=fee, in_a_row=in_a_row
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
    lost = replace(
        ctx.get_shard(deal, index),
        status=ShardStatus.REPAIR,
        provider=b"",
        round=0,
        expires_at=0,
        tried=(shard.provider,),
        dataset=b"",
        slot=0,
        first=0,
        last=0,
        mark=0,
    )
    ctx.assign(deal, index, lost)
    rules_offers.enqueue(ctx, deal, index)
