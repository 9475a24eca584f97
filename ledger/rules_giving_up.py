"""Giving up: a provider that must not keep a piece any longer leaves it, for half of a fault's fee.

It serves until a period is proven: the challenge may fall on the piece, so that to have lost it is no reason
to give it up instead of being faulted.
"""

from __future__ import annotations

from dataclasses import replace

from ledger import keys, money
from ledger.context import Context
from ledger.errors import Refusal
from ledger.records import ShardStatus
from ledger.result import Code
from ledger.rules_faults import put_to_repair
from ledger.rules_offers import end_handover
from ledger.rules_settlement import pay, release
from ledger.transactions import GiveUp, Stay
from merkledag.cid import CID


def give_up(ctx: Context, sender: bytes, body: GiveUp) -> None:
    """The provider lets a shard go, at half of a fault's fee, after the next period that it proves."""
    ctx.need_deal(body.deal)
    shard = ctx.need_shard(body.deal, body.shard)
    if shard.provider != sender:
        raise Refusal(Code.NOT_YOURS, "the shard is another provider's")
    if shard.status is not ShardStatus.ACTIVE or shard.struck:
        raise Refusal(Code.NOT_ACTIVE, f"the shard is {shard.status.value}")
    if shard.first > ctx.get_dataset(shard.dataset).period:
        # The period that was proven, and still turns, was without it.
        raise Refusal(Code.NOT_ACTIVE, "the shard's first period has not begun")
    if shard.handing_over:
        raise Refusal(Code.HANDOVER_RUNS, "the shard is being handed over")
    if shard.giving_up:
        raise Refusal(Code.NOTHING_TO_DO, "the shard leaves after the next proven period")
    ctx.put_shard(body.deal, body.shard, replace(shard, giving_up=True))
    ctx.state.put(keys.give(shard.dataset, shard.slot), b"")


def stay(ctx: Context, sender: bytes, body: Stay) -> None:
    """Takes back that a provider gives a shard up or hands it over, while nobody has it."""
    ctx.need_deal(body.deal)
    shard = ctx.need_shard(body.deal, body.shard)
    if shard.provider != sender:
        raise Refusal(Code.NOT_YOURS, "the shard is another provider's")
    if shard.successor_accepted:
        raise Refusal(Code.HANDOVER_RUNS, "another provider has accepted the shard")
    if shard.handing_over:
        end_handover(ctx, body.deal, body.shard)
        return
    if not shard.giving_up:
        raise Refusal(Code.NOTHING_TO_DO, "the provider is not leaving the shard")
    ctx.put_shard(body.deal, body.shard, replace(shard, giving_up=False))
    ctx.state.delete(keys.give(shard.dataset, shard.slot))


def release_given_up(ctx: Context, deal: CID, index: int) -> None:
    """A shard that was given up has left its dataset: it is paid, the fee burned, the collateral free."""
    pay(ctx, deal, index)
    shard = ctx.get_shard(deal, index)
    record = ctx.get_deal(deal)
    provider = ctx.get_provider(shard.provider)
    fee = min(provider.stake, record.price * ctx.terms(record.terms).fault_fee_percent // 200)
    ctx.move(money.stake(shard.provider), money.BURNED, fee)
    release(ctx, deal, index)
    ctx.emit("shard_given_up", deal=deal, shard=index, provider=shard.provider, fee=fee)
    put_to_repair(ctx, deal, index)
    ctx.put_shard(deal, index, replace(ctx.get_shard(deal, index), given_up_by=shard.provider))
