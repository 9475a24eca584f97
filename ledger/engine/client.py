"""The ledger over HTTP, with typed answers. Nothing is loaded from aiohttp before the first request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledger import transactions
from ledger.engine.answers import field, page_of, receipt, status_of, typed
from ledger.engine.blocks import Block, BlockEvents, Receipt, node_cid
from ledger.engine.chain_check import ChainCheck, Tip, TrustPin
from ledger.engine.errors import LedgerProtocolError, LedgerUnreachable
from ledger.engine.event_filter import EventFilter
from ledger.engine.evidence import Evidence
from ledger.engine.following import follow
from ledger.engine.outbox import Outbox
from ledger.engine.proof_file import ProofFile
from ledger.engine.servers import PROBE_S, Servers
from ledger.engine.transport import TIMEOUT_S, Closing, Transport
from ledger.engine.urls import urls_of
from ledger.engine.views import (
    AccountView,
    ChangeView,
    DatasetView,
    DealView,
    ProposalView,
    SlotView,
    SpotView,
    ValidatorView,
)
from ledger.errors import InvalidTransaction
from ledger.genesis import Genesis, Params
from ledger.records import AccountRecord, DatasetRecord, ProviderRecord, SlotRecord
from ledger.records_governance import VoteRecord
from ledger.transactions import Beacon, Transaction
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.peer import peer_text

if TYPE_CHECKING:
    import aiohttp

    from ledger.engine.cometbft.light.block import LightBlock
    from ledger.engine.cometbft.light.chain import LightTrust
    from ledger.engine.cometbft.light.proof_file import LightProofFile

PAGE = 1_000
LEAST_TIMEOUT_S = 15.0  # of each of several servers


@dataclass(frozen=True, slots=True)
class TxView:
    """A transaction in a block."""

    height: int
    index: int
    tx: Transaction | Beacon
    receipt: Receipt


class LedgerClient(Closing):
    """One ledger; `expect_chain`, and `expect_operator` (32 bytes) or `expect_trust`, pin which it must be.

    `url` is its server's, or those of several, separated by commas: see `ledger.engine.servers`.
    Its chain must go on from `expect_tip`, and later, when a stream is taken up again, from what came before.
    `expect_trust` is for a chain on CometBFT (with `expect_chain`): what servers say is then held against
    headers that validators signed, and each server against the others.
    Methods raise LedgerUnreachable, LedgerNotFound, LedgerRefused, ChainMismatch, LedgerProtocolError, and
    with `expect_trust` TrustExpired and Divergence (`ledger.engine.cometbft.light.errors`).
    Use it in `async with`, or call `close`.
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession | None = None,
        expect_chain: str | None = None,
        *,
        expect_operator: bytes | None = None,
        expect_tip: Tip | None = None,
        expect_trust: TrustPin | None = None,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        urls = urls_of(url)
        if len(urls) > 1:
            each_s = max(LEAST_TIMEOUT_S, timeout_s / len(urls))
            transports = [Transport(each, session, each_s, PROBE_S) for each in urls]
        else:
            transports = [Transport(urls[0], session, timeout_s)]
        self._trust: LightTrust | None = None
        if expect_trust is not None:
            from ledger.engine.cometbft.light.chain import LightChain, LightTrust

            if expect_chain is None:
                raise ValueError("a trusted header is of a chain: give its ID too")
            self._trust = trust = LightTrust(expect_trust, expect_chain, sleep=sleep)
            self._servers = Servers(transports, lambda http: LightChain(http, trust), sleep)
            if trust.newest is not None:
                self._servers.saw(trust.newest.height - 1)
        else:
            self._servers = Servers(
                transports, lambda http: ChainCheck(http, expect_chain, expect_operator, expect_tip), sleep
            )
        self._outbox = Outbox(self._servers)
        self.sleep = sleep

    @property
    def url(self) -> str:
        """That of the server that is asked now, or was last."""
        return self._servers.url

    @property
    def tip(self) -> Tip | None:
        """The last block known of a chain whose operator is pinned."""
        return self._servers.tip

    @property
    def trusted(self) -> TrustPin | None:
        """What `expect_trust` has led to by now."""
        return None if self._trust is None else self._trust.moved

    @property
    def known_height(self) -> int | None:
        """The last block that is known to be there, whoever is asked; None where nothing is pinned."""
        return self._servers.known_height

    async def close(self) -> None:
        """Closes the connections; harmless twice."""
        await self._outbox.close()
        await self._servers.close()

    # -- the chain -----------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Chain ID, engine, height, times and totals, as docs/ledger-rpc.md says; hashes as bytes."""
        found = status_of(await self._get("/v1/status"))
        self._servers.saw(found["height"])
        return found

    async def genesis(self) -> Genesis:
        """The chain's genesis; asked for once."""
        return await self._servers.ask(lambda server: server.chain.genesis())

    async def chain_id(self) -> str:
        """The chain's ID."""
        return (await self.genesis()).chain_id

    async def params(self, version: int | None = None) -> Params:
        """The chain's parameters in force, or a version of them: a deal's or a dataset's `terms`."""
        query = None if version is None else {"version": str(version)}
        return typed(Params, await self._get("/v1/params", query))

    async def block(self, height: int | None = None) -> Block:
        """The block at `height`, or the last one, verified by its operator's signature or signed headers."""
        return await self._servers.ask(lambda server: server.chain.block(height))

    async def light_block(self, height: int | None = None) -> LightBlock:
        """On CometBFT: the header of a height, or the last one, with its commit and validators."""
        return await self._servers.ask(lambda server: server.chain.light_block(height))

    async def tx(self, tx_id: CID) -> TxView:
        """The transaction with this ID, or whose signed bytes have this CID."""
        answer = await self._get(f"/v1/tx/{tx_id}")
        try:
            raw = dag_cbor.encode(field(answer, "tx"))
            tx = transactions.decode_beacon(raw) if transactions.is_beacon(raw) else transactions.decode(raw)
            return TxView(int(answer["height"]), int(answer["index"]), tx, receipt(answer["receipt"]))
        except (InvalidTransaction, KeyError, TypeError, ValueError) as error:
            raise LedgerProtocolError(f"not a transaction: {error}") from error

    async def node(self, cid: CID) -> bytes:
        """The DAG-CBOR bytes of a block or transaction, checked against `cid`."""
        raw = await self._servers.get_bytes(f"/v1/node/{cid}")
        if CID.of(raw, codec=cid.codec) != cid:
            raise LedgerProtocolError(f"{self.url} gave other bytes than those of {cid}")
        return raw

    async def prove(self, key: bytes) -> ProofFile | LightProofFile:
        """What the state has at a key, proven from the last block; LedgerNotFound where there is none yet."""
        return await self._servers.ask(lambda server: server.chain.prove(key))

    async def period_proof(self, dataset: bytes, period: int | None = None) -> Evidence:
        """The proof of a dataset's period, None for the last one that is kept; it is still to be checked."""
        at = "latest" if period is None else str(period)
        return await self._evidence(f"/v1/dataset/{dataset.hex()}/proof/{at}")

    async def spot_proof(self, deal: CID, shard: int, height: int | None = None) -> Evidence:
        """The answer to a shard's spot challenge in block `height`; as `period_proof`."""
        at = "latest" if height is None else str(height)
        return await self._evidence(f"/v1/deal/{deal}/answer/{shard}/{at}")

    async def stream(self, path: str, query: dict[str, str], offset: int = 0) -> AsyncGenerator[bytes, None]:
        """A long answer's bytes from `offset` on as they come, until it ends whole; check them yourself."""
        server = await self._servers.pick()
        try:
            await server.chain.require()
            async with aclosing(server.http.portions(path, query, offset)) as portions:
                async for data in portions:
                    yield data
        except LedgerUnreachable as error:
            self._servers.leave(server, error)
            raise

    async def submit(self, raw: bytes, *, check_block: bool = False) -> Receipt:
        """Sends a signed transaction; returns once it is in a block. Raises LedgerRefused if none takes it.

        Sending the same bytes again is harmless: the answer tells what became of them. What is sent at the
        same time goes in one request. With `check_block` the answer counts only if the block, as the operator
        or validators signed it, has those bytes.
        """
        found = await self._outbox.send(raw)
        self._servers.saw(found.height)
        if found.tx_id != transactions.decode(raw).id:
            raise LedgerProtocolError(f"{self.url} told of {found.tx_id}, another transaction than was sent")
        if check_block and not await self.has_transaction(found.height, raw):
            raise LedgerProtocolError(
                f"{self.url} says that transaction {found.tx_id} is in block {found.height}, but that block, "
                "as it is signed, is without it: do not take it as done"
            )
        return found

    async def next_nonce(self, account: bytes) -> tuple[int, int]:
        """The height of a block, and which nonce the account has to use next after it: proven."""
        return await self._servers.ask(lambda server: server.chain.next_nonce(account))

    async def has_transaction(self, height: int, raw: bytes) -> bool:
        """Whether the block, as the operator or validators signed it, has this signed transaction."""
        cid = node_cid(raw)
        return await self._servers.ask(lambda server: server.chain.has_transaction(height, cid))

    async def submit_all(self, raws: Sequence[bytes]) -> list[Receipt]:
        """Sends signed transactions together (at most 1,000 and 256 KiB); returns once all are decided.

        Their receipts are in the same order; `height` is 0 and `code` says why where one is in no block.
        """
        found = await self._outbox.send_all(raws)
        self._servers.saw(max((each.height for each in found), default=0))
        return found

    async def events(
        self, from_height: int, wanted: EventFilter | None = None
    ) -> AsyncGenerator[BlockEvents, None]:
        """Every block's events from `from_height` on, in order, without end and without gaps.

        With `wanted` only those events, and no blocks without any.
        Reconnects by itself, waiting longer after each failure in a row; ends only by ChainMismatch or when
        the caller stops.
        """
        told = follow(self._servers, from_height, wanted or EventFilter(), self.sleep)
        async with aclosing(told) as blocks:
            async for block in blocks:
                yield block

    # -- accounts and providers ----------------------------------------------------------------------------

    async def account(self, account: bytes) -> AccountRecord:
        """An account; one that was never used has nothing."""
        return typed(AccountView, await self._get(f"/v1/account/{peer_text(account)}")).record

    async def history(self, account: bytes) -> AsyncIterator[ChangeView]:
        """Every change of an account's balance or stake, the newest first; pages are fetched as needed."""
        async for item in self._pages(f"/v1/account/{peer_text(account)}/history", {}):
            yield typed(ChangeView, item)

    async def providers(self) -> list[ProviderRecord]:
        """Every registered provider."""
        return [typed(ProviderRecord, item) async for item in self._pages("/v1/providers", {})]

    async def provider(self, account: bytes) -> ProviderRecord:
        """One provider; raises LedgerNotFound."""
        return typed(ProviderRecord, await self._get(f"/v1/provider/{peer_text(account)}"))

    async def validators(self) -> list[ValidatorView]:
        """Everybody who registered keys to validate with, whether it has power or not."""
        return [typed(ValidatorView, item) async for item in self._pages("/v1/validators", {})]

    async def validator(self, account: bytes) -> ValidatorView:
        """One of them; raises LedgerNotFound."""
        return typed(ValidatorView, await self._get(f"/v1/validator/{peer_text(account)}"))

    # -- deals and datasets --------------------------------------------------------------------------------

    async def deal(self, deal: CID) -> DealView:
        """One deal with its shards; raises LedgerNotFound."""
        return typed(DealView, await self._get(f"/v1/deal/{deal}"))

    async def deals(
        self,
        client: bytes | None = None,
        provider: bytes | None = None,
        content: CID | None = None,
        active: bool | None = None,
        *,
        limit: int | None = None,
    ) -> list[DealView]:
        """The deals that match all that is given; `provider` holds or is offered a shard of them.

        With `limit`, the first so many.
        """
        return [view async for view in self.each_deal(client, provider, content, active, limit=limit)]

    async def each_deal(
        self,
        client: bytes | None = None,
        provider: bytes | None = None,
        content: CID | None = None,
        active: bool | None = None,
        *,
        limit: int | None = None,
        after: CID | None = None,
    ) -> AsyncIterator[DealView]:
        """As `deals`, but page by page as they are read; `after` is the deal that the list goes on behind."""
        query = {
            "client": None if client is None else peer_text(client),
            "provider": None if provider is None else peer_text(provider),
            "content": None if content is None else str(content),
            "active": None if active is None else str(active).lower(),
        }
        given = {name: text for name, text in query.items() if text is not None}
        cursor = "" if after is None else bytes(after).hex()
        async for item in self._pages("/v1/deals", given, limit, cursor):
            yield typed(DealView, item)

    async def dataset(self, dataset: bytes) -> DatasetRecord:
        """One dataset; raises LedgerNotFound."""
        return typed(DatasetView, await self._get(f"/v1/dataset/{dataset.hex()}")).dataset

    async def datasets(self, provider: bytes | None = None) -> list[tuple[bytes, DatasetRecord]]:
        """All datasets, or one provider's, each with its ID."""
        given = {} if provider is None else {"provider": peer_text(provider)}
        views = [typed(DatasetView, item) async for item in self._pages("/v1/datasets", given)]
        return [(view.id, view.dataset) for view in views]

    async def dataset_slots(self, dataset: bytes) -> dict[int, SlotRecord]:
        """Which shard each used slot of a dataset holds; raises LedgerNotFound."""
        path = f"/v1/dataset/{dataset.hex()}/slots"
        views = [typed(SlotView, item) async for item in self._pages(path, {})]
        return {view.slot: SlotRecord(view.deal, view.shard) for view in views}

    async def spots(self, provider: bytes | None = None, deal: CID | None = None) -> list[SpotView]:
        """The open spot challenges, a provider's or a deal's; a seed is b"" until the next block draws it."""
        given = {} if provider is None else {"provider": peer_text(provider)}
        given |= {} if deal is None else {"deal": str(deal)}
        return [typed(SpotView, item) async for item in self._pages("/v1/spots", given)]

    # -- governance ----------------------------------------------------------------------------------------

    async def proposals(self) -> list[ProposalView]:
        """The proposals that are open or not long over, in order of their numbers."""
        return [typed(ProposalView, item) async for item in self._pages("/v1/proposals", {})]

    async def proposal(self, proposal: CID) -> ProposalView:
        """One proposal; raises LedgerNotFound."""
        return typed(ProposalView, await self._get(f"/v1/proposal/{proposal}"))

    async def vote(self, proposal: CID, account: bytes) -> VoteRecord:
        """How a provider voted; raises LedgerNotFound if it did not."""
        return typed(VoteRecord, await self._get(f"/v1/proposal/{proposal}/vote/{peer_text(account)}"))

    # -- inside --------------------------------------------------------------------------------------------

    async def _evidence(self, path: str) -> Evidence:
        return await self._servers.ask(lambda server: server.chain.evidence(path))

    async def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        return await self._servers.get(path, query)

    async def _pages(
        self, path: str, query: dict[str, str], most: int | None = None, begin: str = ""
    ) -> AsyncIterator[Any]:
        cursor: str | None = begin
        given = 0
        while cursor is not None and (most is None or given < most):
            size = PAGE if most is None else min(PAGE, most - given)
            page = {**query, "limit": str(size), **({"cursor": cursor} if cursor else {})}
            items, following = page_of(await self._get(path, page))
            for item in items[:size]:
                given += 1
                yield item
            if following is not None and following == cursor:
                raise LedgerProtocolError(f"{self.url} gives the same page again and again")
            cursor = following
