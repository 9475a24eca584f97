"""Changes to a live deal: its client renews it or gives notice, anyone adds to the reward of a repair."""

from __future__ import annotations

from dataclasses import replace

from ledger import limits, money
from ledger.context import Context
from ledger.errors import Refusal
from ledger.records import DealStatus, ShardRecord, ShardStatus
from ledger.result import Code
from ledger.rules_datasets import Clock, serve_until
from ledger.rules_offers import end_handover
from ledger.rules_providers import asked_price
from ledger.rules_settlement import close_shard
from ledger.transactions import EndDeal, Renew, TopUp
from merkledag.cid import CID


def renew(ctx: Context, sender: bytes, body: Renew) -> None:
    """Locks the price of `periods` more for each open shard, under the deal's own terms and price.

    A provider that stays open and asks no more than the price has consented, `renewal_periods` ahead at most;
    who does not want a renewal closes, asks more or hands the shard over.
    """
    deal = ctx.need_deal(body.deal)
    ctx.count_shards(len(deal.holders))
    if deal.status is not DealStatus.OPEN or deal.ending:
        raise Refusal(Code.INVALID_TERMS, "the deal has ended, or is ending")
    terms = ctx.terms(deal.terms)
    longer_s = body.periods * terms.period_s
    shards = _open_shards(ctx, body.deal)
    if deal.periods + body.periods > limits.MAX_DEAL_PERIODS:
        raise Refusal(Code.INVALID_TERMS, f"a deal has at most {limits.MAX_DEAL_PERIODS} periods")
    ends_at = max(shard.ends_at or ctx.time + deal.periods * terms.period_s for _, shard in shards)
    if ends_at + longer_s > ctx.time + terms.renewal_periods * terms.period_s:
        raise Refusal(
            Code.INVALID_TERMS, f"a deal is renewed up to {terms.renewal_periods} periods from now at most"
        )
    if deal.price < ctx.params.proof_fee:
        raise Refusal(
            Code.PRICE_TOO_LOW, f"a proof costs {ctx.params.proof_fee} units by now: make a new deal"
        )
    for index, shard in shards:
        if shard.provider and not _is_renewed_by(ctx, shard, deal.price):
            raise Refusal(Code.TERMS_NOT_TAKEN, f"shard {index}'s provider does not go on at this price")
    if deal.client != sender:
        raise Refusal(Code.NOT_YOURS, "the deal is another client's")
    for index, shard in shards:
        ctx.move(money.balance(sender), money.escrow(body.deal, index), deal.price * body.periods)
        if shard.ends_at:
            known = ctx.get_shard(body.deal, index)
            ctx.put_shard(body.deal, index, replace(known, ends_at=shard.ends_at + longer_s))
        if shard.status is ShardStatus.ACTIVE:
            serve_until(ctx, body.deal, index, shard.last + body.periods)
    ctx.put_deal(body.deal, replace(deal, periods=deal.periods + body.periods))
    ctx.emit("deal_renewed", deal=body.deal, periods=body.periods, shards=len(shards))


def _open_shards(ctx: Context, deal: CID) -> list[tuple[int, ShardRecord]]:
    every = [ctx.get_shard(deal, index) for index in range(len(ctx.get_deal(deal).holders))]
    return [(index, shard) for index, shard in enumerate(every) if not shard.status.is_closed]


def _is_renewed_by(ctx: Context, shard: ShardRecord, price: int) -> bool:
    """Whether the shard's provider has said by its ask, and by staying, that it goes on at the price."""
    provider = ctx.get_provider(shard.provider)
    stays = provider.open and not (shard.handing_over or shard.giving_up or shard.struck)
    return stays and asked_price(provider, shard.piece.size_bytes) <= price


def end_deal(ctx: Context, sender: bytes, body: EndDeal) -> None:
    """Notice: what nobody serves ends at once, the rest after this period and one more."""
    deal = ctx.need_deal(body.deal)
    ctx.count_shards(len(deal.holders))
    if deal.client != sender:
        raise Refusal(Code.NOT_YOURS, "the deal is another client's")
    if deal.ending or deal.status is not DealStatus.OPEN:
        raise Refusal(Code.NOTHING_TO_DO, "the deal has ended, or is ending")
    ctx.put_deal(body.deal, replace(deal, ending=True))
    ctx.emit("deal_ending", deal=body.deal)
    for index, shard in _open_shards(ctx, body.deal):
        if shard.status.is_offered:
            ctx.assign(body.deal, index, replace(shard, provider=b""))
            was_kept = shard.status is ShardStatus.REPAIR
            close_shard(ctx, body.deal, index, ShardStatus.TERMINATED if was_kept else ShardStatus.REFUNDED)
        elif shard.status is ShardStatus.ACTIVE:
            _serve_notice(ctx, body.deal, index, shard)


def _serve_notice(ctx: Context, deal: CID, index: int, shard: ShardRecord) -> None:
    """An active shard is served in this period and the next; nobody is sought any more to take it over."""
    if shard.handing_over and not shard.successor_accepted:
        end_handover(ctx, deal, index)
    dataset = ctx.get_dataset(shard.dataset)
    last = min(shard.last, dataset.period + 1)
    serve_until(ctx, deal, index, last)
    if not shard.successor_accepted:
        ends_at = Clock.of(shard.dataset, ctx.terms(dataset.terms)).starts_at(last + 1)
        ctx.put_shard(deal, index, replace(ctx.get_shard(deal, index), ends_at=ends_at))


def top_up(ctx: Context, sender: bytes, body: TopUp) -> None:
    """Adds to what the one who repairs a shard gets; if nobody does, it goes back.

    There is one bounty, of one account: a higher one of another account takes its place, and it goes back.
    """
    if body.amount == 0:
        raise Refusal(Code.AMOUNT_OUT_OF_RANGE, "an amount of 0 adds nothing")
    ctx.need_deal(body.deal)
    shard = ctx.need_shard(body.deal, body.shard)
    others = shard.bounty if shard.backer != sender else 0
    if others and body.amount <= others:
        raise Refusal(
            Code.AMOUNT_OUT_OF_RANGE, f"another account has put up {others} units: more takes their place"
        )
    if shard.status is not ShardStatus.REPAIR:
        raise Refusal(Code.NOT_OFFERED, f"the shard is {shard.status.value}: there is nothing to repair")
    bounty = money.bounty(body.deal, body.shard)
    ctx.move(bounty, money.balance(shard.backer), others)
    ctx.put_shard(body.deal, body.shard, replace(shard, bounty=shard.bounty - others, backer=sender))
    ctx.move(money.balance(sender), bounty, body.amount)
    ctx.emit("topped_up", deal=body.deal, shard=body.shard, amount=body.amount)
