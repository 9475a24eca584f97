"""Fetches blocks from those who hold them: a ledger's nodes, with parity where some are gone, then others."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Container, Iterable
from contextlib import suppress

from ledger.errors import LedgerError
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.errors import MerkledagError
from merkledag.steps import arun, inline
from proofs.erasure.manifest import decode_manifest
from proofs.errors import ProofsError, UndecodableGroup
from storage_node.behind import Behind
from storage_node.errors import BlockNotFound
from storage_node.kin import Kin
from storage_node.manifests import ManifestShelf, Shelved
from storage_node.patience import PATIENCE_S, PatientDirectory
from storage_node.pool import NodePool
from storage_node.providers import Directory
from storage_node.race import EVERYBODY, Found, Racing, each
from storage_node.restore import restore_share
from storage_node.routed import RoutedProviders
from storage_node.trail import UNREACHABLE, Asked, Trail, Trails

HEDGE_S = 0.5
FETCH_TIMEOUT_S = 120.0
MAX_ASKED = 48
MAX_FETCHES = 128
MAX_RECENT_ROOTS = 16
# After so many answers "not here", knowing which node holds which block is worth reading a manifest.
MISSES_PER_MANIFEST = 4
MAX_MANIFESTS_TRIED = 16
_log = logging.getLogger(__name__)
LEDGER = "the ledger"  # as it is called where people are told who was asked


class NetworkFetcher:
    """Finds a block on the network. One call at a time for one block; callers for the same block share it.

    ``hedge_s``: how long one node may take before another is asked as well; ``ledger_patience_s``: how long
    the ledger may take before one does without it; ``routed``: whom routers name is asked for what the
    ledger's nodes have not got. What an answer teaches is learnt behind it; `aclose` ends that.
    """

    def __init__(
        self,
        directory: Directory,
        pool: NodePool,
        *,
        hedge_s: float = HEDGE_S,
        timeout_s: float = FETCH_TIMEOUT_S,
        ledger_patience_s: float = PATIENCE_S,
        routed: RoutedProviders | None = None,
    ) -> None:
        self._directory = PatientDirectory(directory, pool.clock, patience_s=ledger_patience_s)
        self._pool = pool
        self._racing = Racing(pool, hedge_s)
        self._routed = routed
        self._routed_racing = Racing(pool if routed is None else routed.pool, hedge_s)
        self._kin, self._routed_kin = Kin(), Kin()
        self.behind = Behind()
        self._timeout_s = timeout_s
        self._shelf = ManifestShelf()
        self._roots: OrderedDict[CID, None] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[bytes | None]] = {}
        self._trails = Trails(pool.clock)
        self._slots = asyncio.Semaphore(MAX_FETCHES)

    async def fetch(self, cid: CID) -> bytes:
        """The verified bytes of a block.

        Raises BlockNotFound when no node of an active deal has it and parity cannot restore it (`unsure` when
        nodes or the ledger gave no answer), TimeoutError when that could not be found out in time.
        """
        data = inline(cid)
        if data is not None:
            return data
        while (running := self._running.get(cid.multihash)) is not None:
            shared = await asyncio.shield(running)
            if shared is not None:
                return shared
        mine: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._running[cid.multihash] = mine
        try:
            async with self._slots, asyncio.timeout(self._timeout_s):
                data = await self._fetch(cid)
        except asyncio.CancelledError:
            mine.set_result(None)  # whoever else waits does it
            raise
        except BaseException as error:
            mine.set_exception(error)
            mine.exception()  # nobody need be waiting
            raise
        else:
            mine.set_result(data)
            return data
        finally:
            del self._running[cid.multihash]

    async def aclose(self) -> None:
        """Ends what is learnt behind the answers. Nothing may be fetched any more."""
        await self.behind.aclose()

    def asked(self, cid: CID) -> tuple[Asked, ...]:
        """Who has been asked for a block that is being fetched, or was and did not come."""
        return self._trails.notes(cid.multihash)

    async def expect(self, deal: CID) -> None:
        """Blocks of this deal will be asked for next: its manifest is the first to be read.

        Raises LedgerNotFound, and what else the ledger client raises.
        """
        self._remember_root(await self._directory.learn_deal(deal))

    def _remember_root(self, content: CID) -> None:
        self._roots.pop(content, None)
        self._roots[content] = None
        while len(self._roots) > MAX_RECENT_ROOTS:
            self._roots.popitem(last=False)

    async def _fetch(self, cid: CID) -> bytes:
        trail = self._trails.begin(cid.multihash)
        manifests = frozenset(self._shelf.locate(cid.multihash))
        if manifests:
            self.behind.do(("refresh", manifests), lambda: self._refresh(manifests))
        found = await self._from_routed_kin(cid, trail) if not manifests else None
        trouble = None
        if found is None:
            try:
                found = await self._search(cid, manifests, trail)
            except LedgerError as error:
                trail.begins(LEDGER)
                trail.ends(LEDGER, UNREACHABLE)
                # Where the operator's ledger is, and what ails it, is nothing for strangers to read.
                _log.info("fetching %s: %s", cid, error)
                trouble = error
        if found is None and self._routed is not None:
            found = await self._from_routed(self._routed, cid, trail)
        if found is None and trouble is not None:
            message = f"no node that is known has {cid}, and the ledger does not answer"
            raise BlockNotFound(message, trail.notes(), unsure=True) from trouble
        if found is None:
            raise BlockNotFound(f"no reachable node has {cid}", trail.notes(), unsure=trail.unsure)
        self._trails.forget(cid.multihash)
        self._learn_from(cid, manifests)
        return found

    def _learn_from(self, cid: CID, manifests: Collection[CID]) -> None:
        """What an answer teaches, learnt behind it."""
        if any(holding.content == cid for holding in self._directory.holdings()):
            self._remember_root(cid)
        elif not manifests:
            self.behind.do("finder", self._learn_of_finder)
        if self._racing.misses >= MISSES_PER_MANIFEST:
            self._racing.misses = 0
            self.behind.do("manifest", self._shelf_next)

    async def _refresh(self, manifests: frozenset[CID]) -> None:
        with suppress(LedgerError):  # whoever is known can be asked without it
            await self._directory.refresh(manifests)

    async def _from_routed_kin(self, cid: CID, trail: Trail) -> bytes | None:
        """From those whom routers named for what links to the block: the ledger's nodes hardly have it."""
        near = self._routed_kin.of(cid)
        if not near:
            return None
        found = await self._routed_racing.first(cid, each(near), trail, near)
        return self._came(self._routed_kin, cid, found, near)

    async def _from_routed(self, routed: RoutedProviders, cid: CID, trail: Trail) -> bytes | None:
        """From those whom routers name for the block itself; all of whom say that they have it."""
        found = await self._routed_racing.first(cid, routed.find(cid, trail), trail, EVERYBODY)
        return self._came(self._routed_kin, cid, found, routed.known(cid))

    def _came(self, kin: Kin, cid: CID, found: Found | None, others: Iterable[str] = ()) -> bytes | None:
        if found is None:
            return None
        kin.came(cid, found.data, (found.endpoint, *others))
        return found.data

    async def _search(self, cid: CID, manifests: Collection[CID], trail: Trail) -> bytes | None:
        data = await self._find(cid, trail)
        if data is None and manifests and await self._directory.refresh(manifests, max_age_s=0.0):
            data = await self._find(cid, trail)
        if data is None and not manifests:
            with suppress(LedgerError):
                await self._directory.learn_some()
            data = await self._restore(cid)
        return data

    async def _learn_of_finder(self) -> None:
        """A node that was asked by chance had a block: the rest may be of one of its deals."""
        useful = self._pool.useful()[:1]
        if useful and all(holding.endpoint != useful[0] for holding in self._directory.holdings()):
            with suppress(LedgerError):
                await self._directory.learn_node(useful[0])

    async def _find(self, cid: CID, trail: Trail) -> bytes | None:
        """Ask the nodes that should have the block, then restore it; what no manifest names, ask everybody.

        When nobody is known to hold what a manifest names, restoring comes first.
        """
        known = self._shelf.locate(cid.multihash)
        if not known:
            data = await self._ask_all(cid, trail)
            return data if data is not None else await self._restore(cid)
        exact = self._exact(known)
        if exact and (found := await self._racing.first(cid, each(exact), trail, exact)) is not None:
            return found.data
        if (data := await self._restore(cid)) is not None:
            return data
        return await self._ask_all(cid, trail, besides=exact)

    async def _ask_all(self, cid: CID, trail: Trail, besides: Iterable[str] = ()) -> bytes | None:
        """From whoever has it of those who should, or may."""
        expected = [*self._of_deal(cid), *self._kin.of(cid)]
        found = await self._racing.first(cid, self._unlocated(cid, besides, expected), trail, expected)
        return self._came(self._kin, cid, found)

    def _exact(self, known: dict[CID, Container[int]]) -> list[str]:
        """The endpoints of the shards that hold a block, by the manifests on the shelf."""
        return self._pool.ranked(
            holding.endpoint
            for holding in self._directory.holdings()
            if (shards := known.get(holding.manifest)) is not None and holding.shard in shards
        )

    async def _unlocated(
        self, cid: CID, besides: Iterable[str], expected: list[str]
    ) -> AsyncGenerator[str, None]:
        """Endpoints to ask for a block that may be anywhere, the likeliest first, MAX_ASKED at most.

        The ledger is asked no sooner than the first of them had nothing; `expected` becomes longer by what it
        says. What it raises is raised when there is nobody left whom one knows without it.
        """
        given = set(besides)

        def fresh(endpoints: Iterable[str]) -> list[str]:
            found = [each for each in self._pool.ranked(endpoints) if each not in given]
            found = found[: MAX_ASKED - len(given)]
            given.update(found)
            return found

        trouble: LedgerError | None = None
        near = self._kin.of(cid)
        for endpoint in fresh(self._of_deal(cid) or near or self._pool.useful()[:1]):
            yield endpoint
        if not near:  # what another block links to is hardly ever the content of a deal
            trouble = await self._learn_content(cid, expected)
        for endpoint in fresh([*self._of_deal(cid), *self._alive()]):
            yield endpoint
        if near:
            trouble = await self._learn_content(cid, expected)
        for endpoint in fresh(self._of_deal(cid)):
            yield endpoint
        if trouble is not None:
            raise trouble
        for endpoint in fresh(await self._directory.endpoints()):
            yield endpoint

    async def _learn_content(self, cid: CID, expected: list[str]) -> LedgerError | None:
        try:
            await self._directory.learn_content(cid)
        except LedgerError as error:
            return error
        expected += self._of_deal(cid)
        return None

    def _alive(self) -> list[str]:
        """The nodes of the known deals, first those that were useful last."""
        alive = dict.fromkeys(holding.endpoint for holding in self._directory.holdings())
        return [*(endpoint for endpoint in self._pool.useful() if endpoint in alive), *alive]

    def _of_deal(self, cid: CID) -> list[str]:
        """The nodes of the known deals whose content or manifest this is."""
        return [
            holding.endpoint
            for holding in self._directory.holdings()
            if cid in (holding.content, holding.manifest)
        ]

    async def _shelf_next(self) -> None:
        """Read the manifest of the deal that is the likeliest to be asked for next."""
        for root in self._likely_manifests():
            if root not in self._shelf:
                await self._read_manifest(root)
                return

    def _likely_manifests(self) -> list[CID]:
        """Manifest roots: of content whose root was fetched lately, then of nodes that were useful."""
        roots = list(reversed(self._roots))
        useful = self._pool.useful()
        rank = {endpoint: position for position, endpoint in enumerate(useful)}
        ordered = sorted(
            self._directory.holdings(),
            key=lambda holding: (
                roots.index(holding.content) if holding.content in self._roots else len(roots),
                rank.get(holding.endpoint, len(rank)),
            ),
        )
        return list(dict.fromkeys(holding.manifest for holding in ordered))

    async def _read_manifest(self, root: CID) -> Shelved | None:
        """A deal's manifest from the shelf or the network; None when it cannot be had or is not one."""
        if (known := self._shelf.get(root)) is not None:
            return known
        endpoints = self._pool.ranked(self._of_deal(root))

        async def get(cid: CID) -> bytes:
            found = await self._racing.first(cid, each(endpoints))
            if found is None:
                raise BlockNotFound(f"no reachable node has {cid}")
            return found.data

        try:
            return self._shelf.put(root, await arun(decode_manifest(root), get))
        except (BlockNotFound, MerkledagError, ProofsError):
            return None

    async def _restore(self, cid: CID) -> bytes | None:
        """Rebuild a block from the rest of its erasure group, if a manifest names it."""
        for root in self._likely_manifests()[:MAX_MANIFESTS_TRIED]:
            shelved = await self._read_manifest(root)
            place = shelved.place(cid.multihash) if shelved is not None else None
            if shelved is None or place is None:
                continue
            holdings = [holding for holding in self._directory.holdings() if holding.manifest == root]
            at = {holding.shard: holding.endpoint for holding in holdings}

            async def get(share: int, multihash: bytes, at: dict[int, str] = at) -> bytes | None:
                first = [at[share]] if share in at else []
                others = self._exact(self._shelf.locate(multihash))
                asked = each(dict.fromkeys([*first, *others]))
                found = await self._racing.first(CID(1, RAW, multihash), asked)
                return None if found is None else found.data

            try:
                return await restore_share(shelved.manifest, *place, get)
            except UndecodableGroup:
                continue
        return None
