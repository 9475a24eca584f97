"""The weights of the draw: a tree of sums in the state; neither a change nor a pick looks at everyone.

A provider has a seat for ever: numbers from 0, in the order of the blocks in which they registered, within
a block by account. A row has 64 sums, u64 each: at level 0 the weights of 64 seats, above it the sums of 64
rows. There are as many levels as the seats need, so that the top is always one row.
"""

from __future__ import annotations

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
    """Notes the weights of the providers that the block has changed; new ones get their seats."""
    for key in state.touched(keys.PROVIDER):
        provider = state.record(key, ProviderRecord)
        assert provider is not None, "a provider stays registered"
        at = keys.seat_of(provider.account)
        known = state.get(at)
        seat = _add_seat(state, provider.account) if known is None else int.from_bytes(known, "big")
        _set(state, seat, weight_of(provider))


def _add_seat(state: State, account: bytes) -> int:
    seat = count(state)
    before, after = _levels(seat), _levels(seat + 1)
    if after > before:  # the old top becomes the first child of the new one
        below = sum(_row(state, before - 1, 0))
        state.put(keys.weights(before, 0), _ROW.pack(below, *_NO_WEIGHTS[1:]))
    state.put(keys.SEATS, keys.u32(seat + 1))
    state.put(keys.seat_of(account), keys.u32(seat))
    state.put(keys.seat(seat), account)
    return seat


def _levels(seats: int) -> int:
    levels, room = 1, FANOUT
    while room < seats:
        levels, room = levels + 1, room * FANOUT
    return levels


def _row(state: State, level: int, index: int) -> tuple[int, ...]:
    raw = state.get(keys.weights(level, index))
    return _NO_WEIGHTS if raw is None else _ROW.unpack(raw)


def _set(state: State, seat: int, weight: int) -> None:
    change = weight - _row(state, 0, seat // FANOUT)[seat % FANOUT]
    if change == 0:
        return
    for level in range(_levels(count(state))):
        seat, place = divmod(seat, FANOUT)
        row = list(_row(state, level, seat))
        row[place] += change
        state.put(keys.weights(level, seat), _ROW.pack(*row))
