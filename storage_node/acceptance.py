"""From offered to held: checks complete pieces, accepts them, rebuilds repairs, lets go of the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

import proofs.errors
from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerRefused, LedgerUnreachable
from ledger.engine.sender import Sender
from ledger.rules_providers import takes
from ledger.transactions import Accept
from merkledag.block import Block
from merkledag.cid import CID
from merkledag.codecs import RAW
from proofs.kinds import ProofKind
from storage_node.blockstore.interface import BlockClass, Blockstore
from storage_node.custody import Custody, ShardTerms
from storage_node.denylist import Denylist
from storage_node.duties import ShardKey
from storage_node.errors import BlockNotFound, DamagedBlock, UploadRefused, WorkersLost
from storage_node.fetch import NetworkFetcher
from storage_node.ledger_view import is_kept_by, is_offer_to, shard_terms
from storage_node.piece import PieceLayout
from storage_node.upload import PieceIntake

RETRY_S = 1.0
MAX_RETRY_S = 30.0
FETCH_BATCH_BLOCKS = 8
NOTHING_DENIED = Denylist()

_log = logging.getLogger(__name__)


class Acceptance:
    """Takes shards into custody. ``sleep`` waits between tries to reach the ledger."""

    def __init__(
        self,
        ledger: LedgerClient,
        sender: Sender,
        custody: Custody,
        store: Blockstore,
        fetcher: NetworkFetcher,
        *,
        me: bytes,
        denylist: Denylist = NOTHING_DENIED,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._sender = sender
        self._custody = custody
        self._store = store
        self._fetcher = fetcher
        self._me = me
        self._denylist = denylist
        self._sleep = sleep
        # One at a time keeps a shard's piece. A lock is here while somebody has it or waits for it.
        self._locks: WeakValueDictionary[ShardKey, asyncio.Lock] = WeakValueDictionary()
        self._one_prepares = asyncio.Lock()
        self._preparing: dict[ShardKey, asyncio.Task[None]] = {}

    async def offered(self, key: ShardKey) -> ShardTerms | None:
        """The terms of a shard that is offered to us now; None if we hold it.

        Raises UploadRefused when it is neither, or when we do not take such a piece at the deal's price,
        LedgerNotFound for an unknown deal, LedgerUnreachable.
        """
        terms, shard = await shard_terms(self._ledger, key)
        if is_kept_by(shard, self._me):
            return None
        if not is_offer_to(shard, self._me):
            raise UploadRefused(f"shard {key.shard} of deal {key.deal} is not assigned to this node")
        if self._denylist.denies_terms(terms):
            raise UploadRefused("this node does not keep this content")
        if not self._custody.can_prove(terms.proof):
            raise UploadRefused(f"this node makes no proofs of kind {terms.proof.value!r}")
        # The ledger looks at our ask too, but it may have changed since; and no deal may get past it.
        if not takes(await self._ledger.provider(self._me), terms.piece, terms.price):
            raise UploadRefused(
                f"this node does not take {terms.piece.size_bytes} bytes for {terms.price} units a period, "
                f"{terms.periods} times: see what it asks, and name another node or none"
            )
        return terms

    async def accept_if_complete(self, key: ShardKey) -> bool:
        """Check and accept a shard whose every block is here. True when the ledger counts it as ours.

        False when blocks are still missing. Raises UploadRefused for a piece that is not the deal's.
        """
        async with self._lock(key):
            terms = await self.offered(key)
            if terms is None:
                return True
            if self._custody.piece(key) is None:
                intake = await asyncio.to_thread(self._custody.intake, terms)
                if not intake.complete or intake.layout is None:
                    return False
                if self._denylist.denies_any([*intake.layout.meta, *intake.layout.data]):
                    raise UploadRefused("this node does not keep a block of this content")
                with self._store.lease():
                    await self._keep(terms, intake.layout)
            await self._send_accept(key)
            return True

    def _lock(self, key: ShardKey) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    async def _keep(self, terms: ShardTerms, layout: PieceLayout) -> None:
        """Check and keep a complete piece. One at a time is prepared for KZG proofs, by all cores.

        Raises UploadRefused for a piece that is not the deal's, also when it is let go of meanwhile.
        """
        preparing = asyncio.create_task(self._prepare(terms, layout))
        self._preparing[terms.key] = preparing
        try:
            await asyncio.wait({preparing})
        finally:
            self._preparing.pop(terms.key, None)
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
        if preparing.cancelled():
            raise UploadRefused(f"shard {terms.key.shard} of deal {terms.key.deal} is not ours any more")
        preparing.result()
        await asyncio.to_thread(self._custody.keep, terms, layout)

    async def _prepare(self, terms: ShardTerms, layout: PieceLayout) -> None:
        """Again when a process was killed: where a repair or a handover waits for it, nobody asks twice."""
        if terms.proof is not ProofKind.KZG:
            return
        retry_s = RETRY_S
        async with self._one_prepares:
            while True:
                try:
                    await self._custody.prepare(terms, layout)
                except WorkersLost as error:
                    _log.warning("shard %d of deal %s: %s", terms.key.shard, terms.key.deal, error)
                else:
                    return
                await self._sleep(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)

    async def _send_accept(self, key: ShardKey) -> None:
        """Accept, trying again while the ledger cannot be reached and the offer stands."""
        retry_s = RETRY_S
        while True:
            try:
                await self._sender.send(Accept(key.deal, key.shard))
            except LedgerUnreachable:
                await self._sleep(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)
                if await self.offered(key) is None:
                    return
            except LedgerRefused as refusal:
                _, shard = await shard_terms(self._ledger, key)
                if is_kept_by(shard, self._me):
                    return
                await self.release(key)
                raise UploadRefused(f"the ledger does not let us accept: {refusal.log}") from refusal
            else:
                return

    async def fetch(self, key: ShardKey) -> None:
        """Get every block of an offered shard from the network, then accept it.

        A shard that is handed over comes from its holder; what that does not give is rebuilt from the rest
        of the deal, as is a shard that has lost its holder.

        Raises BlockNotFound or UndecodableGroup when the deal has too little left.
        """
        terms = await self.offered(key)
        if terms is None or await self.accept_if_complete(key):
            return
        with self._store.lease():
            await self._complete(terms)
            await self.accept_if_complete(key)

    async def recover(self, key: ShardKey, *, fetch: bool) -> None:
        """Make the piece file of a shard that we hold anew: from the blocks here and, with ``fetch``, those
        that others give.

        Raises BlockNotFound when there is not enough of it, proofs.errors.BlockChanged for a block here that
        has changed, UploadRefused when we do not hold it any more.
        """
        async with self._lock(key):
            if self._custody.piece(key) is not None:
                return  # a window, a spot challenge and an inspection may miss it at once
            terms, shard = await shard_terms(self._ledger, key)
            if not is_kept_by(shard, self._me):
                raise UploadRefused(f"shard {key.shard} of deal {key.deal} is not ours any more")
            self._custody.reset(key)  # what an earlier try found may have gone since
            with self._store.lease():
                if not fetch:
                    await self._check_all_here(terms)
                try:
                    await self._keep(terms, await self._complete(terms))
                except DamagedBlock as damaged:  # found where KZG commitments are made
                    raise proofs.errors.BlockChanged(damaged.multihash) from damaged

    async def _check_all_here(self, terms: ShardTerms) -> None:
        intake = await asyncio.to_thread(self._custody.intake, terms)
        if not intake.complete:
            raise BlockNotFound(
                f"blocks of shard {terms.key.shard} of deal {terms.key.deal} are missing, and this node does "
                "not fetch what it has lost"
            )

    async def _complete(self, terms: ShardTerms) -> PieceLayout:
        """Fetch or rebuild every block of a piece that is not here."""
        await self._fetcher.expect(terms.key.deal)
        intake = await asyncio.to_thread(self._custody.intake, terms)
        while intake.layout is None:
            wanted = intake.wanted_manifest_block
            if wanted is None:
                raise UploadRefused(intake.error or "the manifest is not valid")
            await self._store_fetched(intake, [wanted])
        missing = await asyncio.to_thread(intake.missing)
        # A few groups at a time, so that memory stays bounded by their blocks.
        for start in range(0, len(missing), FETCH_BATCH_BLOCKS):
            batch = [CID(1, RAW, multihash) for multihash in missing[start : start + FETCH_BATCH_BLOCKS]]
            await self._store_fetched(intake, batch)
        return intake.layout

    async def _store_fetched(self, intake: PieceIntake, cids: list[CID]) -> None:
        blocks = await asyncio.gather(*(self._fetcher.fetch(cid) for cid in cids))
        await asyncio.to_thread(
            intake.take, [Block(cid, data) for cid, data in zip(cids, blocks, strict=True)]
        )

    async def release(self, key: ShardKey) -> None:
        """Let go of a shard that is not, or no longer, ours."""
        if key in self._preparing:
            self._preparing[key].cancel()
        await asyncio.to_thread(self._custody.drop, key)

    def in_custody(self) -> set[ShardKey]:
        """The shards whose pieces are here, or were before they were damaged."""
        return {*self._custody.held(), *(key for key, file in self._custody.damaged().items() if file.may_go)}

    async def forget_others(self, mine: set[ShardKey]) -> None:
        """Let go of every piece that the ledger does not count as ours (after a time offline)."""
        for key in self.in_custody() - mine:
            await self.release(key)

    async def heal(self, multihash: bytes) -> None:
        """Fetch a block that we hold for somebody and lost, or whose bytes changed, and store it again."""
        deal = await asyncio.to_thread(self._custody.deal_with, multihash)
        if deal is not None:
            await self._fetcher.expect(deal)
        data = await self._fetcher.fetch(CID(1, RAW, multihash))
        await asyncio.to_thread(self._put_back, multihash, data)

    def _put_back(self, multihash: bytes, data: bytes) -> None:
        if self._store.has(multihash):
            self._store.replace(multihash, data)
        else:
            self._store.put_many([(multihash, data)], BlockClass.DEAL)
