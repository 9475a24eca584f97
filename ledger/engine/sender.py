"""Signs and sends one account's transactions, several at a time, and keeps their nonces in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from ledger.engine.blocks import Receipt
from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerRefused, LedgerUnreachable
from ledger.engine.transport import backoff
from ledger.fees import with_least_fee
from ledger.genesis import Params
from ledger.result import Code
from ledger.transactions import Body, Transaction, sign
from merkledag.ed25519 import Signer

MAX_IN_FLIGHT = 32
MAX_ATTEMPTS = 6
LIFETIME_S = 3_600
T = TypeVar("T")
RETRY = frozenset({Code.NONCE_USED, Code.NONCE_GAP, Code.EXPIRED, Code.POOL_FULL})


@dataclass(slots=True)
class _Place:
    """What the next transaction says of itself, as the ledger was when it was last asked."""

    chain: str
    params: Params
    nonce: int
    expiry: int


class Sender:
    """Sends for one key. Safe for many concurrent `send`s; use one Sender a key.

    Nonces are handed out without asking the ledger. When one was refused the order is lost: the sender lets
    everything in flight end, asks the ledger where it stands, and signs what was refused anew. With
    `check_blocks` it takes a receipt for true only if the block with the operator's signature bears it out.
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
        for attempt in range(MAX_ATTEMPTS):
            async with self._place() as place:
                tx = Transaction(place.chain, self.account, place.nonce, fee or 0, place.expiry, body)
                tx = with_least_fee(tx, place.params) if fee is None else tx
                raw = sign(tx, self._signer).encode()
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

    async def _patient(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks until there is an answer; the same bytes sent twice are one transaction."""
        for attempt in range(MAX_ATTEMPTS - 1):
            try:
                return await ask()
            except LedgerUnreachable:
                await backoff(attempt, self._client.sleep)
        return await ask()

    async def _where_it_stands(self) -> _Place:
        account = await self._client.account(self.account)
        status = await self._client.status()
        expiry = status["time"] + self._lifetime_s
        # From the genesis, which is the pinned one: no status makes anybody sign for another chain.
        chain = await self._client.chain_id()
        return _Place(chain, await self._client.params(), account.nonce, expiry)

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
