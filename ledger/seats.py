"""Who has power over blocks, or will have, and the marks of those to look at again."""

from __future__ import annotations

from ledger import keys
from ledger.records_validators import ValidatorRecord
from ledger.state import State


def is_seated(state: State, account: bytes) -> bool:
    """Whether governance granted the account power, or it has some left."""
    return state.get(keys.seated(account)) is not None


def seated(state: State) -> list[bytes]:
    """Every such account, in order."""
    return [key[len(keys.SEATED) :] for key in state.scan(keys.SEATED)]


def count_powers(state: State) -> int:
    """How many validators have power."""
    records = (state.record(keys.validator(account), ValidatorRecord) for account in seated(state))
    return sum(record is not None and record.power > 0 for record in records)


def touch(state: State, account: bytes) -> None:
    """Something that an account's power follows from has changed: the end of the block looks at it."""
    if is_seated(state, account):
        state.put(keys.moving(account), b"")
