"""Plans how content is stored on the network: code, parity, manifest, pieces and price."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ledger.engine.client import LedgerClient
from ledger.fees import fee_of
from ledger.genesis import Params
from ledger.records import ProviderRecord
from ledger.rules_providers import price_floor
from ledger.transactions import CreateDeal, PieceCommitment
from merkledag.cid import CID
from proofs.commitment import PieceTree
from proofs.manifest import (
    Manifest,
    Plan,
    build_manifest,
    default_code,
    encode_manifest,
    metadata_piece,
    plan,
)
from storage_node.blockstore.interface import BlockClass, Blockstore
from storage_node.errors import IncompleteDag, PlacementFailed
from storage_node.parity import make_parity
from storage_node.piece import PieceLayout, piece_tree
from storage_node.quote import Quote, candidates, quote
from storage_node.rows import ProofRows
from storage_node.survey import Survey, survey

# Told of (phase, done, total), in bytes for "parity", "commit" and "upload", in shards for "accept".
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a client wants. ``code`` None chooses by the number of nodes; ``max_price``: units a shard a
    period.

    ``named`` providers are asked by account, one a shard, instead of drawn.
    """

    content: CID
    periods: int
    code: tuple[int, int] | None = None
    max_price: int | None = None
    named: tuple[bytes, ...] = ()


@dataclass(slots=True)
class StorePlan:
    """Everything ready to be paid for. Holds a lease on its blocks until `close`."""

    request: StoreRequest
    manifest_root: CID
    manifest: Manifest
    meta: tuple[bytes, ...]
    parity: tuple[bytes, ...]
    pieces: tuple[PieceCommitment, ...]
    quote: Quote
    challenges: int
    content_bytes: int
    _held: ExitStack

    @property
    def upload_bytes(self) -> int:
        """Bytes that go to all nodes together."""
        return sum(piece.size_bytes for piece in self.pieces)

    @property
    def body(self) -> CreateDeal:
        """The deal that the client sends to the ledger."""
        return CreateDeal(
            content=self.request.content,
            manifest=self.manifest_root,
            k=self.manifest.k,
            m=self.manifest.m,
            replicated=self.manifest.replicated,
            periods=self.quote.periods,
            price=self.quote.price,
            challenges=self.challenges,
            pieces=self.pieces,
            providers=self.request.named,
        )

    def layout(self, shard: int) -> PieceLayout:
        """The blocks of one shard."""
        return PieceLayout(self.meta, tuple(multihash for multihash, _ in self.manifest.piece(shard)))

    def close(self) -> None:
        """Let go of the lease."""
        self._held.close()

    def __enter__(self) -> StorePlan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def plan_store(
    ledger: LedgerClient,
    store: Blockstore,
    rows: ProofRows,
    request: StoreRequest,
    *,
    progress: Progress,
) -> StorePlan:
    """Encode and commit the content, and quote what it costs. Close the plan when done with it.

    Raises IncompleteDag when content is missing here, PlacementFailed when the nodes or the price do not do,
    StoreFull, and what the ledger client raises.
    """
    params, chain = await ledger.params(), await ledger.chain_id()
    providers = await ledger.providers()
    held = ExitStack()
    interrupted = threading.Event()

    def going_on(phase: str, done: int, total: int) -> None:
        if interrupted.is_set():
            raise PlacementFailed("interrupted: the same again goes on where it stopped")
        progress(phase, done, total)

    try:
        held.enter_context(store.lease())
        plan = await asyncio.to_thread(_plan, store, rows, request, params, providers, going_on, held)
        plan.quote = replace(plan.quote, fee=fee_of(plan.body, chain, params))
        return plan
    except BaseException:
        interrupted.set()  # else the thread would go on to its end, and the program wait for it
        held.close()
        raise


