"""Signs and sends one account's transactions, several at a time, and keeps their nonces in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar

from ledger.engine.blocks import Receipt
from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerRefused, LedgerUnreachable
from ledger.engine.outbox import RETRY
from ledger.engine.transport import backoff
from ledger.fees import with_least_fee
from ledger.genesis import Params
from ledger.result import Code
from ledger.transactions import Body, Transaction, sign
from merkledag.ed25519 import Signer

MAX_IN_FLIGHT = 32
MAX_ATTEMPTS = 6
LIFETIME_S = 3_600
MAX_LOOKED_AT = 1_000
T = TypeVar("T")


@dataclass(slots=True)
class _Place:
    """What the next transaction says of itself, as the ledger was when it was last asked."""

    chain: str
    params: Params
    nonce: int
    expiry: int


class _Sent(NamedTuple):
    """What was signed and refused, and the last block that was known then, None where nothing is pinned."""

    raw: bytes
    tx: Transaction
    known_height: int | None


class Sender:
    """Sends for one key. Safe for many concurrent `send`s; use one Sender a key.

    Nonces are handed out without asking the ledger. When one was refused the order is lost: the sender lets
    everything in flight end, asks the ledger where it stands, and signs what was refused anew. With
    `check_blocks` it takes a receipt for true only if the block, as it is signed, bears it out; and so, where
    the chain is pinned, a refusal before it signs anew: no server makes anybody pay twice.
    """

    def __init__(
        self,
        client: LedgerClient,
        signer: Signer,
        *,
        lifetime_s: int = LIFETIME_S,
        check_blocks: bool = False,
    ) -> None:
        self._client = client
        self._signer = signer
        self._lifetime_s = lifetime_s
        self._check_blocks = check_blocks
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._order = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_flight = 0
        self._next: _Place | None = None

    @property
    def account(self) -> bytes:
        """The account that sends, 32 bytes."""
        return self._signer.public_key

    async def send(self, body: Body, *, fee: int | None = None) -> Receipt:
        """Returns once the transaction is in a block. `fee` is in base units, by default the least.

        Raises LedgerRefused, LedgerUnreachable (then it is not known whether the transaction arrived) and
        what else the client raises.
        """
        refusals: list[_Sent] = []
        for attempt in range(MAX_ATTEMPTS):
            async with self._place() as place:
                if refusals and self._check_blocks:
                    done = await self._patient(partial(self._done, refusals, place))
                    if done is not None:
                        self._next = None
                        return done
                tx = Transaction(place.chain, self.account, place.nonce, fee or 0, place.expiry, body)
                tx = with_least_fee(tx, place.params) if fee is None else tx
                tx = sign(tx, self._signer)
                raw = tx.encode()
                refusals.append(_Sent(raw, tx, self._client.known_height))
                try:
                    receipt = await self._patient(
                        partial(self._client.submit, raw, check_block=self._check_blocks)
                    )
                except BaseException as error:
                    self._next = None
                    if not isinstance(error, LedgerRefused) or error.code not in RETRY:
                        raise
                    if attempt + 1 == MAX_ATTEMPTS:
                        raise
                    refused = error
                else:
                    return receipt
            if refused.code == Code.POOL_FULL or attempt:
                await backoff(attempt, self._client.sleep)
        raise AssertionError("the last attempt returns or raises")

    async def _done(self, refusals: Sequence[_Sent], place: _Place) -> Receipt | None:
        """The receipt of one of these that is done after all, as signed blocks show.

        None if none ever will be, other than instead of what is signed for `place`, whose nonce this sets.
        """
        if any(each.known_height is None for each in refusals):
            return None
        height, nonce = await self._client.next_nonce(self.account)
        for raw, tx, known in refusals:
            if tx.nonce > nonce:
                raise LedgerRefused(
                    Code.NONCE_GAP,
                    f"{tx.id} of nonce {tx.nonce} was refused, but can still be done, for the next nonce is "
                    f"{nonce}: look at `holdfast wallet history` before you send it again",
                )
            first = (known or 0) + 1
            if height - first >= MAX_LOOKED_AT:
                raise LedgerUnreachable(f"whether {tx.id} is done cannot be told: it was sent too long ago")
            for at in range(first, height + 1) if tx.nonce < nonce else ():
                if await self._client.has_transaction(at, raw):
                    return Receipt(tx.id, at, Code.OK, "")
        place.nonce = nonce
        return None

    async def _patient(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks until there is an answer; the same bytes sent twice are one transaction."""
        for attempt in range(MAX_ATTEMPTS - 1):
            try:
                return await ask()
            except LedgerUnreachable:
                await backoff(attempt, self._client.sleep)
        return await ask()

    async def _where_it_stands(self) -> _Place:
        now = await self._client.standing(self.account)
        # From the genesis, which is the pinned one: no status makes anybody sign for another chain.
        chain = await self._client.chain_id()
        return _Place(chain, now.params, now.record.nonce, now.time + self._lifetime_s)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[_Place]:
        """The next nonce, held while its transaction is in flight."""
        async with self._slots:
            async with self._order:
                if self._next is None:
                    await self._idle.wait()
                    self._next = await self._patient(self._where_it_stands)
                place = replace(self._next)
                self._next.nonce += 1
                self._in_flight += 1
                self._idle.clear()
            try:
                yield place
            finally:
                self._in_flight -= 1
                if self._in_flight == 0:
                    self._idle.set()
