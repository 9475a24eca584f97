"""Offers: a shard that is put up for the draw, offered to a provider, and put up again if it is not taken."""

from __future__ import annotations

from dataclasses import replace

from ledger import due, keys
from ledger.context import Context
from ledger.records import ShardStatus
from ledger.rules_settlement import close_shard
from merkledag.cid import CID


def enqueue(ctx: Context, deal: CID, index: int) -> None:
    """Puts a shard up for a draw with the beacon of a later block."""
    ctx.state.put(keys.draw(ctx.height, deal, index), b"")


def offer(ctx: Context, deal: CID, index: int, provider: bytes) -> None:
    """Offers a shard to a provider, or, if there is none (b""), lets it wait as long as an offer."""
    shard = ctx.get_shard(deal, index)
    expires_at = ctx.time + ctx.terms(ctx.get_deal(deal).terms).accept_timeout_s
    ctx.assign(deal, index, replace(shard, provider=provider, round=shard.round + 1, expires_at=expires_at))
    due.add(ctx.state, expires_at + 1, due.What.OFFER, due.shard_subject(deal, index))
    if provider:
        repair = shard.status is ShardStatus.REPAIR
        ctx.emit(
            "shard_assigned", deal=deal, shard=index, provider=provider, repair=repair, expires_at=expires_at
        )


def on_offer_due(ctx: Context, subject: bytes) -> None:
    """An offer may have run out: the shard is drawn again, or given up after `max_rounds`.

    Providers that the client named are not replaced by others: then its money comes back at once.
    """
    deal, index = due.read_shard_subject(subject)
    shard = ctx.find_shard(deal, index)
    if shard is None or not 0 < shard.expires_at < ctx.time:
        return  # accepted meanwhile, or a later offer runs
    ctx.emit("offer_expired", deal=deal, shard=index, provider=shard.provider)
    tried = shard.tried
    if shard.provider and shard.provider not in tried:
        tried = (*tried, shard.provider)
    ctx.assign(deal, index, replace(shard, provider=b"", expires_at=0, tried=tried))
    is_repair = shard.status is ShardStatus.REPAIR
    record = ctx.get_deal(deal)
    if shard.round >= ctx.terms(record.terms).max_rounds or (record.named and not is_repair):
        close_shard(ctx, deal, index, ShardStatus.TERMINATED if is_repair else ShardStatus.REFUNDED)
    else:
        enqueue(ctx, deal, index)
