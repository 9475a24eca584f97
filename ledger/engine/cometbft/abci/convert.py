"""From the ledger's words to ABCI's: events, results of transactions, validators' power."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ledger.application import Application
from ledger.block_forms import BlockInput, ValidatorUpdate
from ledger.engine.blocks import MAX_LOG_CHARS
from ledger.engine.cometbft.abci import messages
from ledger.events import Event, account_text
from ledger.result import TxResult

CODESPACE: Final = "holdfast"


def event(found: Event) -> Any:
    """An event under its own kind, its attributes as its JSON has them, and in their order.

    All may be searched by: an indexer of CometBFT's that keeps rows leaves out what is not indexed.
    """
    made = messages.Event(type=found.kind)
    for name, value in found.shown().items():
        text = value if isinstance(value, str) else str(value).lower()
        made.attributes.add(key=name, value=text, index=True)
    return made


def tx_result(result: TxResult, account: bytes) -> Any:
    """What became of a transaction; `code` alone is part of what validators agree on."""
    made = messages.ExecTxResult(code=int(result.code))
    if not result.ok:
        made.log = result.log[:MAX_LOG_CHARS]
        made.codespace = CODESPACE
    if result.tx_id is not None and account:
        named = made.events.add(type="transaction")
        named.attributes.add(key="id", value=str(result.tx_id), index=True)
        named.attributes.add(key="account", value=account_text(account), index=True)
    made.events.extend(map(event, result.events))
    return made


def check_result(result: TxResult) -> Any:
    """Whether a transaction may wait in the mempool."""
    if result.ok:
        return messages.ResponseCheckTx()
    return messages.ResponseCheckTx(
        code=int(result.code), log=result.log[:MAX_LOG_CHARS], codespace=CODESPACE
    )


def validator_update(consensus_key: bytes, power: int) -> Any:
    """The power, 0 for none, of an Ed25519 key."""
    return messages.ValidatorUpdate(pub_key=messages.PublicKey(ed25519=consensus_key), power=power)


def validator_updates(changes: Iterable[ValidatorUpdate]) -> list[Any]:
    """The same of all that a block changes."""
    return [validator_update(each.consensus_key, each.power) for each in changes]


def accounts_of(app: Application, misbehavior: Iterable[Any]) -> tuple[bytes, ...]:
    """The accounts that a block has evidence against, each once, in the block's order.

    A key that the state has forgotten accuses nobody: its validator's stake is free by then.
    """
    found = (app.proposer_of(each.validator.address) for each in misbehavior)
    return tuple(dict.fromkeys(account for account in found if account is not None))


def block_input(app: Application, request: Any, txs: tuple[bytes, ...]) -> BlockInput | None:
    """The block of a request that proposes or finalizes one; None if the state does not know its proposer."""
    proposer = app.proposer_of(request.proposer_address)
    if proposer is None:
        return None
    evidence = accounts_of(app, request.misbehavior)
    return BlockInput(request.height, request.time.seconds, proposer, txs, evidence)
