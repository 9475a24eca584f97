"""What this package reads from the ledger, in its own terms."""

from __future__ import annotations

from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerNotFound
from ledger.engine.views import DealView
from ledger.records import DealStatus, ShardRecord
from merkledag.cid import CID
from storage_node.custody import ShardTerms
from storage_node.duties import ShardKey


async def deal_shards(ledger: LedgerClient, deal: CID) -> list[ShardRecord]:
    """The shards of a deal, in order. Raises LedgerNotFound."""
    return list((await ledger.deal(deal)).shards)


async def shard_terms(ledger: LedgerClient, key: ShardKey) -> tuple[ShardTerms, ShardRecord]:
    """The terms of one shard and where it stands. Raises LedgerNotFound."""
    view = await ledger.deal(key.deal)
    if key.shard >= len(view.shards):
        raise LedgerNotFound(f"deal {key.deal} has no shard {key.shard}")
    return terms_of(view, key.shard), view.shards[key.shard]


def terms_of(view: DealView, index: int) -> ShardTerms:
    """The terms of one shard of a deal."""
    deal, shard = view.deal, view.shards[index]
    return ShardTerms(
        ShardKey(view.id, index),
        deal.client,
        deal.content,
        deal.manifest,
        deal.k,
        deal.m,
        deal.replicated,
        shard.piece,
        deal.price,
        deal.periods,
    )


async def my_shards(ledger: LedgerClient, provider: bytes) -> list[tuple[ShardKey, ShardRecord]]:
    """The shards of open deals that are offered to a provider or kept by it."""
    return [
        (ShardKey(view.id, index), shard)
        for view in await ledger.deals(provider=provider, active=True)
        for index, shard in enumerate(view.shards)
        if shard.provider == provider
    ]


async def slots_of(ledger: LedgerClient, dataset: bytes) -> dict[int, ShardKey]:
    """What the slots of a dataset hold."""
    slots = await ledger.dataset_slots(dataset)
    return {slot: ShardKey(place.deal, place.shard) for slot, place in slots.items()}


async def open_deal(ledger: LedgerClient, client: bytes, content: CID, manifest: CID) -> CID | None:
    """The client's latest deal for exactly this content and manifest that is still open, if any."""
    found = [
        view
        for view in await ledger.deals(client=client, content=content, active=True)
        if view.deal.manifest == manifest and view.deal.status is DealStatus.OPEN
    ]
    return max(found, key=lambda view: view.deal.created_at).id if found else None
