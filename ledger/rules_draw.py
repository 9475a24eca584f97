"""The draw: which provider a shard is offered to, by a beacon that came after the shard.

Providers are weighted by the stake that was unlocked at the end of the last block. Nobody is offered two
shards of a deal, nor, while there are others, one that it let pass or lost. No draw looks at all providers.
"""

from __future__ import annotations

import hashlib
from itertools import islice, takewhile

from ledger import keys, limits, weights
from ledger.context import Context
from ledger.records import DealRecord, ShardRecord, ShardStatus
from ledger.rules_offers import end_handover, is_awaiting_draw, offer
from ledger.rules_providers import is_eligible
from ledger.rules_settlement import close_shard
from merkledag.cid import CID

DRAW_TAG = b"holdfast/draw/1\x00"


def run_draws(ctx: Context) -> None:
    """Draws providers for shards of earlier blocks, oldest first, as many as one block may."""
    queue = takewhile(lambda key: keys.read_draw(key)[0] < ctx.height, ctx.state.scan(keys.DRAW))
    looks = limits.MAX_DRAW_LOOKS_PER_BLOCK
    for key in list(islice(queue, limits.MAX_DRAWS_PER_BLOCK)):
        if looks <= 0:
            return
        ctx.state.delete(key)
        _, deal, index = keys.read_draw(key)
        took = limits.MAX_DRAW_TRIES + limits.MAX_DRAW_SEATS
        with ctx.set_aside(key):
            took = _draw(ctx, deal, index)
        looks -= took


def _draw(ctx: Context, deal: CID, index: int) -> int:
    """Offers a shard to whom it falls; returns how many providers were looked at."""
    shard = ctx.find_shard(deal, index)
    if shard is None or not is_awaiting_draw(shard):
        return 1
    record = ctx.get_deal(deal)
    terms = ctx.terms(record.terms)
    if shard.handing_over and ctx.time + 2 * terms.period_s > shard.ends_at:
        end_handover(ctx, deal, index)  # no whole period would be left for the successor
        return 1
    if shard.status is ShardStatus.REPAIR and ctx.time + terms.period_s > shard.ends_at:
        close_shard(ctx, deal, index, ShardStatus.TERMINATED)  # too late for one more period
        return 1
    draw = _Draw(ctx, deal, index, record, shard)
    offer(ctx, deal, index, draw.pick())
    return draw.looks


class _Draw:
    """The draw for one shard in one round. `looks` counts the providers that it has looked at."""

    def __init__(self, ctx: Context, deal: CID, index: int, record: DealRecord, shard: ShardRecord) -> None:
        self.looks = 0
        self._ctx, self._record, self._shard = ctx, record, shard
        self._terms = ctx.terms(record.terms)
        self._seed = DRAW_TAG + ctx.beacon + bytes(deal) + keys.u16(index) + keys.u16(shard.round)

    def pick(self) -> bytes:
        """The account that the shard falls to, b"" if nobody was found for it."""
        state = self._ctx.state
        total = weights.total(state)
        if total == 0:
            return b""
        seat = 0
        for attempt in range(limits.MAX_DRAW_TRIES):
            seat = weights.find(state, self._ticket(attempt, total))
            account = weights.account_at(state, seat)
            if self._fits(account) and account not in self._shard.tried:
                return account
        return self._pick_near(seat)

    def _ticket(self, attempt: int, total: int) -> int:
        """256 bits make the modulo fair."""
        return int.from_bytes(hashlib.sha256(self._seed + keys.u16(attempt)).digest(), "big") % total

    def _fits(self, account: bytes) -> bool:
        """Whether a provider may have the shard: eligible, no party to the deal, not rid of the shard."""
        self.looks += 1
        provider = self._ctx.get_provider(account)
        is_barred = account in self._record.parties or account == self._shard.given_up_by
        return not is_barred and is_eligible(self._terms, provider, self._shard.piece, self._record.price)

    def _pick_near(self, start: int) -> bytes:
        """One of those that fit among the seats that follow; those who were tried if there is nobody else."""
        state = self._ctx.state
        count = weights.count(state)
        seats = ((start + step) % count for step in range(min(count, limits.MAX_DRAW_SEATS)))
        fit = [
            (account, weights.weight_at(state, seat))
            for seat in seats
            if self._fits(account := weights.account_at(state, seat))
        ]
        fit = [each for each in fit if each[0] not in self._shard.tried] or fit
        if not fit:
            return b""
        ticket = self._ticket(limits.MAX_DRAW_TRIES, sum(weight for _, weight in fit))
        for account, weight in fit:
            ticket -= weight
            if ticket < 0:
                return account
        raise AssertionError("a ticket is below the sum of all weights")
