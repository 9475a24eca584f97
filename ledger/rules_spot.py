"""Spot challenges: anyone asks a shard's provider for a proof between the windows of its dataset.

spot ──later block's beacon──► open ──answer──► paid to the provider
                                 ├─closes_at──► missed: the fault fee; several in a row cost the shard
                                 └────────────► void, if the ledger stalled, or the piece has left
"""

from __future__ import annotations

from dataclasses import replace

from ledger import due, keys, limits, money, spots
from ledger.context import Context
from ledger.errors import Refusal
from ledger.genesis import Params
from ledger.proof_checker import Claim, points_of
from ledger.records import DealRecord, ShardRecord, ShardStatus, SpotRecord
from ledger.result import Code
from ledger.rules_faults import strike
from ledger.rules_proofs import verify
from ledger.transactions import Answer, Spot
from merkledag.cid import CID
from proofs.challenge import Challenge, spot_seed


def challenge_of(deal: DealRecord, shard: ShardRecord, record: SpotRecord, terms: Params) -> Challenge:
    """What an open spot challenge asks for: leaves of a dataset of depth 0 that holds the one piece."""
    return Challenge(
        seed=record.seed,
        data=shard.piece.data,
        data_depth=0,
        meta=shard.piece.meta,
        meta_depth=0,
        k=deal.challenges,
        meta_k=terms.meta_challenges,
        kind=deal.proof,
    )


def spot(ctx: Context, sender: bytes, body: Spot) -> None:
    """Opens a challenge of one shard; the sender prepays the fee of the answer."""
    if ctx.spots_opened >= limits.MAX_SPOTS_PER_BLOCK:
        raise Refusal(Code.BLOCK_FULL, f"a block takes {limits.MAX_SPOTS_PER_BLOCK} spots; send it again")
    deal = ctx.need_deal(body.deal)
    shard = ctx.need_shard(body.deal, body.shard)
    if shard.status is not ShardStatus.ACTIVE or shard.struck:
        raise Refusal(Code.NOT_ACTIVE, f"the shard is {shard.status.value}")
    if ctx.time < shard.spared_until:
        raise Refusal(
            Code.TOO_EARLY, f"the last one was missed; the next may be opened at {shard.spared_until}"
        )
    if spots.find(ctx, body.deal, body.shard) is not None:
        raise Refusal(Code.SPOT_OPEN, "one spot challenge of a shard at a time")
    seed_height = ctx.drawn_height(ctx.terms(deal.terms).window_s)
    record = SpotRecord(
        challenger=sender,
        provider=shard.provider,
        opened_at=ctx.time,
        height=ctx.height,
        seed=b"",
        closes_at=0,
        fee=0,
        stalled_s=0,
        seed_height=seed_height,
    )
    ctx.state.put(keys.spot(body.deal, body.shard), record)
    fee = ctx.params.proof_fee
    ctx.move(money.balance(sender), money.spot_fee(body.deal, body.shard), fee)
    due.add(ctx.state, seed_height, due.What.SPOT_SEED, due.shard_subject(body.deal, body.shard))
    ctx.spots_opened += 1


def find_answerable(ctx: Context, sender: bytes, body: Answer) -> SpotRecord:
    """The open spot challenge that an answer is for; refuses, without looking at the proof itself."""
    ctx.need_deal(body.deal)
    shard = ctx.need_shard(body.deal, body.shard)
    if shard.provider != sender:
        raise Refusal(Code.NOT_YOURS, "the shard is another provider's")
    record = spots.find(ctx, body.deal, body.shard)
    if record is None or not record.seed:
        raise Refusal(Code.NO_SPOT, "no spot challenge of the shard is open")
    if ctx.time > record.closes_at:
        raise Refusal(Code.TOO_LATE, f"the answer was due at {record.closes_at}")
    return record


def find_claim(ctx: Context, sender: bytes, body: Answer) -> Claim:
    """What an answer has to show, and its bytes; refuses as `find_answerable`."""
    record = find_answerable(ctx, sender, body)
    deal, shard = ctx.get_deal(body.deal), ctx.get_shard(body.deal, body.shard)
    return challenge_of(deal, shard, record, ctx.terms(deal.terms)), body.proof


def answer(ctx: Context, sender: bytes, body: Answer) -> None:
    """Pays what was prepaid to the provider if the proof shows the drawn leaves of the piece."""
    deal, shard = ctx.need_deal(body.deal), ctx.need_shard(body.deal, body.shard)
    drawn = (
        deal.challenges,
        shard.piece.data_leaves,
        ctx.terms(deal.terms).meta_challenges,
        shard.piece.meta_leaves,
    )
    ctx.need_kzg_points(points_of(deal.proof, *drawn))
    verify(ctx, find_claim(ctx, sender, body))
    ctx.put_shard(body.deal, body.shard, replace(shard, missed=0))
    spots.end(ctx, body.deal, body.shard, sender)
    ctx.emit("spot_answered", deal=body.deal, shard=body.shard, provider=sender)


def on_due(ctx: Context, subject: bytes) -> None:
    """Judges that a spot challenge was not answered in its time."""
    deal, index = due.read_shard_subject(subject)
    _judge(ctx, deal, index, _find_due(ctx, deal, index))


def _find_due(ctx: Context, deal: CID, index: int) -> SpotRecord:
    record = spots.find(ctx, deal, index)
    assert record is not None, "the due item of a spot challenge goes with it"
    return record


def on_seed_due(ctx: Context, subject: bytes) -> None:
    """Takes the seed from this block's beacon, which nobody knew when the challenge was asked for."""
    deal, index = due.read_shard_subject(subject)
    record = _find_due(ctx, deal, index)
    terms = ctx.terms(ctx.get_deal(deal).terms)
    seed = spot_seed(ctx.chain_id, bytes(deal), index, record.provider, record.height, ctx.beacon)
    closes_at = ctx.time + terms.window_s
    record = replace(record, seed=seed, closes_at=closes_at, stalled_s=ctx.stalled_s, seed_height=ctx.height)
    ctx.state.put(keys.spot(deal, index), record)
    due.add(ctx.state, closes_at + 1, due.What.SPOT, due.shard_subject(deal, index))
    ctx.emit(
        "spot_opened",
        deal=deal,
        shard=index,
        provider=record.provider,
        seed=seed,
        closes_at=closes_at,
        challenges=ctx.get_deal(deal).challenges,
    )


def _judge(ctx: Context, deal: CID, index: int, record: SpotRecord) -> None:
    agreed = ctx.get_deal(deal)
    terms = ctx.terms(agreed.terms)
    spots.end(ctx, deal, index)
    if 2 * (ctx.stalled_s - record.stalled_s) >= terms.window_s:
        ctx.emit("spot_void", deal=deal, shard=index, provider=record.provider)  # for want of blocks
        return
    fee = min(ctx.get_provider(record.provider).stake, agreed.price * terms.fault_fee_percent // 100)
    ctx.move(money.stake(record.provider), money.BURNED, fee)
    shard = ctx.get_shard(deal, index)
    missed = shard.missed + 1
    # One outage is one miss: else three calls in some hours would cost more than faults on two days.
    spared_until = record.opened_at + terms.period_s
    ctx.put_shard(deal, index, replace(shard, missed=missed, spared_until=spared_until))
    ctx.emit("spot_missed", deal=deal, shard=index, provider=record.provider, missed=missed, fee=fee)
    if missed >= terms.terminate_after:
        strike(ctx, deal, index)
