"""Proposed blocks: PrepareProposal makes one, ProcessProposal says whether another's may be decided."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from ledger.application import Application
from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.abci.convert import block_input
from ledger.engine.cometbft.errors import Disagreement
from ledger.errors import CorruptState, UnknownRules
from ledger.result import Code, TxResult
from ledger.transactions import Beacon

# Of a transaction in a block's protobuf, beside its own bytes: tag and length.
TX_OVERHEAD_BYTES: Final = 4
# More would keep the event loop busy for longer than about a tenth of a second.
MAX_TXS: Final = 1_024
# Of another's block, the beacon counted: verifying as many signatures as the rules allow would take all
# validators seconds, whatever the proposer has to pay for. Room for releases that propose more.
MAX_TXS_TAKEN: Final = 4 * MAX_TXS

_log = logging.getLogger(__name__)


class BeaconSigner(Protocol):
    """Whoever can sign with a validator's BLS key (`proofs.bls.signatures.BlsSigner`)."""

    def sign(self, message: bytes) -> bytes:
        """96 bytes."""


def beacon_work(
    app: Application, request: Any, signers: Mapping[bytes, BeaconSigner]
) -> Callable[[], bytes] | None:
    """What makes the beacon transaction of a block that this validator proposes, in any thread.

    None, with a message, where the BLS key that it takes is not here. Raises Disagreement for another block
    than the next one.
    """
    if request.height != app.height + 1:
        raise Disagreement(
            f"CometBFT asks for a proposal of block {request.height}, and the ledger's next is "
            f"{app.height + 1}"
        )
    account = app.proposer_of(request.proposer_address)
    key = None if account is None else app.bls_key(account)
    signer = None if key is None else signers.get(key)
    if account is None or signer is None:
        _log.error(
            "this validator (%s) can propose no block: the BLS key %s that its beacon needs is not here",
            request.proposer_address.hex(),
            "" if key is None else key.hex(),
        )
        return None
    message, check = app.beacon_transaction_message(request.height), app.beacon_check(account)

    def work() -> bytes:
        signature = signer.sign(message)
        check(signature)
        return Beacon(app.chain_id, request.height, signature).encode()

    return work


def prepare(app: Application, request: Any, beacon: bytes, clock_ns: Callable[[], int]) -> Any:
    """ResponsePrepareProposal: the beacon, then those of the mempool that pass, in their order, and fit."""
    given = block_input(app, request, (beacon, *request.txs))
    if given is None:
        return messages.ResponsePrepareProposal()
    if request.max_tx_bytes < len(beacon) + TX_OVERHEAD_BYTES:
        _log.error("block %d has no room for its beacon: an empty one is proposed", request.height)
        return messages.ResponsePrepareProposal()
    room = request.max_tx_bytes - len(beacon) - TX_OVERHEAD_BYTES * (MAX_TXS + 1)
    try:
        chosen = app.prepare_proposal(given, max_bytes=max(0, room), max_txs=MAX_TXS, clock_ns=clock_ns)
    except (UnknownRules, CorruptState):
        raise
    except Exception:
        # Whatever it is, it waits at every validator: none of them may end by it when its turn comes.
        _log.exception("a mistake in the rules: block %d is proposed without transactions", request.height)
        chosen = app.prepare_proposal(replace(given, txs=(beacon,)), max_bytes=0, max_txs=0)
    return messages.ResponsePrepareProposal(txs=[beacon, *chosen])


def is_small_enough(request: Any) -> bool:
    """Whether looking at a proposed block takes a bounded time."""
    return len(request.txs) <= MAX_TXS_TAKEN


def process(app: Application, request: Any) -> TxResult:
    """Whether a proposed block keeps the rules; what a mistake in them comes of is refused as well."""
    if not is_small_enough(request):
        return TxResult(Code.TOO_LARGE, f"{len(request.txs)} transactions; at most {MAX_TXS_TAKEN} are taken")
    given = block_input(app, request, tuple(request.txs))
    if given is None:
        return TxResult(Code.MISPLACED, f"{request.proposer_address.hex()} is no validator's")
    try:
        return app.process_proposal(given)
    except (UnknownRules, CorruptState):
        raise
    except Exception as error:
        _log.exception("a mistake in the rules: block %d as proposed cannot be run", request.height)
        return TxResult(Code.NOT_POSSIBLE, repr(error))
