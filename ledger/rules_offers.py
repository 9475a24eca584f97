"""Offers: a shard that is put up for the draw, offered to a provider, and put up again if it is not taken.

Nobody keeps it, or its provider hands it over; then the offer is to a successor and the shard stays active.
"""

from __future__ import annotations

from dataclasses import replace

from ledger import due, keys
from ledger.context import Context
from ledger.errors import RuleBroken
from ledger.records import ShardRecord, ShardStatus
from ledger.rules_settlement import close_shard
from merkledag.cid import CID


def enqueue(ctx: Context, deal: CID, index: int) -> None:
    """Puts a shard up for a draw with the beacon of a later block, which this one's beacon draws."""
    drawn_height = ctx.drawn_height(ctx.terms(ctx.get_deal(deal).terms).accept_timeout_s)
    ctx.state.put(keys.draw(drawn_height - 1, deal, index), b"")


def enqueue_new(ctx: Context, deal: CID, index: int) -> None:
    """Puts a shard of a new deal up for a draw with the next block's beacon.

    Its client, who chose the moment, may as well name providers: there is nothing to steer.
    """
    ctx.state.put(keys.draw(ctx.height, deal, index), b"")


def is_awaiting_draw(shard: ShardRecord | None) -> bool:
    """Whether a shard that was put up still waits: it may have closed, or its handover ended, meanwhile."""
    if shard is None or shard.expires_at or shard.successor_accepted:
        return False
    return shard.status.is_offered or shard.handing_over


def without_handover(shard: ShardRecord) -> ShardRecord:
    """The shard with no handover running; whoever was to take it is not bound."""
    return replace(
        shard,
        handing_over=False,
        successor=b"",
        successor_accepted=False,
        next_collateral=0,
        round=0,
        expires_at=0,
        tried=(),
    )


def unserved(shard: ShardRecord) -> ShardRecord:
    """The shard without a place in a dataset, and without what its provider did there; no handover runs."""
    return replace(
        without_handover(shard),
        dataset=b"",
        slot=0,
        first=0,
        last=0,
        mark=0,
        giving_up=False,
        struck=False,
        missed=0,
        spared_until=0,
    )


def end_handover(ctx: Context, deal: CID, index: int) -> None:
    """Ends a handover that nobody has accepted; the provider keeps the shard."""
    shard = ctx.get_shard(deal, index)
    if shard.successor_accepted:
        raise RuleBroken("whoever accepted a shard gets it")
    ctx.assign(deal, index, without_handover(shard))
    ctx.emit("handover_failed", deal=deal, shard=index, provider=shard.provider)


def offer(ctx: Context, deal: CID, index: int, provider: bytes) -> None:
    """Offers a shard to a provider, or, if there is none (b""), lets it wait as long as an offer."""
    shard = ctx.get_shard(deal, index)
    expires_at = ctx.time + ctx.terms(ctx.get_deal(deal).terms).accept_timeout_s
    offered = replace(shard, round=shard.round + 1, expires_at=expires_at)
    ctx.assign(deal, index, _offered_to(offered, provider))
    due.add(ctx.state, expires_at + 1, due.What.OFFER, due.shard_subject(deal, index))
    if provider:
        ctx.emit(
            "shard_assigned",
            deal=deal,
            shard=index,
            provider=provider,
            repair=shard.status is ShardStatus.REPAIR,
            handover=shard.handing_over,
            expires_at=expires_at,
        )


def _offered_to(shard: ShardRecord, provider: bytes) -> ShardRecord:
    if shard.handing_over:
        return replace(shard, successor=provider)
    return replace(shard, provider=provider)


def on_offer_due(ctx: Context, subject: bytes) -> None:
    """An offer may have run out: the shard is drawn again, or given up after `max_rounds`.

    Providers that the client named are not replaced by others: then its money comes back at once.
    """
    deal, index = due.read_shard_subject(subject)
    shard = ctx.find_shard(deal, index)
    if shard is None or not 0 < shard.expires_at < ctx.time:
        return  # accepted meanwhile, or a later offer runs
    asked = shard.successor if shard.handing_over else shard.provider
    ctx.emit("offer_expired", deal=deal, shard=index, provider=asked)
    tried = (*shard.tried, asked) if asked and asked not in shard.tried else shard.tried
    ctx.assign(deal, index, _offered_to(replace(shard, expires_at=0, tried=tried), b""))
    record = ctx.get_deal(deal)
    is_last = shard.round >= ctx.terms(record.terms).max_rounds
    if shard.handing_over and is_last:
        end_handover(ctx, deal, index)
    elif shard.status is ShardStatus.REPAIR and is_last:
        close_shard(ctx, deal, index, ShardStatus.TERMINATED)
    elif shard.status is ShardStatus.OFFERED and (is_last or record.named):
        close_shard(ctx, deal, index, ShardStatus.REFUNDED)
    else:
        enqueue(ctx, deal, index)
