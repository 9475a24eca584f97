"""Assembles one paid storage node: custody, duties, uploads, and its HTTP application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerNotFound
from ledger.engine.sender import Sender
from ledger.events import Event
from ledger.records import ProviderRecord
from ledger.transactions import Ask, Register
from merkledag.cid import CID
from merkledag.ed25519 import Signer
from merkledag.peer import peer_text
from storage_node.acceptance import Acceptance
from storage_node.blockstore.interface import Blockstore
from storage_node.custody import Custody, ShardTerms
from storage_node.denylist import Denylist
from storage_node.duties import ShardKey
from storage_node.errors import QuotaExceeded, StoreFull
from storage_node.fetch import NetworkFetcher
from storage_node.kzg_rows import KzgRows
from storage_node.ledger_view import my_shards
from storage_node.pool import NodePool
from storage_node.prover import Prover
from storage_node.providers import ProviderDirectory
from storage_node.read_limit import read_limit
from storage_node.rows import ProofRows
from storage_node.runner import DutyRunner
from storage_node.server import NodeServer, ServerSettings
from storage_node.upkeep import Upkeep
from storage_node.upload import PieceIntake

VERSION = 1
ACCEPT_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How a node presents itself and what it takes. Money in base units; ``payout`` None is the node itself.

    ``unpaid_reads_per_s``: requests a second that one address may read for nothing; None is no limit. It
    holds for whatever is mounted below ``/ipfs/`` on `StorageNode.app`. ``heal`` lets the node fetch blocks
    of its pieces from the network when its disk has lost them. ``denied``: content
    roots, manifests and blocks that it does not take, and gives up where it has them.
    """

    endpoint: str
    capacity_bytes: int
    stake: int
    price_per_gib_period: int
    min_piece_bytes: int = 0
    max_piece_bytes: int = 1 << 40
    open: bool = True
    payout: bytes | None = None
    admin_token: str | None = None
    allow_private: bool = False
    heal: bool = True
    denied: tuple[CID, ...] = ()
    unpaid_reads_per_s: float | None = 500.0


