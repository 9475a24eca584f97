"""CometBFT's RPC: JSON-RPC over HTTP, events over a WebSocket; every failure is a typed error.

What it answers is for whoever runs that node: nothing here is verified (`light` is for that). Sources:
`rpc/core` and `rpc/jsonrpc` of CometBFT 0.39. Integers of 64 bits are text in its JSON, hashes and addresses
hexadecimal, other bytes base64.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ledger.engine.cometbft.rpc.answers import CometEvent, CometStatus, Verdict, event_of, status_of
from ledger.engine.cometbft.rpc.errors import (
    BatchTooLarge,
    CometBusy,
    CometProtocolError,
    CometRpcError,
    CometTimedOut,
    CometUnreachable,
    HeightPruned,
    TxKnown,
    TxTooLarge,
    error_of,
)
from ledger.engine.transport import Closing, backoff
from ledger.result import Code

if TYPE_CHECKING:
    import aiohttp

_log = logging.getLogger(__name__)

TIMEOUT_S = 15.0  # CometBFT ends an answer after 11 s (timeout_broadcast_tx_commit + 1 s)
CONNECT_TIMEOUT_S = 3.0
MAX_ANSWER_BYTES = 64 << 20
READ_BYTES = 64 << 10
PER_PAGE = 100  # rpc/core/env.go: the most validators in one answer
MAX_VALIDATORS = 10_000  # types/validator_set.go: MaxVotesCount
MAX_HEADERS = 20  # rpc/core/blocks.go: the most headers in one answer
MAX_BATCH = 1_000
MAX_BODY_BYTES = 900_000  # rpc.max_body_bytes is a million by default
TX_OVERHEAD_BYTES = 100  # of one request around a transaction's base64
HEARTBEAT_S = 10.0


class CometRpc(Closing):
    """One node's RPC. Methods raise `rpc.errors`. Use it in `async with`, or call `close`."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "tcp") or not parts.netloc:
            raise ValueError(f"not a URL of CometBFT's RPC: {url[:200]!r}; try http://127.0.0.1:26657")
        scheme = "http" if parts.scheme == "tcp" else parts.scheme
        self.url = f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._session: aiohttp.ClientSession | None = None
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._batch = MAX_BATCH

    async def close(self) -> None:
        """Closes the session; harmless twice."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    # -- the node --------------------------------------------------------------------------------------------

    async def health(self) -> None:
        """Returns if the node answers at all; that its height grows, only `status` shows."""
        await self.call("health")

    async def status(self) -> CometStatus:
        """Where the node and its chain stand."""
        found = await self.call("status")
        try:
            return status_of(found)
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange("status", error) from error

    async def net_info(self) -> dict[str, Any]:
        """The peers it is connected with: `n_peers`, `peers`."""
        return await self._map("net_info")

    async def consensus_state(self) -> dict[str, Any]:
        """`round_state`: height, round and step, and who has voted."""
        return await self._map("consensus_state")

    # -- blocks ----------------------------------------------------------------------------------------------

    async def commit(self, height: int | None = None) -> dict[str, Any]:
        """`signed_header` {header, commit} and `canonical`, at a height or the last."""
        found = await self._map("commit", _at(height))
        if not isinstance(signed := found.get("signed_header"), dict) or not signed.get("commit"):
            raise HeightPruned(f"{self.url}: no commit of block {height} is kept")
        return found

    async def headers(self, first: int, last: int) -> list[dict[str, Any]]:
        """At most `MAX_HEADERS`, from `first` or the lowest that is kept, up to `last` or the newest."""
        last = min(last, first + MAX_HEADERS - 1)
        found = await self._map("blockchain", {"minHeight": str(first), "maxHeight": str(last)})
        try:
            metas = list(reversed(found["block_metas"]))
            if None in metas:
                raise CometProtocolError(
                    f"{self.url} has a hole in its blocks between {first} and {last}: its blockstore.db is "
                    'damaged; see "When it halts" in operating-validators.md'
                )
            return [each["header"] for each in metas]
        except (KeyError, TypeError) as error:
            raise self._strange("blockchain", error) from error

    async def validators(self, height: int | None = None) -> tuple[int, list[dict[str, Any]]]:
        """The height, and all validators that sign it, of all pages, in CometBFT's order."""
        found: list[dict[str, Any]] = []
        page = 1
        while True:
            answer = await self._map(
                "validators", {**_at(height), "page": str(page), "per_page": str(PER_PAGE)}
            )
            try:
                height, total = int(answer["block_height"]), int(answer["total"])
                items = list(answer["validators"])
            except (KeyError, TypeError, ValueError) as error:
                raise self._strange("validators", error) from error
            found += items
            if total > MAX_VALIDATORS or len(found) > total or (not items and len(found) < total):
                raise CometProtocolError(f"{self.url} gave {len(found)} of {total} validators; check the URL")
            if len(found) == total:
                return height, found
            page += 1

    # -- transactions ---------------------------------------------------------------------------------------

    async def broadcast_tx_async(self, raws: Sequence[bytes]) -> list[Verdict]:
        """Offers transactions to the node's mempool, in this order, for its own application, which has
        checked them: what its CheckTx says is not waited for, as CometBFT keeps that back for up to 20 ms.

        What it knows already counts as passed. Raises only where nothing is known of the rest: then send all
        again, which is harmless.
        """
        verdicts: list[Verdict] = []
        while len(verdicts) < len(raws):
            part = _part(raws, len(verdicts), self._batch)
            params = [{"tx": base64.b64encode(raw).decode()} for raw in part]
            try:
                outcomes = await self._calls("broadcast_tx_async", params)
            except BatchTooLarge as error:
                if not 0 < error.most < self._batch:
                    raise
                self._batch = error.most
                continue
            verdicts += [self._verdict(outcome) for outcome in outcomes]
        return verdicts

    # -- events ----------------------------------------------------------------------------------------------

    async def subscribe(self, query: str) -> AsyncGenerator[CometEvent, None]:
        """The events that match a query (such as tm.event='NewBlock'), without end.

        Connects again by itself, waiting longer after each failure in a row; the first event then has
        `after_gap`. Ends only by CometRefused (the query) or when the caller stops.
        """
        failures = 0
        after_gap = False
        while True:
            try:
                async with aclosing(self._events(query)) as events:
                    async for event in events:
                        yield replace(event, after_gap=after_gap)
                        failures, after_gap = 0, False
            except (CometUnreachable, CometBusy, CometTimedOut) as error:
                _log.debug("the subscription broke off: %s", error)
            after_gap = True
            await backoff(failures, self._sleep)
            failures += 1

    async def _events(self, query: str) -> AsyncGenerator[CometEvent, None]:
        """One connection's; it ends by raising."""
        import aiohttp

        request = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"query": query}}
        try:
            async with asyncio.timeout(self._timeout_s):
                socket = await self._opened().ws_connect(
                    self.url + "/websocket", heartbeat=HEARTBEAT_S, max_msg_size=MAX_ANSWER_BYTES
                )
            async with socket:
                await socket.send_json(request)
                async for message in socket:
                    if message.type != aiohttp.WSMsgType.TEXT:
                        break
                    result = self._result(self._answer(message.data))
                    if result:  # the first answer only says that the query is taken
                        try:
                            yield event_of(result)
                        except (KeyError, TypeError, ValueError) as error:
                            raise self._strange("subscribe", error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error
        raise CometUnreachable(f"{self.url} ended the stream of events")

    # -- requests --------------------------------------------------------------------------------------------

    async def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """One method's result, as its JSON has it."""
        (outcome,) = await self._calls(method, [params or {}])
        if isinstance(outcome, CometRpcError):
            raise outcome
        return outcome

    async def _map(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        result = await self.call(method, params)
        if result is None:
            raise HeightPruned(f"{self.url}: nothing of that height is kept")
        if not isinstance(result, dict):
            raise self._strange(method, "no map")
        return result

    async def _calls(self, method: str, params: Sequence[dict[str, Any]]) -> list[Any]:
        """One request; what came of each call, in their order: its result or its error."""
        requests = [
            {"jsonrpc": "2.0", "id": index, "method": method, "params": each}
            for index, each in enumerate(params)
        ]
        body = json.dumps(requests if len(requests) > 1 else requests[0]).encode()
        answer = self._answer(await self._post(body))
        answers = answer if isinstance(answer, list) else [answer]  # of one call in a batch: no list
        if len(answers) == 1 and len(params) > 1:
            self._result(answers[0])  # the batch as a whole was refused
        outcomes: dict[int, Any] = {}
        for each in answers:
            try:
                outcome = self._result(each)
            except CometRpcError as error:
                if not isinstance(each, dict) or "id" not in each:
                    raise
                outcome = error
            outcomes[each["id"]] = outcome
        if len(answers) != len(params) or outcomes.keys() != set(range(len(params))):
            raise self._strange(method, f"{len(answers)} answers to {len(params)} calls")
        return [outcomes[index] for index in range(len(params))]

    async def _post(self, body: bytes) -> bytes:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._opened().post(
                self.url + "/",
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                read = bytearray()
                while data := await response.content.read(READ_BYTES):
                    read += data
                    if len(read) > MAX_ANSWER_BYTES:
                        raise CometProtocolError(f"{self.url} answered more than {MAX_ANSWER_BYTES} bytes")
                return bytes(read)
        except TimeoutError as error:
            raise CometUnreachable(
                f"CometBFT at {self.url} did not answer in {self._timeout_s:g} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        self._session = self._session or aiohttp.ClientSession()
        return self._session

    def _answer(self, raw: bytes | str) -> Any:
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise self._strange("JSON-RPC", error) from error

    def _result(self, answer: Any) -> Any:
        """An answer's result; raises its error."""
        if isinstance(answer, dict) and answer.get("error") is not None:
            raise error_of(self.url, answer["error"])
        if not isinstance(answer, dict) or "result" not in answer or type(answer.get("id")) is not int:
            raise self._strange("JSON-RPC", "neither result nor error")
        return answer["result"]

    def _verdict(self, outcome: Any) -> Verdict:
        match outcome:
            case TxKnown():
                return Verdict(Code.OK, "", known=True)
            case CometBusy():
                return Verdict(Code.POOL_FULL, str(outcome))
            case TxTooLarge():
                return Verdict(Code.TOO_LARGE, str(outcome))
            case CometRpcError():
                raise outcome
            case {"code": int(code), "log": str(log)}:
                return Verdict(code, log)
        raise self._strange("broadcast_tx_async", "no code")

    def _unreachable(self, error: Exception) -> CometUnreachable:
        why = str(error) or repr(error)
        return CometUnreachable(f"no CometBFT answers at {self.url} ({why:.200}); is it running?")

    def _strange(self, method: str, why: object) -> CometProtocolError:
        return CometProtocolError(
            f"{self.url} gave no answer of CometBFT to {method} ({why!s:.200}); check the URL"
        )


def _at(height: int | None) -> dict[str, Any]:
    return {} if height is None else {"height": str(height)}


def _part(raws: Sequence[bytes], begin: int, most: int) -> list[bytes]:
    """The next transactions, as many as one request may carry; at least one."""
    part: list[bytes] = []
    size_bytes = 0
    for raw in raws[begin : begin + most]:
        size_bytes += -(-len(raw) // 3) * 4 + TX_OVERHEAD_BYTES
        if part and size_bytes > MAX_BODY_BYTES:
            break
        part.append(raw)
    return part
