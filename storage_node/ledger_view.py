"""What this package reads from the ledger, in its own terms."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerNotFound
from ledger.engine.views import DealView
from ledger.records import DatasetRecord, DealStatus, ShardRecord, ShardStatus
from ledger.rules_datasets import dataset_of
from merkledag.cid import CID
from proofs.kinds import ProofKind
from storage_node.custody import ShardTerms
from storage_node.duties import ShardKey

_log = logging.getLogger(__name__)


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
        deal.proof,
    )


@dataclass(frozen=True, slots=True)
class MyShard:
    """A shard that is offered to a provider, kept by it or handed over to it.

    `dataset` is the one that the provider proves it in, or will.
    """

    key: ShardKey
    shard: ShardRecord
    price: int
    proof: ProofKind
    dataset: bytes
    is_offer: bool


def is_offer_to(shard: ShardRecord, provider: bytes) -> bool:
    """Whether a provider may accept the shard now: as its first one, to repair it, or to take it over."""
    if shard.successor == provider:
        return shard.handing_over and not shard.successor_accepted
    return shard.provider == provider and shard.status in (ShardStatus.OFFERED, ShardStatus.REPAIR)


def is_kept_by(shard: ShardRecord, provider: bytes) -> bool:
    """Whether a provider has accepted the shard and must keep its piece."""
    if shard.successor == provider:
        return shard.successor_accepted
    kept = shard.status in (ShardStatus.ACCEPTED, ShardStatus.ACTIVE)
    return kept and shard.provider == provider


async def my_shards(ledger: LedgerClient, provider: bytes, known: Collection[ShardKey] = ()) -> list[MyShard]:
    """The shards of open deals that are offered to a provider, kept by it or handed over to it.

    No proof shows that a list is whole, so the deals of the `known` that it lacks are asked for: what
    the provider has a piece of is not let go of because somebody left it out.
    """
    found = [
        mine
        async for view in ledger.each_deal(provider=provider, active=True)
        for mine in _mine_of(view, provider)
    ]
    listed = {mine.key for mine in found}
    for deal in dict.fromkeys(key.deal for key in known if key not in listed):
        with suppress(LedgerNotFound):
            more = [mine for mine in _mine_of(await ledger.deal(deal), provider) if mine.key not in listed]
            if more:
                _log.warning("%s leaves deal %s out of the list of this node's deals", ledger.url, deal)
            found += more
    return found


def _mine_of(view: DealView, provider: bytes) -> list[MyShard]:
    return [
        MyShard(
            ShardKey(view.id, index),
            shard,
            view.deal.price,
            view.deal.proof,
            dataset_of(view.deal, provider),
            is_offer_to(shard, provider),
        )
        for index, shard in enumerate(view.shards)
        if is_offer_to(shard, provider) or is_kept_by(shard, provider)
    ]


async def my_datasets(
    ledger: LedgerClient, provider: bytes, known: Collection[bytes]
) -> dict[bytes, DatasetRecord]:
    """A provider's datasets by ID; the `known` that the server's list lacks are asked for."""
    found = dict(await ledger.datasets(provider=provider))
    for dataset in dict.fromkeys(known):
        if dataset not in found:
            with suppress(LedgerNotFound):
                found[dataset] = await ledger.dataset(dataset)
    return found


async def slots_of(ledger: LedgerClient, dataset: bytes) -> dict[int, ShardKey]:
    """What the slots of a dataset hold."""
    slots = await ledger.dataset_slots(dataset)
    return {slot: ShardKey(place.deal, place.shard) for slot, place in slots.items()}


async def open_deal(
    ledger: LedgerClient, client: bytes, content: CID, manifest: CID, proof: ProofKind
) -> CID | None:
    """The client's latest deal for exactly this content, manifest and kind of proof that goes on, if any."""
    found = [
        view
        for view in await ledger.deals(client=client, content=content, active=True)
        if (view.deal.manifest, view.deal.proof) == (manifest, proof)
        and view.deal.status is DealStatus.OPEN
        and not view.deal.ending
    ]
    return max(found, key=lambda view: view.deal.created_at).id if found else None
