"""The draw: which provider a shard is offered to, by a beacon that came after the shard.

Providers are weighted by unlocked stake. Nobody is offered two shards of a deal, nor, while there are
others, one that it let pass or lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import islice, takewhile

from ledger import keys, limits
from ledger.context import Context
from ledger.genesis import Params
from ledger.records import DealRecord, ProviderRecord, ShardRecord, ShardStatus
from ledger.rules_offers import offer
from ledger.rules_providers import is_eligible
from ledger.rules_settlement import close_shard
from merkledag.cid import CID

DRAW_TAG = b"holdfast/draw/1\x00"


def run_draws(ctx: Context) -> None:
    """Draws providers for shards of earlier blocks, oldest first, as many as one block may."""
    queue = takewhile(lambda key: keys.read_draw(key)[0] < ctx.height, ctx.state.scan(keys.DRAW))
    waiting = list(islice(queue, limits.MAX_DRAWS_PER_BLOCK))
    if not waiting:
        return
    everyone = _open_providers(ctx)
    for key in waiting:
        ctx.state.delete(key)
        _, deal, index = keys.read_draw(key)
        _draw(ctx, deal, index, everyone)


def _open_providers(ctx: Context) -> list[ProviderRecord]:
    """Providers that take shards, by account."""
    found = [ctx.state.record(key, ProviderRecord) for key in ctx.state.scan(keys.PROVIDER)]
    return [provider for provider in found if provider is not None and provider.open]


def _draw(ctx: Context, deal: CID, index: int, everyone: Sequence[ProviderRecord]) -> None:
    shard = ctx.get_shard(deal, index)
    record = ctx.get_deal(deal)
    terms = ctx.terms(record.terms)
    if shard.status is ShardStatus.REPAIR and ctx.time + terms.period_s > shard.ends_at:
        close_shard(ctx, deal, index, ShardStatus.TERMINATED)  # too late for one more period
        return
    pool = _pool(terms, record, shard, everyone)
    offer(ctx, deal, index, _pick(ctx, deal, index, shard.round, pool).account if pool else b"")


def _pool(
    terms: Params, deal: DealRecord, shard: ShardRecord, everyone: Sequence[ProviderRecord]
) -> list[ProviderRecord]:
    """Who may be drawn: eligible, without a shard of the deal, and untried unless all were tried."""
    eligible = [
        provider
        for provider in everyone
        if provider.account not in deal.parties and is_eligible(terms, provider, shard.piece, deal.price)
    ]
    return [provider for provider in eligible if provider.account not in shard.tried] or eligible


def _pick(ctx: Context, deal: CID, index: int, round_: int, pool: Sequence[ProviderRecord]) -> ProviderRecord:
    """One of the pool, each as likely as its unlocked stake; 256 bits make the modulo fair."""
    seed = DRAW_TAG + ctx.beacon + bytes(deal) + keys.u16(index) + keys.u16(round_)
    ticket = int.from_bytes(hashlib.sha256(seed).digest(), "big") % sum(each.unlocked for each in pool)
    for provider in pool:
        ticket -= provider.unlocked
        if ticket < 0:
            return provider
    raise AssertionError("a ticket is below the sum of all stakes")
