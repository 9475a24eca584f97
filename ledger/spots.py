"""Spot challenges as they are kept: one a shard, from the transaction that asks for it to its end."""

from __future__ import annotations

from ledger import due, keys, money
from ledger.context import Context
from ledger.records import SpotRecord
from merkledag.cid import CID


def find(ctx: Context, deal: CID, index: int) -> SpotRecord | None:
    """The open spot challenge of a shard, if there is one."""
    return ctx.state.record(keys.spot(deal, index), SpotRecord)


def end(ctx: Context, deal: CID, index: int, payee: bytes = b"") -> None:
    """Drops a shard's spot challenge, if there is one; what was prepaid goes to `payee`, or back (b"")."""
    record = find(ctx, deal, index)
    if record is None:
        return
    why = "spot_answer" if payee else ""
    ctx.move(money.spot_fee(deal, index), money.balance(payee or record.challenger), record.fee, why)
    subject = due.shard_subject(deal, index)
    if record.seed:
        due.remove(ctx.state, record.closes_at + 1, due.What.SPOT, subject)
    else:
        due.remove(ctx.state, record.seed_height, due.What.SPOT_SEED, subject)
    ctx.state.delete(keys.spot(deal, index))