class StorageNode:
    """One provider. Give it what it needs, `register` once, `start`, serve `app`, and `stop`.

    Without `kzg` it takes no pieces that are proven by KZG.
    ``folder`` is the node's own for piece files; ``clock`` gives Unix time, ``monotonic`` seconds of any
    origin, ``sleep`` waits. The session must keep to `endpoints.open_session`'s rules.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        store: Blockstore,
        rows: ProofRows,
        kzg: KzgRows | None = None,
        folder: Path,
        ledger: LedgerClient,
        sender: Sender,
        signer: Signer,
        pool: NodePool,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.settings = settings
        self.account = signer.public_key
        self._store = store
        self._ledger = ledger
        self._sender = sender
        self.custody = Custody(folder, store, rows, kzg)
        self.directory = ProviderDirectory(ledger, clock=monotonic, me=self.account)
        self.fetcher = NetworkFetcher(self.directory, pool)
        denylist = Denylist.of(settings.denied)
        self._acceptance = Acceptance(
            ledger, sender, self.custody, store, self.fetcher, me=self.account, denylist=denylist, sleep=sleep
        )
        upkeep = Upkeep(
            ledger,
            sender,
            self._acceptance,
            self.custody,
            store,
            denylist=denylist,
            heal=settings.heal,
            sleep=sleep,
        )
        self.runner = DutyRunner(
            ledger,
            sender,
            Prover(self.custody, store, rows, kzg),
            self._acceptance,
            upkeep,
            me=self.account,
            heal=settings.heal,
            note=self._note,
            sleep=sleep,
        )
        self.is_open = False
        self._accepting: dict[ShardKey, asyncio.Task[bool]] = {}
        limit = settings.unpaid_reads_per_s
        self.app = web.Application(middlewares=[] if limit is None else [read_limit(limit, monotonic)])
        NodeServer(self, ServerSettings(admin_token=settings.admin_token), clock=clock).add_routes(self.app)

    async def start(self) -> None:
        """Load what is held and begin to follow the ledger."""
        await asyncio.to_thread(self.custody.load)
        self.runner.start()

    async def stop(self) -> None:
        """End every duty. The store, the ledger client and the session belong to the caller."""
        tasks = list(self._accepting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.runner.stop()
        await self.fetcher.aclose()

    async def register(self) -> None:
        """Register and ask, or bring both up to date, when the ledger does not say what the settings say.

        Raises LedgerRefused (too little money for the stake, say), LedgerUnreachable.
        """
        settings = self.settings
        payout = settings.payout or self.account
        try:
            known: ProviderRecord | None = await self._ledger.provider(self.account)
        except LedgerNotFound:
            known = None
        said = known and (known.endpoint, known.capacity_bytes, known.payout)
        stake = max(0, settings.stake - (known.stake if known else 0))
        if known is None or said != (settings.endpoint, settings.capacity_bytes, payout) or stake:
            await self._sender.send(Register(settings.endpoint, settings.capacity_bytes, payout, stake))
        asked = known and (
            known.price_per_gib_period,
            known.min_piece_bytes,
            known.max_piece_bytes,
            known.open,
        )
        ask = (
            settings.price_per_gib_period,
            settings.min_piece_bytes,
            settings.max_piece_bytes,
            settings.open,
        )
        if asked != ask:
            await self._sender.send(Ask(*ask))
        self.is_open = settings.open

    def _note(self, event: Event) -> None:
        self.directory.note(event)
        if event.kind == "provider_asked" and event.attributes.get("provider") == self.account:
            self.is_open = bool(event.attributes.get("open"))

    # What the routes need: see `server.Reception`.

    async def offered(self, key: ShardKey) -> ShardTerms | None:
        """See Reception."""
        return await self._acceptance.offered(key)

    async def intake(self, terms: ShardTerms) -> PieceIntake:
        """See Reception."""
        return await asyncio.to_thread(self.custody.intake, terms)

    async def reserve(self, terms: ShardTerms, intake: PieceIntake) -> None:
        """See Reception."""
        stat = await asyncio.to_thread(self._store.stat)
        needed = intake.remaining_bytes() + self.custody.reserved_bytes(terms.key)
        problem: StoreFull | None = None
        if stat.max_bytes is not None and stat.bytes - stat.cache_bytes + needed > stat.max_bytes:
            problem = QuotaExceeded(f"the node's quota has no room for {needed} more bytes")
        elif stat.disk_free_bytes + stat.reusable_bytes - stat.reserve_bytes < needed:
            problem = StoreFull(f"the node's disk has no room for {needed} more bytes")
        if problem is not None:
            self.runner.tally.last_problem = (
                f"shard {terms.key.shard} of deal {terms.key.deal} cannot be taken: {problem}"
            )
            raise problem

    def uploading(self) -> Any:
        """See Reception."""
        return self._store.lease()

    def ended(self, terms: ShardTerms, intake: PieceIntake) -> None:
        """See Reception."""
        self.custody.note(terms, intake)

    def failed(self, key: ShardKey) -> None:
        """See Reception."""
        self.custody.reset(key)

    async def arrived(self, terms: ShardTerms, intake: PieceIntake) -> bool:
        """See Reception. A check that takes long goes on when the client has its answer."""
        key = terms.key
        task = self._accepting.get(key)
        if task is None:
            task = asyncio.create_task(self._acceptance.accept_if_complete(key), name=f"accept {key}")
            self._accepting[key] = task
            task.add_done_callback(lambda done: self._accepted(key, done))
        done, _ = await asyncio.wait({task}, timeout=ACCEPT_WAIT_S)
        return task.result() if done else False

    def _accepted(self, key: ShardKey, task: asyncio.Task[bool]) -> None:
        self._accepting.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.runner.tally.last_problem = str(error)

    def status(self) -> dict[str, Any]:
        """See Reception."""
        return {
            "version": VERSION,
            "account": peer_text(self.account),
            "endpoint": self.settings.endpoint,
            "open": self.is_open,
            "following": self.runner.caught_up.is_set(),
        }

    def admin_status(self) -> dict[str, Any]:
        """See Reception."""
        stat = self._store.stat()
        held = self.custody.held()
        tally = self.runner.tally
        return {
            **self.status(),
            "store": {"blocks": stat.blocks, "bytes": stat.bytes, "max_bytes": stat.max_bytes},
            "capacity_bytes": self.settings.capacity_bytes,
            "shards": [
                {"deal": str(key.deal), "shard": key.shard, "proof": piece.proof.value}
                for key, piece in held.items()
            ],
            "preparing": [
                {"deal": str(key.deal), "shard": key.shard, "blobs": done, "of_blobs": total}
                for key, (done, total) in self.custody.preparing.items()
            ],
            "offered": [{"deal": str(key.deal), "shard": key.shard} for key in self.runner.duties.offered],
            "proofs": tally.proofs,
            "spots": tally.spots,
            "faults": tally.faults,
            "repairs": tally.repairs,
            "last_problem": tally.last_problem,
            "damaged_piece_files": [each.reason for each in self.custody.damaged().values()],
        }

    async def earnings(self) -> dict[str, Any]:
        """See Reception. Money in base units."""
        provider = await self._ledger.provider(self.account)
        account = await self._ledger.account(self.account)
        payout = await self._ledger.account(provider.payout)
        shards = await my_shards(self._ledger, self.account)
        return {
            "account": peer_text(self.account),
            "balance": account.balance,
            "payout": peer_text(provider.payout),
            "payout_balance": payout.balance,
            "stake": provider.stake,
            "locked": provider.locked,
            "shards": [
                {
                    "deal": str(mine.key.deal),
                    "shard": mine.key.shard,
                    "status": mine.shard.status.value,
                    "proof": mine.proof.value,
                    "paid": mine.shard.paid,
                    "escrow": mine.shard.escrow,
                }
                for mine in shards
                if mine.shard.provider == self.account
            ],
        }
