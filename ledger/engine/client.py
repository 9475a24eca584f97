"""The ledger over HTTP, with typed answers. Nothing is loaded from aiohttp before the first request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledger import transactions
from ledger.engine.answers import field, receipt
from ledger.engine.blocks import Block, BlockEvents, Receipt, node_cid
from ledger.engine.chain_check import ChainCheck, Tip, TrustPin
from ledger.engine.errors import LedgerProtocolError, LedgerRefused, LedgerUnreachable
from ledger.engine.event_filter import EventFilter
from ledger.engine.evidence import Evidence
from ledger.engine.following import follow
from ledger.engine.outbox import RETRY, Outbox, sent_to
from ledger.engine.proof_file import ProofFile
from ledger.engine.servers import PROBE_S, Servers
from ledger.engine.state_reads import StateReads
from ledger.engine.transport import TIMEOUT_S, Closing, Transport
from ledger.engine.urls import urls_of
from ledger.errors import InvalidTransaction
from ledger.genesis import Genesis
from ledger.transactions import Beacon, Transaction
from merkledag import dag_cbor
from merkledag.cid import CID

if TYPE_CHECKING:
    import aiohttp

    from ledger.engine.cometbft.light.block import LightBlock
    from ledger.engine.cometbft.light.chain import LightTrust
    from ledger.engine.cometbft.light.proof_file import LightProofFile

LEAST_TIMEOUT_S = 15.0  # of each of several servers


@dataclass(frozen=True, slots=True)
class TxView:
    """A transaction in a block."""

    height: int
    index: int
    tx: Transaction | Beacon
    receipt: Receipt


class LedgerClient(StateReads, Closing):
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
        super().__init__(self._servers)
        self._outbox = Outbox(self._servers)
        self.sleep = sleep

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

    async def genesis(self) -> Genesis:
        """The chain's genesis; asked for once."""
        return await self._servers.ask(lambda server: server.chain.genesis())

    async def chain_id(self) -> str:
        """The chain's ID."""
        return (await self.genesis()).chain_id

    async def block(self, height: int | None = None) -> Block:
        """The block at `height`, or the last one, verified by its operator's signature or signed headers."""
        return await self._servers.ask(lambda server: server.chain.block(height))

    async def light_block(self, height: int | None = None) -> LightBlock:
        """On CometBFT: the header of a height, or the last one, with its commit and validators."""
        return await self._servers.ask(lambda server: server.chain.light_block(height))

    async def tx(self, tx_id: CID) -> TxView:
        """The transaction with this ID, or whose signed bytes have this CID."""
        answer = await self._servers.get(f"/v1/tx/{tx_id}")
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
            await self._servers.require(server)
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
        or validators signed it, has those bytes. On a chain of validators no server has the right to refuse
        for good: what one refuses, the others are asked.
        """
        try:
            found = await self._outbox.send(raw)
        except LedgerRefused as refusal:
            if self._trust is None or refusal.code in RETRY:
                raise
            found = await self._servers.overrule(refusal, lambda server: sent_to(server.http, raw))
        self._servers.saw(found.height)
        if found.tx_id != transactions.decode(raw).id:
            raise LedgerProtocolError(f"{self.url} told of {found.tx_id}, another transaction than was sent")
        if check_block and not await self.has_transaction(found.height, raw):
            raise LedgerProtocolError(
                f"{self.url} says that transaction {found.tx_id} is in block {found.height}, but that block, "
                "as it is signed, is without it: do not take it as done"
            )
        return found

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

    async def _evidence(self, path: str) -> Evidence:
        return await self._servers.ask(lambda server: server.chain.evidence(path))
