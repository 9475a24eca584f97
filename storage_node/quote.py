"""What keeping a set of pieces will cost, from the asks of the nodes that could take them; integers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.genesis import Params
from ledger.records import ProviderRecord
from ledger.rules_providers import asked_price, takes
from ledger.transactions import PieceCommitment
from storage_node.errors import PlacementFailed

# Nodes beyond the number of shards that a price should reach: for the draw to choose from, and for repair.
SPARE_PERCENT = 50


@dataclass(frozen=True, slots=True)
class Quote:
    """A deal's terms and everything its client pays. Money in base units.

    ``price`` is what one shard costs a period, rounded up once; ``escrow`` covers all shards for all periods,
    ``deposit`` comes back at the end, ``fee`` does not. ``eligible`` nodes take these terms.
    """

    shards: int
    periods: int
    price: int
    escrow: int
    deposit: int
    fee: int
    eligible: int

    @property
    def total(self) -> int:
        """What the client's account must hold."""
        return self.escrow + self.deposit + self.fee


def periods_for(duration_s: int, params: Params) -> int:
    """Proving periods that cover a duration, rounded up; at least one."""
    return max(1, -(-duration_s // params.period_s))


def candidates(providers: Sequence[ProviderRecord], size_bytes: int) -> list[ProviderRecord]:
    """Providers that would take a piece of this size at their own price, cheapest first."""
    able = [
        provider
        for provider in providers
        if provider.open
        and provider.unlocked > 0
        and provider.min_piece_bytes <= size_bytes <= provider.max_piece_bytes
        and size_bytes <= provider.free_bytes
    ]
    return sorted(able, key=lambda provider: (provider.price_per_gib_period, provider.account))


def quote(
    pieces: Sequence[PieceCommitment],
    providers: Sequence[ProviderRecord],
    params: Params,
    *,
    periods: int,
    floor: int,
    deposit: int,
    fee: int,
    max_price: int | None = None,
) -> Quote:
    """The terms of a deal for these pieces, one a shard.

    The price is the lowest that enough providers take: the number of shards and half as many to spare, or all
    there are; never below ``floor``, which covers the fees of serving. Raises PlacementFailed when fewer
    providers than shards are eligible at any price, or at ``max_price`` (units a shard a period).
    """
    largest = max(pieces, key=lambda piece: piece.size_bytes)
    asks = sorted(
        max(floor, asked_price(provider, largest.size_bytes))
        for provider in candidates(providers, largest.size_bytes)
    )
    needed = len(pieces)
    if len(asks) < needed:
        raise PlacementFailed(
            f"{len(asks)} nodes would take a shard of {largest.size_bytes} bytes, {needed} are needed: "
            "choose a smaller code or wait for more nodes"
        )
    reach = min(len(asks), needed + -(-needed * SPARE_PERCENT // 100))
    price = asks[reach - 1]
    if max_price is not None and price > max_price:
        price = max_price
        if price < asks[needed - 1]:
            raise PlacementFailed(
                f"the price of {max_price} is too low: enough nodes for {needed} shards "
                f"ask {asks[needed - 1]} units a shard a period"
            )
    collateral = price * params.collateral_periods
    eligible = [
        provider
        for provider in providers
        if all(takes(provider, piece, price) and piece.size_bytes <= provider.free_bytes for piece in pieces)
        and 0 < provider.unlocked >= collateral
    ]
    if len(eligible) < needed:
        raise PlacementFailed(
            f"{len(eligible)} nodes have the stake and room for a shard at {price} units a period, "
            f"{needed} are needed"
        )
    return Quote(needed, periods, price, needed * price * periods, deposit, fee, len(eligible))
