"""Handover: a provider leaves a shard to another one, and serves on until that one has taken it.

The shard is put up for the draw as it stands. Its successor accepts as any provider does; at the next turn
of the old dataset the shard goes from the one to the other, and joins the successor's at its next period.
"""

from __future__ import annotations

from dataclasses import replace

from ledger import rules_datasets, rules_offers
from ledger.context import Context
from ledger.errors import Refusal
from ledger.genesis import Params
from ledger.records import ShardRecord, ShardStatus
from ledger.result import Code
from ledger.transactions import HandOver
from merkledag.cid import CID


def hand_over(ctx: Context, sender: bytes, body: HandOver) -> None:
    """Puts an active shard up for the draw, its own provider left out."""
    ctx.need_deal(body.deal)
    shard = ctx.need_shard(body.deal, body.shard)
    if shard.provider != sender:
        raise Refusal(Code.NOT_YOURS, "the shard is another provider's")
    is_active = shard.status is ShardStatus.ACTIVE
    if is_active and shard.last < ctx.get_dataset(shard.dataset).period + 2 and not shard.handing_over:
        raise Refusal(Code.OFFER_EXPIRED, "no whole period is left after the next one")
    if not is_active or shard.struck:
        raise Refusal(Code.NOT_ACTIVE, f"the shard is {shard.status.value}")
    if shard.handing_over:
        raise Refusal(Code.HANDOVER_RUNS, "the shard is being handed over")
    if shard.giving_up:
        raise Refusal(Code.NOTHING_TO_DO, "the shard is given up and leaves after the next proven period")
    ctx.put_shard(body.deal, body.shard, replace(shard, handing_over=True, round=0, expires_at=0, tried=()))
    rules_offers.enqueue(ctx, body.deal, body.shard)
    ctx.emit("handover_started", deal=body.deal, shard=body.shard, provider=sender)


def next_start(ctx: Context, shard: ShardRecord, successor: bytes, terms: Params) -> int:
    """When the period begins that a shard handed over to its successor (a dataset) would join in."""
    old = ctx.get_dataset(shard.dataset)
    turns_at = rules_datasets.Clock.of(shard.dataset, terms).starts_at(old.period + 1)
    clock = rules_datasets.Clock.of(successor, terms)
    return clock.starts_at(clock.period_at(max(ctx.time, turns_at)) + 1)


def take(ctx: Context, deal: CID, index: int, successor: bytes, locks: int) -> None:
    """The successor has accepted: the old provider serves this period to its end, and no more."""
    shard = ctx.get_shard(deal, index)
    taken = replace(shard, successor_accepted=True, expires_at=0, tried=(), next_collateral=locks)
    ctx.put_shard(deal, index, taken)
    rules_datasets.serve_until(ctx, deal, index, ctx.get_dataset(shard.dataset).period)
    rules_datasets.expect(ctx, successor)


def hand_on(ctx: Context, deal: CID, index: int) -> None:
    """Gives a shard that its provider was paid for, and released from, to the successor that accepted it."""
    shard = ctx.get_shard(deal, index)
    dataset = rules_datasets.dataset_of(ctx.get_deal(deal), shard.successor)
    passed = replace(
        rules_offers.unserved(shard),
        status=ShardStatus.ACCEPTED,
        provider=shard.successor,
        collateral=shard.next_collateral,
        dataset=dataset,
    )
    ctx.assign(deal, index, passed)
    rules_datasets.queue_expected(ctx, dataset, deal, index)
    ctx.emit("shard_handed_over", deal=deal, shard=index, from_=shard.provider, to=shard.successor)
