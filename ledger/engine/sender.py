"""Signs and sends one account's transactions, several at a time, and keeps their nonces in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ledger.engine.blocks import Receipt
from ledger.engine.client import LedgerClient
from ledger.engine.errors import LedgerRefused, LedgerUnreachable
from ledger.engine.transport import backoff
from ledger.result import Code
from ledger.transactions import Body, Prove, Transaction, sign
from merkledag.ed25519 import Signer

MAX_IN_FLIGHT = 32
MAX_ATTEMPTS = 6
LIFETIME_S = 3_600
RETRY = frozenset({Code.NONCE_USED, Code.NONCE_GAP, Code.EXPIRED, Code.POOL_FULL})


@dataclass(slots=True)
class _Place:
    """What the next transaction says of itself."""

    nonce: int
    expiry: int


class Sender:
    """Sends for one key. Safe for many concurrent `send`s; use one Sender a key.

    Nonces are handed out without asking the ledger. When one was refused the order is lost: the sender lets
    everything in flight end, asks the ledger where it stands, and signs what was refused anew.
    """

    def __init__(self, client: LedgerClient, signer: Signer, *, lifetime_s: int = LIFETIME_S) -> None:
        self._client = client
        self._signer = signer
        self._lifetime_s = lifetime_s
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
        chain = await self._client.chain_id()
        if fee is None:
            params = await self._client.params()
            fee = params.proof_fee if isinstance(body, Prove) else params.base_fee
        for attempt in range(MAX_ATTEMPTS):
            async with self._place() as place:
                tx = Transaction(chain, self.account, place.nonce, fee, place.expiry, body)
                try:
                    receipt = await self._submit(sign(tx, self._signer).encode())
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

    async def _submit(self, raw: bytes) -> Receipt:
        """Sends the bytes until there is an answer: the same bytes twice are one transaction."""
        for attempt in range(MAX_ATTEMPTS - 1):
            try:
                return await self._client.submit(raw)
            except LedgerUnreachable:
                await backoff(attempt, self._client.sleep)
        return await self._client.submit(raw)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[_Place]:
        """The next nonce, held while its transaction is in flight."""
        async with self._slots:
            async with self._order:
                if self._next is None:
                    await self._idle.wait()
                    account = await self._client.account(self.account)
                    status = await self._client.status()
                    self._next = _Place(account.nonce, status["time"] + self._lifetime_s)
                place = _Place(self._next.nonce, self._next.expiry)
                self._next.nonce += 1
                self._in_flight += 1
                self._idle.clear()
            try:
                yield place
            finally:
                self._in_flight -= 1
                if self._in_flight == 0:
                    self._idle.set()
