"""Deals: a client locks money for its pieces, a provider that has checked its piece accepts it."""

from __future__ import annotations

from dataclasses import replace

from ledger import limits, money, rules_datasets, rules_handover, rules_offers
from ledger.context import Context
from ledger.errors import Refusal
from ledger.records import DealRecord, DealStatus, ShardRecord, ShardStatus
from ledger.result import Code
from ledger.rules_providers import collateral, price_floor, takes
from ledger.transactions import Accept, CreateDeal, PieceCommitment
from merkledag.cid import CID


def create_deal(ctx: Context, sender: bytes, body: CreateDeal, deal: CID) -> None:
    """Locks price × periods for each piece, and the deposit of the records; then the shards are offered."""
    ctx.count_shards(len(body.pieces))
    named = [record for each in body.providers if (record := ctx.find_provider(each)) is not None]
    if len(named) != len(body.providers):
        raise Refusal(Code.NOT_REGISTERED, "a named provider is not registered")
    _check_terms(ctx, body)
    floor = price_floor(ctx.params, body.periods)
    if body.price < floor:
        raise Refusal(Code.PRICE_TOO_LOW, f"a shard costs at least {floor} units a period")
    if len(set(body.providers)) != len(body.providers):
        raise Refusal(Code.DUPLICATE_PROVIDER, "each shard needs a provider of its own")
    for index, (provider, piece) in enumerate(zip(named, body.pieces, strict=False)):
        if not takes(provider, piece, body.price):
            raise Refusal(
                Code.TERMS_NOT_TAKEN, f"the provider named for shard {index} does not take its terms"
            )
    shards = len(body.pieces)
    ctx.put_deal(deal, _new_deal(ctx, sender, body))
    ctx.move(money.balance(sender), money.deal_deposit(deal), ctx.params.deposit * (1 + shards))
    for index, piece in enumerate(body.pieces):
        ctx.put_shard(deal, index, _new_shard(piece))
        ctx.move(money.balance(sender), money.escrow(deal, index), body.price * body.periods)
    ctx.open_deals += 1
    ctx.emit("deal_created", deal=deal, client=sender, shards=shards)
    for index in range(shards):
        if body.providers:
            rules_offers.offer(ctx, deal, index, body.providers[index])
        else:
            rules_offers.enqueue_new(ctx, deal, index)


def _check_terms(ctx: Context, body: CreateDeal) -> None:
    wanted = body.m - body.k + 1 if body.replicated else body.m
    if body.k > body.m:
        raise Refusal(Code.INVALID_TERMS, "k exceeds m")
    if len(body.pieces) != wanted:
        raise Refusal(Code.INVALID_TERMS, f"{len(body.pieces)} pieces where {wanted} belong")
    if len(body.providers) not in (0, wanted):
        raise Refusal(Code.INVALID_TERMS, f"name no provider, or {wanted}")
    if not ctx.params.challenges <= body.challenges <= limits.MAX_CHALLENGES:
        raise Refusal(
            Code.INVALID_TERMS, f"challenges: {ctx.params.challenges} to {limits.MAX_CHALLENGES} are allowed"
        )
    if not all(piece.is_plausible(body.proof) for piece in body.pieces):
        raise Refusal(Code.INVALID_TERMS, "a piece's bytes do not fit into its leaves")


def _new_deal(ctx: Context, client: bytes, body: CreateDeal) -> DealRecord:
    return DealRecord(
        client=client,
        content=body.content,
        manifest=body.manifest,
        k=body.k,
        m=body.m,
        replicated=body.replicated,
        periods=body.periods,
        price=body.price,
        challenges=body.challenges,
        named=bool(body.providers),
        deposit=0,
        created_at=ctx.time,
        ended_at=0,
        status=DealStatus.OPEN,
        open_shards=len(body.pieces),
        refunded=0,
        holders=(b"",) * len(body.pieces),
        successors=(b"",) * len(body.pieces),
        terms=ctx.params_version,
        proof=body.proof,
    )


def _new_shard(piece: PieceCommitment) -> ShardRecord:
    return ShardRecord(
        piece=piece,
        status=ShardStatus.OFFERED,
        provider=b"",
        round=0,
        expires_at=0,
        tried=(),
        dataset=b"",
        slot=0,
        first=0,
        last=0,
        mark=0,
        ends_at=0,
        escrow=0,
        reward=0,
        collateral=0,
        paid=0,
    )


def accept(ctx: Context, sender: bytes, body: Accept) -> None:
    """The assigned provider takes a shard: it locks collateral, and joins the dataset at the next period."""
    provider = ctx.need_provider(sender)
    deal = ctx.need_deal(body.deal)
    shard = ctx.need_shard(body.deal, body.shard)
    terms = ctx.terms(deal.terms)
    locks = collateral(terms, deal.price)
    is_successor = shard.successor == sender
    if shard.provider != sender and not is_successor:
        raise Refusal(Code.NOT_YOURS, "the shard is not offered to this provider")
    if shard.successor_accepted if is_successor else not shard.status.is_offered:
        raise Refusal(Code.NOT_OFFERED, f"the shard is {shard.status.value}")
    if ctx.time > shard.expires_at:
        raise Refusal(Code.OFFER_EXPIRED, f"the offer ran out at {shard.expires_at}")
    dataset = rules_datasets.dataset_of(deal, sender)
    if is_successor:
        joins_at = rules_handover.next_start(ctx, shard, dataset, terms)
    else:
        joins_at = rules_datasets.next_start(ctx, dataset, terms)
    if shard.ends_at and joins_at + terms.period_s > shard.ends_at:
        raise Refusal(Code.OFFER_EXPIRED, f"no whole period is left before the deal ends at {shard.ends_at}")
    if shard.piece.size_bytes > provider.free_bytes:
        raise Refusal(Code.NO_CAPACITY, f"{provider.free_bytes} bytes are free")
    known = ctx.find_dataset(dataset)
    if known is not None and known.pieces + known.joining + known.expected >= limits.MAX_DATASET_PIECES:
        raise Refusal(Code.DATASET_FULL, f"a dataset holds {limits.MAX_DATASET_PIECES} pieces")
    if provider.unlocked < locks:
        raise Refusal(Code.INSUFFICIENT_STAKE, f"{locks} units of unlocked stake are needed")
    ctx.put_provider(
        replace(
            provider,
            locked=provider.locked + locks,
            used_bytes=provider.used_bytes + shard.piece.size_bytes,
        )
    )
    if known is None:
        rules_datasets.create(ctx, dataset, deal, sender)
    if is_successor:
        rules_handover.take(ctx, body.deal, body.shard, dataset, locks)
    else:
        accepted = replace(
            shard, status=ShardStatus.ACCEPTED, expires_at=0, tried=(), dataset=dataset, collateral=locks
        )
        ctx.put_shard(body.deal, body.shard, accepted)
        rules_datasets.queue_join(ctx, dataset, body.deal, body.shard)
    ctx.emit("shard_accepted", deal=body.deal, shard=body.shard, provider=sender, dataset=dataset)
