"""Transactions on their way to a ledger server: what is sent at the same time goes there in one request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from ledger.engine.answers import field, receipt
from ledger.engine.blocks import Receipt
from ledger.engine.errors import LedgerProtocolError, LedgerRefused, LedgerUnreachable
from ledger.engine.servers import Servers
from ledger.engine.transport import Transport
from ledger.limits import MAX_TX_BYTES
from ledger.result import Code, explain
from merkledag import dag_cbor

MAX_TOGETHER = 256
MAX_TOGETHER_BYTES = MAX_TX_BYTES - 8 * MAX_TOGETHER  # what a request may have, less each one's length
# Refused as things stand now, or only until something else is done.
RETRY = frozenset({Code.NONCE_USED, Code.NONCE_GAP, Code.EXPIRED, Code.POOL_FULL})
Waiting = tuple[bytes, "asyncio.Future[Receipt]"]


class Outbox:
    """What one client sends. A request leaves as soon as a turn of the event loop adds nothing to it."""

    def __init__(self, http: Transport | Servers) -> None:
        self._http = http
        self._waiting: list[Waiting] = []
        self._unanswered: set[asyncio.Future[Receipt]] = set()
        self._requests: set[asyncio.Task[None]] = set()

    async def send(self, raw: bytes) -> Receipt:
        """The receipt, once the transaction is in a block; raises LedgerRefused if none takes it."""
        answered: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((raw, answered))
        self._unanswered.add(answered)
        if len(self._waiting) == 1:
            request = asyncio.create_task(self._send_waiting())
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)
        try:
            return await answered
        finally:
            self._unanswered.discard(answered)

    async def close(self) -> None:
        """Ends what is under way; harmless twice."""
        requests = list(self._requests)
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        self._waiting.clear()
        for answered in self._unanswered:
            if not answered.done():
                answered.set_exception(LedgerUnreachable("the connection to the ledger was closed"))

    async def _send_waiting(self) -> None:
        count = 0
        while count < len(self._waiting) < MAX_TOGETHER:
            count = len(self._waiting)
            await asyncio.sleep(0)
        together, self._waiting = self._waiting, []
        async with asyncio.TaskGroup() as tasks:
            for part in _parts(together):
                tasks.create_task(self._send(part))

    async def _send(self, part: Sequence[Waiting]) -> None:
        outcomes: Sequence[Receipt | Exception]
        try:
            outcomes = await self._ask([raw for raw, _ in part])
        except Exception as error:  # it is for whoever sends
            outcomes = [error] * len(part)
        for (_, answered), outcome in zip(part, outcomes, strict=True):
            if answered.done():
                continue  # cancelled
            if isinstance(outcome, Exception):
                answered.set_exception(outcome)
            else:
                answered.set_result(outcome)

    async def send_all(self, raws: Sequence[bytes]) -> list[Receipt]:
        """Sends these in one request; their receipts, in the same order, once all are decided."""
        answers = field(await self._http.post("/v1/txs", dag_cbor.encode(list(raws))), "receipts")
        if not isinstance(answers, list) or len(answers) != len(raws):
            raise LedgerProtocolError(f"{self._http.url} did not give {len(raws)} receipts for as many sent")
        return [receipt(each) for each in answers]

    async def _ask(self, raws: Sequence[bytes]) -> list[Receipt | LedgerRefused]:
        if len(raws) == 1:
            return [await sent_to(self._http, raws[0])]
        return [
            found if found.height else LedgerRefused(found.code, found.log or explain(found.code))
            for found in await self.send_all(raws)
        ]


async def sent_to(http: Transport | Servers, raw: bytes) -> Receipt:
    """Sends one; raises as `Outbox.send`."""
    return receipt(await http.post("/v1/tx", raw))


def _parts(together: Sequence[Waiting]) -> Iterator[list[Waiting]]:
    """What goes in one request each, without those whose sender waits no more."""
    part: list[Waiting] = []
    size_bytes = 0
    for raw, answered in together:
        if answered.done():
            continue
        if part and (size_bytes + len(raw) > MAX_TOGETHER_BYTES or len(part) == MAX_TOGETHER):
            yield part
            part, size_bytes = [], 0
        part.append((raw, answered))
        size_bytes += len(raw)
    if part:
        yield part