def _plan(
    store: Blockstore,
    rows: ProofRows,
    request: StoreRequest,
    params: Params,
    providers: Sequence[ProviderRecord],
    progress: Progress,
    held: ExitStack,
) -> StorePlan:
    found = survey(store, request.content)
    absent = store.touch_many(found.multihashes)
    if absent:
        raise IncompleteDag(f"{len(absent)} blocks of {request.content} went while it was read: try again")
    if not found.leaves:
        raise PlacementFailed("there is nothing to store: the CID carries its content in itself")
    planned = _choose(found, request, providers)
    rows.begin(found.leaves)  # other cores hash while this one encodes
    progress("parity", 0, found.leaf_bytes)
    done = 0

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        progress("parity", done, found.leaf_bytes)

    parity = make_parity(store, planned, advance)
    manifest = build_manifest(request.content, planned, parity, found.interior)
    root, blocks = encode_manifest(manifest)
    store.put_many(((block.cid.multihash, block.data) for block in blocks), BlockClass.CACHE)
    meta = tuple(dict.fromkeys(metadata_piece(manifest, blocks)))
    pieces = _commit(store, rows, manifest, meta, progress)
    terms = quote(
        pieces,
        _asked(providers, request.named),
        params,
        periods=request.periods,
        floor=price_floor(params, request.periods),
        deposit=params.deposit * (1 + len(pieces)),
        fee=0,  # follows from the deal's size, once its terms are known
        max_price=request.max_price,
    )
    return StorePlan(
        request,
        root,
        manifest,
        meta,
        tuple(parity),
        pieces,
        terms,
        params.challenges,
        found.leaf_bytes + sum(found.interior.values()),
        held,
    )


def _asked(providers: Sequence[ProviderRecord], named: tuple[bytes, ...]) -> list[ProviderRecord]:
    if not named:
        return list(providers)
    known = {provider.account: provider for provider in providers}
    missing = [account for account in named if account not in known]
    if missing:
        raise PlacementFailed(f"{len(missing)} of the named nodes are not registered as providers")
    return [known[account] for account in named]


def _choose(found: Survey, request: StoreRequest, providers: Sequence[ProviderRecord]) -> Plan:
    """The code and the groups. Without an explicit code, by the nodes that would take such a piece."""
    if request.code is not None:
        return plan(found.leaves.items(), *request.code)
    interior_bytes = sum(found.interior.values())
    able = len(candidates(_asked(providers, request.named), found.leaf_bytes + interior_bytes))
    for _ in range(2):
        # A larger code makes smaller pieces, which more nodes may take: look once more with the size that
        # follows.
        if able == 0:
            break
        k, _ = default_code(len(request.named) or able)
        size = -(-found.leaf_bytes // k) + interior_bytes
        able = max(able, len(candidates(_asked(providers, request.named), size)))
    if able == 0:
        raise PlacementFailed("no node takes a piece of this size: wait for nodes, or name a code yourself")
    return plan(found.leaves.items(), *default_code(len(request.named) or able))


def _commit(
    store: Blockstore,
    rows: ProofRows,
    manifest: Manifest,
    meta: tuple[bytes, ...],
    progress: Progress,
) -> tuple[PieceCommitment, ...]:
    """The commitment of every shard's piece; a block that is in several pieces is hashed once."""
    shards = [list(manifest.piece(shard)) for shard in range(manifest.node_count)]
    lengths = {multihash: store.size(multihash) or 0 for multihash in meta}
    for shard in shards:
        lengths.update(shard)
    done, total = 0, sum(lengths.values())

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        progress("commit", done, total)

    rows.ensure(lengths, advance)
    meta_tree = piece_tree(meta, rows.row)
    meta_bytes = sum(lengths[multihash] for multihash in meta)
    return tuple(
        commitment_of(
            piece_tree((multihash for multihash, _ in shard), rows.row),
            sum(length for _, length in shard),
            meta_tree,
            meta_bytes,
        )
        for shard in shards
    )


def commitment_of(data: PieceTree, data_bytes: int, meta: PieceTree, meta_bytes: int) -> PieceCommitment:
    """A piece's commitment as the ledger keeps it."""
    return PieceCommitment(
        data_root=data.root.hash,
        data_leaves=data.root.sum,
        data_bytes=data_bytes,
        meta_root=meta.root.hash,
        meta_leaves=meta.root.sum,
        meta_bytes=meta_bytes,
    )
