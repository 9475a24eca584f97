"""Plans how content is stored on the network: code, parity, manifest, pieces and price."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from ledger.engine.client import LedgerClient
from ledger.fees import fee_of
from ledger.genesis import Params
from ledger.records import ProviderRecord
from ledger.rules_providers import price_floor
from ledger.transactions import CreateDeal, PieceCommitment
from merkledag.cid import CID
from proofs.commitment import HASH_BYTES, PieceTree
from proofs.erasure.manifest import (
    Manifest,
    Plan,
    build_manifest,
    default_code,
    encode_manifest,
    metadata_piece,
    plan,
)
from proofs.kinds import ProofKind
from storage_node.blockstore.interface import BlockClass, Blockstore
from storage_node.errors import IncompleteDag, PlacementFailed
from storage_node.kzg_rows import BLOB_S, KzgRows
from storage_node.parity import make_parity
from storage_node.piece import PieceLayout, Row, piece_tree
from storage_node.quote import Quote, candidates, quote
from storage_node.rows import ProofRows
from storage_node.survey import Survey, survey

# Told of (phase, done, total): bytes for "parity", "commit", "upload"; blobs for "kzg"; shards for "accept".
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
    proof: ProofKind = ProofKind.MERKLE


@dataclass(slots=True)
class StorePlan:
    """What is to be paid for, cut into pieces, with its price. Holds a lease on its blocks until `close`.

    `pieces` have sizes, from which all money follows, but no roots before `commit_plan`. `blocks`: the length
    of each block of any piece.
    """

    request: StoreRequest
    manifest_root: CID
    manifest: Manifest
    meta: tuple[bytes, ...]
    parity: tuple[bytes, ...]
    pieces: tuple[PieceCommitment, ...]
    quote: Quote
    challenges: int
    content_bytes: int
    blocks: Mapping[bytes, int]
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
            proof=self.request.proof,
        )

    @property
    def is_committed(self) -> bool:
        """Whether the pieces have their roots."""
        return any(any(piece.data_root) for piece in self.pieces)

    @property
    def units(self) -> int:
        """What has to be committed to here: blobs or leaves of all different blocks."""
        return sum(map(self.request.proof.unit_count, self.blocks.values()))

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


async def draft_store(
    ledger: LedgerClient, store: Blockstore, rows: ProofRows, request: StoreRequest, *, progress: Progress
) -> StorePlan:
    """Encode the content and quote what it costs; then `commit_plan`. Close the plan when done with it.

    Raises IncompleteDag when content is missing here, PlacementFailed when the nodes or the price do not do,
    StoreFull, and what the ledger client raises.
    """
    params, chain = await ledger.params(), await ledger.chain_id()
    providers = await ledger.providers()
    held = ExitStack()
    try:
        held.enter_context(store.lease())
        with _until_interrupted(progress) as going_on:
            plan = await asyncio.to_thread(_plan, store, rows, request, params, providers, going_on, held)
        plan.quote = replace(plan.quote, fee=fee_of(plan.body, chain, params))
        return plan
    except BaseException:
        held.close()
        raise


@contextmanager
def _until_interrupted(progress: Progress) -> Iterator[Progress]:
    """For work in a thread: ends it when it next tells how far it is, once nobody waits for it any more.

    Else it would go on to its end, and the program wait for it.
    """
    interrupted = threading.Event()

    def going_on(phase: str, done: int, total: int) -> None:
        if interrupted.is_set():
            raise PlacementFailed("interrupted: the same again goes on where it stopped")
        progress(phase, done, total)

    try:
        yield going_on
    except BaseException:
        interrupted.set()
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
    if request.proof is ProofKind.MERKLE:
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
    meta_lengths = {multihash: store.size(multihash) or 0 for multihash in meta}
    lengths = dict(meta_lengths)
    for shard in range(manifest.node_count):
        lengths.update(manifest.piece(shard))
    pieces = _sizes(request.proof, manifest, meta_lengths)
    _check_preparation(request.proof, pieces, params)
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
        lengths,
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


def _sizes(kind: ProofKind, manifest: Manifest, meta: Mapping[bytes, int]) -> tuple[PieceCommitment, ...]:
    """The commitment of every shard's piece, with roots that are still to come."""
    meta_leaves, meta_bytes = sum(map(kind.unit_count, meta.values())), sum(meta.values())
    none = bytes(HASH_BYTES)
    made: list[PieceCommitment] = []
    for shard in range(manifest.node_count):
        lengths = [length for _, length in manifest.piece(shard)]
        leaves = sum(map(kind.unit_count, lengths))
        made.append(PieceCommitment(none, leaves, sum(lengths), none, meta_leaves, meta_bytes))
    return tuple(made)


def _check_preparation(kind: ProofKind, pieces: Sequence[PieceCommitment], params: Params) -> None:
    """Each node prepares its piece before it accepts: what takes longer than an offer stands is refused."""
    if kind is ProofKind.MERKLE:
        return
    most = max(piece.data_leaves + piece.meta_leaves for piece in pieces)
    if most * BLOB_S > params.accept_timeout_s:
        raise PlacementFailed(
            f"for KZG proofs a node commits to each of a shard's {most} blobs before it accepts, which may "
            f"take {most * BLOB_S:.0f} s, and an offer stands for {params.accept_timeout_s} s: choose a code "
            "with smaller shards, store parts by themselves, or take Merkle proofs"
        )


async def commit_plan(plan: StorePlan, rows: ProofRows, kzg: KzgRows | None, *, progress: Progress) -> None:
    """Commit to every shard's piece. A block that is in several pieces is committed to once, and what was
    made before it was interrupted is not made again.

    Raises BlockNotFound, StoreFull, WorkersLost.
    """
    kind = plan.request.proof
    if kind is ProofKind.MERKLE:
        with _until_interrupted(progress) as going_on:
            await asyncio.to_thread(_hash, plan, rows, going_on)
        row: Row = rows.row
    else:
        assert kzg is not None, "whoever asks for KZG proofs brings what commits to blobs"
        await kzg.prepare(plan.blocks, partial(progress, "kzg"))
        row = kzg.row
    plan.pieces = await asyncio.to_thread(_commitments, plan, row)


def _hash(plan: StorePlan, rows: ProofRows, progress: Progress) -> None:
    done, total = 0, sum(plan.blocks.values())

    def advance(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        progress("commit", done, total)

    rows.ensure(plan.blocks, advance)


def _commitments(plan: StorePlan, row: Row) -> tuple[PieceCommitment, ...]:
    kind = plan.request.proof
    meta = piece_tree(plan.meta, row, kind)
    return tuple(
        commitment_of(
            piece_tree(plan.layout(shard).data, row, kind), sizes.data_bytes, meta, sizes.meta_bytes
        )
        for shard, sizes in enumerate(plan.pieces)
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


async def plan_store(
    ledger: LedgerClient,
    store: Blockstore,
    rows: ProofRows,
    request: StoreRequest,
    *,
    progress: Progress,
    kzg: KzgRows | None = None,
) -> StorePlan:
    """`draft_store` and `commit_plan` in one."""
    plan = await draft_store(ledger, store, rows, request, progress=progress)
    try:
        await commit_plan(plan, rows, kzg, progress=progress)
    except BaseException:
        plan.close()
        raise
    return plan
