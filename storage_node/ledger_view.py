"""What this package reads from the ledger, in its own terms."""

from __future__ import annotations

from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerNotFound
from ledger.records import ShardRecord
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
    deal, shard = view.deal, view.shards[key.shard]
    terms = ShardTerms(
        key, deal.client, deal.content, deal.manifest, deal.k, deal.m, deal.replicated, shard.piece
    )
    return terms, shard
