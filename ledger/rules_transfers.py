"""Transfers between accounts."""

from __future__ import annotations

from ledger import keys, money
from ledger.context import Context
from ledger.errors import Refusal
from ledger.records import AccountRecord
from ledger.result import Code
from ledger.transactions import Transfer
from merkledag.ed25519 import is_usable_key


def transfer(ctx: Context, sender: bytes, body: Transfer) -> None:
    """Moves `amount`; what opens an account is at least `account_minimum`, so that dust costs something."""
    is_new = ctx.state.record(keys.account(body.to), AccountRecord) is None
    if body.amount == 0:
        raise Refusal(Code.AMOUNT_OUT_OF_RANGE, "an amount of 0 moves nothing")
    if is_new and body.amount < ctx.params.account_minimum:
        raise Refusal(
            Code.AMOUNT_OUT_OF_RANGE, f"a new account needs at least {ctx.params.account_minimum} units"
        )
    if not is_usable_key(body.to):
        raise Refusal(Code.INVALID_TERMS, "to: not a key that anyone can sign with")
    ctx.move(money.balance(sender), money.balance(body.to), body.amount)
    ctx.emit("transfer", from_=sender, to=body.to, amount=body.amount)
