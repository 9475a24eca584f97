"""The journal: every change of an account's balance or stake, with its reason. It is no part of the app hash.

The entries of an account, from genesis on, sum to what it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from ledger import keys, limits
from ledger.fields import (
    Account,
    AccountOrNone,
    FieldError,
    LinkOrNone,
    Spec,
    Wire,
    text,
    uint_schema,
)
from ledger.money import Place, Purse
from ledger.records import AccountRecord, ProviderRecord
from merkledag.cid import CID

MAX_WHY_CHARS = 40
# Between an account and what is not one, unless whoever moves the money says it better.
_WHY = {
    (Place.BALANCE, Place.BALANCE): "transfer",
    (Place.BALANCE, Place.BURNED): "fee",
    (Place.BALANCE, Place.STAKE): "stake",
    (Place.STAKE, Place.BALANCE): "withdrawal",
    (Place.STAKE, Place.BURNED): "fault_fee",
    (Place.STAKE, Place.REWARD): "forfeit",
    (Place.ESCROW, Place.BALANCE): "refund",
    (Place.REWARD, Place.BALANCE): "reward",
}


def _check_change(value: Any) -> int:
    if type(value) is not int or not -limits.MAX_UINT <= value <= limits.MAX_UINT:
        raise FieldError(f"not an amount within ±{limits.MAX_UINT}")
    return value


CHANGE = Spec(_check_change, schema=lambda _: uint_schema(-limits.MAX_UINT))


@dataclass(frozen=True, slots=True)
class Entry(Wire):
    """One change. `place` is "balance" or "stake", `amount` in units, negative for what left.

    `why` is one word; `counterparty` the account on the other side (b"": escrow, a deposit or burned), `deal`
    the deal that it concerns, `tx_id` the transaction that did it (None: the ledger did by itself).
    """

    account: Account
    place: Annotated[str, text(8)]
    amount: Annotated[int, CHANGE]
    why: Annotated[str, text(MAX_WHY_CHARS)]
    counterparty: AccountOrNone
    deal: LinkOrNone
    tx_id: LinkOrNone


class Move(NamedTuple):
    """One movement of money, as `Context.move` notes it."""

    source: Purse
    target: Purse
    amount: int
    why: str
    tx_id: CID | None


def entries(moves: Iterable[Move]) -> Iterator[Entry]:
    """Both sides of every move, as far as they are accounts, in order."""
    for move in moves:
        source, target = _owner(move.source), _owner(move.target)
        why = move.why or reason(move.source.place, move.target.place)
        deal = _deal(move.source) or _deal(move.target)
        # Between a provider's own balance and stake there is nobody else.
        payer, payee = (b"", b"") if source == target else (source, target)
        if source:
            yield Entry(source, move.source.place.field, -move.amount, why, payee, deal, move.tx_id)
        if target:
            yield Entry(target, move.target.place.field, move.amount, why, payer, deal, move.tx_id)


def genesis_entries(items: Iterable[tuple[bytes, bytes]]) -> Iterator[Entry]:
    """What the accounts of a new chain begin with, from its state in order."""
    for key, value in items:
        for prefix, cls, place in (
            (keys.ACCOUNT, AccountRecord, Place.BALANCE),
            (keys.PROVIDER, ProviderRecord, Place.STAKE),
        ):
            if key.startswith(prefix):
                amount = getattr(cls.decode(value), place.field)
                if amount:
                    yield Entry(key[len(prefix) :], place.field, amount, "genesis", b"", None, None)


def reason(source: Place, target: Place) -> str:
    """Why money goes from one kind of place to another, where nothing more is said."""
    known = _WHY.get((source, target))
    if known is not None:
        return known
    if target is Place.BALANCE:
        return f"{source.name.lower()}_back"
    return "forfeit" if source is Place.STAKE else target.name.lower()


def _owner(purse: Purse) -> bytes:
    if purse.place is Place.BALANCE:
        return purse.key[len(keys.ACCOUNT) :]
    return purse.key[len(keys.PROVIDER) :] if purse.place is Place.STAKE else b""


def _deal(purse: Purse) -> CID | None:
    if purse.key.startswith(keys.DEAL):
        return CID.decode(purse.key[len(keys.DEAL) :])
    if purse.key.startswith(keys.SHARD):
        return CID.decode(purse.key[len(keys.SHARD) : -2])
    if purse.key.startswith(keys.SPOT):
        return CID.decode(purse.key[len(keys.SPOT) : -2])
    return None
