"""A validator that resigns: it is to have no power, answers with its stake for a while, and is forgotten.

granted ──resign──► power goes (`rules_powers`) ──`unbonding_s`──► keys name it no more ──► record dropped,
                                                                                            deposit back
Governance cannot take it back, and the account registers no keys anew before it is forgotten.
"""

from __future__ import annotations

from dataclasses import replace

from ledger import due, keys, seats
from ledger.context import Context
from ledger.errors import Refusal
from ledger.forms_validators import Resign
from ledger.records_validators import ConsensusKeyRecord, ValidatorRecord
from ledger.result import Code
from ledger.rules_validators import find


def resign(ctx: Context, sender: bytes, _body: Resign) -> None:
    """Ends the sender's grant for good; never that of the only one who can validate."""
    record = find(ctx.state, sender)
    if record is None or record.resigned:
        raise Refusal(Code.NOTHING_TO_DO, "the account registered no keys, or has resigned")
    if sender == ctx.operator or (record.granted and not _is_replaced(ctx, sender)):
        raise Refusal(Code.LAST_VALIDATOR, "nobody else would be left to make blocks")
    ctx.state.put(keys.validator(sender), replace(record, granted=0, resigned=True))
    seats.touch(ctx.state, sender)
    if not record.power:
        answer(ctx, sender, record)
    ctx.emit("validator_resigned", validator=sender)


def _is_replaced(ctx: Context, account: bytes) -> bool:
    """Whether anybody else is to have power, and can."""
    others = (find(ctx.state, each) for each in seats.seated(ctx.state) if each != account)
    return any(other is not None and other.granted and other.bls_key for other in others)


def answer(ctx: Context, account: bytes, record: ValidatorRecord) -> None:
    """Who has no power any more is looked at again when there can be no evidence against it."""
    until = record.left_at + ctx.params.unbonding_s if record.left_at else ctx.time
    due.add(ctx.state, max(until, ctx.time), due.What.RESIGNED, account)


def on_due(ctx: Context, account: bytes) -> None:
    """Its stake answers no more: its consensus keys go, as those do that were rotated away."""
    record = find(ctx.state, account)
    assert record is not None, "who resigned is forgotten once"
    if record.left_at and ctx.time < record.left_at + ctx.params.unbonding_s:  # that is longer by now
        return answer(ctx, account, record)
    if record.next_consensus_key:  # no engine was ever told of it
        ctx.state.delete(keys.consensus(keys.address(record.next_consensus_key)))
        record = replace(record, next_consensus_key=b"", keys=record.keys - 1)
        ctx.state.put(keys.validator(account), record)
    address = keys.address(record.consensus_key)
    bound = ctx.state.record(keys.consensus(address), ConsensusKeyRecord)
    assert bound is not None, "the key in use is bound"
    left = ctx.height if record.left_at else bound.left
    ctx.state.put(keys.consensus(address), replace(bound, left=left, forget_at=ctx.time))
    due.add(ctx.state, ctx.time, due.What.CONSENSUS_KEY, address)
    return None
