"""Stakes as votes count them, kept by copy on write: a vote weighs the least stake since it began.

So neither stake that comes later counts, nor stake that was there for a moment only, and stake that moves on
to another account counts for nobody. When a stake changes for the first time since proposal n, it is noted
under n: as the least one since the opening of n, and of all proposals since the note before. When it falls,
what is noted falls with it. Where nothing was noted, it is the present one.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

from ledger import keys
from ledger.records import ProviderRecord
from ledger.state import State


def note(state: State, account: bytes, by: int, proposals: int) -> None:
    """Notes a provider's stake, which is about to change by `by`, as far as open votes may ask for it.

    `proposals` is how many proposals there were so far. Notes that no open vote needs go.
    """
    provider = state.record(keys.provider(account), ProviderRecord)
    assert provider is not None, "stake is a provider's"
    oldest = state.first(keys.OPEN)
    if provider.stake_mark < proposals:
        state.put(keys.provider(account), replace(provider, stake_mark=proposals))
        needed_from = proposals + 1 if oldest is None else keys.read_open(oldest)
        limit = keys.stake(account, needed_from)
        for key in list(takewhile(lambda key: key < limit, state.scan(keys.STAKE + account))):
            state.delete(key)
        if oldest is not None:
            state.put(keys.stake(account, proposals), keys.u64(provider.stake))
    if oldest is not None:
        least = keys.u64(max(0, provider.stake + by))
        for key in [key for key in state.scan(keys.STAKE + account) if (state.get(key) or b"") > least]:
            state.put(key, least)


def least_since(state: State, account: bytes, number: int) -> int:
    """A provider's least stake, locked or not, since the opening of the open proposal `number`."""
    start, prefix = keys.stake(account, number), keys.STAKE + account
    noted = next((key for key in state.scan(prefix) if key >= start), None)
    if noted is not None:
        return int.from_bytes(state.get(noted) or b"", "big")
    provider = state.record(keys.provider(account), ProviderRecord)
    return 0 if provider is None else provider.stake
