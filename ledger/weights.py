"""The weights of the draw: a tree of sums in the state; neither a change nor a pick looks at everyone.

A provider that weighs something has a seat: the numbers from 0 to one below `count`, none of them empty. At
the end of a block first those that weigh nothing any more leave, by account, and whoever has the last seat
moves to the one that is free; then those that weigh something now get the next seats, by account.

A row has 64 sums, u64 each: at level 0 the weights of 64 seats, above it the sums of 64 rows. There are as
many levels as the seats need, so that the top is always one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from ledger import keys
from ledger.records import ProviderRecord
from ledger.state import State

FANOUT = 64
_ROW = Struct(f">{FANOUT}Q")
_NO_WEIGHTS = (0,) * FANOUT


def weight_of(provider: ProviderRecord) -> int:
    """What a provider weighs in the draw: its unlocked stake while it is open."""
    return provider.unlocked if provider.open else 0


def count(state: State) -> int:
    """How many seats there are."""
    return int.from_bytes(state.get(keys.SEATS) or b"", "big")


def account_at(state: State, seat: int) -> bytes:
    """Whose seat it is."""
    account = state.get(keys.seat(seat))
    assert account is not None, "every seat up to the count is somebody's"
    return account


def weight_at(state: State, seat: int) -> int:
    """What a seat weighs."""
    return _row(state, 0, seat // FANOUT)[seat % FANOUT]


def total(state: State) -> int:
    """The sum of all weights."""
    return sum(_row(state, _levels(count(state)) - 1, 0))


def find(state: State, ticket: int) -> int:
    """The seat that a ticket below `total` falls to: seats in order have as many tickets as they weigh."""
    seat = 0
    for level in reversed(range(_levels(count(state)))):
        for child, weight in enumerate(_row(state, level, seat)):
            if ticket < weight:
                seat = seat * FANOUT + child
                break
            ticket -= weight
        else:
            raise AssertionError("a ticket is below the sum of all weights")
    return seat


def reweigh(state: State) -> None:
    """Notes the weights of the providers that the block has changed: some leave their seats, some get one."""
    changed = []
    for key in state.touched(keys.PROVIDER):
        provider = state.record(key, ProviderRecord)
        assert provider is not None, "a provider stays registered"
        changed.append((provider.account, weight_of(provider)))
    for account, weight in changed:
        seat = _seat_of(state, account)
        if seat is not None and weight == 0:
            _leave(state, account, seat)
    for account, weight in changed:
        if weight:
            seat = _seat_of(state, account)
            _set(state, _add_seat(state, account) if seat is None else seat, weight)


def _seat_of(state: State, account: bytes) -> int | None:
    known = state.get(keys.seat_of(account))
    return None if known is None else int.from_bytes(known, "big")


def _sit(state: State, account: bytes, seat: int) -> None:
    state.put(keys.seat_of(account), keys.u32(seat))
    state.put(keys.seat(seat), account)


def _add_seat(state: State, account: bytes) -> int:
    seat = count(state)
    before, after = _levels(seat), _levels(seat + 1)
    if after > before:  # the old top becomes the first child of the new one
        below = sum(_row(state, before - 1, 0))
        _put_row(state, before, 0, (below, *_NO_WEIGHTS[1:]))
    state.put(keys.SEATS, keys.u32(seat + 1))
    _sit(state, account, seat)
    return seat


def _leave(state: State, account: bytes, seat: int) -> None:
    """Whoever has the last seat takes this one, so that none stands empty."""
    last = count(state) - 1
    weight, mover = weight_at(state, last), account_at(state, last)
    _set(state, last, 0)
    if seat != last:
        _set(state, seat, weight)
        _sit(state, mover, seat)
    state.delete(keys.seat_of(account))
    state.delete(keys.seat(last))
    if _levels(last) < _levels(last + 1):
        state.delete(keys.weights(_levels(last), 0))
    state.put(keys.SEATS, keys.u32(last))


def _levels(seats: int) -> int:
    levels, room = 1, FANOUT
    while room < seats:
        levels, room = levels + 1, room * FANOUT
    return levels


def _row(state: State, level: int, index: int) -> tuple[int, ...]:
    raw = state.get(keys.weights(level, index))
    return _NO_WEIGHTS if raw is None else _ROW.unpack(raw)


def _put_row(state: State, level: int, index: int, row: Sequence[int]) -> None:
    if any(row):
        state.put(keys.weights(level, index), _ROW.pack(*row))
    else:
        state.delete(keys.weights(level, index))


def _set(state: State, seat: int, weight: int) -> None:
    change = weight - _row(state, 0, seat // FANOUT)[seat % FANOUT]
    if change == 0:
        return
    for level in range(_levels(count(state))):
        seat, place = divmod(seat, FANOUT)
        row = list(_row(state, level, seat))
        row[place] += change
        _put_row(state, level, seat, row)
