"""Whether a server runs the chain that was pinned, and its history goes on from what was seen of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

from ledger.engine.answers import field, typed
from ledger.engine.blocks import Block
from ledger.engine.errors import ChainMismatch, LedgerNotFound, LedgerProtocolError
from ledger.engine.transport import Transport
from ledger.fields import FieldError
from ledger.genesis import Genesis
from merkledag.cid import CID
from merkledag.peer import peer_text

AGAIN = ": ask the operator; `holdfast ledger join URL --replace` takes its history as it is now"


class Tip(NamedTuple):
    """The last block that a chain had at some time."""

    height: int
    cid: CID


class ChainCheck:
    """What is pinned of one server's chain; None where nothing is.

    `tip` is the last block known of it, None without an operator. Methods raise ChainMismatch, and what
    `LedgerClient` says of all its methods.
    """

    def __init__(self, http: Transport, chain: str | None, operator: bytes | None, tip: Tip | None) -> None:
        self._http = http
        self._chain = chain
        self._operator = operator
        self.tip = tip
        self._genesis: Genesis | None = None
        self._checking = asyncio.Lock()
        self._checked = False

    @property
    def chain(self) -> str | None:
        """The ID of the chain that was pinned."""
        return self._chain

    def go_on_from(self, tip: Tip) -> None:
        """Another server showed this block of the same chain: before anything else this one must have it."""
        if self._operator is not None and (self.tip is None or self.tip.height < tip.height):
            self.tip, self._checked = tip, False

    async def require(self, *, again: bool = False) -> None:
        """Before the first request, and `again` when a stream is taken up: it must be the pinned chain."""
        if self._chain is None and self._operator is None:
            return
        async with self._checking:
            if self._checked and not again:
                return
            self._genesis = None
            genesis = await self.genesis()
            if self._chain not in (None, genesis.chain_id):
                raise ChainMismatch(f"{self._http.url} runs chain {genesis.chain_id}, not {self._chain}")
            if self._operator is not None:
                if self._operator != genesis.operator:
                    raise ChainMismatch(
                        f"{self._http.url} belongs to {peer_text(genesis.operator)}, not to the operator "
                        f"that was pinned, {peer_text(self._operator)}"
                    )
                await self._require_tip()
            self._checked = True

    def require_height(self, height: int) -> None:
        """The chain must have a block that the server told of before."""
        if self.tip is not None and self.tip.height < height:
            raise self._went_back(f"ends at block {self.tip.height}", height)

    async def genesis(self) -> Genesis:
        """The server's genesis, asked for once; unchecked before `require`."""
        if self._genesis is None:
            try:
                self._genesis = Genesis.from_map(await self._http.get("/v1/genesis"))
            except FieldError as error:
                url = self._http.url
                raise LedgerProtocolError(f"{url} gave no genesis of this version: {error}") from error
        return self._genesis

    async def block(self, height: int | None) -> Block:
        """The block at a height, or the last one, signed by the operator."""
        answer = await self._http.get(f"/v1/block/{'latest' if height is None else height}")
        block = typed(Block, field(answer, "block"))
        if height is not None and block.height != height:
            raise LedgerProtocolError(f"{self._http.url} gave block {block.height} for block {height}")
        genesis = await self.genesis()
        if block.chain != genesis.chain_id or block.account != genesis.operator or not block.verify():
            raise ChainMismatch(
                f"block {block.height} from {self._http.url} is not signed by the chain's operator"
            )
        return block

    async def _require_tip(self) -> None:
        """Anybody can copy a genesis: the operator must have signed the last block, which follows `tip`."""
        before = self.tip
        try:
            last = await self.block(None)
        except LedgerNotFound:
            if before is not None:
                raise self._went_back("has no block", before.height) from None
            return
        if before is not None and last.height < before.height:
            raise self._went_back(f"ends at block {last.height}", before.height)
        if before is not None:
            with suppress(LedgerNotFound):  # it began with the snapshot of a later block
                found = last if last.height == before.height else await self.block(before.height)
                if found.cid != before.cid:
                    raise ChainMismatch(
                        f"{self._http.url} has another block {before.height} than before ({found.cid}, not "
                        f"{before.cid}), both signed by its operator{AGAIN}"
                    )
        self.tip = Tip(last.height, last.cid)

    def _went_back(self, where: str, height: int) -> ChainMismatch:
        return ChainMismatch(f"{self._http.url} {where}, but had block {height} before{AGAIN}")
