"""What CometBFT's RPC refuses or fails at, each as its own error that says what to do.

CometBFT gives nearly every failure the code −32603 and tells them apart by text alone (`rpc/core`,
`mempool/errors.go`, `state/errors.go`): `error_of` reads those texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ledger.engine.errors import EngineError

MAX_TOLD = 500


class CometRpcError(EngineError):
    """Base of all errors of CometBFT's RPC."""


class CometUnreachable(CometRpcError):
    """The environment: no connection, no answer in time, or a `cometbft` that ends. Ask again later."""


class CometCatchingUp(CometRpcError):
    """The environment: the node is behind its peers and takes no transactions yet. Ask elsewhere."""


class CometBusy(CometRpcError):
    """The environment: its mempool or its list of subscribers is full. Send again after a block."""


class CometTimedOut(CometRpcError):
    """The environment: it took the request but not in time; the transaction may still come into a block."""


class TxTooLarge(CometRpcError):
    """The caller's: larger than this node's `mempool.max_tx_bytes`, or than a block may hold."""


class TxKnown(CometRpcError):
    """Not a failure: these very bytes wait in the mempool already, or were in a block lately."""


class BadHeight(CometRpcError):
    """The caller's: heights are from 1 on."""


class HeightAhead(CometRpcError):
    """The caller's: the chain has no such block yet; wait for it."""


class HeightPruned(CometRpcError):
    """The caller's: this node no longer has the block, or what it did; ask one that keeps more."""


class CometRefused(CometRpcError):
    """Ours: a method, a parameter or a query that CometBFT does not know; its version may be another."""


class CometInternal(CometRpcError):
    """CometBFT's or the application's: something failed inside; the log of `cometbft` says more."""


class CometProtocolError(CometRpcError):
    """The answer is not CometBFT's RPC; check the URL."""


_PARSE, _INVALID, _NO_METHOD, _BAD_PARAMS = -32700, -32600, -32601, -32602
_TEXTS: tuple[tuple[re.Pattern[str], Callable[[str], CometRpcError]], ...] = (
    (re.compile(r"tx already exists in cache"), TxKnown),
    (re.compile(r"Tx too large|tx pre check"), TxTooLarge),
    (re.compile(r"mempool is full|mempool is still rechecking|max_subscription|out of capacity"), CometBusy),
    (re.compile(r"closed while node is catching up|node is catching up"), CometCatchingUp),
    (re.compile(r"must be less than or equal to the current blockchain height"), HeightAhead),
    (re.compile(r"is not available, lowest height is"), HeightPruned),
    (re.compile(r"could not find (results|validator set|\w+ params) for height"), HeightPruned),
    (re.compile(r"node is not persisting finalize block responses"), HeightPruned),
    (re.compile(r"^height must be greater than 0|heights must be non-negative"), BadHeight),
    (re.compile(r"timed out|confirmation not received|deadline exceeded"), CometTimedOut),
    (re.compile(r"CometBFT exited|subscription was canceled|appConn mempool|stopped|EOF"), CometUnreachable),
    (re.compile(r"failed to parse query|query length|page should be within"), CometRefused),
)
_BATCH = re.compile(r"batch request exceeds maximum \((\d{1,9})\)")


class BatchTooLarge(CometRefused):
    """The caller's: more requests at once than `rpc.max_request_batch_size` of that node, which is `most`."""

    def __init__(self, text: str, most: int) -> None:
        super().__init__(text)
        self.most = most


def error_of(url: str, error: object) -> CometRpcError:
    """The typed error of a JSON-RPC answer's `error` member."""
    if not isinstance(error, dict) or type(error.get("code")) is not int:
        return CometProtocolError(f"{url} answered an error that is not JSON-RPC's; check the URL")
    data = str(error.get("data") or error.get("message") or "no reason given")[:MAX_TOLD]
    told = f"{url}: {data}"
    if found := _BATCH.search(data):
        return BatchTooLarge(told, int(found[1]))
    if error["code"] in (_PARSE, _INVALID, _NO_METHOD, _BAD_PARAMS):
        return CometRefused(told)
    for pattern, made in _TEXTS:
        if pattern.search(data):
            return made(told)
    return CometInternal(told)
