"""What a shard has earned and not been paid yet, and what it can still earn."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledger.engine.client import LedgerClient
    from ledger.records import DatasetRecord, ShardRecord


async def datasets_of(client: LedgerClient, shards: Iterable[ShardRecord]) -> dict[bytes, DatasetRecord]:
    """The datasets by ID that have the pieces of these shards, but for those that ended meanwhile."""
    from ledger.engine.errors import LedgerNotFound

    found: dict[bytes, DatasetRecord] = {}
    for name in dict.fromkeys(shard.dataset for shard in shards if shard.dataset):
        with suppress(LedgerNotFound):
            found[name] = await client.dataset(name)
    return found


def due(shard: ShardRecord, dataset: DatasetRecord | None, price: int) -> int:
    """Base units for proven periods that are not collected yet: the provider's, at the latest at the end."""
    from ledger.records import ShardStatus

    if dataset is None or shard.struck or shard.status is not ShardStatus.ACTIVE:
        return 0
    return (dataset.proven_total - shard.mark) * price


def to_come(shard: ShardRecord, dataset: DatasetRecord | None, price: int) -> int:
    """Base units that the shard still pays its provider if every period from now on is proven."""
    from ledger.records import ShardStatus

    promised = shard.reward + shard.bounty
    if shard.status is ShardStatus.ACCEPTED:
        return shard.escrow + promised
    if dataset is None or shard.status is not ShardStatus.ACTIVE or shard.struck:
        return 0
    periods = dataset.proven_total - shard.mark + _left(shard, dataset)
    return min(shard.escrow, periods * price) + (promised if periods else 0)


def _left(shard: ShardRecord, dataset: DatasetRecord) -> int:
    """Periods that can still be proven, the present one among them if its proof can still come."""
    from ledger.records import Phase

    if dataset.terminating:
        return 0
    open_now = dataset.phase in (Phase.WAITING, Phase.OPENING, Phase.OPEN) and not dataset.proven
    left = max(0, shard.last - dataset.period) + open_now
    return min(left, 1) if shard.giving_up or shard.successor_accepted else left
