"""Transfers between accounts."""

from __future__ import annotations

from ledger import keys, money
from ledger.context import Context
from ledger.errors import Refusal
from ledger.records import AccountRecord
from ledger.result import Code
from ledger.transactions import Transfer


def transfer(ctx: Context, sender: bytes, body: Transfer) -> None:
    """Moves `amount`; what opens an account is at least `account_minimum`, so that dust costs something."""
    is_new = ctx.state.record(keys.account(body.to), AccountRecord) is None
    if body.amount == 0:
        raise Refusal(Code.AMOUNT_OUT_OF_RANGE, "an amount of 0 moves nothing")
    if is_new and body.amount < ctx.params.account_minimum:
        raise Refusal(
            Code.AMOUNT_OUT_OF_RANGE, f"a new account needs at least {ctx.params.account_minimum} units"
        )
    ctx.move(money.balance(sender), money.balance(body.to), body.amount)
    ctx.emit("transfer", from_=sender, to=body.to, amount=body.amount)
