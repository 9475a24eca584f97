"""Settlement: proven periods pay, what is left goes back; a payment costs the same however long it waited."""

from __future__ import annotations

from dataclasses import replace

from ledger import due, keys, money
from ledger.context import Context
from ledger.errors import Refusal, RuleBroken
from ledger.fees import small_fee
from ledger.records import DealStatus, ShardRecord, ShardStatus
from ledger.result import Code
from ledger.transactions import Settle
from merkledag.cid import CID


def settle(ctx: Context, body: Settle) -> None:
    """Pays what is due on one shard. A period that is still open, void or faulted pays nothing."""
    ctx.need_deal(body.deal)
    shard = ctx.need_shard(body.deal, body.shard)
    if shard.status is not ShardStatus.ACTIVE or unpaid_periods(ctx, shard) == 0:
        raise Refusal(Code.NOTHING_DUE, "no proven period is unpaid")
    pay(ctx, body.deal, body.shard)


def unpaid_periods(ctx: Context, shard: ShardRecord) -> int:
    """Proven periods of an active shard that are not paid yet."""
    return 0 if shard.struck else ctx.get_dataset(shard.dataset).proven_total - shard.mark


def pay(ctx: Context, deal: CID, index: int) -> None:
    """Pays an active shard's proven periods, and with the first of them what was promised for its repair."""
    shard = ctx.get_shard(deal, index)
    periods = unpaid_periods(ctx, shard)
    if periods == 0:
        return
    provider = ctx.get_provider(shard.provider)
    payout = money.balance(provider.payout)
    ctx.put_provider(replace(provider, served=provider.served + periods))
    amount = periods * ctx.get_deal(deal).price
    paid = shard.paid + amount
    ctx.put_shard(deal, index, replace(shard, mark=shard.mark + periods, paid=paid, backer=b""))
    ctx.move(money.escrow(deal, index), payout, amount, "payment")
    ctx.move(money.reward(deal, index), payout, shard.reward)
    ctx.move(money.bounty(deal, index), payout, shard.bounty, "bounty")
    ctx.emit(
        "paid",
        deal=deal,
        shard=index,
        provider=shard.provider,
        amount=amount,
        reward=shard.reward,
        bounty=shard.bounty,
    )


def cover_acceptance(ctx: Context, deal: CID, index: int) -> None:
    """Pays what notice has kept a provider from earning of the fee of its acceptance.

    The price floor spreads that fee over all periods of the deal; the pay of those that were served, less
    their proofs' fees, covers a part of it. The rest comes out of the client's escrow.
    """
    shard, record = ctx.get_shard(deal, index), ctx.get_deal(deal)
    terms = ctx.terms(record.terms)
    served = (shard.last - shard.first + 1) * (record.price - terms.proof_fee)
    amount = min(shard.escrow, small_fee(terms) - served)
    if not record.ending or amount <= 0:
        return
    ctx.put_shard(deal, index, replace(shard, paid=shard.paid + amount))
    ctx.move(
        money.escrow(deal, index), money.balance(ctx.get_provider(shard.provider).payout), amount, "payment"
    )
    ctx.emit("paid", deal=deal, shard=index, provider=shard.provider, amount=amount, reward=0, bounty=0)


def release(ctx: Context, deal: CID, index: int) -> None:
    """Unlocks the collateral of a shard and frees its room."""
    shard = ctx.get_shard(deal, index)
    provider = ctx.get_provider(shard.provider)
    ctx.put_provider(
        replace(
            provider,
            locked=provider.locked - shard.collateral,
            used_bytes=provider.used_bytes - shard.piece.size_bytes,
        )
    )
    ctx.put_shard(deal, index, replace(shard, collateral=0))


def close_shard(ctx: Context, deal: CID, index: int, status: ShardStatus) -> None:
    """Ends a shard that locks nothing any more: escrow and bounty go back, an unearned reward is burned.

    The last shard ends the deal, whose deposit goes back too. A closed shard names no dataset, for that may
    be dropped before it.
    """
    shard = ctx.get_shard(deal, index)
    record = ctx.get_deal(deal)
    client = money.balance(record.client)
    assert status.is_closed
    if shard.status.is_closed or shard.successor_accepted:
        raise RuleBroken("a shard is closed once, and not if somebody has accepted to take it over")
    ctx.move(money.escrow(deal, index), client, shard.escrow)
    ctx.move(money.reward(deal, index), money.BURNED, shard.reward)
    ctx.move(money.bounty(deal, index), money.balance(shard.backer), shard.bounty)
    closed = replace(
        ctx.get_shard(deal, index),
        status=status,
        dataset=b"",
        expires_at=0,
        handing_over=False,
        successor=b"",
        giving_up=False,
        struck=False,
        backer=b"",
    )
    ctx.assign(deal, index, closed)
    refund = shard.escrow + (shard.bounty if shard.backer == record.client else 0)
    ctx.emit("shard_closed", deal=deal, shard=index, status=status.value, refund=refund)
    record = ctx.get_deal(deal)
    record = replace(record, open_shards=record.open_shards - 1, refunded=record.refunded + refund)
    ctx.put_deal(deal, record)
    if record.open_shards == 0:
        _end_deal(ctx, deal)


def _end_deal(ctx: Context, deal: CID) -> None:
    record = ctx.get_deal(deal)
    refund = record.refunded + record.deposit
    ctx.put_deal(deal, replace(record, status=DealStatus.ENDED, ended_at=ctx.time))
    ctx.move(money.deal_deposit(deal), money.balance(record.client), record.deposit)
    ctx.open_deals -= 1
    ctx.emit("deal_ended", deal=deal, client=record.client, refund=refund)
    terms = ctx.terms(record.terms)
    kept_s = terms.retention_periods * terms.period_s
    due.add(ctx.state, ctx.time + kept_s, due.What.FORGET, bytes(deal))


def forget(ctx: Context, subject: bytes) -> None:
    """Drops the records of a deal that ended long ago."""
    deal = CID.decode(subject)
    for index in range(len(ctx.get_deal(deal).holders)):
        ctx.budget -= 1
        ctx.state.delete(keys.shard(deal, index))
    ctx.state.delete(keys.deal(deal))
